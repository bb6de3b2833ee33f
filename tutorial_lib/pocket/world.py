"""The pocket world: draw a scene, and read its exact ground truth.

`draw` makes the picture; `segmentation`, `mask`, `edges` and `landmarks` come from the same drawing code.
"""

from __future__ import annotations

import difflib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from PIL import Image

from tutorial_lib.pocket.backgrounds import draw_background
from tutorial_lib.pocket.canvas import FIRST_THING, SIDE, Canvas, finished
from tutorial_lib.pocket.people import draw_person, landmark_points
from tutorial_lib.pocket.scene import (
    ANIMALS,
    BACKGROUNDS,
    COLOURS,
    EXTRAS,
    HAIR_COLOURS,
    HAIR_LENGTHS,
    HELD_OUT_BACKGROUNDS,
    HELD_OUT_COLOURS,
    HELD_OUT_STYLES,
    OBJECTS,
    PATTERNS,
    RARE_WORDS,
    SKINS,
    STYLES,
    WEARABLES,
    Person,
    Scene,
    Thing,
    caption,
    caption_words,
    held_out_pairs,
    place,
    sample_scene,
)
from tutorial_lib.pocket.styles import OUTLINES, finish
from tutorial_lib.pocket.things import draw_thing

__all__ = [
    "ANIMALS",
    "BACKGROUNDS",
    "CLASSES",
    "COLOURS",
    "EXTRAS",
    "HAIR_COLOURS",
    "HAIR_LENGTHS",
    "HELD_OUT_BACKGROUNDS",
    "HELD_OUT_COLOURS",
    "HELD_OUT_STYLES",
    "OBJECTS",
    "PATTERNS",
    "RARE_WORDS",
    "SIDE",
    "SKINS",
    "STYLES",
    "WEARABLES",
    "Person",
    "Scene",
    "Thing",
    "caption",
    "caption_words",
    "decorate",
    "draw",
    "draw_many",
    "edges",
    "held_out_pairs",
    "landmarks",
    "mask",
    "place",
    "sample_scene",
    "segmentation",
]

CLASSES = ("sky", "ground", "backdrop", *OBJECTS, "person")
CHUNK = 128  # pictures that a worker draws at a time


def draw(scene: Scene) -> Image.Image:
    """The scene's picture: 64x64 RGB, the same bytes every time. ValueError for a word the world lacks."""
    return finish(_paint(scene).image, scene.style, scene.seed)


def segmentation(scene: Scene) -> np.ndarray:
    """The index in CLASSES of what each pixel shows: uint8 (64, 64). Things worn belong to their wearer."""
    classes = [0, 1, 2, *(CLASSES.index(thing.kind) for thing in scene.things)]
    return np.array(classes, np.uint8)[finished(_paint(scene, truth=True).labels)]


def mask(scene: Scene, index: int = 0) -> np.ndarray:
    """Where the scene's thing number `index` (from the left) can be seen: bool (64, 64)."""
    if not 0 <= index < len(scene.things):
        raise ValueError(f"the scene has {len(scene.things)} thing(s), so index must be below that, got {index}")
    return finished(_paint(scene, truth=True).labels) == FIRST_THING + index


def edges(scene: Scene) -> np.ndarray:
    """The contours of all parts, one pixel wide: bool (64, 64)."""
    parts = finished(_paint(scene, truth=True).parts)
    found = np.zeros(parts.shape, bool)
    found[:, :-1] |= parts[:, :-1] != parts[:, 1:]
    found[:-1] |= parts[:-1] != parts[1:]
    return found


def landmarks(scene: Scene) -> np.ndarray | None:
    """Left eye, right eye, nose and the mouth's left and right corner of the first person, as one sees them.

    Float (5, 2), x and y in pixels; None where there is no person.
    """
    for thing in scene.things:
        if isinstance(thing, Person):
            return landmark_points(thing) * SIDE
    return None


def decorate(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with a random pattern on each thing, in a colour that differs from the thing's own."""
    return replace(scene, things=tuple(_decorated(thing, rng) for thing in scene.things))


def _decorated(thing: Thing | Person, rng: np.random.Generator) -> Thing | Person:
    own = thing.shirt if isinstance(thing, Person) else thing.colour
    others = [colour for colour in COLOURS if colour != own]
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    return replace(thing, pattern=pattern, second_colour=others[int(rng.integers(len(others)))])


def draw_many(scenes, workers: int | None = None, progress: bool = True) -> np.ndarray:
    """The pictures of many scenes: uint8 (n, 64, 64, 3), drawn by `workers` processes (default: one a core)."""
    from tqdm.auto import tqdm

    scenes = list(scenes)
    chunks = [scenes[k : k + CHUNK] for k in range(0, len(scenes), CHUNK)]
    workers = min(workers or os.cpu_count() or 1, len(chunks))
    pictures = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
    with tqdm(total=len(scenes), desc="drawing", unit="picture", disable=not progress) as bar:
        for k, drawn in enumerate(_drawn(chunks, workers)):
            pictures[k * CHUNK : k * CHUNK + len(drawn)] = drawn
            bar.update(len(drawn))
    return pictures


def _drawn(chunks, workers: int):
    """The chunks' pictures in order; in this process where one worker is enough."""
    if workers <= 1:
        yield from map(_draw_chunk, chunks)
        return
    # "spawn" works on every system and beside torch's threads, which do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_draw_chunk, chunks)


def _draw_chunk(scenes) -> np.ndarray:
    return np.stack([np.asarray(draw(scene)) for scene in scenes])


def _paint(scene: Scene, truth: bool = False) -> Canvas:
    _check(scene)
    ink, width = OUTLINES[scene.style]
    canvas = Canvas(ink, width, scene.background == "night", scene.style == "pencil sketch", truth)
    draw_background(canvas, scene.background, scene.seed)
    for k, thing in enumerate(scene.things):
        paint = draw_person if isinstance(thing, Person) else draw_thing
        paint(canvas, thing, FIRST_THING + k)
    return canvas


# ------------------------------------------------------------------ validation


def _check(scene: Scene) -> None:
    _known("style", scene.style, STYLES)
    _known("background", scene.background, BACKGROUNDS)
    for thing in scene.things:
        (_check_person if isinstance(thing, Person) else _check_thing)(thing)
        if thing.pattern is not None:
            _known("pattern", thing.pattern, PATTERNS)
            _known("second colour", thing.second_colour, COLOURS)


def _check_thing(thing: Thing) -> None:
    _known("kind of thing", thing.kind, OBJECTS)
    _known("colour", thing.colour, COLOURS)
    if thing.worn and thing.kind not in ANIMALS:
        raise ValueError(f"only {' and '.join(ANIMALS)} wear things, so a {thing.kind} cannot have {thing.worn}")
    for worn in thing.worn:
        _known("thing worn", worn, WEARABLES)
    if thing.variant is not None:
        _known(f"variant of a {thing.kind}", thing.variant, VARIANTS.get(thing.kind, ()))


def _check_person(person: Person) -> None:
    _known("skin", person.skin, SKINS)
    _known("hair colour", person.hair_colour, HAIR_COLOURS)
    _known("hair length", person.hair_length, HAIR_LENGTHS)
    _known("shirt colour", person.shirt, COLOURS)
    for extra in person.extras:
        _known("extra", extra, EXTRAS)
    if person.variant is not None:
        _known("variant of a person", person.variant, VARIANTS["person"])


VARIANTS = {"cat": ("collar",), "gate": ("moon",), "person": ("freckles",)}


def _known(what: str, word: str, words) -> None:
    if word in words:
        return
    near = difflib.get_close_matches(str(word), list(words), n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(words) or 'none'}"
    raise ValueError(f"unknown {what} {word!r}; {hint}")
