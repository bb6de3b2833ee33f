"""Points on a sphere that can be turned, and the descent that drives them apart. Drawn with Pillow, in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from tutorial_lib.lab import plots
from tutorial_lib.lab.widgets import Panel

SIZE = 340  # pixels, width and height of the globe and of the curve beside it
SHARP = 2  # drawn this many times larger, then made smaller: smooth edges
LIGHT = np.array([-0.45, 0.55, 0.7])  # where the light comes from: left, above, in front
CALM, TENSE = (np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) for colour in plots.COLOURS[:2])
SPACING = math.sqrt(8 * math.pi / math.sqrt(3))  # n points in the best order lie about SPACING / sqrt(n) apart


def globe(points, turn: float = 0.0, tilt: float = 20.0, size: int = SIZE):
    """A PIL image of the unit sphere with `points` (n, 3), turned and tilted by these degrees.

    A point's colour says how hard the others press: blue the least, orange half as much again or more. Lines join
    near neighbours; what lies behind is pale.
    """
    from PIL import Image, ImageDraw

    points = np.asarray(points, dtype=float)
    large = size * SHARP
    picture = Image.fromarray(_ball(large))
    pen = ImageDraw.Draw(picture)
    seen = points @ _rotation(turn, tilt).T  # x to the right, y up, z towards the reader
    for front in (False, True):
        _draw_edges(pen, seen, front, large)
        _draw_points(pen, seen, front, _colours(points), large)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def _rotation(turn: float, tilt: float) -> np.ndarray:
    """Turns about the vertical axis, then tilts the top towards the reader. Points have z up, the view y up."""
    a, b = math.radians(turn), math.radians(tilt)
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    upright = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return about_x @ upright @ about_z


@lru_cache(maxsize=4)
def _ball(large: int) -> np.ndarray:
    """The shaded sphere without points, uint8 (large, large, 3)."""
    axis = (np.arange(large) + 0.5 - large / 2) / _radius(large)
    x, y = np.meshgrid(axis, -axis)
    inside = x**2 + y**2 < 1
    z = np.sqrt(np.where(inside, 1 - x**2 - y**2, 0))
    light = np.clip((x * LIGHT[0] + y * LIGHT[1] + z * LIGHT[2]) / np.linalg.norm(LIGHT), 0, 1)
    shade = np.where(inside, 205 + 45 * light, 255)[..., None] + np.array([-4, 0, 5]) * inside[..., None]
    return shade.round().astype(np.uint8)


def _radius(large: int) -> float:
    return 0.45 * large


def _place(seen, large: int) -> np.ndarray:
    """Pixel coordinates of turned points, (n, 2)."""
    return large / 2 + _radius(large) * seen[:, :2] * [1, -1]


def _colours(points) -> np.ndarray:
    """(n, 3) from calm to tense, by each point's own sum of 1/distance against the least one."""
    distance = np.linalg.norm(points[:, None] - points, axis=2)  # (n, n)
    np.fill_diagonal(distance, np.inf)
    pressure = (1 / np.maximum(distance, 1e-9)).sum(1)
    share = np.clip(2 * (pressure / pressure.min() - 1), 0, 1)[:, None]
    return CALM + share * (TENSE - CALM)


def _draw_edges(pen, seen, front: bool, large: int) -> None:
    """Lines between near neighbours whose middle lies in the front (or the back) half."""
    place, colour = _place(seen, large), (70, 80, 95) if front else (185, 190, 198)
    for i, j in _neighbours(seen):
        if (seen[i, 2] + seen[j, 2] >= 0) == front:
            pen.line([*place[i], *place[j]], fill=colour, width=2 * SHARP)


def _neighbours(points) -> list[tuple[int, int]]:
    """Pairs i < j, each one of the other's six nearest, that are no further apart than in a good order."""
    distance = np.linalg.norm(points[:, None] - points, axis=2)  # (n, n)
    nearest = distance.argsort(1).argsort(1) <= 6  # rank 0 is the point itself
    reach = min(1.2 * SPACING / math.sqrt(len(points)), 1.95)  # below 2: opposite points are no neighbours
    return np.argwhere(np.triu(nearest & nearest.T & (distance < reach), 1)).tolist()


def _draw_points(pen, seen, front: bool, colours, large: int) -> None:
    """Dots from the back to the front; those nearer to the reader are larger."""
    for k in np.argsort(seen[:, 2]):
        depth = seen[k, 2]
        if (depth >= 0) == front:
            x, y = _place(seen[[k]], large)[0]
            radius = large * (0.018 + 0.006 * depth)
            pale = 0.0 if front else 0.6
            colour = tuple(int(c) for c in (1 - pale) * colours[k] + pale * np.array([225, 228, 234]))
            outline = (255, 255, 255) if front else None
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour, outline, width=SHARP)


# ------------------------------------------------------------------ the descent


def descent_panel(descend: Callable, known: dict[int, float], n: int = 12) -> Panel:
    """Sliders for the number of points, the step of the descent and the view; globe and energy curve below them.

    `descend(n)` returns the positions (steps, n, 3) and the energies (steps,); `known`: the published minima by n.
    """
    import ipywidgets

    descend = lru_cache(maxsize=None)(descend)
    wide = {"style": {"description_width": "80px"}, "layout": ipywidgets.Layout(width="480px")}
    last = len(descend(n)[1]) - 1
    controls = {
        "n": ipywidgets.SelectionSlider(options=sorted(known), value=n, description="points", **wide),
        "step": ipywidgets.IntSlider(last, 0, last, description="step", **wide),
        "turn": ipywidgets.IntSlider(20, 0, 360, 5, description="turn", **wide),
        "tilt": ipywidgets.IntSlider(20, -90, 90, 5, description="tilt", **wide),
    }

    def draw(n, step, turn, tilt):
        positions, energies = descend(n)
        return _side_by_side(globe(positions[step], turn, tilt), energy_curve(energies, step, known[n]))

    def describe(n, step, turn, tilt):
        energy = descend(n)[1][step]
        return f"{n} points on a sphere, step {step}: energy {energy:.6f}; the least known is {known[n]:.6f}"

    return Panel(controls, draw, describe, width=2 * SIZE)


def energy_curve(energies, step: int, least: float, size: int = SIZE):
    """A PIL image: the energy over the steps of a descent, a dot at `step`, the least known value dashed."""
    from PIL import Image, ImageDraw

    large, font = size * SHARP, plots.font_of(12 * SHARP)
    picture = Image.new("RGB", (large, large), "white")
    pen = ImageDraw.Draw(picture)
    left, right, top, bottom = 0.16 * large, 0.96 * large, 0.12 * large, 0.84 * large
    x = np.linspace(left, right, len(energies))
    excess = np.clip((np.asarray(energies) - least) / least, 0, 1)  # twice the least value is the top
    y = bottom - (bottom - top) * 0.92 * excess - 0.05 * (bottom - top)
    floor = bottom - 0.05 * (bottom - top)
    pen.line([left, top, left, bottom, right, bottom], fill=(120, 120, 120), width=SHARP)
    for start in np.arange(left, right, 0.03 * large):
        pen.line([start, floor, start + 0.015 * large, floor], fill=plots.COLOURS[2], width=SHARP)
    pen.line([value for point in zip(x, y, strict=True) for value in point], fill=plots.COLOURS[0], width=2 * SHARP)
    radius = 0.016 * large
    pen.ellipse((x[step] - radius, y[step] - radius, x[step] + radius, y[step] + radius), fill=plots.COLOURS[1])
    pen.text((left, 0.03 * large), f"energy {energies[step]:.4f}", fill="black", font=font)
    pen.text((right, bottom + 0.02 * large), f"step {step} of {len(energies) - 1}", "black", font, anchor="ra")
    pen.text((left, bottom + 0.02 * large), f"least known {least:.4f}", plots.COLOURS[2], font)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def _side_by_side(left, right):
    from PIL import Image

    picture = Image.new("RGB", (left.width + right.width, left.height), "white")
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width, 0))
    return picture
