"""What pretraining sees: scenes by index, their pictures and captions, and the caches made of them.

Scene i depends on i alone, so any part of the training set can be drawn again anywhere. Every fourth scene
is a sibling of the one before it, with one attribute changed: CLIP and the judge learn from such pairs.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tutorial_lib.models import best_device
from tutorial_lib.pocket import world
from tutorial_lib.pocket.scene import COLOURS, EXTRAS, HAIR_COLOURS, Person, Scene, held_out_pairs, sample_scene

DEVICE = "cuda" if best_device() == "cuda" else "cpu"  # torch.autocast has both
TRAINING_SIZE = 40_000
CAPTIONS_PER_PICTURE = 3
SEED = 20_26
HELD_OUT_FIRST = 1_000_000  # scenes from here on are for measuring: other random numbers, never trained on


def training_scenes(n: int = TRAINING_SIZE, first: int = 0) -> list[Scene]:
    """Scenes first … first + n − 1 of the training set."""
    return [_scene(i) for i in range(first, first + n)]


def held_out_scenes(n: int, held_out: bool = False) -> list[Scene]:
    """n scenes that training never drew; with `held_out`, each has a pair that training never saw."""
    rngs = (np.random.default_rng((SEED, HELD_OUT_FIRST, int(held_out), i)) for i in range(n))
    return [sample_scene(rng, held_out) for rng in rngs]


def _scene(index: int) -> Scene:
    rng = np.random.default_rng((SEED, index))
    return sibling(_scene(index - 1), rng) if index % 4 == 3 else sample_scene(rng)


def sibling(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene with one thing about it changed, or with the colours of its two things swapped."""
    while True:
        changed = _changed(scene, rng)
        if changed != scene and not held_out_pairs(changed):
            return changed


def _changed(scene: Scene, rng: np.random.Generator) -> Scene:
    if rng.random() < 0.2:
        return replace(scene, background=str(rng.choice(list(world.BACKGROUNDS))))
    things = list(scene.things)
    if len(things) == 2 and "person" not in (things[0].kind, things[1].kind) and rng.random() < 0.5:
        first, second = things
        things = [replace(first, colour=second.colour), replace(second, colour=first.colour)]
    else:
        i = int(rng.integers(len(things)))
        things[i] = _changed_person(things[i], rng) if isinstance(things[i], Person) else _recoloured(things[i], rng)
    return replace(scene, things=tuple(things))


def _recoloured(thing, rng: np.random.Generator):
    return replace(thing, colour=str(rng.choice(COLOURS)))


def _changed_person(person: Person, rng: np.random.Generator) -> Person:
    if rng.random() < 0.25:
        return replace(person, hair_colour=str(rng.choice(HAIR_COLOURS)))
    toggled = str(rng.choice(list(EXTRAS)))
    extras = tuple(e for e in EXTRAS if (e in person.extras) != (e == toggled))
    return replace(person, extras=extras)


def captions(index: int, scene: Scene) -> list[str]:
    """The scene's whole caption and the same with random parts left out."""
    rng = np.random.default_rng((SEED, index, 1))
    return [world.caption(scene)] + [world.caption(scene, rng) for _ in range(CAPTIONS_PER_PICTURE - 1)]


def fingerprint() -> str:
    """Eight digits that change when the world draws or captions otherwise: the name of the cache folder."""
    scenes = training_scenes(32)
    digest = hashlib.sha256(world.draw_many(scenes, progress=False).tobytes())
    digest.update("".join(c for i, s in enumerate(scenes) for c in captions(i, s)).encode())
    return digest.hexdigest()[:8]


def pictures(cache: Path, n: int = TRAINING_SIZE) -> np.ndarray:
    """(n, 64, 64, 3) uint8 pictures of the training scenes, drawn once and kept in the cache folder."""
    file = cache / f"pictures_{n}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        drawn = world.draw_many(training_scenes(n))
        partial = file.with_suffix(".partial.npy")
        np.save(partial, drawn)
        partial.replace(file)
    return np.load(file, mmap_mode="r")


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, 64, 64, 3) to float32 (n, 3, 64, 64) in [0, 1], on the training device."""
    return torch.from_numpy(np.array(images)).to(DEVICE).permute(0, 3, 1, 2).float() / 255


def autocast() -> torch.autocast:
    """bfloat16 for every convolution and matrix product of pretraining, where the machine computes in it.

    A CPU without such instructions emulates them, and a step takes twenty times as long as in float32.
    """
    return torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda" or _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def generator(step: int) -> torch.Generator:
    """The random numbers of one step, drawn on the CPU so that every device gets the same."""
    return torch.Generator().manual_seed(SEED * 10_000_000 + step)
