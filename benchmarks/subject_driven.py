"""Who learns a subject, and who forgets the rest? Five ways of fine-tuning on the same pictures, noise and steps.

    python benchmarks/subject_driven.py                     everything, about two hours on one core
    python benchmarks/subject_driven.py --parts search      the learning rates, tried on one subject
    python benchmarks/subject_driven.py --subjects heart-mug --seeds 0 --methods OFT LoRA       a part of the rest

Writes one row a run to results/subject_driven.csv and goes on where it stopped; several commands may fill one file at
the same time. Parts: "search" tries three learning rates a method, "main" trains every subject with every seed by the
best of them, "long" trains one subject three times as long, to see what over-training does.
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
from types import SimpleNamespace

import torch

from tutorial_lib import (
    baselines,
    custom_diffusion,
    metrics,
    models,
    oft,
    orthogonal,
    pictures,
    profiles,
    results,
    sampling,
    sphere,
    training,
)
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.scene import BACKGROUNDS, Person, Scene, Thing, caption
from tutorial_lib.pocket.subjects import FOLDER
from tutorial_lib.pocket.subjects import SUBJECTS as ALL_SUBJECTS

RESULTS = results.FOLDER / "subject_driven.csv"

TOKEN = "sks"  # a rare word: one token, in no caption of pretraining
SUBJECTS = tuple(slug for slug in ALL_SUBJECTS if slug != "star-ball")  # six
SEEDS = (0, 1, 2)
SEARCH, LONG_RUN = ("heart-mug", 100), ("heart-mug", 0)  # subject and seed; the search's seed is used nowhere else
PARTS = ("search", "main", "long")

STEPS, BATCH = 100, 3  # pictures of the subject a step, and as many of its class
EMA = 0.95  # the weights that are judged are a mean over the last twenty steps or so
LONG = 3  # times as many steps
LOOKS = (20, 40, 60, 100, 200)  # steps after which the curve is measured, besides the start and the end
PRIOR = 24  # pictures of the class, made by the model before it learns anything
SAMPLING = 8  # DDIM steps of a picture
TARGETS = profiles.POCKET.layers  # nearly all: with attention alone neither LoRA nor OFT learns a pattern here
RANK, BLOCK = 8, 32  # LoRA's and OFT's: about the same number of parameters
EPS = 0.02  # COFT's bound on ||Q||_F / sqrt(b)
ROTATING = 0.75  # of re-scaled OFT's steps; the rest re-fit the magnitudes
BASE = "before"  # the model as it was: no method, but judged like one


# ------------------------------------------------------------------ what the pictures should show

CONTEXTS = (  # style and place; the subject's own pictures are photos, none of them at night
    ("photo", "night"),
    ("photo", "snow"),
    ("photo", "table"),
    ("photo", "city"),
    ("watercolor", "forest"),
    ("pixel art", "beach"),
)
REPEATS = 2  # pictures of each context at the end of a run; the looks on the way make one
OTHERS = (
    Scene("photo", "beach", (Thing("house", "blue"),)),
    Scene("watercolor", "snow", (Thing("car", "red"),)),
    Scene("photo", "city", (Thing("teapot", "pink"),)),
    Scene("photo", "snow", (Thing("cat", "black", worn=("hat",)),)),
    Scene("pixel art", "city", (Thing("mug", "yellow"),)),
    Scene("photo", "night", (Thing("flower", "red"),)),
    Scene("pencil sketch", "table", (Thing("teapot", "green"),)),
    Scene("watercolor", "beach", (Thing("fish", "orange"),)),
    Scene("photo", "forest", (Person("dark", "black", "long", "green", ("smile",)),)),
    Scene("photo", "table", (Thing("mug", "brown"),)),
)
FEW_OTHERS, MANY_OTHERS = 3, 8  # on the way, at the end
CLASS_LOOKS = (("photo", "beach", "green"), ("watercolor", "city", "pink"))
CLASS_LOOKS += (("photo", "snow", "black"), ("pixel art", "forest", "brown"))


def subject_prompt(word: str, style: str, place: str, token: str = TOKEN) -> str:
    """ "a watercolor of a sks mug in a forest"; without the token "a watercolor of a mug in a forest"."""
    head = style if style == "pixel art" else f"a {style}"
    return " ".join(f"{head} of a {token} {word} {BACKGROUNDS[place]}".split())


def other_scenes(word: str, count: int = MANY_OTHERS) -> list[Scene]:
    """Scenes without the subject's class."""
    return [scene for scene in OTHERS if all(thing.kind != word for thing in scene.things)][:count]


def class_scenes(word: str) -> list[Scene]:
    """Members of the class in other colours than the subject's; of people, with other shirts and hair."""
    return [Scene(style, place, (_member(word, colour),)) for style, place, colour in CLASS_LOOKS]


def _member(word: str, colour: str) -> Thing | Person:
    if word != "person":
        return Thing(word, colour)
    hair = {"green": "black", "pink": "blond", "black": "white", "brown": "brown"}
    return Person("tan", hair[colour], "long", colour)


# ------------------------------------------------------------------ the methods


@dataclass(frozen=True)
class Method:
    """How a method begins its task, and the learning rates to try."""

    begin: Callable
    rates: tuple[float, ...]


def full(pipe, data, prior):
    return baselines.dreambooth(pipe, data, prior=prior)


def lora(pipe, data, prior):
    return baselines.lora(pipe, data, RANK, targets=TARGETS, prior=prior)


def rotated(pipe, data, prior, eps: float | None = None):
    """OFT of the layers that LoRA adapts; with eps COFT."""
    oft.attach(pipe.unet, list(TARGETS), BLOCK, eps=eps)
    return training.DenoisingTask(pipe, data, oft.parameters(pipe.unet), prior=prior, name="OFT")


def constrained(pipe, data, prior):
    return rotated(pipe, data, prior, eps=EPS)


RESCALED = "re-scaled OFT"  # its rotations learn as OFT's do, with OFT's rate; the rates are those of the magnitudes
METHODS = {
    "full": Method(full, (1e-4, 2e-4, 4e-4)),
    "LoRA": Method(lora, (2e-3, 4e-3, 8e-3)),
    "OFT": Method(rotated, (1e-3, 2e-3, 4e-3)),
    "COFT": Method(constrained, (1e-3, 2e-3, 4e-3)),
    RESCALED: Method(rotated, (2e-3, 6e-3, 2e-2)),
}


def effective_weights(unet) -> dict[str, torch.Tensor]:
    """What each target layer multiplies with, its adapter included, whatever the method: by path."""
    if hasattr(unet, "_oft"):
        return oft.effective_weights(unet)
    found = {}
    for path, layer in unet.named_modules():
        if path.endswith(TARGETS):
            low_rank = hasattr(layer, "base_layer")
            weight = layer.base_layer.weight + layer.get_delta_weight(baselines.ADAPTER) if low_rank else layer.weight
            found[path] = weight.detach()
    return found


# ------------------------------------------------------------------ rows


KEY = ("part", "method", "subject", "seed", "rate")


@dataclass(frozen=True)
class Row:
    """One run. Lists are written with spaces between their numbers, at the steps that `looks` names."""

    part: str
    method: str
    subject: str
    seed: int
    rate: float
    steps: int
    subject_similarity: float  # in the judge's embedding, in place of DINO
    clip_image: float
    clip_text: float
    diversity: float  # of pictures of one prompt, in place of LPIPS
    context: float  # style, place and kind as the subject's prompts ask
    others: float  # everything that prompts of other things ask
    class_fidelity: float  # and prompts of the class without the token
    class_likeness: float  # similarity of these pictures of the class to the subject
    parameters: int
    seconds: float  # of the processor, a step
    energy_change: float  # largest relative change of a target layer's hyperspherical energy
    orthogonality: float  # largest ||R R^T - I||_2; nan without rotations
    moved: float  # ||W_eff - W|| / ||W||, the mean over these layers
    looks: str
    similarity_at: str
    context_at: str
    others_at: str
    model: str
    command: str

    @property
    def score(self) -> float:
        """What the search chooses by: likeness, where prompts are still obeyed."""
        return self.subject_similarity * self.context * self.others


# ------------------------------------------------------------------ judging


class Bench:
    """The model as it was, those who judge, and what every run of one subject shares."""

    def __init__(self, pipe, judge, clip, table: results.Table, command: str = ""):
        self.pipe, self.judge, self.clip, self.table, self.command = pipe, judge, clip, table, command
        self.eyes = SimpleNamespace(embed=lambda images: torch.nn.functional.normalize(judge.features(images), dim=1))
        self.weights = {path: w.double() for path, w in effective_weights(pipe.unet).items()}
        self.energies = {path: sphere.hyperspherical_energy(w).item() for path, w in self.weights.items()}

    @cache  # noqa: B019 - one bench a command
    def references(self, slug: str) -> list:
        return pictures.load_folder(FOLDER / slug, 64)[0]

    @cache  # noqa: B019
    def encoded(self, slug: str) -> tuple:
        """The subject's pictures, all with the same caption, and those of its class."""
        word = ALL_SUBJECTS[slug].class_word
        mine = self.references(slug)
        data = training.encode(self.pipe, mine, [f"a photo of a {TOKEN} {word}"] * len(mine))
        made = custom_diffusion.generated(self.pipe, word, PRIOR, num_inference_steps=SAMPLING, progress=False)
        return data, training.encode(self.pipe, *made)

    @cache  # noqa: B019
    def start(self, slug: str, seed: int) -> dict[str, float]:
        """Where the curves of all methods begin."""
        return self.look(self.pipe, slug, seed)

    def draw(self, pipe, prompts: list[str], seed: int) -> list:
        """Picture i has the noise number i of the run's seed, before as after."""
        seeds = [1000 * (seed + 1) + i for i in range(len(prompts))]
        return sampling.generate(pipe, prompts, seeds, num_inference_steps=SAMPLING, progress=False)

    def look(self, pipe, slug: str, seed: int, last: bool = False) -> dict[str, float]:
        """Draws and judges; on the way only what the curves need, of the first pictures of the last look."""
        word = ALL_SUBJECTS[slug].class_word
        contexts = CONTEXTS * (REPEATS if last else 1)
        scenes = other_scenes(word, MANY_OTHERS if last else FEW_OTHERS)
        subject = self.draw(pipe, [subject_prompt(word, *context) for context in contexts], seed)
        others = self.draw(pipe, [caption(scene) for scene in scenes], seed + 500)
        figures = self._curve(subject[: len(CONTEXTS)], others[:FEW_OTHERS], slug)
        return figures | self._figures(pipe, slug, seed, contexts, subject, scenes, others) if last else figures

    def _curve(self, subject: list, others: list, slug: str) -> dict[str, float]:
        word = ALL_SUBJECTS[slug].class_word
        return {
            "similarity_at": metrics.subject_similarity(subject, self.references(slug), self.judge),
            "context_at": self.context(subject, CONTEXTS, word),
            "others_at": self.fidelity(others, other_scenes(word, FEW_OTHERS)),
        }

    def _figures(self, pipe, slug: str, seed: int, contexts, subject: list, scenes, others: list) -> dict[str, float]:
        word, mine = ALL_SUBJECTS[slug].class_word, self.references(slug)
        of_class = class_scenes(word)
        members = self.draw(pipe, [caption(scene) for scene in of_class], seed + 700)
        plain = [subject_prompt(word, *context, token="") for context in contexts]
        alike = [subject[k :: len(CONTEXTS)] for k in range(len(CONTEXTS))]  # pictures of one prompt
        return {
            "subject_similarity": metrics.subject_similarity(subject, mine, self.judge),
            "clip_image": metrics.clip_image(subject, mine, self.clip),
            "clip_text": metrics.clip_text(subject, plain, self.clip),
            "diversity": statistics.mean(metrics.diversity(group, self.eyes) for group in alike),
            "context": self.context(subject, contexts, word),
            "others": self.fidelity(others, scenes),
            "class_fidelity": self.fidelity(members, of_class),
            "class_likeness": metrics.subject_similarity(members, mine, self.judge),
        }

    def fidelity(self, images: list, scenes: list[Scene]) -> float:
        """The share of all that the captions ask for."""
        shares = metrics.prompt_fidelity(images, scenes, self.judge).values()
        return sum(shares, metrics.Share(0, 0)).value

    def context(self, images: list, contexts, word: str) -> float:
        """The share of styles, places and kinds that are as asked; the subject's colours are its own."""
        right = []
        for reading, (style, place) in zip(self.judge.read(images), contexts, strict=True):
            right += [reading.style == style, reading.background == place, [t.kind for t in reading.things] == [word]]
        return statistics.mean(right)

    def geometry(self, unet) -> dict[str, float]:
        """What the run did to the target layers' weights."""
        now = {path: weight.double() for path, weight in effective_weights(unet).items()}
        energy = {path: sphere.hyperspherical_energy(weight).item() for path, weight in now.items()}
        rotations = oft.rotations(unet).values() if hasattr(unet, "_oft") else []
        moved = [((now[path] - before).norm() / before.norm()).item() for path, before in self.weights.items()]
        return {
            "energy_change": max(abs(energy[path] / before - 1) for path, before in self.energies.items()),
            "orthogonality": max((orthogonal.orthogonality_error(R).item() for R in rotations), default=float("nan")),
            "moved": statistics.mean(moved),
        }


# ------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Run:
    part: str
    method: str
    subject: str
    seed: int
    rate: float
    steps: int
    rotation_rate: float = 0.0  # re-scaled OFT's first part

    def done(self, bench: Bench) -> Row:
        """Trains, looks on the way and judges at the end; the bench's own model stays as it was."""
        pipe = copy.copy(bench.pipe)
        pipe.unet = copy.deepcopy(bench.pipe.unet)
        curve = [{"looks": 0} | bench.start(self.subject, self.seed)]

        def look(step: int) -> None:
            if step in LOOKS and step < self.steps:
                curve.append({"looks": step} | bench.look(pipe, self.subject, self.seed))

        costs = {"parameters": 0, "seconds": 0.0} if self.method == BASE else self.train(bench, pipe, look)
        final = bench.look(pipe, self.subject, self.seed, last=True)
        if self.method != BASE:
            curve.append({"looks": self.steps} | final)
        lists = {name: " ".join(f"{point[name]:.4g}" for point in curve) for name in curve[0]}
        own = {name: getattr(self, name) for name in ("part", "method", "subject", "seed", "rate", "steps")}
        given = {"model": bench.table.model, "command": bench.command}
        return Row(**(own | final | costs | bench.geometry(pipe.unet) | lists | given))

    def train(self, bench: Bench, pipe, look: Callable[[int], None]) -> dict[str, float]:
        """Trains the pipeline in place; returns what it cost."""
        data, prior = bench.encoded(self.subject)
        task = METHODS[self.method].begin(pipe, data, prior)
        if self.method != RESCALED:
            seconds = self.fit(task, self.steps, self.rate, look)
            return {"parameters": _count(task), "seconds": seconds / self.steps}
        turning = round(ROTATING * self.steps)
        seconds, rotations = self.fit(task, turning, self.rotation_rate, look), _count(task)
        oft.refit_magnitudes(pipe.unet)
        task = training.DenoisingTask(pipe, data, oft.parameters(pipe.unet), prior=prior, name=RESCALED)
        seconds += self.fit(task, self.steps - turning, self.rate, look, before=turning)
        return {"parameters": rotations + _count(task), "seconds": seconds / self.steps}

    def fit(self, task, steps: int, rate: float, look: Callable[[int], None], before: int = 0) -> float:
        """The processor's seconds, without those of the looks. before: steps made already, with other draws."""
        looking = 0.0

        def timed_look(step: int, _) -> None:
            nonlocal looking
            begun = time.process_time()
            if step:
                look(before + step)
            looking += time.process_time() - begun

        begun, seed = time.process_time(), self.seed + 10_000 * (before > 0)
        training.fit(task, steps, rate, BATCH, seed, ema=EMA, every=min(LOOKS), callback=timed_look, progress=False)
        return time.process_time() - begun - looking


def _count(task) -> int:
    return sum(parameter.numel() for parameter in task.parameters().values())


# ------------------------------------------------------------------ which runs


def best_rate(rows: list[Row], method: str) -> float:
    """The rate with the best score in the search. SystemExit while one is missing."""
    tried = {row.rate: row.score for row in rows if (row.part, row.method) == ("search", method)}
    if missing := set(METHODS[method].rates) - set(tried):
        raise SystemExit(f"the search lacks {method} at {sorted(missing)}: run this with --parts search first")
    return max(METHODS[method].rates, key=tried.get)


def planned(part: str, subjects, seeds, methods) -> Iterator[tuple[str, str, int]]:
    """(method, subject, seed) of each run of a part; search and long runs have one subject and seed."""
    if part == "search":
        yield from ((method, *SEARCH) for method in methods if method != BASE)
    elif part == "long":
        yield from ((method, *LONG_RUN) for method in methods if method != BASE)
    else:
        yield from ((method, subject, seed) for seed in seeds for subject in subjects for method in methods)


def runs(table: results.Table, part: str, subjects, seeds, methods) -> Iterator[Run]:
    """The runs whose rows are missing."""
    steps = STEPS * (LONG if part == "long" else 1)
    for method, subject, seed in planned(part, subjects, seeds, methods):
        rows = table.rows()
        turning = best_rate(rows, "OFT") if method == RESCALED else 0.0
        if method == BASE:
            rates, steps_of = (0.0,), 0
        else:
            rates, steps_of = METHODS[method].rates if part == "search" else (best_rate(rows, method),), steps
        for rate in rates:
            if not table.has(part, method, subject, seed, rate):
                yield Run(part, method, subject, seed, rate, steps_of, turning)


# ------------------------------------------------------------------ report

COLUMNS = ("subject_similarity", "clip_image", "clip_text", "diversity", "context", "others", "class_fidelity")
COLUMNS += ("class_likeness", "parameters", "seconds", "energy_change", "orthogonality", "moved")


def report(rows: list[Row]) -> Iterator[str]:
    """The search, then for each method mean ± standard deviation over the main runs, then the long runs' curves."""
    for row in (row for row in rows if row.part == "search"):
        parts = f"likeness {row.subject_similarity:.3f}, context {row.context:.2f}, others {row.others:.2f}"
        yield f"search  {row.method:14} rate {row.rate:<8g} score {row.score:.3f}  ({parts})"
    chosen = [row for row in rows if row.part == "main"]
    for name in COLUMNS if chosen else ():
        found = {m: [getattr(row, name) for row in chosen if row.method == m] for m in (BASE, *METHODS)}
        yield f"{name:20}" + "  ".join(f"{m} {_spread(values)}" for m, values in found.items() if values)
    for row in (row for row in rows if row.part == "long"):
        yield f"long  {row.method:14} steps {row.looks}: likeness {row.similarity_at}, others {row.others_at}"


def _spread(values: list[float]) -> str:
    mean, spread = results.mean_and_spread(values)  # without NaN, which is the orthogonality of what does not rotate
    return f"{mean:.4g} ± {spread:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS, metavar="SUBJECT")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--methods", nargs="+", choices=(BASE, *METHODS), default=(BASE, *METHODS), metavar="METHOD")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds are 0 or more, got {min(options.seeds)}")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    command = " ".join(["python benchmarks/subject_driven.py", *sys.argv[1:]])
    bench = Bench(models.load("pocket", device="cpu"), pocket_judge.load(), models.load_clip(), table, command)
    for part in options.parts:
        for run in runs(table, part, options.subjects, options.seeds, options.methods):
            row = run.done(bench)
            if not table.has(*(getattr(row, name) for name in KEY)):  # another command may have made this row meanwhile
                table.add(row)
            print(
                f"{part}: {run.method}, {run.subject}, seed {run.seed}, rate {run.rate:g}, "
                f"likeness {row.subject_similarity:.3f}, others {row.others:.2f}",
                flush=True,
            )
    print("", *report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
