"""Pictures and curves for lessons: colours that colour-blind readers can tell apart, alt text on every figure.

Each function returns a `Shown`, which a notebook shows on the last line of a cell or through `display`.
Figures are drawn without pyplot, so no matplotlib state outside this file changes.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tutorial_lib.lab.looks import COLOURS, LINES, looks  # noqa: F401 - LINES for lessons

DPI = 100
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}
MARGIN, GAP, BEFORE = 6, 4, 6  # pixels: around the grid, between its tiles, between the words of a row and the row
LETTER = 6.3  # width of an average letter of the labels, in pixels
LINE = 14  # height of a line of the labels, in pixels
NEARLY_WHITE = 240


@dataclass(frozen=True)
class Shown:
    """A finished figure: PNG bytes and the words for those who cannot see it."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def png(picture) -> bytes:
    """The PNG bytes of a PIL image."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# ------------------------------------------------------------------ curves


def subplots(rows: int = 1, columns: int = 1, width: float = 8, height: float = 3):
    """A figure and its (rows, columns) array of axes, for `finish`. Width and height in inches, of the whole."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def finish(figure, alt: str) -> Shown:
    """The figure as it is now. `alt` says in words what it shows."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Shown(buffer.getvalue(), alt)


def draw_curves(axes, series: Mapping[str, tuple], x_label: str, y_label: str, log: bool = False) -> None:
    """Draws named (x, y) series on axes; colour and line style differ together, and are a method's own."""
    for name, look in looks(series).items():
        axes.plot(*series[name], label=name, color=look.colour, linestyle=look.line)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if log:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(frameon=False)


def curves(series: Mapping[str, tuple], x_label: str, y_label: str, *, alt: str, log: bool = False) -> Shown:
    """Named (x, y) series in one plot, y on a logarithmic scale if `log`."""
    figure, axes = subplots()
    draw_curves(axes[0, 0], series, x_label, y_label, log)
    return finish(figure, alt)


def draw_heatmap(axes, values, x_labels, y_labels, top: float | None = None) -> None:
    """A table of numbers (rows, columns) from 0 to `top` as colours, light to dark, the numbers written into it."""
    values = np.asarray(values, dtype=float)
    top = top or values.max()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if value > 0.6 * top else "black"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(x_labels)), x_labels, rotation=45, ha="right")
    axes.set_yticks(range(len(y_labels)), y_labels)
    axes.grid(False)


# ------------------------------------------------------------------ grids of pictures


def grid(
    images: Sequence, *, alt: str, labels=(), columns: int = 8, rows=(), heads=(), size: int = 128, colours=None
) -> Shown:
    """Pictures of one size in a grid, row by row, each drawn about `size` pixels wide.

    `labels`: words under each picture. `rows`, `heads`: words before each row and above each column. `colours`: at
    most so many (256 or fewer) in the whole sheet, which makes the file of many pictures a third as large.
    """
    tiles = [enlarged(image, size) for image in images]
    if not tiles:
        raise ValueError("grid: expected at least one picture, got none")
    if sizes := {tile.size for tile in tiles} - {tiles[0].size}:
        raise ValueError(f"grid: pictures of one size expected, got {tiles[0].size} and {sizes}")
    for words, count, what in ((labels, len(tiles), "picture"), (rows, math.ceil(len(tiles) / columns), "row")):
        if words and len(words) != count:
            raise ValueError(f"grid: {len(words)} labels for {count} {what}s")
    sheet = _Sheet(tiles, min(columns, len(tiles)), labels, rows, heads).draw()
    return Shown(png(fewer_colours(sheet, colours) if colours else sheet), alt)


def fewer_colours(picture, count: int):
    """The PIL image with a palette of at most `count` colours (256 or fewer) that fits it; white stays white."""
    from PIL import Image

    fitting = picture.quantize(count, Image.Quantize.MEDIANCUT, kmeans=1)
    colours = np.reshape(fitting.getpalette(), (-1, 3))
    brightest = colours.sum(1).argmax()
    if colours[brightest].min() > NEARLY_WHITE:
        colours[brightest] = 255
    fitting.putpalette(colours.ravel().tolist())
    return fitting


def enlarged(image, size: int):
    """A PIL image or array (H, W, 3): a small one larger by a whole factor and unblurred, a large one smaller.

    Nothing that is at most twice `size` wide is made smaller.
    """
    from PIL import Image

    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    factor = max(1, size // picture.width)
    if picture.width > 2 * size:
        factor = 2 * size / picture.width
    shape = (round(picture.width * factor), round(picture.height * factor))
    kind = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(shape, kind)


def tinted(labels: np.ndarray) -> np.ndarray:
    """A map of class indices (H, W) as a picture, uint8 (H, W, 3): each class has one colour in all pictures."""
    base = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], dtype=float)
    palette = np.concatenate([255 - (255 - base) * share for share in (1.0, 0.55, 0.25)])  # full, light, pale
    return palette.round().astype(np.uint8)[np.asarray(labels) % len(palette)]


class _Sheet:
    """The layout of a grid: where tiles and words go, in pixels."""

    def __init__(self, tiles, columns, labels, rows, heads):
        self.tiles, self.columns = tiles, columns
        self.width, self.height = tiles[0].size
        self.labels = [wrap(label, self.width) for label in labels]
        self.rows = [wrap(row, 110) for row in rows]
        self.heads = [wrap(head, self.width) for head in heads]
        self.font = font_of(11)
        lines = [line for row in self.rows for line in row.split("\n")]
        self.left = MARGIN + max((math.ceil(self.font.getlength(line)) + BEFORE for line in lines), default=0)
        self.top = MARGIN + _lines(self.heads) * LINE
        self.step = self.height + GAP + _lines(self.labels) * LINE

    def draw(self):
        from PIL import Image, ImageDraw

        width = self.left + self.columns * (self.width + GAP) - GAP + MARGIN
        height = self.top + math.ceil(len(self.tiles) / self.columns) * self.step - GAP + MARGIN
        sheet = Image.new("RGB", (width, height), "white")
        pen = ImageDraw.Draw(sheet)
        for i, tile in enumerate(self.tiles):
            x, y = self.corner(i)
            sheet.paste(tile, (x, y))
            pen.rectangle((x - 1, y - 1, x + self.width, y + self.height), outline="#BBBBBB")  # white tiles show too
        for place, words, anchor in self.words():
            pen.multiline_text(place, words, fill="black", font=self.font, anchor=anchor, spacing=2, align="center")
        return sheet

    def corner(self, i: int) -> tuple[int, int]:
        return self.left + i % self.columns * (self.width + GAP), self.top + i // self.columns * self.step

    def words(self):
        """Yields (place, words, anchor) of every label."""
        for i, label in enumerate(self.labels):
            x, y = self.corner(i)
            yield (x + self.width / 2, y + self.height + 1), label, "ma"
        for i, row in enumerate(self.rows):
            yield (self.left - BEFORE, self.corner(i * self.columns)[1] + self.height / 2), row, "rm"
        for i, head in enumerate(self.heads):
            yield (self.corner(i)[0] + self.width / 2, self.top - 3), head, "md"


def font_of(size: int):
    """matplotlib's own DejaVu Sans, which is on every machine and knows signs such as × and σ."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _lines(texts: list[str]) -> int:
    return max((text.count("\n") + 1 for text in texts), default=0)


def wrap(text: str, width: float) -> str:
    """The text broken into lines of at most `width` pixels, as far as its words allow."""
    import textwrap

    return "\n".join(textwrap.wrap(str(text), max(8, int(width / LETTER)))) or " "
