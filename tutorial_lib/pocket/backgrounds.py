"""The places: calm, smooth and recognisable, since a small autoencoder has to keep them."""

from __future__ import annotations

import numpy as np

from tutorial_lib.pocket.canvas import BACKDROP, GROUND, SKY, Canvas, dark, light, mix


def draw_background(canvas: Canvas, background: str, seed: int) -> None:
    """Paint the place; the seed decides its horizon, tint and layout."""
    PLACES[background](canvas, np.random.default_rng(seed))


def _tint(rng: np.random.Generator, colour, amount: float = 9) -> tuple[int, int, int]:
    return tuple(int(v) for v in np.clip(np.array(colour) + rng.uniform(-amount, amount, 3), 0, 255))


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    sea, shore = rng.uniform(0.46, 0.54), rng.uniform(0.64, 0.7)
    canvas.gradient(0, sea, _tint(rng, (92, 178, 240)), (206, 234, 250), SKY)
    for x, y in zip(rng.uniform((0.05, 0.6), (0.4, 0.95)), rng.uniform(0.1, 0.28, 2), strict=True):
        _cloud(canvas, x, y, rng.uniform(0.1, 0.15))
    canvas.gradient(sea, 1, _tint(rng, (26, 122, 190)), (92, 196, 214), BACKDROP)
    sand = _tint(rng, (246, 222, 158))
    x = np.linspace(0, 1, 24)
    wave = shore + 0.018 * np.sin(2 * np.pi * (x + rng.random()))
    surf = [*zip(x, wave - 0.025, strict=True), (1, 1), (0, 1)]
    canvas.label = GROUND
    canvas.shape(surf, (240, 250, 250), ink=False, part=False)
    canvas.shape([*zip(x, wave, strict=True), (1, 1), (0, 1)], sand, ink=False)
    canvas.gradient(shore + 0.04, 1, sand, (232, 196, 126), None)


def _cloud(canvas: Canvas, x: float, y: float, size: float) -> None:
    for dx, dy, r in ((-0.8, 0.15, 0.55), (0, -0.1, 0.75), (0.8, 0.15, 0.55), (0, 0.3, 1.1)):
        canvas.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.55, (248, 252, 255), ink=False, part=False)


def _forest(canvas: Canvas, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.62, 0.7)
    canvas.gradient(0, horizon, _tint(rng, (120, 186, 138)), (206, 232, 176), SKY)
    canvas.label = BACKDROP
    count = int(rng.integers(4, 7))
    for k in range(count):
        x = (k + 0.5 + rng.uniform(-0.2, 0.2)) / count
        _trunk(canvas, x, horizon + 0.03, 0.028 + 0.012 * (k % 2), _tint(rng, (116, 80, 56)))
    for k in range(5):
        green = _tint(rng, (44, 118, 66) if k % 2 else (58, 138, 76))
        canvas.ellipse((k + 0.1) / 4 + rng.uniform(-0.05, 0.05), 0.04, 0.2, rng.uniform(0.19, 0.29), green, ink=False)
    canvas.gradient(horizon, 1, _tint(rng, (108, 172, 82)), (66, 130, 62), GROUND)


def _trunk(canvas: Canvas, x: float, foot: float, half: float, bark) -> None:
    canvas.shape([(x - half, 0), (x + half, 0), (x + half * 1.4, foot), (x - half * 1.4, foot)], bark, ink=False)
    canvas.shape([(x + half * 0.3, 0), (x + half, 0), (x + half * 1.4, foot), (x + half * 0.4, foot)], dark(bark, 0.25),
                 ink=False, part=False)  # fmt: skip


def _night(canvas: Canvas, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.64, 0.72)
    canvas.gradient(0, horizon, _tint(rng, (16, 18, 58), 5), (58, 62, 128), SKY)
    places = rng.permutation(8)[: int(rng.integers(6, 9))]
    for k, (dx, dy) in zip(places, rng.uniform(-0.065, 0.065, (len(places), 2)), strict=True):
        _star(canvas, 0.12 + 0.25 * (k % 4) + dx, 0.13 + 0.26 * (k // 4) + dy, rng.uniform(0.026, 0.036))
    _hills(canvas, rng, horizon, 0.12, (32, 38, 88))
    canvas.gradient(horizon, 1, _tint(rng, (38, 58, 76), 6), (24, 38, 54), GROUND)


def _star(canvas: Canvas, x: float, y: float, r: float) -> None:
    spikes = [(0, -r), (r * 0.32, -r * 0.32), (r, 0), (r * 0.32, r * 0.32)]
    points = [*spikes, *((-dx, -dy) for dx, dy in spikes)]
    canvas.shape([(x + dx, y + dy) for dx, dy in points], (255, 244, 190), ink=False, part=False)


def _hills(canvas: Canvas, rng: np.random.Generator, horizon: float, height: float, colour) -> None:
    x = np.linspace(0, 1, 24)
    y = horizon - height * (0.55 + 0.45 * np.sin(2 * np.pi * (rng.uniform(0.7, 1.2) * x + rng.random())))
    canvas.label = BACKDROP
    canvas.shape([*zip(x, y, strict=True), (1, horizon + 0.02), (0, horizon + 0.02)], colour, ink=False)


def _snow(canvas: Canvas, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.62, 0.7)
    canvas.gradient(0, horizon, _tint(rng, (146, 176, 210)), (206, 220, 236), SKY)
    _hills(canvas, rng, horizon - 0.03, 0.16, (186, 204, 226))
    _hills(canvas, rng, horizon, 0.09, (216, 228, 242))
    canvas.gradient(horizon, 1, (246, 250, 254), (226, 236, 248), GROUND)
    for k, (dx, dy) in enumerate(rng.uniform(-0.065, 0.065, (10, 2))):
        x, y = 0.1 + 0.2 * (k % 5) + dx, 0.1 + 0.26 * (k // 5) + dy + 0.1 * (k % 2)
        canvas.ellipse(x, y, 0.021, 0.021, (255, 255, 255), ink=False, part=False)


def _table(canvas: Canvas, rng: np.random.Generator) -> None:
    edge = rng.uniform(0.6, 0.68)
    wall = _tint(rng, ((240, 222, 196), (226, 232, 214), (238, 214, 208))[int(rng.integers(3))], 6)
    canvas.gradient(0, edge, light(wall, 0.25), dark(wall, 0.08), BACKDROP)
    wood = _tint(rng, (178, 118, 70), 8)
    canvas.gradient(edge, 1, light(wood, 0.18), dark(wood, 0.1), GROUND)
    canvas.label = GROUND
    canvas.box(0, edge, 1, edge + 0.022, light(wood, 0.42), ink=False, part=False)
    for y in (0.34, 0.72):
        canvas.box(0, edge + (1 - edge) * y, 1, edge + (1 - edge) * y + 0.014, dark(wood, 0.3), ink=False, part=False)


def _city(canvas: Canvas, rng: np.random.Generator) -> None:
    street = rng.uniform(0.66, 0.73)
    canvas.gradient(0, street, _tint(rng, (172, 190, 222)), (244, 222, 208), SKY)
    walls = ((132, 134, 162), (160, 142, 150), (118, 132, 150), (152, 152, 170))
    x = -0.04
    while x < 1:
        width = rng.uniform(0.19, 0.26)
        _building(canvas, x, width - 0.015, rng.uniform(0.12, 0.36), street, _tint(rng, walls[int(rng.integers(4))], 6))
        x += width
    canvas.gradient(street, 1, (122, 122, 130), (92, 92, 102), GROUND)
    canvas.label = GROUND
    canvas.box(0, street, 1, street + 0.035, (188, 186, 186), ink=False)


def _building(canvas: Canvas, x: float, width: float, top: float, foot: float, wall) -> None:
    canvas.label = BACKDROP
    canvas.box(x, top, x + width, foot, wall, ink=False)
    canvas.box(x + width * 0.8, top, x + width, foot, dark(wall, 0.16), ink=False, part=False)
    glass = mix(wall, (255, 228, 140), 0.75)
    for y in np.arange(top + 0.06, foot - 0.08, 0.125):
        for left in (0.14, 0.5):
            canvas.box(x + width * left, y, x + width * (left + 0.22), y + 0.062, glass, ink=False, part=False)


PLACES = {"beach": _beach, "forest": _forest, "night": _night, "snow": _snow, "table": _table, "city": _city}
