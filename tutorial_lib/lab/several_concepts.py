"""Several concepts in one picture, lesson 07: which ones, what they are asked, and how each is found again.

Two things stand side by side in this world. So each half of a picture is looked at by itself: cut out, enlarged, and
compared with the photos of a concept, as the papers compare whole pictures by DINO.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutorial_lib import pictures
from tutorial_lib.pocket import world
from tutorial_lib.pocket.judge import Judge, ThingReading
from tutorial_lib.pocket.subjects import FOLDER, SUBJECTS

NAN = float("nan")
# Of 80 drawings of each subject beside another one the person and the ball always reach it, the cat 95 times in 100;
# of 200 drawings of other pairs at most 4 in 100 do (benchmarks/recognised.py).
RECOGNISED = 0.4
WINDOW, LOWEST = 36, 26  # pixels: side of what is cut out, and its upper edge
ENOUGH = 0.02  # of the picture, for a thing in the segmentation map


@dataclass(frozen=True)
class Concept:
    """A subject, its new token, the rare word that the token starts from, the colour that its class is drawn in."""

    slug: str
    token: str
    rare: str
    colour: str | None = None

    @property
    def word(self) -> str:
        return SUBJECTS[self.slug].class_word

    @property
    def name(self) -> str:
        """ "<new1> person"."""
        return f"{self.token} {self.word}"

    @property
    def rare_name(self) -> str:
        """ "ktn person", for a method without new tokens."""
        return f"{self.rare} {self.word}"


PERSON = Concept("freckled-person", "<new1>", "ktn")
CAT = Concept("two-tone-cat", "<new2>", "pll", "orange")
BALL = Concept("star-ball", "<new3>", "ucd", "purple")
COMBINATIONS = {"person+cat": (PERSON, CAT), "cat+ball": (CAT, BALL), "person+cat+ball": (PERSON, CAT, BALL)}


@cache
def photos(concept: Concept) -> tuple[list[Image.Image], list[str]]:
    """The concept's photos, and their captions with "{}" for its name."""
    images, report = pictures.load_folder(FOLDER / concept.slug, 64)
    return images, [caption.replace(concept.word, "{}") for caption in report.captions]


def prompt(names: Iterable[str], place: str) -> str:
    """ "a photo of a <new1> person and a <new2> cat in the snow"."""
    return f"a photo of {' and '.join(f'a {name}' for name in names)} {world.BACKGROUNDS[place]}"


def orders(concepts: Sequence[Concept], places: Sequence[str]) -> list[tuple[tuple[Concept, ...], str]]:
    """Every pair of the concepts in every place, in both orders for two concepts, by turns for more."""
    pairs = list(permutations(concepts, 2))
    if len(concepts) > 2:  # each pair once a place, and every order in half of the places
        return [(pair, place) for i, place in enumerate(places) for pair in pairs if _forward(pair, concepts) == i % 2]
    return [(pair, place) for place in places for pair in pairs]


def _forward(pair, concepts) -> bool:
    return concepts.index(pair[0]) < concepts.index(pair[1])


def drawn(named: Sequence[Concept], place: str, seed: int) -> Image.Image:
    """The two subjects themselves side by side, drawn by the world: what no model can do better."""
    rng = np.random.default_rng(seed)
    things = [SUBJECTS[concept.slug].scenes[0].things[0] for concept in named]
    placed = tuple(world.place(thing, rng, slot) for thing, slot in zip(things, ("left", "right"), strict=True))
    return world.draw(world.Scene("photo", place, placed, seed))


# ------------------------------------------------------------------ what became of a concept


@dataclass(frozen=True)
class Seen:
    """What became of one concept in one picture.

    likeness: to its photos, of the part of the picture that is nearest. there: its kind is found, or it is recognised.
    mixed: a thing of its kind has another concept's mark; None where that cannot be told. last: it was named last.
    """

    word: str
    likeness: float
    there: bool
    mixed: bool | None
    last: bool

    @property
    def recognised(self) -> bool:
        return self.likeness >= RECOGNISED


def windows(image: Image.Image, count: int) -> list[Image.Image]:
    """Squares around the places of `count` things, two or more, from left to right, each as large as the picture."""
    lefts = [round(k * (image.width - WINDOW) / (count - 1)) for k in range(count)]
    cut = [image.crop((left, LOWEST, left + WINDOW, LOWEST + WINDOW)) for left in lefts]
    return [part.resize(image.size, Image.Resampling.BICUBIC) for part in cut]


def likenesses(images: Sequence, concept: Concept, judge: Judge, count: int = 2) -> Tensor:
    """(count, n): mean cosine of each window of each picture with the concept's photos."""
    mine = judge.embed(photos(concept)[0])
    cut = [windows(image, count) for image in images]
    return torch.stack([(judge.embed(parts) @ mine.T).mean(1) for parts in zip(*cut, strict=True)])


def look(images: Sequence, asked: Sequence[Sequence[Concept]], judge: Judge) -> list[list[Seen]]:
    """For each picture what became of each concept that was asked for, in the prompt's order."""
    count = len(asked[0])
    near = {c: likenesses(images, c, judge, count).amax(0).tolist() for c in {c for named in asked for c in named}}
    maps, found = judge.segment(images), []
    for i, (reading, named) in enumerate(zip(judge.read(images), asked, strict=True)):
        area = {c: (maps[i] == world.CLASSES.index(c.word)).float().mean().item() for c in named}
        kinds = {thing.kind for thing in reading.things} | {c.word for c in named if area[c] > ENOUGH}
        found.append([_seen(c, near[c][i], named, kinds, reading.things) for c in named])
    return found


def _seen(concept: Concept, likeness: float, named, kinds: set[str], things: Sequence[ThingReading]) -> Seen:
    own = next((thing for thing in things if thing.kind == concept.word), None)
    others = [other for other in named if other is not concept]
    there = concept.word in kinds or likeness >= RECOGNISED
    return Seen(concept.word, likeness, there, own and mixed(own, others), concept is named[-1])


def mixed(thing: ThingReading, others: Sequence[Concept]) -> bool | None:
    """Whether the thing has a mark of one of the others: the person's glasses, or the colour of a cat or a ball.

    None where it cannot be told: the judge reads no looks of a person beside something, and balls wear no glasses.
    """
    marks = []
    for other in others:
        if other.word == "person" and thing.kind in world.ANIMALS:
            marks.append("glasses" in thing.worn)
        if other.colour and thing.colour:
            marks.append(thing.colour == other.colour)
    return any(marks) if marks else None


def shares(found: Sequence[Sequence[Seen]]) -> dict[str, float]:
    """Means over all concepts asked for; `whole` over pictures: all recognised, none mixed. NaN where none counts."""
    every = [seen for picture in found for seen in picture]
    told = [seen for seen in every if seen.mixed is not None]
    return {
        "likeness": _mean(seen.likeness for seen in every),
        "recognised": _mean(seen.recognised for seen in every),
        "omitted": _mean(not seen.there for seen in every),
        "mixed": _mean(seen.mixed for seen in told),
        "mixed_first": _mean(seen.mixed for seen in told if not seen.last),
        "mixed_last": _mean(seen.mixed for seen in told if seen.last),
        "whole": _mean(all(seen.recognised and not seen.mixed for seen in picture) for picture in found),
    }


def _mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return statistics.mean(numbers) if numbers else NAN
