"""Custom Diffusion beside DreamBooth, LoRA and textual inversion: the same pictures, noise and number of steps.

    python benchmarks/custom_diffusion.py                       everything, about 80 minutes on one core
    python benchmarks/custom_diffusion.py --parts search        the learning rates, tried on one subject
    python benchmarks/custom_diffusion.py --parts main --subjects heart-mug --seeds 0       a part of the rest

Writes one row a run to results/custom_diffusion.csv and goes on where it stopped; commands with other options may
fill the same file at the same time, once the search is done. Parts: "search" tries three learning rates a method;
"main" trains every subject with every seed by the best of them; "variants" does so for Custom Diffusion without
pictures of the class, with real ones (drawn by the world) in place of the model's own, and with augmentation.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from oft_step import LivingTensors

from tutorial_lib import baselines, custom_diffusion, metrics, models, pictures, results, sampling, training
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket import world
from tutorial_lib.pocket.scene import (
    ANIMALS,
    BACKGROUNDS,
    COLOURS,
    HAIR_COLOURS,
    HAIR_LENGTHS,
    SKINS,
    Person,
    Scene,
    Thing,
)
from tutorial_lib.pocket.subjects import FOLDER
from tutorial_lib.pocket.subjects import SUBJECTS as ALL_SUBJECTS

RESULTS = results.FOLDER / "custom_diffusion.csv"
WORD, RARE = "<new1>", "sks"  # the subject's word: a new one, or a rare one where a method has no word of its own
INIT = "ktn"
SEARCH = ("freckled-person", 100)  # subject and seed; the seed is used nowhere else
SUBJECTS = ("freckled-person", "heart-mug", "two-tone-cat")
SEEDS, VARIANT_SEEDS = (0, 1, 2), (0, 1)
PARTS = ("search", "main", "variants")

STEPS, BATCH = 120, 4  # of each batch as many pictures of the class again
EMA = 0.95  # the weights that are judged are a mean over the last twenty steps or so
PRIOR = 24  # pictures of the class
SAMPLING = 10  # DDIM steps of a picture
RANK = 8
OF_CLASS = 4  # pictures of the class in each place, to judge it by
BEFORE = "before"  # the model as it was: no method, but judged like one


# ------------------------------------------------------------------ what is asked of a model that learned V*


@dataclass(frozen=True)
class Asked:
    """A prompt for the subject, and whether a picture shows what it adds; the kinds are those of the paper."""

    kind: str  # background, style, beside, property, accessory
    place: str
    style: str = "photo"
    colour: str = ""  # a person's is that of the hair
    beside: tuple[str, str] | None = None  # colour and kind of a second thing
    hat: bool = False

    def prompt(self, name: str) -> str:
        """name: "V* cat", or "cat" where a text encoder that knows no V* is asked."""
        head = self.style if self.style == "pixel art" else f"a {self.style}"
        if self.colour:
            name = f"{name} with {self.colour} hair" if name.endswith("person") else f"{self.colour} {name}"
        hat = " with a hat" if self.hat else ""
        second = f" and a {' '.join(self.beside)}" if self.beside else ""
        return f"{head} of a {name}{hat}{second} {BACKGROUNDS[self.place]}"

    def answers(self, reading, word: str) -> list[bool]:
        """Style, place and things as asked, then the colour and the hat, if they were asked."""
        kinds = sorted([word, self.beside[1]] if self.beside else [word])
        right = [reading.style == self.style, reading.background == self.place]
        right.append(sorted(thing.kind for thing in reading.things) == kinds)
        if self.colour:
            right.append(_colour(reading, word) == self.colour)
        if self.hat:
            right.append("hat" in _worn(reading, word))
        return right


def _thing(reading, word: str):
    return next((thing for thing in reading.things if thing.kind == word), None)


def _colour(reading, word: str) -> str | None:
    if word == "person":
        return reading.person and reading.person.hair_colour
    return getattr(_thing(reading, word), "colour", None)


def _worn(reading, word: str) -> tuple[str, ...]:
    if word == "person":
        return reading.person.extras if reading.person else ()
    return getattr(_thing(reading, word), "worn", ())


PROMPTS = (
    *(Asked("background", place) for place in BACKGROUNDS),  # "at night" is in no picture of a subject
    Asked("style", "forest", style="watercolor"),
    Asked("style", "table", style="pencil sketch"),
    Asked("style", "city", style="pixel art"),
    Asked("beside", "snow", beside=("red", "house")),
    Asked("beside", "beach", beside=("green", "tree")),
    Asked("property", "table", colour="black"),
    Asked("property", "beach", colour="brown"),
    Asked("accessory", "snow", hat=True),
    Asked("accessory", "beach", hat=True),
)
KINDS = tuple(dict.fromkeys(asked.kind for asked in PROMPTS))


def prompts_for(word: str) -> list[Asked]:
    """All but the hats, which only animals and people can wear in this world."""
    return [asked for asked in PROMPTS if not asked.hat or word in (*ANIMALS, "person")]


def class_scenes(word: str, seed: int = 0) -> list[Scene]:
    """Photos of the class in every place, all else random: what "a photo of a <class> ..." should look like."""
    rng = np.random.default_rng(seed)
    places = [place for place in BACKGROUNDS for _ in range(OF_CLASS)]
    members = [world.place(_member(word, rng), rng) for _ in places]
    return [Scene("photo", place, (one,), int(rng.integers(2**31))) for place, one in zip(places, members)]


def _member(word: str, rng: np.random.Generator) -> Thing | Person:
    if word != "person":
        return Thing(word, str(rng.choice(COLOURS)))
    return Person(*(str(rng.choice(options)) for options in (SKINS, HAIR_COLOURS, HAIR_LENGTHS, COLOURS)))


# ------------------------------------------------------------------ the methods


@dataclass(frozen=True)
class Lesson:
    """What a method is given: the subject's pictures, captions with "{}" for its word, pictures of the class."""

    images: list
    captions: list[str]
    word: str
    seed: int
    prior: training.Encoded

    def named(self, name: str) -> list[str]:
        return [caption.format(name) for caption in self.captions]


def custom(pipe, lesson: Lesson, prior: training.Encoded | None, augment: bool = False):
    custom_diffusion.add_concept(pipe, WORD, INIT, class_word=lesson.word)
    captions = lesson.named(WORD)
    if augment:
        data, masks = custom_diffusion.augmented(pipe, lesson.images, captions, seed=lesson.seed)
    else:
        data, masks = training.encode(pipe, lesson.images, captions), None
    return custom_diffusion.CustomDiffusionTask(pipe, data, masks, prior=prior)


def regularised(pipe, lesson: Lesson):
    return custom(pipe, lesson, lesson.prior)


def unregularised(pipe, lesson: Lesson):
    return custom(pipe, lesson, None)


def with_real_pictures(pipe, lesson: Lesson):
    drawn = custom_diffusion.drawn(lesson.word, models.load_clip(), PRIOR)
    return custom(pipe, lesson, training.encode(pipe, *drawn))


def augmented(pipe, lesson: Lesson):
    return custom(pipe, lesson, lesson.prior, augment=True)


def dreambooth(pipe, lesson: Lesson):
    return baselines.dreambooth(pipe, training.encode(pipe, lesson.images, lesson.named(RARE)), prior=lesson.prior)


def lora(pipe, lesson: Lesson):
    data = training.encode(pipe, lesson.images, lesson.named(RARE))
    return baselines.lora(pipe, data, RANK, prior=lesson.prior)


def textual_inversion(pipe, lesson: Lesson):
    """No pictures of the class: what they would keep does not change."""
    custom_diffusion.add_concept(pipe, WORD, INIT, class_word=lesson.word)
    return baselines.textual_inversion(pipe, training.encode(pipe, lesson.images, lesson.named(WORD)))


@dataclass(frozen=True)
class Method:
    """How a method begins, the word that it teaches, and the learning rates to try; variants take another's rate."""

    begin: Callable
    name: str
    rates: tuple[float, ...] = ()


OURS = "Custom Diffusion"
METHODS = {
    OURS: Method(regularised, WORD, (2e-4, 6e-4, 2e-3)),
    "DreamBooth": Method(dreambooth, RARE, (1e-4, 2e-4, 4e-4)),
    "LoRA": Method(lora, RARE, (5e-4, 1.5e-3, 5e-3)),
    "textual inversion": Method(textual_inversion, WORD, (1e-3, 5e-3, 2e-2)),
}
VARIANTS = {
    "no regularisation": Method(unregularised, WORD),
    "real regularisation": Method(with_real_pictures, WORD),
    "augmentation": Method(augmented, WORD),
}


# ------------------------------------------------------------------ rows


@dataclass(frozen=True)
class Row:
    """One run. Shares and similarities are of the run's own pictures; NaN is what a subject cannot show."""

    part: str
    method: str
    subject: str
    seed: int
    rate: float
    steps: int
    likeness: float  # to the subject, in the judge's embedding: the part that DINO plays in the papers
    likeness_background: float  # of the plain photos alone
    asked: float  # style, place, things, colour, accessory: the share that the judge finds
    clip_text: float
    background: float  # the shares of pictures that show all that was asked, by kind of prompt
    style: float
    beside: float
    property: float
    accessory: float
    kid: float  # of the class without V*, to drawn pictures of it
    class_kept: float  # share of style, place and kind that the judge finds in them
    class_likeness: float  # and their likeness to the subject
    class_drift: float  # mean |difference| of pixels to the same seeds' pictures before, in [0, 1]
    parameters: int
    file_mb: float  # what was trained, in float32
    memory_mb: float  # the most that a step allocates beside the model
    seconds: float  # processor seconds a step
    model: str
    command: str

    @property
    def score(self) -> float:
        """What the search chooses by: likeness, where prompts are still obeyed and the class is still drawn."""
        return max(self.likeness, 0.0) * self.asked * self.class_kept


KEY = ("part", "method", "subject", "seed", "rate")


# ------------------------------------------------------------------ judging


class Bench:
    """The model as it was, those who judge, and what all runs of one subject share."""

    def __init__(self, pipe, judge, clip, table: results.Table, command: str = ""):
        self.pipe, self.judge, self.clip, self.table, self.command = pipe, judge, clip, table, command

    @cache  # noqa: B019 - one bench a command
    def references(self, slug: str) -> tuple[list, list[str]]:
        """The subject's pictures, and captions with "{}" where its word comes."""
        images, report = pictures.load_folder(FOLDER / slug, 64)
        word = ALL_SUBJECTS[slug].class_word
        return images, [caption.replace(f" {word} ", f" {{}} {word} ") for caption in report.captions]

    @cache  # noqa: B019
    def prior(self, word: str) -> training.Encoded:
        made = custom_diffusion.generated(self.pipe, word, PRIOR, num_inference_steps=SAMPLING, progress=False)
        return training.encode(self.pipe, *made)

    @cache  # noqa: B019
    def class_before(self, word: str, seed: int) -> list:
        return self.of_class(self.pipe, word, seed)

    @cache  # noqa: B019
    def real(self, word: str) -> list:
        return [world.draw(scene) for scene in class_scenes(word)]

    def lesson(self, slug: str, seed: int) -> Lesson:
        word = ALL_SUBJECTS[slug].class_word
        return Lesson(*self.references(slug), word, seed, self.prior(word))

    def draw(self, pipe, prompts: list[str], seed: int) -> list:
        """Picture i has the noise number i of the run's seed, for every method."""
        seeds = [1000 * (seed + 1) + i for i in range(len(prompts))]
        return sampling.generate(pipe, prompts, seeds, num_inference_steps=SAMPLING, progress=False)

    def of_class(self, pipe, word: str, seed: int) -> list:
        prompts = [f"a photo of a {word} {BACKGROUNDS[scene.background]}" for scene in class_scenes(word)]
        return self.draw(pipe, prompts, seed + 500)

    def judged(self, pipe, slug: str, seed: int, name: str) -> dict[str, float]:
        """Everything of a row that comes from pictures. name: V*."""
        word = ALL_SUBJECTS[slug].class_word
        asked = prompts_for(word)
        images = self.draw(pipe, [a.prompt(f"{name} {word}") for a in asked], seed)
        figures = self._of_subject(images, asked, slug, word)
        return figures | self._of_class(self.of_class(pipe, word, seed), slug, word, seed)

    def _of_subject(self, images: list, asked: list[Asked], slug: str, word: str) -> dict[str, float]:
        mine, _ = self.references(slug)
        answers = [a.answers(reading, word) for a, reading in zip(asked, self.judge.read(images), strict=True)]
        plain = [image for image, a in zip(images, asked) if a.kind == "background"]
        shown = {k: [all(right) for right, a in zip(answers, asked) if a.kind == k] for k in KINDS}
        return {
            "likeness": metrics.subject_similarity(images, mine, self.judge),
            "likeness_background": metrics.subject_similarity(plain, mine, self.judge),
            "asked": statistics.mean(right for picture in answers for right in picture),
            "clip_text": metrics.clip_text(images, [a.prompt(word) for a in asked], self.clip),
        } | {k: statistics.mean(right) if right else float("nan") for k, right in shown.items()}

    def _of_class(self, images: list, slug: str, word: str, seed: int) -> dict[str, float]:
        mine, _ = self.references(slug)
        plain = [Asked("background", scene.background) for scene in class_scenes(word)]
        answers = [a.answers(reading, word) for a, reading in zip(plain, self.judge.read(images), strict=True)]
        before = self.class_before(word, seed)
        drift = [np.abs(np.subtract(a, b, dtype=float)).mean() / 255 for a, b in zip(images, before, strict=True)]
        return {
            "kid": metrics.kid(self.real(word), images, self.judge),
            "class_kept": statistics.mean(right for picture in answers for right in picture),
            "class_likeness": metrics.subject_similarity(images, mine, self.judge),
            "class_drift": float(np.mean(drift)),
        }


# ------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Run:
    part: str
    method: str
    subject: str
    seed: int
    rate: float
    steps: int = STEPS

    def done(self, bench: Bench) -> Row:
        """Trains and judges; the bench's own model stays as it was."""
        if self.method == BEFORE:
            costs = {"parameters": 0, "file_mb": 0.0, "memory_mb": 0.0, "seconds": 0.0}
            figures = bench.judged(bench.pipe, self.subject, self.seed, RARE)
        else:
            pipe, method = copy.deepcopy(bench.pipe), (METHODS | VARIANTS)[self.method]
            task = method.begin(pipe, bench.lesson(self.subject, self.seed))
            seconds = self.train(task, self.steps)
            figures = bench.judged(pipe, self.subject, self.seed, method.name)
            costs = _size(task) | {"memory_mb": self.memory(task), "seconds": seconds}
        own = {name: getattr(self, name) for name in (*KEY, "steps")}
        return Row(**(own | figures | costs), model=bench.table.model, command=bench.command)

    def train(self, task, steps: int) -> float:
        """Processor seconds a step."""
        begun = time.process_time()
        training.fit(task, steps, self.rate, BATCH, self.seed, ema=EMA, every=steps, progress=False)
        return (time.process_time() - begun) / steps

    def memory(self, task) -> float:
        """The most that one more step allocates, optimiser and average included, in MB; the model has been judged."""
        with LivingTensors() as living:
            self.train(task, 1)
        return living.peak / 1e6


def _size(task) -> dict[str, float]:
    trained = task.parameters().values()
    parameters = sum(p.numel() for p in trained)
    return {"parameters": parameters, "file_mb": sum(p.numel() * p.element_size() for p in trained) / 1e6}


# ------------------------------------------------------------------ which runs


def best_rate(rows: list[Row], method: str) -> float:
    """The rate with the best score in the search; a variant has Custom Diffusion's. SystemExit if one is missing."""
    method = OURS if method in VARIANTS else method
    tried = {row.rate: row.score for row in rows if (row.part, row.method) == ("search", method)}
    if missing := set(METHODS[method].rates) - set(tried):
        raise SystemExit(f"the search lacks {method} at {sorted(missing)}: run this with --parts search first")
    return max(METHODS[method].rates, key=tried.get)


def planned(part: str, subjects, seeds, methods) -> Iterator[tuple[str, str, int]]:
    """(method, subject, seed) of each run of a part; the search has a seed of its own."""
    if part == "search":
        yield from ((method, *SEARCH) for method in METHODS if method in methods)
        return
    of_part = (BEFORE, *METHODS) if part == "main" else VARIANTS
    for seed in seeds:
        if part == "main" or seed in VARIANT_SEEDS:
            yield from ((method, subject, seed) for subject in subjects for method in of_part if method in methods)


def runs(table: results.Table, part: str, subjects, seeds, methods) -> Iterator[Run]:
    """The runs whose rows are missing."""
    for method, subject, seed in planned(part, subjects, seeds, methods):
        if part == "search":
            rates = METHODS[method].rates
        else:
            rates = (0.0,) if method == BEFORE else (best_rate(table.rows(), method),)
        for rate in rates:
            if not table.has(part, method, subject, seed, rate):
                yield Run(part, method, subject, seed, rate, 0 if method == BEFORE else STEPS)


# ------------------------------------------------------------------ report

COLUMNS = ("likeness", "asked", "clip_text", *KINDS, "kid", "class_kept", "class_likeness", "class_drift")
COLUMNS += ("parameters", "file_mb", "memory_mb", "seconds")


def report(rows: list[Row]) -> Iterator[str]:
    """The search, then mean ± standard deviation over all runs of each method."""
    for row in (row for row in rows if row.part == "search"):
        parts = f"likeness {row.likeness:.3f}, asked {row.asked:.2f}, class kept {row.class_kept:.2f}"
        yield f"search  {row.method:20} rate {row.rate:<8g} score {row.score:.3f}  ({parts})"
    for method in (BEFORE, *METHODS, *VARIANTS):
        chosen = [row for row in rows if row.method == method and row.part != "search"]
        if chosen:
            yield f"{method}, {len(chosen)} runs"
        for name in COLUMNS if chosen else ():
            mean, spread = results.mean_and_spread(getattr(row, name) for row in chosen)
            yield f"    {name:20}{mean:10.4g} ± {spread:.2g}"


def main() -> None:
    names = (BEFORE, *METHODS, *VARIANTS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS, metavar="SUBJECT")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds are 0 or more, got {min(options.seeds)}")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    command = " ".join(["python benchmarks/custom_diffusion.py", *sys.argv[1:]])
    bench = Bench(models.load("pocket", device="cpu"), pocket_judge.load(), models.load_clip(), table, command)
    for part in options.parts:
        for run in runs(table, part, options.subjects, options.seeds, options.methods):
            row = run.done(bench)
            table.add(row)
            print(
                f"{part}: {run.method}, {run.subject}, seed {run.seed}, rate {run.rate:g}, likeness "
                f"{row.likeness:.3f}, asked {row.asked:.2f}, class kept {row.class_kept:.2f}",
                flush=True,
            )
    print("", *report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
