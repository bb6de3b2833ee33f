"""A canvas that paints a picture and, on request, its ground truth with the very same calls.

Points are in units of the frame: `Canvas.at` places a frame in the picture (whose side is 1), origin at
the middle of a thing's foot, x to the right and y downwards, so that a thing's top is near y = -1.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
from PIL import Image, ImageChops, ImageDraw

SIDE = 64  # pixels of a finished picture
ZOOM = 4  # it is painted this much larger and then reduced
WIDE = SIDE * ZOOM
SKY, GROUND, BACKDROP, FIRST_THING = 0, 1, 2, 3  # what the label image holds

RGB = {
    "red": (218, 44, 44),
    "orange": (246, 138, 32),
    "yellow": (250, 216, 52),
    "green": (52, 168, 76),
    "blue": (44, 98, 222),
    "purple": (138, 66, 194),
    "pink": (248, 138, 190),
    "brown": (134, 82, 44),
    "black": (44, 44, 50),
    "white": (246, 246, 242),
}
INK = (22, 18, 30)
NIGHT_RIM = (142, 150, 178)
GRAPHITE = (52, 52, 56)
BLACK = (20, 18, 26)  # pupils and rims, which a pencil draws as dark as its lines

_TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)  # (40, 2)


def mix(a, b, share: float) -> tuple[int, int, int]:
    """`share` of colour b in colour a."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def light(colour, share: float = 0.3) -> tuple[int, int, int]:
    """A lighter shade."""
    return mix(colour, (255, 255, 250), share)


def dark(colour, share: float = 0.24) -> tuple[int, int, int]:
    """A darker shade, slightly towards blue as shadows are."""
    return mix(colour, (12, 8, 32), share)


def pencil_tone(colour) -> tuple[int, ...]:
    """The pale grey that a pencil would give the colour; an alpha is kept."""
    if colour == BLACK:
        return GRAPHITE
    grey = np.dot(colour[:3], (0.3, 0.59, 0.11)) / 255
    tone = round(252 - 92 * (1 - grey**0.6))
    return (tone, tone, tone, *colour[3:])


def ring(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """The outline of an ellipse turned by `turn` radians: (40, 2) points."""
    points = _CIRCLE * (rx, ry)
    if turn:
        c, s = np.cos(turn), np.sin(turn)
        points = points @ np.array([[c, s], [-s, c]])
    return points + (x, y)


def bow(x: float, y: float, rx: float, ry: float, start: float, stop: float, count: int = 18) -> np.ndarray:
    """Points of an ellipse's outline between two angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, count))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def curve(*corners, count: int = 8) -> np.ndarray:
    """A smooth closed line through the corners (Catmull-Rom): (count * corners, 2) points."""
    p = np.asarray(corners, float)
    a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, count, endpoint=False)[None, :, None]
    a, b, c, d = (q[:, None] for q in (a, b, c, d))
    points = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return points.reshape(-1, 2)


class Canvas:
    """Paints shapes. With `truth`, also labels (what a pixel shows) and parts (which shape painted it)."""

    def __init__(self, ink: float, width: float, night: bool = False, sketch: bool = False, truth: bool = False):
        """`ink`: how dark outlines are, 0 to 1; `width`: theirs, in pixels of the finished picture.

        `night` gives black things light outlines; `sketch` fills shapes with grey tones between pencil lines.
        """
        self.sketch = sketch
        self.image = Image.new("RGB", (WIDE, WIDE))
        self.ink, self.width, self.night = ink, round(width * ZOOM), night
        self.labels = Image.new("L", (WIDE, WIDE)) if truth else None
        self.parts = Image.new("I", (WIDE, WIDE)) if truth else None
        self.body = None  # the mask of a thing's body, kept only where a pattern will need it
        self.label = SKY
        self.frame = (0.0, 0.0, 1.0, False)
        self._next_part = itertools.count(1)
        self._brush = ImageDraw.Draw(self.image, "RGBA")
        self._label_brush = ImageDraw.Draw(self.labels) if truth else None
        self._part_brush = ImageDraw.Draw(self.parts) if truth else None

    def at(self, x: float, y: float, size: float, flip: bool, label: int, body: bool = False) -> Canvas:
        """The same canvas seen from another frame; `body` asks for a mask of what is painted as body."""
        other = copy.copy(self)
        other.frame, other.label = (x, y, size, flip), label
        other.body = Image.new("L", (WIDE, WIDE)) if body else None
        return other

    def _pixels(self, points) -> list[float]:
        x, y, size, flip = self.frame
        scale = np.array([-size if flip else size, size]) * WIDE
        return (np.asarray(points, float) * scale + np.array([x, y]) * WIDE).ravel().tolist()

    def outline_of(self, colour) -> tuple[int, int, int]:
        """The colour of a shape's outline: a dark shade of its own; light for black things at night."""
        if self.sketch:
            return GRAPHITE
        if self.night and max(colour[:3]) < 75:
            return NIGHT_RIM
        return mix(colour[:3], INK, self.ink)

    def _fill(self, colour):
        return pencil_tone(colour) if self.sketch else colour

    def shape(self, points, colour, ink: bool = True, part: bool = True, body: bool = False) -> None:
        """A filled closed shape. Without `part` it is shading: it belongs to the part below it."""
        xy = self._pixels(points)
        edge = (xy + xy[:4]) if ink else None
        joint = "curve" if len(xy) < 24 else None
        self._paint(self._brush, xy, edge, self._fill(colour), self.outline_of(colour) if ink else None, joint)
        if self.labels is not None and part:
            self._truth(lambda brush, value: self._paint(brush, xy, edge, value, value, joint))
        if body and self.body is not None:
            ImageDraw.Draw(self.body).polygon(xy, fill=255)

    def _paint(self, brush, xy, edge, fill, edge_fill, joint) -> None:
        brush.polygon(xy, fill=fill)
        if edge is not None:
            brush.line(edge, fill=edge_fill, width=self.width, joint=joint)

    def _truth(self, paint) -> None:
        paint(self._label_brush, self.label)
        paint(self._part_brush, next(self._next_part))

    def ellipse(self, x, y, rx, ry, colour, turn: float = 0.0, **how) -> None:
        self.shape(ring(x, y, rx, ry, turn), colour, **how)

    def box(self, x0, y0, x1, y1, colour, round: float = 0.0, **how) -> None:
        """A rectangle, its corners rounded with the radius `round`."""
        if not round:
            self.shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, **how)
            return
        corners = [(x1, y0, -90), (x1, y1, 0), (x0, y1, 90), (x0, y0, 180)]
        signs = [(-1, 1), (-1, -1), (1, -1), (1, 1)]
        arcs = [
            bow(x + sx * round, y + sy * round, round, round, a, a + 90, 7)
            for (x, y, a), (sx, sy) in zip(corners, signs, strict=True)
        ]
        self.shape(np.concatenate(arcs), colour, **how)

    def line(self, points, colour, width: float, ink: bool = False, part: bool = True, body: bool = False) -> None:
        """A line with round ends; `width` in units of the frame, never under a finished pixel."""
        xy = self._pixels(points)
        wide = max(round(width * self.frame[2] * WIDE), ZOOM)
        core = max(wide - self.width, ZOOM) if ink else wide
        if ink:
            self._stroke(self._brush, xy, self.outline_of(colour), wide + self.width)
        elif self.sketch and max(colour) < 190:
            colour = BLACK
        self._stroke(self._brush, xy, self._fill(colour), core)
        if self.labels is not None and part:
            self._truth(lambda brush, value: self._stroke(brush, xy, value, wide + (self.width if ink else 0)))
        if body and self.body is not None:
            self._stroke(ImageDraw.Draw(self.body), xy, 255, core)

    def _stroke(self, brush, xy, fill, wide) -> None:
        brush.line(xy, fill=fill, width=wide, joint="curve")
        for x, y in (xy[:2], xy[-2:]):
            r = (wide - 1) / 2
            brush.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def gradient(self, y0: float, y1: float, top, bottom, label: int | None) -> None:
        """A band over the whole width whose colour runs from `top` to `bottom`; without a label it is shading."""
        first, last = round(y0 * WIDE), round(y1 * WIDE)
        share = np.linspace(0, 1, max(last - first, 1))[:, None]
        top, bottom = np.array(self._fill(top)), np.array(self._fill(bottom))
        column = (top * (1 - share) + bottom * share).round().astype(np.uint8)
        self.image.paste(Image.fromarray(column[:, None]).resize((WIDE, len(column))), (0, first))
        if self.labels is not None and label is not None:
            self.label = label
            self._truth(lambda brush, value: brush.rectangle((0, first, WIDE, last), fill=value))

    def shadow(self, x: float, y: float, rx: float, ry: float) -> None:
        """A soft dark ellipse on the ground; no part of any thing."""
        for share in (1.0, 0.82, 0.62):
            self.shape(ring(x, y, rx * share, ry * share), (10, 10, 30, 46), ink=False, part=False)

    def stencil(self, pattern: Image.Image, colour) -> None:
        """Paint the colour where both the pattern and the body's mask are set."""
        where = ImageChops.multiply(pattern, self.body)
        self.image.paste(self._fill(colour), mask=where)
        if self.parts is not None:
            self.parts.paste(next(self._next_part), mask=where)


def finished(image: Image.Image) -> np.ndarray:
    """A label or part image at the picture's size, by the middle of each pixel: (64, 64)."""
    return np.asarray(image)[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM].copy()
