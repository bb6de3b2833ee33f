"""Pairs of a picture and its hint, encoded once and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tutorial_lib import training
from tutorial_lib.control.prediction import picture_side
from tutorial_lib.pocket import conditions, world
from tutorial_lib.pocket.scene import Scene
from tutorial_lib.training import Encoded


@dataclass(frozen=True, eq=False)
class Pairs:
    """Captioned pictures as `training.encode` gives them, and a hint for each: uint8 (n, 3, h, w)."""

    pictures: Encoded
    hints: torch.Tensor

    def __len__(self) -> int:
        return len(self.hints)

    def first(self, n: int) -> Pairs:
        """The first n pairs: smaller training sets are parts of larger ones."""
        if not 1 <= n <= len(self):
            raise ValueError(f"there are {len(self)} pairs: expected a number from 1 to {len(self)}, got {n}")
        own = self.pictures
        part = Encoded(own.mean[:n], own.std[:n], own.captions[:n], training.fingerprint(own.fingerprint, n))
        return Pairs(part, self.hints[:n])


def encode_pairs(pipe, pictures: Sequence, controls: Sequence, captions: Sequence[str]) -> Pairs:
    """Pairs for `ControlTask`: pictures of the pipeline's size, a control picture and a caption for each.

    Raises ValueError where the numbers or the sizes do not fit; see `training.encode` and `conditions.hints`.
    """
    if len(pictures) != len(controls):
        raise ValueError(f"expected one control picture for each of {len(pictures)} pictures, got {len(controls)}")
    side = picture_side(pipe)
    if wrong := sorted({(p.width, p.height) for p in pictures} - {(side, side)}):
        raise ValueError(f"pictures must be {side}x{side}, got {wrong[0][0]}x{wrong[0][1]}: crop and resize them first")
    hints = (conditions.hints(controls, side) * 255).round().byte()
    return Pairs(training.encode(pipe, pictures, captions), hints)


def scene_pairs(pipe, kind: str, scenes: Sequence[Scene], cache: Path | str | None = None) -> Pairs:
    """Pairs of scenes with one kind of control, in `conditions.KINDS`; kept in the folder `cache`, if there is one."""
    if cache is None:
        pictures = [world.draw(scene) for scene in scenes]
        controls = [_control(kind, scene, picture) for scene, picture in zip(scenes, pictures)]
        return encode_pairs(pipe, pictures, controls, [world.caption(scene) for scene in scenes])
    file = Path(cache) / f"{kind}_{_fingerprint(pipe, scenes)}.safetensors"
    if not file.exists():
        _write(scene_pairs(pipe, kind, scenes), file)
    return _read(file)


def _control(kind: str, scene: Scene, picture):
    """The scene's control picture; for edges without drawing the scene once more."""
    return conditions.of_picture(kind, picture) if kind == "edges" else conditions.of_scene(kind, scene)


def _fingerprint(pipe, scenes: Sequence[Scene]) -> str:
    """Changes with the scenes, with how they are drawn and captioned, and with the VAE's encoder."""
    some = [(np.asarray(world.draw(scene)), world.caption(scene)) for scene in scenes[:16]]
    drawn = [value for pair in some for value in pair]
    vae = pipe.vae
    return training.fingerprint(list(scenes), *drawn, *vae.encoder.parameters(), *vae.quant_conv.parameters())


def _write(made: Pairs, file: Path) -> None:
    own = made.pictures
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    words = {"captions": json.dumps(own.captions), "fingerprint": own.fingerprint}
    tensors = {"mean": own.mean, "std": own.std, "hints": made.hints}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, words)
    partial.replace(file)


def _read(file: Path) -> Pairs:
    with safe_open(file, "pt") as stored:
        words = stored.metadata()
        mean, std, hints = (stored.get_tensor(name) for name in ("mean", "std", "hints"))
    return Pairs(Encoded(mean, std, tuple(json.loads(words["captions"])), words["fingerprint"]), hints)
