"""Pictures in other sizes, section 3.1: the caption says so, and a mask says which part of the picture is real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutorial_lib.training import Encoded, encode

SMALL = ("a far away", "very small")
LARGE = ("zoomed in", "close up")
GREY = (128, 128, 128)  # about 0 for the model, which sees pictures in [-1, 1]


@dataclass(frozen=True)
class Augmented:
    """A picture; a mask (1, h/f, w/f) that is 1 where a latent sees the picture alone; "very small" or the like."""

    picture: Image.Image
    mask: Tensor
    words: str


def augmented(
    pipe, pictures: Sequence[Image.Image], captions: Sequence[str], versions: int = 16, seed: int = 0
) -> tuple[Encoded, Tensor]:
    """`versions` random versions of each picture, encoded once, and their masks (n * versions, 1, h/f, w/f)."""
    if versions < 1:
        raise ValueError(f"versions: expected a number, 1 or more, got {versions!r}")
    made, texts = [], []
    for k, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        for version in range(versions):
            made.append(augment(picture, np.random.default_rng((seed, k, version)), pipe.vae_scale_factor))
            texts.append(caption)
    data = encode(pipe, [m.picture for m in made], texts)
    data = replace(data, captions=tuple(prefixed(m.words, caption) for m, caption in zip(made, texts)))
    return data, torch.stack([m.mask for m in made])


def augment(picture: Image.Image, rng: np.random.Generator, factor: int) -> Augmented:
    """One random version of a square picture; factor: picture side over latent side, 8 for SD.

    Mirrored in half of the cases. In two of three it is scaled to between a third and all of its size: below 0.6 it
    stands somewhere on a grey canvas, above that it stays as it is. In one of three it is scaled by 1.2 to 1.4 and
    cut to size.
    """
    size = picture.width
    if picture.size != (size, size) or size % factor or size < 4 * factor:
        raise ValueError(f"expected a square picture, a multiple of {factor} pixels wide, got {picture.size}")
    picture = picture.convert("RGB")
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = _side(size, factor, rng)
    if side < 0.6 * size:
        return _shrunk(picture, side, factor, rng)
    whole = torch.ones(1, size // factor, size // factor)
    return _enlarged(picture, side, whole, rng) if side > size else Augmented(picture, whole, "")


def prefixed(words: str, caption: str) -> str:
    """ "very small" before "a photo of a cat" is "very small photo of a cat"."""
    return f"{words} {caption.removeprefix('a ')}" if words else caption


def _side(size: int, factor: int, rng: np.random.Generator) -> int:
    if rng.random() < 2 / 3:
        return int(rng.integers(max(size // 3, 4 * factor), size + 1))  # so large that whole latent cells lie inside
    return int(rng.integers(round(1.2 * size), round(1.4 * size) + 1))


def _shrunk(picture: Image.Image, side: int, factor: int, rng: np.random.Generator) -> Augmented:
    size = picture.width
    left, top = (int(rng.integers(size - side + 1)) for _ in range(2))
    canvas = Image.new("RGB", picture.size, GREY)
    canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
    # One latent cell less on each side: the cells of the edge see the canvas too.
    x0, x1 = left // factor + 1, (left + side) // factor - 1
    y0, y1 = top // factor + 1, (top + side) // factor - 1
    mask = torch.zeros(1, size // factor, size // factor)
    mask[:, y0:y1, x0:x1] = 1
    return Augmented(canvas, mask, SMALL[int(rng.integers(2))])


def _enlarged(picture: Image.Image, side: int, mask: Tensor, rng: np.random.Generator) -> Augmented:
    size = picture.width
    left, top = (int(rng.integers(side - size + 1)) for _ in range(2))
    large = picture.resize((side, side), Image.Resampling.BICUBIC)
    cut = large.crop((left, top, left + size, top + size))
    return Augmented(cut, mask, LARGE[int(rng.integers(2))])
