"""Neurons in the plane while a layer is changed, and the Cayley map of one number. Drawn with Pillow, in milliseconds.

Angles are in degrees and counted as in `orthogonal.py`: with Q = [[0, q], [-q, 0]] a positive q turns clockwise.
"""

from __future__ import annotations

import math

import numpy as np

from tutorial_lib.lab import plots
from tutorial_lib.lab.widgets import Panel

SIZE = 330  # pixels, width and height of one drawing
SHARP = 2  # drawn this many times larger, then made smaller: smooth edges
REACH = 1.55  # half the width of a drawing, in units of the plane
TITLE = 0.86  # height of the drawing proper; the title stands above, a line of numbers below
GREY, PALE = "#8A8F98", "#C9CDD3"
MOST_Q = 5.0  # where the curve of the Cayley map ends


class Plane:
    """A square piece of the plane around the origin with a title: arrows, circles and words, y upwards."""

    def __init__(self, title: str = "", below: str = "", reach: float = REACH):
        from PIL import Image, ImageDraw

        self.large, self.reach = SIZE * SHARP, reach
        self.image = Image.new("RGB", (self.large, self.large), "white")
        self.pen = ImageDraw.Draw(self.image)
        font = plots.font_of(12 * SHARP)
        self.pen.text((self.large / 2, 0.01 * self.large), title, "black", font, anchor="ma")
        self.pen.text((self.large / 2, 0.99 * self.large), below, "black", font, anchor="md")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        unit = TITLE * self.large / 2 / self.reach
        return self.large / 2 + unit * x, self.large / 2 - unit * y

    def circle(self, radius: float, colour: str = PALE) -> None:
        (left, top), (right, bottom) = self.at(-radius, radius), self.at(radius, -radius)
        self.pen.ellipse((left, top, right, bottom), outline=colour, width=SHARP)

    def line(self, start, end, colour: str = GREY, width: int = 1) -> None:
        self.pen.line([*self.at(*start), *self.at(*end)], fill=colour, width=width * SHARP)

    def arrow(self, end, colour: str, start=(0.0, 0.0), width: int = 2) -> None:
        """An arrow with a head at `end`; one that is shorter than its head is a dot."""
        tail, tip = np.array(self.at(*start)), np.array(self.at(*end))
        length, head = np.linalg.norm(tip - tail), 9 * SHARP
        if length < head:
            self.pen.ellipse((*(tip - 2 * SHARP), *(tip + 2 * SHARP)), fill=colour)
            return
        along = (tip - tail) / length
        across = np.array([-along[1], along[0]]) * head * 0.4
        neck = tip - head * along
        self.pen.line([*tail, *neck], fill=colour, width=width * SHARP)
        self.pen.polygon([tuple(tip), tuple(neck + across), tuple(neck - across)], fill=colour)

    def words(self, place, text: str, colour: str = "black") -> None:
        self.pen.text(self.at(*place), text, colour, plots.font_of(11 * SHARP), anchor="mm")

    def picture(self):
        """The PIL image in its final size."""
        from PIL import Image

        return self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def side_by_side(*pictures):
    """PIL images of one height in a row."""
    from PIL import Image

    row = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height), "white")
    for i, picture in enumerate(pictures):
        row.paste(picture, (sum(p.width for p in pictures[:i]), 0))
    return row


def turn(q: float) -> np.ndarray:
    """(2, 2): R = (I + Q)(I - Q)^{-1} of Q = [[0, q], [-q, 0]], written out."""
    return np.array([[1 - q * q, 2 * q], [-2 * q, 1 - q * q]]) / (1 + q * q)


# ------------------------------------------------------------------ adding against turning


def angles_between(rows) -> np.ndarray:
    """The angles of neighbours, row k with row k + 1, in degrees: (n - 1,)."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.degrees(np.arccos(np.clip((units[1:] * units[:-1]).sum(1), -1, 1)))


def neurons(before, after, title: str):
    """A PIL image: neurons (n, 2) as arrows, pale where they were before, dots where directions meet the circle."""
    numbers = "  ".join(f"{angle:.0f}°" for angle in angles_between(after))
    plane = Plane(title, f"angles of neighbours: {numbers}")
    plane.circle(1.0)
    for row in before:
        plane.arrow(row, PALE)
    for row, colour in zip(after, plots.COLOURS, strict=False):
        plane.arrow(row, colour, width=3)
        x, y = plane.at(*(row / np.linalg.norm(row)))
        plane.pen.ellipse((x - 4 * SHARP, y - 4 * SHARP, x + 4 * SHARP, y + 4 * SHARP), fill=colour, outline="white")
    return plane.picture()


def change_panel(weight, B, A, amount: float = 0.6) -> Panel:
    """A slider `amount` a; left W + a B A, right W R^T with R = Cayley(a Q). weight: (n, 2), B: (n, 1), A: (1, 2)."""
    import ipywidgets

    W, B, A = (np.asarray(matrix, dtype=float) for matrix in (weight, B, A))
    wide = {"style": {"description_width": "80px"}, "layout": ipywidgets.Layout(width="480px")}
    slider = ipywidgets.FloatSlider(value=amount, min=-1, max=1, step=0.05, description="amount a", **wide)

    def draw(amount):
        added, turned = W + amount * B @ A, W @ turn(amount).T
        return side_by_side(neurons(W, added, "added: W + a·BA"), neurons(W, turned, "turned: W·R(a)ᵀ"))

    def describe(amount):
        off = np.abs(angles_between(W + amount * B @ A) - angles_between(W)).max()
        turned = math.degrees(2 * math.atan(amount))
        return f"a = {amount:.2f}: adding changes an angle by up to {off:.0f}°; turning by {turned:.0f}° changes none"

    return Panel({"amount": slider}, draw, describe, width=2 * SIZE)


# ------------------------------------------------------------------ the Cayley map of one number


def rhombus(q: float):
    """A PIL image: x - Qx and x + Qx end on one circle, on both sides of x; the map from one to the other is R."""
    angle = math.degrees(2 * math.atan(q))
    plane = Plane(f"q = {q:.1f}", f"from x − Qx to x + Qx: {abs(angle):.0f}° {_sense(q)}", reach=1.35)
    long = math.hypot(1, q)  # |x ± Qx|; everything is divided by it, so that the circle stays
    x, Qx = np.array([1, 0]) / long, np.array([0, -q]) / long
    plane.circle(1.0)
    plane.line(x - Qx, x + Qx)
    plane.arrow(x, GREY)
    plane.arrow(x - Qx, plots.COLOURS[0], width=3)
    plane.arrow(x + Qx, plots.COLOURS[1], width=3)
    plane.words(x + [0.14, 0], "x", GREY)
    for end, words, colour in ((x - Qx, "x − Qx", plots.COLOURS[0]), (x + Qx, "x + Qx", plots.COLOURS[1])):
        if abs(q) > 0.15:  # else the three words lie on one another
            plane.words(1.17 * end, words, colour)
    return plane.picture()


def _sense(q: float) -> str:
    return "clockwise" if q > 0 else "anticlockwise" if q < 0 else ""


def angle_curve(q: float):
    """A PIL image: the angle 2 arctan(q) over q, its tangent 2q at 0, the half turn that it never reaches."""
    plane = Plane("angle of R over q", "dashed: 180°, never reached;  grey: 2q", reach=1.12)
    plane.line((-1, 0), (1, 0), PALE)
    plane.line((0, -1), (0, 1), PALE)
    for height in (-1, 1):
        for start in np.arange(-1, 1, 0.1):
            plane.line((start, height), (start + 0.05, height), plots.COLOURS[2], 2)
    steep = math.pi / 2 / MOST_Q  # where 2q is 180 degrees
    plane.line((-steep, -1), (steep, 1))
    places = [(k / 60, _height(k / 60 * MOST_Q)) for k in range(-60, 61)]
    for start, end in zip(places, places[1:], strict=False):
        plane.line(start, end, plots.COLOURS[0], 2)
    x, y = plane.at(q / MOST_Q, _height(q))
    plane.pen.ellipse((x - 6 * SHARP, y - 6 * SHARP, x + 6 * SHARP, y + 6 * SHARP), fill=plots.COLOURS[1])
    for value in (-MOST_Q, MOST_Q):
        plane.words((0.94 * value / MOST_Q, -0.09), f"{value:g}", GREY)
    return plane.picture()


def _height(q: float) -> float:
    """The angle as a share of the half turn."""
    return 2 * math.atan(q) / math.pi


def cayley_panel(q: float = 0.6) -> Panel:
    """A slider for q: the rhombus that makes the Cayley map a rotation, and the angle over q."""
    import ipywidgets

    wide = {"style": {"description_width": "80px"}, "layout": ipywidgets.Layout(width="480px")}
    slider = ipywidgets.FloatSlider(value=q, min=-MOST_Q, max=MOST_Q, step=0.1, description="q", **wide)

    def describe(q):
        return (
            f"q = {q:.1f}: R turns by 2 arctan q = {math.degrees(2 * math.atan(q)):.1f}°; by 2q it would be "
            f"{math.degrees(2 * q):.1f}°"
        )

    return Panel({"q": slider}, lambda q: side_by_side(rhombus(q), angle_curve(q)), describe, width=2 * SIZE)
