"""How well, and how suddenly, does a branch beside the frozen model learn to follow a control?

    python benchmarks/control.py                     everything, about 40 minutes on one core
    python benchmarks/control.py --parts edges --seeds 0        a part of it

Writes a row for each figure of a run to results/control.csv and goes on where it stopped; several commands may fill
one file at the same time. Parts: "edges" trains ControlNet on edges by the recipe of lesson 08, once a seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tutorial_lib import control, models, results, sampling, training
from tutorial_lib.pocket import conditions, world

RESULTS = results.FOLDER / "control.csv"

PARTS, SEEDS = ("edges",), (0, 1, 2)
REGIMES = {"none": 1.0, "perfect": sampling.DEFAULT_GUIDANCE}  # which prompts; guidance, which does nothing without
MEASURES = ("F1", "IoU")
TESTED, WATCHED = 48, 12  # scenes that are drawn before and after training, and on the way
LOOKS = 20  # at the watched scenes, evenly over the run; the start comes besides
SAMPLING = 10  # DDIM steps of a picture
NOISE = 1000  # the first picture's seed in a run of seed 0; each run has its own thousand

KEY = ("part", "method", "control", "regime", "measure", "pairs", "seed")


@dataclass(frozen=True)
class Row:
    """One figure of one run. `looks` and `curve` are lists with spaces between their numbers."""

    part: str
    method: str  # "full": ControlNet itself
    control: str
    regime: str  # of the prompts that pictures are drawn with
    measure: str
    pairs: int
    seed: int
    value: float  # after training
    start: float  # before
    ceiling: float  # of the true pictures after the VAE's round trip
    jump: float  # step in the middle of the steepest fifth of the curve
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
        scenes = control.scenes(control.TEST, TESTED)
        pictures = [world.draw(scene) for scene in scenes]
        self.controls = [conditions.of_picture("edges", picture) for picture in pictures]
        self.captions = [world.caption(scene) for scene in scenes]
        self.ceiling = control.edge_ceiling(pipe, pictures, self.controls)

    def look(self, branch, count: int, seed: int) -> dict[tuple[str, str], float]:
        """{(regime, measure): score} of the first `count` scenes; picture i has the noise i of the run's seed."""
        controls, found = self.controls[:count], {}
        for regime, guidance in REGIMES.items():
            prompts = self.captions[:count] if regime == "perfect" else [""] * count
            options = {"num_inference_steps": SAMPLING, "guidance_scale": guidance, "progress": False}
            drawn = control.generate(self.pipe, branch, prompts, controls, seed=NOISE * (seed + 1), **options)
            found |= {(regime, name): score for name, score in control.edge_scores(drawn, controls).items()}
        return found


@dataclass(frozen=True)
class Run:
    """ControlNet on edges, from fresh weights, order and noise of this seed."""

    seed: int

    def done(self, bench: Bench) -> list[Row]:
        """Trains a branch and judges it: a row for each regime and measure."""
        recipe = control.EDGES
        branch = control.from_unet(
            bench.pipe.unet, "full", control.vae_factor(bench.pipe.vae), recipe.hint_encoder, self.seed
        )
        start = bench.look(branch, TESTED, self.seed)
        history, seconds = self.train(bench, branch)
        end = bench.look(branch, TESTED, self.seed)
        parameters = sum(parameter.numel() for parameter in branch.parameters())
        rows = []
        for regime, measure in end:
            curve = history.watched[f"{regime} {measure}"]
            jump, share = control.sudden_convergence(history.watched_at, curve)
            figures = {
                "value": end[regime, measure],
                "start": start[regime, measure],
                "ceiling": bench.ceiling[measure],
            }
            figures |= {"jump": jump, "jump_share": share, "steps": recipe.steps, "seconds": seconds}
            figures |= {"looks": _listed(history.watched_at), "curve": _listed(curve), "parameters": parameters}
            key = dict(zip(KEY, self.key(regime, measure), strict=True))
            rows.append(Row(**key, **figures, model=bench.table.model, command=bench.command))
        return rows

    def key(self, regime: str, measure: str) -> tuple:
        return ("edges", "full", "edges", regime, measure, control.EDGES.pairs, self.seed)

    def train(self, bench: Bench, branch) -> tuple[training.History, float]:
        """The history, and the processor's seconds a step without those of the looks."""
        recipe, looking = control.EDGES, 0.0

        def watch() -> dict[str, float]:
            nonlocal looking
            begun = time.process_time()
            found = bench.look(branch, WATCHED, self.seed)
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


def _listed(numbers) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


def runs(table: results.Table, seeds) -> Iterator[Run]:
    """The runs of which a row is missing."""
    for seed in seeds:
        run = Run(seed)
        if not all(table.has(*run.key(regime, measure)) for regime in REGIMES for measure in MEASURES):
            yield run


def report(rows: list[Row]) -> Iterator[str]:
    """Every figure, and how much of the ceiling it is."""
    yield "prompts   measure  seed   before   after   of the VAE's own   steepest at step   with of the rise"
    for row in sorted(rows, key=lambda row: (row.regime, row.measure, row.seed)):
        yield (
            f"{row.regime:9} {row.measure:8} {row.seed:4} {row.start:8.3f} {row.value:7.3f} "
            f"{row.value / row.ceiling:18.2f} {row.jump:18.0f} {row.jump_share:18.2f}"
        )
    for regime, measure in dict.fromkeys((row.regime, row.measure) for row in rows):
        shares = [row.value / row.ceiling for row in rows if (row.regime, row.measure) == (regime, measure)]
        mean, spread = results.mean_and_spread(shares)
        yield f"{measure}, prompts {regime}: {mean:.2f} ± {spread:.2f} of the VAE's own, {len(shares)} seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds are 0 or more, got {min(options.seeds)}")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    bench = Bench(models.load("pocket", device="cpu"), table, " ".join(["python benchmarks/control.py", *sys.argv[1:]]))
    for run in runs(table, options.seeds):
        for row in run.done(bench):
            if not table.has(*(getattr(row, name) for name in KEY)):  # another command may have made it meanwhile
                table.add(row)
        print(f"edges: seed {run.seed}", *report([r for r in table.rows() if r.seed == run.seed]), sep="\n", flush=True)
    print("", *report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
