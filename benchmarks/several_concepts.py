"""Two and three concepts in one model: joint training, the closed-form merge, addition, and DreamBooth on all of them.

    python benchmarks/several_concepts.py                           everything, about 35 minutes on one core
    python benchmarks/several_concepts.py --seeds 0 --concepts person+cat --methods merge addition      a part of it

Writes one row a run to results/several_concepts.csv and goes on where it stopped; commands with other options may
fill the same file at the same time. "merge" and "addition" need each concept trained by itself: that is done once for
each concept and seed in a command. "apart" judges those, each in a model of its own; "before" is the model as it was,
and "drawn" the subjects as the world draws them, which shows what the measures say of perfect pictures.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from tutorial_lib import baselines, custom_diffusion, metrics, models, results, sampling, training
from tutorial_lib.custom_diffusion import ConceptDelta
from tutorial_lib.lab.several_concepts import (
    COMBINATIONS,
    NAN,
    Concept,
    Seen,
    drawn,
    look,
    orders,
    photos,
    prompt,
    shares,
)
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket import world

RESULTS = results.FOLDER / "several_concepts.csv"
BEFORE, DRAWN, APART = "before", "drawn", "apart"
TRAINED = ("merge", "addition", "joint", "DreamBooth")
METHODS = (BEFORE, DRAWN, APART, *TRAINED)
SEEDS = (0, 1, 2)
RATIOS = (0.8, 0.6, 0.4, 0.2)  # shares of the singular values that a compressed merge keeps
COMPRESSED = "person+cat"

STEPS = 80  # for each concept: a model that learns two trains twice as long
BATCH = 4  # and as many pictures of the classes
EMA = 0.95
RATE, DREAMBOOTH_RATE = 1e-3, 2e-4  # near the best of the search in results/custom_diffusion.csv
PRIOR = 24  # pictures of each class
CAPTIONS, RIDGE = 200, 1.0  # what the merge keeps
SAMPLING = 10  # DDIM steps of a picture
PLACES = tuple(world.BACKGROUNDS)


@dataclass(frozen=True)
class Row:
    """One run. Likeness to its photos, and the shares of concepts that are recognised, missing, mixed up.

    The first block is of prompts for two concepts. whole: the share of pictures with both, unmixed. alone: likeness
    when one is asked for. Then prompts for all three, and the plain classes without V*.
    """

    method: str
    concepts: str
    seed: int
    ratio: float  # of the singular values that are kept
    likeness: float
    recognised: float
    omitted: float
    mixed: float
    mixed_first: float  # among the concepts that are named first
    mixed_last: float
    whole: float
    alone: float
    three_recognised: float
    three_omitted: float
    class_omitted: float  # of "a person and a cat": the share of things that are missing
    class_likeness: float  # of their pictures to the concepts
    class_change: float  # mean |difference| of pixels to the same seeds' pictures before, in [0, 1]
    drift: float  # ||(W - W0) C_reg^T|| / ||W0 C_reg^T|| of keys and values, where only they are trained
    parameters: int
    file_mb: float  # in float32
    seconds: float  # processor seconds of training and merging
    model: str
    command: str


KEY = ("method", "concepts", "seed", "ratio")


def regularisation_captions(count: int = CAPTIONS) -> list[str]:
    """Ordinary captions of the world, whose meaning shall stay."""
    rng = np.random.default_rng(7)
    return [world.caption(world.sample_scene(rng), rng) for _ in range(count)]


class Bench:
    """The model as it was, those who judge, and what the runs of one command share."""

    def __init__(self, pipe, judge, clip):
        self.pipe, self.judge, self.clip = pipe, judge, clip
        self.captions = regularisation_captions()

    @cache  # noqa: B019 - one bench a command
    def prior(self, concepts: tuple[Concept, ...]) -> training.Encoded:
        """Drawn pictures of all classes, with captions of their own."""
        made = [custom_diffusion.drawn(concept.word, self.clip, PRIOR) for concept in concepts]
        return training.encode(self.pipe, *(sum((list(part) for part in parts), []) for parts in zip(*made)))

    def data(self, pipe, concepts: Sequence[Concept], names: Sequence[str]) -> training.Encoded:
        images, captions = [], []
        for concept, name in zip(concepts, names, strict=True):
            images += photos(concept)[0]
            captions += [caption.format(name) for caption in photos(concept)[1]]
        return training.encode(pipe, images, captions)

    def learned(self, concepts: tuple[Concept, ...], seed: int) -> tuple[ConceptDelta, float]:
        """Custom Diffusion on all the concepts at once: the difference, and its processor seconds."""
        pipe = copy.deepcopy(self.pipe)
        for concept in concepts:
            custom_diffusion.add_concept(pipe, concept.token, concept.rare, class_word=concept.word)
        data = self.data(pipe, concepts, [concept.name for concept in concepts])
        task = custom_diffusion.CustomDiffusionTask(pipe, data, prior=self.prior(concepts))
        seconds = fit(task, len(concepts), RATE, seed)
        return custom_diffusion.delta(pipe), seconds

    @cache  # noqa: B019
    def single(self, concept: Concept, seed: int) -> tuple[ConceptDelta, float]:
        return self.learned((concept,), seed)

    def combined(self, method: str, concepts: tuple[Concept, ...], seed: int) -> tuple[ConceptDelta, float]:
        """All concepts in one difference, by joint training, merge or addition; its processor seconds."""
        if method == "joint":
            return self.learned(concepts, seed)
        deltas, seconds = zip(*(self.single(concept, seed) for concept in concepts))
        begun = time.process_time()
        if method == "merge":
            together, _ = custom_diffusion.merge(self.pipe, deltas, self.captions, RIDGE)
        else:
            together = custom_diffusion.add(deltas)
        return together, sum(seconds) + time.process_time() - begun

    def dreambooth(self, concepts: tuple[Concept, ...], seed: int):
        """A pipeline whose whole UNet has learned all the concepts, each with a rare word, and the seconds."""
        pipe = copy.deepcopy(self.pipe)
        data = self.data(pipe, concepts, [concept.rare_name for concept in concepts])
        task = baselines.dreambooth(pipe, data, prior=self.prior(concepts))
        return pipe, fit(task, len(concepts), DREAMBOOTH_RATE, seed)

    def with_delta(self, delta: ConceptDelta):
        pipe = copy.deepcopy(self.pipe)
        custom_diffusion.load_into(pipe, delta)
        return pipe

    def draw(self, pipe, prompts: list[str], seed: int) -> list:
        """Picture i has the noise number i of the run's seed, for every method."""
        seeds = [1000 * (seed + 1) + i for i in range(len(prompts))]
        return sampling.generate(pipe, prompts, seeds, num_inference_steps=SAMPLING, progress=False)

    def judged(self, pipe, concepts: tuple[Concept, ...], seed: int, names: dict[Concept, str]) -> dict[str, float]:
        """Everything of a row that comes from a pipeline's pictures."""
        figures = shares(self.seen(pipe, orders(concepts, PLACES), seed, names))
        figures["alone"] = float(np.mean([self.alone(pipe, concept, seed, names[concept]) for concept in concepts]))
        three = [(concepts, place) for place in PLACES] if len(concepts) == 3 else []
        of_three = shares(self.seen(pipe, three, seed + 200, names)) if three else {}
        figures |= {f"three_{name}": of_three.get(name, NAN) for name in ("recognised", "omitted")}
        return figures | self.of_class(pipe, concepts, seed)

    def seen(self, pipe, asked, seed: int, names: dict[Concept, str]) -> list[list[Seen]]:
        images = self.draw(pipe, [prompt([names[c] for c in named], place) for named, place in asked], seed)
        return look(images, [named for named, _ in asked], self.judge)

    def alone(self, pipe, concept: Concept, seed: int, name: str) -> float:
        """Likeness of whole pictures of the concept by itself, in every second place."""
        images = self.draw(pipe, [prompt([name], place) for place in PLACES[::2]], seed + 300)
        return metrics.subject_similarity(images, photos(concept)[0], self.judge)

    def of_class(self, pipe, concepts: tuple[Concept, ...], seed: int) -> dict[str, float]:
        """What became of the plain words of the first two concepts."""
        images, before = self.plain(pipe, concepts[:2], seed), self.plain_before(concepts[:2], seed)
        found = look(images, [concepts[:2]] * len(images), self.judge)
        change = [np.abs(np.subtract(a, b, dtype=float)).mean() / 255 for a, b in zip(images, before, strict=True)]
        figures = {f"class_{name}": shares(found)[name] for name in ("omitted", "likeness")}
        return figures | {"class_change": float(np.mean(change))}

    def plain(self, pipe, pair: tuple[Concept, ...], seed: int) -> list:
        return self.draw(pipe, [prompt([c.word for c in pair], place) for place in PLACES], seed + 500)

    @cache  # noqa: B019
    def plain_before(self, pair: tuple[Concept, ...], seed: int) -> list:
        return self.plain(self.pipe, pair, seed)

    def truth(self, concepts: tuple[Concept, ...], seed: int) -> dict[str, float]:
        asked = orders(concepts, PLACES)
        images = [drawn(named, place, 100 * seed + i) for i, (named, place) in enumerate(asked)]
        return shares(look(images, [named for named, _ in asked], self.judge))

    def apart(self, concepts: tuple[Concept, ...], seed: int) -> dict[str, float]:
        pipes = {concept: self.with_delta(self.single(concept, seed)[0]) for concept in concepts}
        return {"alone": float(np.mean([self.alone(p, c, seed, c.name) for c, p in pipes.items()]))}


def fit(task, concepts: int, rate: float, seed: int) -> float:
    """Trains for STEPS a concept; processor seconds."""
    begun, steps = time.process_time(), STEPS * concepts
    training.fit(task, steps, rate, BATCH, seed, ema=EMA, every=steps, progress=False)
    return time.process_time() - begun


# ------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Run:
    method: str
    concepts: str
    seed: int
    ratio: float = 1.0

    def done(self, bench: Bench) -> dict:
        """The figures of the run's row; the bench's own model stays as it was."""
        concepts = COMBINATIONS[self.concepts]
        costs = {"drift": 0.0, "parameters": 0, "seconds": 0.0}
        if self.method == BEFORE:
            return bench.judged(bench.pipe, concepts, self.seed, {c: c.word for c in concepts}) | costs
        if self.method == DRAWN:
            return bench.truth(concepts, self.seed) | costs
        if self.method == APART:
            return bench.apart(concepts, self.seed) | costs
        if self.method == "DreamBooth":
            pipe, seconds = bench.dreambooth(concepts, self.seed)
            size = sum(p.numel() for p in pipe.unet.parameters())
            costs = {"drift": NAN, "parameters": size, "seconds": seconds}
            return bench.judged(pipe, concepts, self.seed, {c: c.rare_name for c in concepts}) | costs
        delta, seconds = bench.combined(self.method, concepts, self.seed)
        delta = custom_diffusion.compress(delta, self.ratio) if self.ratio < 1 else delta
        drift = custom_diffusion.drift(bench.pipe, delta, bench.captions)
        figures = bench.judged(bench.with_delta(delta), concepts, self.seed, {c: c.name for c in concepts})
        return figures | {"drift": drift, "parameters": delta.parameters, "seconds": seconds}

    def row(self, bench: Bench, model: str, command: str) -> Row:
        own = {name: getattr(self, name) for name in KEY}
        figures = own | self.done(bench) | {"model": model, "command": command}
        figures["file_mb"] = 4e-6 * figures["parameters"]
        return Row(**{field.name: figures.get(field.name, NAN) for field in fields(Row)})


def runs(table: results.Table, seeds, concepts, methods) -> Iterator[Run]:
    """The runs whose rows are missing; seed by seed, so that single concepts are trained once."""
    for seed in seeds:
        for name in concepts:
            planned = [Run(method, name, seed) for method in METHODS if method in methods]
            if name == COMPRESSED and "merge" in methods:
                planned += [Run("merge", name, seed, ratio) for ratio in RATIOS]
            yield from (run for run in planned if not table.has(run.method, run.concepts, run.seed, run.ratio))


def report(rows: list[Row]) -> Iterator[str]:
    """Mean ± standard deviation over seeds, for each combination, method and ratio."""
    columns = [field.name for field in fields(Row) if field.name not in (*KEY, "model", "command")]
    for name, method, ratio in dict.fromkeys((row.concepts, row.method, row.ratio) for row in rows):
        chosen = [row for row in rows if (row.concepts, row.method, row.ratio) == (name, method, ratio)]
        yield f"{name}, {method}, ratio {ratio:g}, {len(chosen)} runs"
        for column in columns:
            mean, spread = results.mean_and_spread(getattr(row, column) for row in chosen)
            yield f"    {column:20}{mean:10.4g} ± {spread:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--concepts", nargs="+", choices=COMBINATIONS, default=tuple(COMBINATIONS), metavar="A+B")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds are 0 or more, got {min(options.seeds)}")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    command = " ".join(["python benchmarks/several_concepts.py", *sys.argv[1:]])
    bench = Bench(models.load("pocket", device="cpu"), pocket_judge.load(), models.load_clip())
    for run in runs(table, options.seeds, options.concepts, options.methods):
        row = run.row(bench, table.model, command)
        table.add(row)
        print(
            f"{run.concepts}, {run.method}, seed {run.seed}, ratio {run.ratio:g}: likeness {row.likeness:.2f}, "
            f"omitted {row.omitted:.2f}, mixed {row.mixed:.2f}, alone {row.alone:.2f}, {row.seconds:.0f} s",
            flush=True,
        )
    print("", *report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
