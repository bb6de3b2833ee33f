"""The objects and animals: one short function for each kind, and the patterns that decorate them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from tutorial_lib.pocket.canvas import BLACK, RGB, WIDE, Canvas, bow, curve, dark, light, ring
from tutorial_lib.pocket.scene import Thing

STRAW, STRAW_BAND = (246, 222, 140), (96, 60, 36)
GLASS = (196, 226, 246)


def draw_thing(canvas: Canvas, thing: Thing, label: int) -> None:
    """Paint the thing with its shadow, pattern and what it wears."""
    pen = canvas.at(thing.x, thing.y, thing.size, thing.flip, label, body=thing.pattern is not None)
    KINDS[thing.kind](pen, thing, RGB[thing.colour])


def _mug(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.5, 0.07)
    pen.line(bow(0.2, -0.4, 0.2, 0.21, -95, 95), dark(c, 0.12), 0.13, ink=True, body=True)
    sides = np.concatenate([bow(-0.12, -0.06, 0.32, 0.07, 0, 180), [(-0.46, -0.78), (0.22, -0.78)]])
    pen.shape(sides, c, body=True)
    pen.shape([(0.06, -0.74), (0.2, -0.74), (0.19, -0.06), (0.06, -0.02)], dark(c, 0.18), ink=False, part=False)
    pen.shape([(-0.4, -0.7), (-0.3, -0.68), (-0.3, -0.12), (-0.38, -0.14)], light(c), ink=False, part=False)
    decorate_body(pen, thing)
    pen.ellipse(-0.12, -0.78, 0.34, 0.09, light(c, 0.22))
    pen.ellipse(-0.12, -0.77, 0.26, 0.055, dark(c, 0.5), ink=False)


def _teapot(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.42, 0.06)
    pen.line(bow(0.27, -0.36, 0.19, 0.18, -100, 100), dark(c, 0.12), 0.1, ink=True, body=True)
    spout = curve((-0.22, -0.2), (-0.34, -0.36), (-0.48, -0.56), (-0.39, -0.6), (-0.28, -0.48), (-0.16, -0.4))
    pen.shape(spout, c, body=True)
    pen.box(-0.2, -0.06, 0.2, 0.0, dark(c), round=0.03)
    pen.ellipse(0, -0.33, 0.34, 0.3, c, body=True)
    pen.shape(np.concatenate([bow(0, -0.33, 0.3, 0.26, -40, 75), bow(-0.08, -0.33, 0.28, 0.25, 65, -45)]),
              dark(c, 0.18), ink=False, part=False)  # fmt: skip
    pen.ellipse(-0.15, -0.45, 0.09, 0.07, light(c, 0.5), turn=-0.6, ink=False, part=False)
    decorate_body(pen, thing)
    pen.shape(bow(0, -0.57, 0.2, 0.13, 180, 360), light(c, 0.14))
    pen.ellipse(0, -0.73, 0.065, 0.06, dark(c, 0.12))


def _house(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.03, 0.0, 0.5, 0.06)
    pen.box(0.17, -0.9, 0.3, -0.6, dark(c, 0.4))
    pen.box(-0.36, -0.56, 0.36, 0.0, c, body=True)
    pen.box(0.24, -0.5, 0.33, -0.03, dark(c, 0.16), ink=False, part=False)
    decorate_body(pen, thing)
    pen.shape([(-0.48, -0.53), (0, -0.97), (0.48, -0.53)], dark(c, 0.14), body=True)
    pen.shape([(-0.36, -0.57), (0, -0.9), (0.02, -0.9), (-0.2, -0.57)], c, ink=False, part=False)
    pen.box(-0.08, -0.3, 0.1, 0.0, dark(c, 0.6))
    for x in (-0.21, 0.23):
        pen.box(x - 0.08, -0.43, x + 0.08, -0.27, (255, 240, 170))


def _car(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.5, 0.06)
    cabin = curve((-0.34, -0.36), (-0.22, -0.6), (0.0, -0.65), (0.18, -0.6), (0.35, -0.36), (0, -0.3))
    pen.shape(cabin, c, body=True)
    hull = curve((-0.49, -0.12), (-0.49, -0.3), (-0.35, -0.39), (0, -0.4), (0.35, -0.39), (0.49, -0.3),
                 (0.49, -0.12), (0.4, -0.07), (0, -0.06), (-0.4, -0.07))  # fmt: skip
    pen.shape(hull, c, body=True)
    pen.shape([(-0.45, -0.17), (0.45, -0.17), (0.44, -0.09), (-0.44, -0.09)], dark(c, 0.2), ink=False, part=False)
    decorate_body(pen, thing)
    pen.shape([(-0.23, -0.41), (-0.15, -0.54), (-0.04, -0.57), (-0.04, -0.41)], GLASS)
    pen.shape([(0.05, -0.41), (0.05, -0.57), (0.14, -0.54), (0.23, -0.41)], GLASS)
    pen.ellipse(-0.44, -0.27, 0.04, 0.045, (255, 246, 190), ink=False)
    for x in (-0.27, 0.27):
        pen.ellipse(x, -0.09, 0.105, 0.105, (40, 40, 46))
        pen.ellipse(x, -0.09, 0.045, 0.045, (206, 208, 214), ink=False)


def _fish(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.36, 0.045)
    tail = curve((0.22, -0.36), (0.46, -0.6), (0.5, -0.5), (0.43, -0.36), (0.5, -0.2), (0.46, -0.12))
    pen.shape(tail, dark(c, 0.12), body=True)
    pen.shape(curve((-0.16, -0.58), (0.04, -0.72), (0.22, -0.66), (0.18, -0.5), (0.0, -0.5)), dark(c, 0.12), body=True)
    pen.shape(curve((-0.02, -0.16), (0.08, -0.03), (0.17, -0.05), (0.16, -0.2)), dark(c, 0.12))
    pen.shape(curve((-0.5, -0.35), (-0.38, -0.54), (-0.1, -0.64), (0.18, -0.52), (0.32, -0.36), (0.18, -0.2),
                    (-0.1, -0.1), (-0.38, -0.18)), c, body=True)  # fmt: skip
    belly = np.concatenate([bow(-0.1, -0.3, 0.32, 0.15, 160, 20), bow(-0.1, -0.36, 0.34, 0.13, 20, 160)])
    pen.shape(belly, light(c, 0.35), ink=False, part=False)
    decorate_body(pen, thing)
    pen.shape(curve((0.04, -0.34), (0.18, -0.42), (0.2, -0.3), (0.14, -0.24)), dark(c, 0.2))
    pen.line(bow(-0.36, -0.3, 0.1, 0.06, 150, 40, 8), dark(c, 0.65), 0.03)
    _eyes(pen, -0.33, -0.08, -0.42, 0.075)
    if "glasses" in thing.worn:
        glasses(pen, -0.33, -0.08, -0.42, 0.115)
    if "hat" in thing.worn:
        hat(pen, -0.17, -0.58, 0.52, STRAW, STRAW_BAND)


def _cat(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.03, 0.0, 0.42, 0.06)
    pen.line(np.concatenate([[(0.1, -0.07)], bow(0.22, -0.22, 0.15, 0.15, 90, -90)]), c, 0.13, ink=True, body=True)
    pen.shape(
        curve((-0.18, -0.5), (0.18, -0.5), (0.27, -0.2), (0.22, -0.01), (-0.22, -0.01), (-0.27, -0.2)), c, body=True
    )
    pen.ellipse(0, -0.2, 0.14, 0.15, light(c, 0.4), ink=False, part=False)
    for side in (-1, 1):
        pen.shape([(side * 0.35, -0.97), (side * 0.06, -0.84), (side * 0.33, -0.66)], c, body=True)
        pen.shape(
            [(side * 0.3, -0.89), (side * 0.15, -0.82), (side * 0.3, -0.74)], light(c, 0.5), ink=False, part=False
        )
    pen.ellipse(0, -0.62, 0.36, 0.27, c, body=True)
    decorate_body(pen, thing)
    for x in (-0.1, 0.1):
        pen.ellipse(x, -0.05, 0.095, 0.055, light(c, 0.12))
    if thing.variant == "collar":
        _collar(pen)
    pen.ellipse(0, -0.5, 0.15, 0.1, light(c, 0.55), ink=False, part=False)
    pen.shape([(-0.05, -0.57), (0.05, -0.57), (0, -0.515)], (214, 84, 110), ink=False)
    pen.line(
        [(-0.1, -0.49), (-0.05, -0.455), (0, -0.49), (0.05, -0.455), (0.1, -0.49)], dark(c, 0.75), 0.025, part=False
    )
    _eyes(pen, -0.16, 0.16, -0.65, 0.082, (232, 246, 176))
    if "glasses" in thing.worn:
        glasses(pen, -0.16, 0.16, -0.65, 0.135)
    if "hat" in thing.worn:
        hat(pen, 0, -0.83, 0.74, STRAW, STRAW_BAND)


def _collar(pen: Canvas) -> None:
    pen.line(bow(0, -0.44, 0.21, 0.11, 170, 10), (206, 30, 46), 0.085, ink=True)
    pen.ellipse(0, -0.28, 0.065, 0.065, (255, 208, 64))


def _flower(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.22, 0.04)
    stem = (46, 128, 62)
    pen.line([(0, -0.02), (0, -0.4)], stem, 0.075, ink=True)
    for side in (-1, 1):
        pen.ellipse(side * 0.16, -0.13, 0.16, 0.065, stem, turn=-side * 0.5)
    for k in range(6):
        angle = np.pi / 6 + k * np.pi / 3
        x, y = 0.225 * np.cos(angle), -0.6 + 0.225 * np.sin(angle)
        pen.ellipse(x, y, 0.18, 0.15, dark(c, 0.1) if k in (0, 1) else c, turn=angle, body=True)
        pen.ellipse(x * 1.12, y * 1.0, 0.09, 0.06, light(c, 0.28), turn=angle, ink=False, part=False)
    decorate_body(pen, thing)
    centre = (124, 70, 34) if thing.colour in ("yellow", "orange", "white", "pink") else (255, 206, 62)
    pen.ellipse(0, -0.6, 0.125, 0.125, centre)


def _ball(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.03, 0.0, 0.42, 0.07)
    pen.ellipse(0, -0.45, 0.44, 0.44, c, body=True)
    gore = np.concatenate([bow(0.0, -0.45, 0.14, 0.42, 90, -90), bow(0.0, -0.45, 0.4, 0.42, -90, 90)])
    pen.shape(gore, dark(c, 0.2), ink=False)
    gore = np.concatenate([bow(0.0, -0.45, 0.14, 0.42, 90, 270), bow(0.0, -0.45, 0.4, 0.42, 270, 90)])
    pen.shape(gore, light(c, 0.22), ink=False)
    decorate_body(pen, thing)
    for rx in (0.14, -0.14):
        pen.line(bow(0, -0.45, rx, 0.42, -90, 90), dark(c, 0.6), 0.03, part=False)
    pen.ellipse(0, -0.85, 0.09, 0.045, light(c, 0.6))
    pen.ellipse(-0.24, -0.64, 0.08, 0.055, light(c, 0.8), turn=-0.8, ink=False, part=False)


def _tree(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.32, 0.05)
    pen.box(-0.07, -0.24, 0.07, 0.0, (112, 70, 40))
    for foot, top, half in ((-0.16, -0.56, 0.42), (-0.4, -0.78, 0.34), (-0.64, -1.0, 0.25)):
        tier = [(-half, foot), (0, top), (half, foot), (half * 0.5, foot + 0.05), (-half * 0.5, foot + 0.05)]
        pen.shape(tier, c, body=True)
        right = [
            (half * 0.1, top + 0.1),
            (half * 0.84, foot - 0.02),
            (half * 0.5, foot + 0.02),
            (half * 0.15, foot + 0.02),
        ]
        pen.shape(right, dark(c, 0.2), ink=False, part=False)
        left = [(-half * 0.12, top + 0.12), (-half * 0.7, foot - 0.03), (-half * 0.4, foot - 0.03)]
        pen.shape(left, light(c, 0.2), ink=False, part=False)
    decorate_body(pen, thing)


def _gate(pen: Canvas, thing: Thing, c) -> None:
    pen.shadow(0.0, 0.0, 0.44, 0.05)
    if thing.variant == "moon":
        _moon_gate(pen, thing, c)
        return
    pen.box(-0.38, -0.62, 0.38, -0.49, dark(c, 0.14), body=True)
    for x in (-0.27, 0.27):
        pen.shape([(x - 0.07, -0.8), (x + 0.07, -0.8), (x + 0.09, 0), (x - 0.09, 0)], c, body=True)
        pen.shape([(x + 0.02, -0.46), (x + 0.05, -0.46), (x + 0.07, -0.02), (x + 0.02, -0.02)], dark(c, 0.25),
                  ink=False, part=False)  # fmt: skip
    beam = [(-0.5, -0.97), (-0.25, -0.91), (0.25, -0.91), (0.5, -0.97), (0.46, -0.78), (0.25, -0.75), (-0.25, -0.75),
            (-0.46, -0.78)]  # fmt: skip
    pen.shape(beam, c, body=True)
    pen.line([(-0.44, -0.92), (-0.25, -0.87), (0.25, -0.87), (0.44, -0.92)], light(c, 0.35), 0.03, part=False)
    decorate_body(pen, thing)


def _moon_gate(pen: Canvas, thing: Thing, c) -> None:
    """A ring that stands on a plinth: two half rings, so that the scene shows through the opening."""
    for side, shade in ((1, dark(c, 0.16)), (-1, c)):
        half = np.concatenate([bow(0, -0.5, side * 0.46, 0.46, -90, 90), bow(0, -0.5, side * 0.29, 0.29, 90, -90)])
        pen.shape(half, shade, body=True)
    decorate_body(pen, thing)
    pen.box(-0.44, -0.11, -0.16, 0.0, dark(c, 0.3), body=True)
    pen.box(0.16, -0.11, 0.44, 0.0, dark(c, 0.3), body=True)
    pen.box(-0.12, -1.0, 0.12, -0.9, dark(c, 0.3), body=True)


def _moon(pen: Canvas, thing: Thing, c) -> None:
    for r in (0.56, 0.52):
        pen.ellipse(0, -0.5, r, r, (*light(c, 0.6), 60), ink=False, part=False)
    pen.ellipse(0, -0.5, 0.48, 0.48, light(c, 0.08), body=True)
    crescent = np.concatenate([bow(0, -0.5, 0.45, 0.45, -50, 110), bow(-0.12, -0.56, 0.44, 0.46, 95, -35)])
    pen.shape(crescent, dark(c, 0.14), ink=False, part=False)
    decorate_body(pen, thing)
    for x, y, r in ((-0.17, -0.66, 0.12), (0.17, -0.48, 0.14), (-0.14, -0.3, 0.1), (0.14, -0.8, 0.07)):
        pen.ellipse(x, y, r, r, dark(c, 0.3) if max(c) > 75 else light(c, 0.25), ink=False)
        pen.ellipse(x + 0.02, y + 0.02, r * 0.7, r * 0.7, dark(c, 0.18) if max(c) > 75 else light(c, 0.14),
                    ink=False, part=False)  # fmt: skip


KINDS = {
    "mug": _mug,
    "teapot": _teapot,
    "house": _house,
    "car": _car,
    "fish": _fish,
    "cat": _cat,
    "flower": _flower,
    "ball": _ball,
    "tree": _tree,
    "gate": _gate,
    "moon": _moon,
}


# ------------------------------------------------------------------ things worn


def _eyes(pen: Canvas, left: float, right: float, y: float, r: float, white=(255, 255, 250)) -> None:
    for x in (left, right):
        pen.ellipse(x, y, r, r * 1.1, white)
        pen.ellipse(x, y + r * 0.1, r * 0.55, r * 0.7, BLACK, ink=False, part=False)


def glasses(pen: Canvas, left: float, right: float, y: float, r: float, rim: float = 0.042) -> None:
    """Round dark rims, `rim` wide, around two eyes, with a bridge."""
    for x in (left, right):
        pen.ellipse(x, y, r, r, (235, 245, 255, 26), ink=False)
        loop = ring(x, y, r, r)
        pen.line(np.concatenate([loop, loop[:2]]), BLACK, rim, part=False)
    pen.line([(left + r, y - 0.01), (right - r, y - 0.01)], BLACK, rim)


def hat(pen: Canvas, x: float, y: float, width: float, colour, band) -> None:
    """A hat with a brim; (x, y) is the middle of the brim."""
    half = width / 2
    pen.shape(bow(x, y + 0.01, half * 0.62, half * 0.68, 180, 360), colour)
    lit = np.concatenate([bow(x, y, half * 0.5, half * 0.56, 190, 260), bow(x, y, half * 0.3, half * 0.5, 250, 190)])
    pen.shape(lit, light(colour, 0.3), ink=False, part=False)
    pen.box(x - half * 0.61, y - half * 0.25, x + half * 0.61, y, band, ink=False)
    pen.ellipse(x, y, half, half * 0.14, colour)


# ------------------------------------------------------------------ patterns


def decorate_body(pen: Canvas, thing) -> None:
    """Paint the thing's pattern in its second colour over what was painted as body so far."""
    if pen.body is None:
        return
    stencil = Image.new("L", (WIDE, WIDE))
    PATTERNS[thing.pattern](ImageDraw.Draw(stencil), pen.body.getbbox(), thing.size * WIDE)
    pen.stencil(stencil, RGB[thing.second_colour])


def _grid(box, step):
    x0, y0, x1, y1 = box
    return np.arange(x0 + step / 2, x1 + step, step), np.arange(y0 + step / 2, y1 + step, step)


def _dots(brush, box, size) -> None:
    step, r = 0.2 * size, 0.062 * size
    xs, ys = _grid(box, step)
    for row, y in enumerate(ys):
        for x in xs - (row % 2) * step / 2:
            brush.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _stripes(brush, box, size) -> None:
    step = 0.2 * size
    for x in np.arange(box[0] + step * 0.4, box[2], step):
        brush.rectangle((x, box[1], x + step * 0.45, box[3]), fill=255)


def _checks(brush, box, size) -> None:
    step = 0.14 * size
    for row, y in enumerate(np.arange(box[1], box[3], step)):
        for x in np.arange(box[0] + (row % 2) * step, box[2], 2 * step):
            brush.rectangle((x, y, x + step - 1, y + step - 1), fill=255)


def _badge(brush, box, points) -> None:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    scale = 0.33 * min(box[2] - box[0], box[3] - box[1])
    brush.polygon((np.asarray(points) * scale + (x, y)).ravel().tolist(), fill=255)


def _heart(brush, box, size) -> None:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    _badge(brush, box, np.stack([16 * np.sin(t) ** 3, -y - 2], axis=1) / 15)


def _star(brush, box, size) -> None:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.15, 0.5)
    _badge(brush, box, np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1))


def _two_tone(brush, box, size) -> None:
    brush.rectangle((box[0], (box[1] + box[3]) / 2, box[2], box[3]), fill=255)


def _band(brush, box, size) -> None:
    middle, half = (box[1] + box[3]) / 2, (box[3] - box[1]) * 0.13
    brush.rectangle((box[0], middle - half, box[2], middle + half), fill=255)


PATTERNS = {
    "dots": _dots,
    "stripes": _stripes,
    "checks": _checks,
    "heart": _heart,
    "star": _star,
    "two-tone": _two_tone,
    "band": _band,
}
