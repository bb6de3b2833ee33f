"""How well, and how suddenly, does a branch beside the frozen model learn to follow a control?

    python benchmarks/control.py                     everything, about two hours on one core
    python benchmarks/control.py --parts edges --seeds 0        a part of it

Writes a row for each figure of a run to results/control.csv and goes on where it stopped; several commands may fill
one file at the same time. Parts: "edges" trains ControlNet on edges by the recipe of lesson 08, once a seed;
"ablations" the same with Gaussian convolutions instead of zero convolutions, and ControlNet-lite.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutorial_lib import control, models, results, sampling, training
from tutorial_lib.pocket import conditions, judge, world

RESULTS = results.FOLDER / "control.csv"

PARTS, SEEDS = {"edges": ("full",), "ablations": ("gaussian", "lite")}, (0, 1, 2)  # the branches of a part
REGIMES = ("none", "insufficient", "conflicting", "perfect")  # of prompts, as in the paper
FOLLOWED = ("none", "perfect")  # on the way
INSUFFICIENT = "a picture"
MEASURES = (
    "F1",
    "IoU",
    "things",
)  # the last: pictures in which the judge finds what the edges are of, no more, no less
TESTED, WATCHED = 48, 12  # scenes that are drawn before and after training, and on the way
LOOKS = 20  # at the watched scenes, evenly over the run; the start comes besides
SAMPLING = 10  # DDIM steps of a picture
NOISE = 1000  # the first picture's seed in a run of seed 0; each run has its own thousand

KEY = ("part", "method", "control", "regime", "measure", "pairs", "seed")


@dataclass(frozen=True)
class Row:
    """One figure of one run. `looks` and `curve` are lists with spaces between their numbers."""

    part: str
    method: str  # the branch: "full" is ControlNet itself
    control: str
    regime: str  # of the prompts that pictures are drawn with
    measure: str
    pairs: int
    seed: int
    value: float  # after training
    start: float  # before
    ceiling: float  # of the true pictures after the VAE's round trip; for things, which it may pass, not a limit
    jump: float  # step in the middle of the steepest fifth of the curve; NaN where none was drawn
    jump_share: float  # how much of the curve's whole rise falls into it
    looks: str
    curve: str  # on the watched scenes, by the running mean of the weights, as `value` is
    steps: int
    parameters: int
    seconds: float  # of the processor, a step
    model: str
    command: str


class Bench:
    """The frozen model, the scenes to test with and what every run shares."""

    def __init__(self, pipe, table: results.Table, command: str = ""):
        self.pipe, self.table, self.command = pipe, table, command
        self.judge, self.scenes = judge.load(), control.scenes(control.TEST, TESTED)
        pictures = [world.draw(scene) for scene in self.scenes]
        self.controls = [conditions.of_picture("edges", picture) for picture in pictures]
        self.captions = [world.caption(scene) for scene in self.scenes]
        self.ceiling = self.scores(control.through_vae(pipe, pictures))

    def scores(self, pictures: list) -> dict[str, float]:
        """Every measure of pictures of the first scenes."""
        readings = self.judge.read(pictures)
        right = [kinds(scene) == kinds(reading) for scene, reading in zip(self.scenes, readings)]
        return control.edge_scores(pictures, self.controls[: len(pictures)]) | {"things": sum(right) / len(right)}

    def prompts(self, regime: str, count: int) -> list[str]:
        """One for each of the first scenes. "conflicting": the caption of the next scene that has nothing of it."""
        if regime == "conflicting":
            return [self.captions[self.stranger(k)] for k in range(count)]
        return {"none": [""] * count, "insufficient": [INSUFFICIENT] * count, "perfect": self.captions[:count]}[regime]

    def stranger(self, k: int) -> int:
        """The next scene after k with none of its things, counted round."""
        others = [(k + away) % TESTED for away in range(1, TESTED)]
        return next(other for other in others if not set(kinds(self.scenes[k])) & set(kinds(self.scenes[other])))

    def look(self, branch, regimes: Sequence[str], count: int, seed: int) -> dict[tuple[str, str], float]:
        """{(regime, measure): score} of the first `count` scenes; picture i has the noise i of the run's seed."""
        found = {}
        for regime in regimes:
            guidance = 1.0 if regime == "none" else sampling.DEFAULT_GUIDANCE  # without a prompt it would do nothing
            options = {"num_inference_steps": SAMPLING, "guidance_scale": guidance, "progress": False}
            prompts, controls = self.prompts(regime, count), self.controls[:count]
            drawn = control.generate(self.pipe, branch, prompts, controls, seed=NOISE * (seed + 1), **options)
            found |= {(regime, name): score for name, score in self.scores(drawn).items()}
        return found


def kinds(picture) -> list[str]:
    """What a scene shows, or what the judge reads in a picture."""
    return sorted(thing.kind for thing in picture.things)


@dataclass(frozen=True)
class Run:
    """A branch on edges, from fresh weights, order and noise of this seed."""

    part: str
    method: str
    seed: int

    def done(self, bench: Bench) -> list[Row]:
        """Trains a branch and judges it: a row for each regime and measure."""
        recipe = control.EDGES
        branch = control.from_unet(
            bench.pipe.unet, self.method, control.vae_factor(bench.pipe.vae), recipe.hint_encoder, self.seed
        )
        start = bench.look(branch, REGIMES, TESTED, self.seed)
        history, seconds = self.train(bench, branch)
        end = bench.look(branch, REGIMES, TESTED, self.seed)
        same = {"parameters": sum(p.numel() for p in branch.parameters()), "steps": recipe.steps, "seconds": seconds}
        same |= {"model": bench.table.model, "command": bench.command}
        rows = []
        for regime, measure in end:
            figures = {"value": end[regime, measure], "start": start[regime, measure]}
            figures |= {"ceiling": bench.ceiling[measure]} | on_the_way(history, f"{regime} {measure}")
            rows.append(Row(**dict(zip(KEY, self.key(regime, measure), strict=True)), **figures, **same))
        return rows

    def key(self, regime: str, measure: str) -> tuple:
        return (self.part, self.method, "edges", regime, measure, control.EDGES.pairs, self.seed)

    def train(self, bench: Bench, branch) -> tuple[training.History, float]:
        """The history, and the processor's seconds a step without those of the looks."""
        recipe, looking = control.EDGES, 0.0

        def watch() -> dict[str, float]:
            nonlocal looking
            begun = time.process_time()
            found = bench.look(branch, FOLLOWED, WATCHED, self.seed)
            looking += time.process_time() - begun
            return {" ".join(name): score for name, score in found.items()}

        pairs = control.scene_pairs(bench.pipe, "edges", control.scenes(control.TRAINING, recipe.pairs))
        task = control.ControlTask(
            bench.pipe, branch, pairs, drop_prompt=recipe.drop_prompt, noisier=recipe.noisier, watch=watch
        )
        begun = time.process_time()
        history = training.fit(
            task,
            recipe.steps,
            recipe.lr,
            recipe.batch_size,
            self.seed,
            ema=recipe.ema,
            every=max(1, recipe.steps // LOOKS),
            progress=False,
        )
        return history, (time.process_time() - begun - looking) / recipe.steps


def on_the_way(history: training.History, name: str) -> dict:
    """What the looks saw of one figure; nothing where it was not followed."""
    if name not in history.watched:
        return {"jump": math.nan, "jump_share": math.nan, "looks": "", "curve": ""}
    curve = history.watched[name]
    jump, share = control.sudden_convergence(history.watched_at, curve)
    return {"jump": jump, "jump_share": share, "looks": _listed(history.watched_at), "curve": _listed(curve)}


def _listed(numbers) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


def runs(table: results.Table, parts: Sequence[str], seeds: Sequence[int]) -> Iterator[Run]:
    """The runs of which a row is missing."""
    for run in [Run(part, method, seed) for part in parts for seed in seeds for method in PARTS[part]]:
        if not all(table.has(*run.key(regime, measure)) for regime in REGIMES for measure in MEASURES):
            yield run


def report(rows: list[Row]) -> Iterator[str]:
    """Every figure, how much of the ceiling it is, and the mean over seeds."""
    yield "branch    prompts       measure  seed   before   after   of the ceiling   steepest at   with of the rise"
    for row in sorted(rows, key=lambda row: (row.method, row.regime, row.measure, row.seed)):
        yield (
            f"{row.method:9} {row.regime:13} {row.measure:8} {row.seed:4} {row.start:8.3f} {row.value:7.3f} "
            f"{row.value / row.ceiling:16.2f} {row.jump:13.0f} {row.jump_share:18.2f}"
        )
    for group in dict.fromkeys((row.method, row.regime, row.measure) for row in rows):
        shares = [row.value / row.ceiling for row in rows if (row.method, row.regime, row.measure) == group]
        mean, spread = results.mean_and_spread(shares)
        method, regime, measure = group
        yield f"{method}, {measure}, prompts {regime}: {mean:.2f} ± {spread:.2f} of the ceiling, {len(shares)} seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=tuple(PARTS), metavar="PART")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds are 0 or more, got {min(options.seeds)}")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    bench = Bench(models.load("pocket", device="cpu"), table, " ".join(["python benchmarks/control.py", *sys.argv[1:]]))
    for run in runs(table, options.parts, options.seeds):
        for row in run.done(bench):
            if not table.has(*(getattr(row, name) for name in KEY)):  # another command may have made it meanwhile
                table.add(row)
        done = [row for row in table.rows() if (row.method, row.seed) == (run.method, run.seed)]
        print(f"{run.part}: {run.method}, seed {run.seed}", *report(done), sep="\n", flush=True)
    print("", *report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
