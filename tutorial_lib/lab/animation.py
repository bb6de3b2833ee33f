"""Animated pictures that every notebook viewer can show: an animated PNG is a PNG.

Browsers play it. What knows plain PNG only (and paper) shows the first frame, so each frame carries a strip of the
whole sequence below the picture, with a mark at where it stands.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from tutorial_lib.lab.plots import COLOURS, GAP, MARGIN, Shown, enlarged, fewer_colours

STRIP = 64  # width of a picture of the strip, in pixels
COLOUR_COUNT = 128  # one palette for all frames: a quarter of the file size, and no eye sees it


def animate(pictures: Sequence, *, alt: str, size: int = 256, keys: int = 8, milliseconds: int = 150) -> Shown:
    """The pictures, all of one size, one after the other and again from the start, each drawn about `size` pixels wide.

    `keys`: how many of them, evenly spaced, the strip below shows.
    """
    if len(pictures) < 2:
        raise ValueError(f"animate: expected two pictures or more, got {len(pictures)}")
    keys = min(keys, len(pictures))
    marks = [round(k * len(pictures) / keys) for k in range(keys)]
    strip = _strip([enlarged(pictures[i], STRIP) for i in marks])
    frames = [_frame(enlarged(picture, size), strip, i * keys / len(pictures)) for i, picture in enumerate(pictures)]
    return Shown(_animated_png(frames, milliseconds), alt)


def _strip(tiles: list):
    from PIL import Image

    width, height = tiles[0].size
    strip = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height), "white")
    for i, tile in enumerate(tiles):
        strip.paste(tile, (i * (width + GAP), 0))
    return strip


def _frame(picture, strip, place: float):
    """One frame: the picture above the strip, and between them a mark over the strip's picture number `place`.

    Under the strip, the mark would make the file twice as large: a frame stores the box around all that changed.
    """
    from PIL import Image, ImageDraw

    width = max(picture.width, strip.width) + 2 * MARGIN
    top = MARGIN + picture.height + 3 * GAP
    frame = Image.new("RGB", (width, top + strip.height + MARGIN), "white")
    frame.paste(picture, ((width - picture.width) // 2, MARGIN))
    left = (width - strip.width) // 2
    frame.paste(strip, (left, top))
    x, y = left + place * (STRIP + GAP), top - 2 * GAP
    ImageDraw.Draw(frame).rectangle((x, y, min(x + STRIP, left + strip.width) - 1, y + GAP), fill=COLOURS[1])
    return frame


def _animated_png(frames: list, milliseconds: int) -> bytes:
    """The bytes of an animated PNG that starts again for ever."""
    from PIL import Image

    all_in_one = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    palette = fewer_colours(all_in_one, COLOUR_COUNT)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return buffer.getvalue()
