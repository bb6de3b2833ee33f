"""From which likeness on is a subject recognised beside another one? Lesson 07 says from 0.4.

    python benchmarks/recognised.py        about a minute

Perfect pictures answer: the subjects themselves, drawn side by side, must reach it in their own half, and pairs of
other things must not, in either half.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from tutorial_lib.lab.several_concepts import BALL, CAT, PERSON, RECOGNISED, Concept, drawn, likenesses
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket import world

CONCEPTS = (PERSON, CAT, BALL)
DRAWN, OTHERS = 80, 200  # pictures: with the subject, and of other pairs
LEVELS = (0.3, RECOGNISED, 0.5)
SEED = 4096


def own_halves(concept: Concept, judge) -> Tensor:
    """(80,): likeness of the half in which the subject stands, beside each other one, on both sides, everywhere."""
    others = [other for other in CONCEPTS if other is not concept]
    cases = itertools.cycle(itertools.product(others, (0, 1), world.BACKGROUNDS))
    cases = [(case, k) for k, case in zip(range(DRAWN), cases, strict=False)]
    images = [
        drawn((concept, other) if side == 0 else (other, concept), place, SEED + k) for (other, side, place), k in cases
    ]
    near = likenesses(images, concept, judge)
    return near[[side for (_, side, _), _ in cases], range(DRAWN)]


def other_pairs() -> list:
    """Photos of two plain things, or of a person and a thing, from the world's own scenes."""
    rng, scenes = np.random.default_rng(SEED), []
    while len(scenes) < OTHERS:
        scene = world.sample_scene(rng)
        if len(scene.things) == 2 and scene.style == "photo":
            scenes.append(scene)
    return [world.draw(scene) for scene in scenes]


def report(judge) -> Iterator[str]:
    others = other_pairs()
    yield f"{'share that reaches':<26}" + "".join(f"{level:>8}" for level in LEVELS)
    for concept in CONCEPTS:
        for name, near in (
            (f"{concept.word}, drawn", own_halves(concept, judge)),
            ("other pairs, nearer half", likenesses(others, concept, judge).amax(0)),
        ):
            yield f"{name:<26}" + "".join(f"{(near >= level).float().mean().item():>8.3f}" for level in LEVELS)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(*report(pocket_judge.load()), sep="\n")


if __name__ == "__main__":
    main()
