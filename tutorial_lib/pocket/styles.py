"""The four styles: how outlines are drawn, and what happens to the picture afterwards."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from tutorial_lib.pocket.canvas import SIDE, ZOOM

# How dark the outlines are (0 to 1) and how wide (in finished pixels).
OUTLINES = {"photo": (0.78, 1.0), "watercolor": (0.5, 1.0), "pencil sketch": (1.0, 1.0), "pixel art": (0.78, 1.75)}

_X, _Y = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE))
_LIGHT = (1.03 - 0.09 * (_X + _Y) / 2 * 1.4)[..., None].astype(np.float32)  # from the top left
_BORDER = np.maximum(np.abs(_X), np.abs(_Y)).astype(np.float32)
PAPER = np.array([252, 250, 244], np.float32)


def finish(large: Image.Image, style: str, seed: int) -> Image.Image:
    """The 256x256 painting as a 64x64 picture in the style."""
    return FINISHES[style](large, np.random.default_rng([seed, 1]))


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))


def _blurred(image: Image.Image, radius: float) -> np.ndarray:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Low-frequency noise in about -1 to 1: (64, 64)."""
    noise = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _photo(large: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _image(np.asarray(large.reduce(ZOOM), np.float32) * _LIGHT)


def _watercolor(large: Image.Image, rng: np.random.Generator) -> Image.Image:
    small = large.reduce(ZOOM)
    soft, wide = _blurred(small, 0.6), _blurred(small, 2.2)
    washed = PAPER + (soft - PAPER) * 0.74 - np.abs(soft - wide) * 0.3
    washed += (PAPER - washed) * (0.18 * _smooth_noise(rng, 5) + 0.06)[..., None]
    edge = _BORDER + 0.05 * _smooth_noise(rng, 7)
    paper = np.clip((edge - 0.9) / 0.06, 0, 1)[..., None]
    return _image(washed + (PAPER - washed) * paper)


def _pencil(large: Image.Image, rng: np.random.Generator) -> Image.Image:
    grey = large.convert("L").reduce(ZOOM)  # the canvas has laid the tones and the outlines already
    tone = np.asarray(grey, np.float32)
    drawn = tone - 1.3 * np.clip(_blurred(grey, 1.6) - tone - 2, 0, 50)
    return _image(np.repeat(drawn[..., None], 3, axis=2))


def _pixel_art(large: Image.Image, rng: np.random.Generator) -> Image.Image:
    blocks = large.reduce(2 * ZOOM).point(_STEPS)
    return blocks.resize((SIDE, SIDE), Image.Resampling.NEAREST)


_STEPS = [int(min(round(v / 25.5) * 25.5, 255)) for v in range(256)] * 3  # eleven levels of red, green and blue
FINISHES = {"photo": _photo, "watercolor": _watercolor, "pencil sketch": _pencil, "pixel art": _pixel_art}
