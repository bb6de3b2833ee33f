"""Which edit changes what was asked for, and nothing else? 20 pictures, 6 edits, judged by the judge.

    python benchmarks/mixing_edits.py                                   everything, about 25 minutes on two cores
    python benchmarks/mixing_edits.py --pictures 2 --out runs/edits.csv     a try

Writes one row an edited picture to results/mixing_edits.csv as it goes, and goes on where it stopped. An edit is
a success if the judge reads the target in the picture and reads everything else as in the unedited picture.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tutorial_lib import ddim, mixing, models, results, sampling
from tutorial_lib.mixing.loss import load_critic
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.scene import EXTRAS
from tutorial_lib.pocket.world import CLASSES

RESULTS = results.FOLDER / "mixing_edits.csv"
PICTURES = 20
STEPS = 16
TOGETHER = 7  # pictures in one batch
NEUTRAL = "a photo of a person on a beach"
FINE_TUNING = {"steps": 40, "batch": 8, "lr": 5e-5}


@dataclass(frozen=True)
class Edit:
    """What is asked for: the prompt, what the judge must then read, and the region that should stay as it was."""

    styled: str
    question: str
    answer: str
    region: str | None = "background"  # "background", "person", or None where every pixel may change


EDITS = {
    "smile": Edit("a photo of a person with a smile on a beach", "smile", "yes"),
    "glasses": Edit("a photo of a person with glasses on a beach", "glasses", "yes"),
    "hat": Edit("a photo of a person with a hat on a beach", "hat", "yes"),
    "hair": Edit("a photo of a person with black hair on a beach", "hair colour", "black"),
    "style": Edit("a watercolor of a person on a beach", "style", "watercolor", region=None),
    "scene": Edit("a photo of a person in the snow", "background", "snow", region="person"),
}


# ------------------------------------------------------------------ pictures and their judging


def answers(reading) -> dict[str, str]:
    """What the judge reads in a picture of a person alone; empty if it sees anything else."""
    person = reading.person
    if person is None:
        return {}
    read = {"style": reading.style, "background": reading.background, "skin": person.skin}
    read |= {"hair colour": person.hair_colour, "hair length": person.hair_length, "shirt": person.shirt}
    return read | {extra: "yes" if extra in person.extras else "no" for extra in EXTRAS}


def plain(read: dict[str, str]) -> bool:
    """As the neutral prompt says, and nothing in it that an edit is to bring."""
    as_asked = read.get("style") == "photo" and read["background"] == "beach"
    return as_asked and all(read[edit.question] != edit.answer for edit in EDITS.values())


def plain_seeds(pipe, judge, count: int) -> list[int]:
    """The first seeds whose neutral picture is plain: chosen before any edit is made."""
    found: list[int] = []
    first = 0
    while len(found) < count:
        seeds = list(range(first, first + 2 * TOGETHER))
        readings = judge.read(make(pipe, NEUTRAL, torch.ones(STEPS), sampling.noise(pipe, seeds)))
        found += [seed for seed, reading in zip(seeds, readings, strict=True) if plain(answers(reading))]
        first += len(seeds)
        if first > 20 * count:
            raise RuntimeError(f"only {len(found)} of {first} pictures are as the prompt {NEUTRAL!r} asks for")
    return found[:count]


@torch.no_grad()
def make(pipe, styled: str, weights, latents, **options):
    return mixing.sample(pipe, NEUTRAL, styled, weights, latents, **options)


def region_difference(images, originals, judge, region: str | None) -> list[float]:
    """The mean |difference| of the pixels, in [0, 1], where neither picture shows what may change."""
    if region is None:
        return [float("nan")] * len(images)
    person = CLASSES.index("person")
    inside = [judge.segment(pictures) == person for pictures in (images, originals)]
    kept = inside[0] & inside[1] if region == "person" else ~inside[0] & ~inside[1]  # (n, h, w)
    difference = (images - originals).abs().mean(1)
    return [d[k].mean().item() for d, k in zip(difference, kept, strict=True)]


# ------------------------------------------------------------------ rows


@dataclass(frozen=True)
class Row:
    method: str
    edit: str
    seed: int  # of the picture
    target: bool  # the judge reads what was asked for
    kept: bool  # and everything else as before
    lost: str  # what it does not
    region: str
    difference: str  # mean |difference| of the region's pixels
    weights: str  # where the picture has weights of its own, or some that were learned
    steps: int
    model: str
    command: str

    @property
    def success(self) -> bool:
        return self.target and self.kept


KEY = ("method", "edit", "seed")


def missing(table: results.Table, method: str, edit: str, seeds: list[int]) -> list[int]:
    """The seeds whose rows are not there yet."""
    there = {(row.method, row.edit, row.seed) for row in table.rows()}
    return [seed for seed in seeds if (method, edit, seed) not in there]


def learned_weights(table: results.Table, method: str, edit: str, seed: int) -> torch.Tensor | None:
    """(steps,) as stored in a row; None if it is not there."""
    for row in table.rows():
        if (row.method, row.edit, row.seed) == (method, edit, seed):
            return torch.tensor([float(w) for w in row.weights.split()])
    return None


# ------------------------------------------------------------------ the methods


@dataclass
class Bench:
    """What every method needs."""

    pipe: object
    judge: object
    critic: object
    table: results.Table
    seeds: list[int]  # of the pictures
    source: int  # of one more picture, whose weights are applied to the others
    command: str
    unedited: dict = field(default_factory=dict)  # {(eta, seed): picture}: made once for all methods

    def originals(self, seeds: list[int], eta: float = 0.0):
        """(n, 3, 64, 64): the neutral pictures."""
        if new := [seed for seed in seeds if (eta, seed) not in self.unedited]:
            images = make(self.pipe, NEUTRAL, torch.ones(STEPS), sampling.noise(self.pipe, new), eta=eta, seed=new)
            self.unedited |= {(eta, seed): image for seed, image in zip(new, images, strict=True)}
        return torch.stack([self.unedited[eta, seed] for seed in seeds])

    def record(self, method: str, name: str, seeds: list[int], images, originals, weights=None) -> None:
        """Judges the pictures and adds their rows. weights: (steps,) or (steps, n)"""
        edit = EDITS[name]
        differences = region_difference(images, originals, self.judge, edit.region)
        readings = zip(self.judge.read(images), self.judge.read(originals), strict=True)
        for k, (after, before) in enumerate((answers(a), answers(b)) for a, b in readings):
            lost = [q for q in before if q != edit.question and after.get(q) != before[q]]
            own = weights[:, k] if weights is not None and weights.ndim == 2 else weights
            self.table.add(
                Row(
                    method,
                    name,
                    seeds[k],
                    target=after.get(edit.question) == edit.answer,
                    kept=not lost,
                    lost=" ".join(q.replace(" ", "_") for q in lost),
                    region=edit.region or "",
                    difference=f"{differences[k]:.4f}" if edit.region else "",
                    weights="" if own is None else " ".join(f"{w:.4f}" for w in own.tolist()),
                    steps=STEPS,
                    model=self.table.model,
                    command=self.command,
                )
            )

    def batches(self, method: str, name: str, seeds: list[int] | None = None) -> Iterator[list[int]]:
        """The seeds whose rows are missing, some at a time."""
        left = missing(self.table, method, name, seeds or self.seeds)
        for k in range(0, len(left), TOGETHER):
            yield left[k : k + TOGETHER]


def fixed(weights, eta: float = 0.0, other_noise: int = 0) -> Callable:
    """The same weights for every picture and every edit.

    eta: how much noise is added at each step. other_noise: the edit's is that of the seeds so much higher.
    """

    def run(bench: Bench, method: str) -> None:
        for name, edit in EDITS.items():
            for seeds in bench.batches(method, name):
                latents, added = sampling.noise(bench.pipe, seeds), [seed + other_noise for seed in seeds]
                images = make(bench.pipe, edit.styled, weights, latents, eta=eta, seed=added)
                bench.record(method, name, seeds, images, bench.originals(seeds, eta))

    return run


def optimised(bench: Bench, method: str) -> None:
    """Weights for each picture by itself, also for the one whose weights are applied to the others."""
    for name, edit in EDITS.items():
        for seeds in bench.batches(method, name, [*bench.seeds, bench.source]):
            found = mixing.optimize(
                bench.pipe,
                NEUTRAL,
                edit.styled,
                sampling.noise(bench.pipe, seeds),
                num_inference_steps=STEPS,
                shared=False,
                checkpoint=False,
                critic=bench.critic,
            )
            bench.record(method, name, seeds, found.images, found.originals, found.weights)


def transferred(bench: Bench, method: str) -> None:
    """The weights of the one picture that is not among the twenty, applied to the twenty."""
    for name, edit in EDITS.items():
        weights = learned_weights(bench.table, "optimised", name, bench.source)
        for seeds in bench.batches(method, name):
            images = make(bench.pipe, edit.styled, weights, sampling.noise(bench.pipe, seeds))
            bench.record(method, name, seeds, images, bench.originals(seeds), weights)


def fine_tuned(bench: Bench, method: str) -> None:
    """The UNet is trained on the one picture with the neutral prompt; then the styled prompt, from the same noise."""
    for seed in bench.seeds:
        names = [name for name in EDITS if missing(bench.table, method, name, [seed])]
        if not names:
            continue
        latents, originals = sampling.noise(bench.pipe, [seed]), bench.originals([seed])
        pipe = _trained_on(bench.pipe, originals, seed)
        for name in names:
            images = make(pipe, EDITS[name].styled, torch.zeros(STEPS), latents)
            bench.record(method, name, [seed], images, originals)


def _trained_on(pipe, picture, seed: int):
    """A pipeline whose UNet has learned one picture, by the usual loss on its noise; the given one is unchanged."""
    tuned = copy.copy(pipe)
    tuned.unet = copy.deepcopy(pipe.unet).requires_grad_(True)
    alphas = pipe.scheduler.alphas_cumprod
    draw = torch.Generator().manual_seed(seed)
    n = FINE_TUNING["batch"]
    x0 = ddim.encode(pipe, picture).expand(n, -1, -1, -1)
    prompt = ddim.embed(pipe, NEUTRAL, n)
    adam = torch.optim.AdamW(tuned.unet.parameters(), lr=FINE_TUNING["lr"])
    for _ in range(FINE_TUNING["steps"]):
        t = torch.randint(len(alphas), (n,), generator=draw)
        eps, alpha = torch.randn(x0.shape, generator=draw), alphas[t].view(n, 1, 1, 1)
        x = alpha**0.5 * x0 + (1 - alpha) ** 0.5 * eps
        loss = (tuned.unet(x, t, prompt).sample - eps).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    tuned.unet.requires_grad_(False)
    return tuned


def switch(share: float):
    """Neutral for this share of the steps, then styled."""
    return mixing.initial_weights(STEPS, round(share * STEPS))


METHODS: dict[str, Callable] = {
    "new prompt": fixed(torch.zeros(STEPS)),
    "constant 0.5": fixed(torch.full((STEPS,), 0.5)),
    "constant 0.75": fixed(torch.full((STEPS,), 0.75)),
    "switch at 0.4": fixed(switch(0.4)),  # the paper's start
    "switch at 0.6": fixed(switch(0.6)),
    "switch at 0.8": fixed(switch(0.8)),
    "added noise, fixed": fixed(switch(0.6), eta=1.0),
    "added noise, unfixed": fixed(switch(0.6), eta=1.0, other_noise=1_000_000),
    "fine-tuned": fine_tuned,
    "optimised": optimised,
    "transferred": transferred,
}


# ------------------------------------------------------------------ report


def report(rows: list[Row], seeds: list[int]) -> Iterator[str]:
    """Rates of success for each method and edit, over the pictures; with what was lost, and how much moved."""
    heads = f"{'all':>16}{'target':>9}{'kept':>9}{'difference':>18}"
    yield f"{'':22}" + "".join(f"{name:>9}" for name in EDITS) + heads
    for method in METHODS:
        chosen = [row for row in rows if row.method == method and row.seed in seeds]
        if not chosen:
            continue
        rates = [_rate([row.success for row in chosen if row.edit == name]) for name in EDITS]
        moved = [float(row.difference) for row in chosen if row.region == "background"]
        yield (
            f"{method:22}"
            + "".join(f"{rate:9.2f}" for rate in rates)
            + f"{_rate([r.success for r in chosen]):9.2f} ± {_spread(chosen):.2f}"
            + f"{_rate([r.target for r in chosen]):9.2f}{_rate([r.kept for r in chosen]):9.2f}"
            + f"{statistics.mean(moved):11.3f} ± {statistics.pstdev(moved):.3f}"
        )
    yield "\nall: mean over pictures of each picture's rate over the edits, ± its standard error."
    yield "difference: of the background's pixels, edits of the person only, ± standard deviation."


def _rate(hits: list[bool]) -> float:
    return statistics.mean(hits) if hits else float("nan")


def _spread(rows: list[Row]) -> float:
    """The standard error over pictures: the edits of one picture are not independent."""
    by_picture: dict[int, list[bool]] = {}
    for row in rows:
        by_picture.setdefault(row.seed, []).append(row.success)
    rates = [_rate(hits) for hits in by_picture.values()]
    return statistics.stdev(rates) / len(rates) ** 0.5 if len(rates) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="default: %(default)s")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.pictures < 1:
        parser.error(f"--pictures must be 1 or more, got {options.pictures}")
    if "transferred" in options.methods and "optimised" not in options.methods:
        parser.error("transferred weights are those that were optimised: name both methods")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    if other := {row.steps for row in table.rows()} - {STEPS}:
        raise SystemExit(f"{options.out} holds rows of {other} steps, now {STEPS}: move it away, or give another --out")
    pipe, judge = models.load("pocket", device="cpu"), pocket_judge.load()
    seeds = plain_seeds(pipe, judge, options.pictures + 1)
    command = " ".join(["python benchmarks/mixing_edits.py", *sys.argv[1:]])
    bench = Bench(pipe, judge, load_critic(pipe), table, seeds[:-1], seeds[-1], command)
    for method in options.methods:
        METHODS[method](bench, method)
        print(f"{method}: done", flush=True)
    print("", *report(table.rows(), bench.seeds), sep="\n")


if __name__ == "__main__":
    main()
