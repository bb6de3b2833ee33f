"""Figures of lesson 07: points, tables and methods stand where their numbers say, with words beside the picture."""

import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import several_plots
from tutorial_lib.lab.plots import COLOURS


def _pixels(shown, colour: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the picture where pixels of this very colour stand."""
    picture = np.asarray(Image.open(io.BytesIO(shown.png)).convert("RGB"), dtype=int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((abs(picture - wanted) < 6).all(-1))


def test_solutions_stand_in_their_places():
    def at(point):
        points = {"far": (2.0, 2.0), "a": point}
        shown = several_plots.least_change([[2, 0.5], [0.5, 1]], (0, 0), (1, 2), 2.0, points, "rings and a line")
        assert shown.alt == "rings and a line"
        rows, columns = _pixels(shown, COLOURS[1])
        return np.median(rows), np.median(columns)

    left, right, above = at((-0.5, 0.3)), at((1.0, 0.3)), at((-0.5, 1.5))
    assert left[1] + 30 < right[1] and above[0] + 30 < left[0]


def test_tables_share_one_scale_of_colours():
    def pale(other):
        """Share of pixels of the left table's darkest blue: 1 is the top of the scale only if no table goes higher."""
        panels = {"one": {"x": [0.0, 1.0], "y": [0.0, 0.0]}, "two": {"x": [0.0, other], "y": [0.0, 0.0]}}
        rows, columns = _pixels(several_plots.tables(panels, ["a", "b"], "alt"), "#08306b")  # the end of "Blues"
        half = Image.open(io.BytesIO(several_plots.tables(panels, ["a", "b"], "alt").png)).width / 2
        return (columns < half).sum()

    assert pale(0.5) > 200 and pale(3.0) == 0


def test_a_method_stands_further_to_the_right_for_a_larger_share():
    def at(mean, spread=0.02):
        panels = {"recognised": {"a": (0.1, 0.0), "b": (mean, spread)}, "mixed": {"a": (0.2, 0.1), "b": (0.0, 0.0)}}
        rows, columns = _pixels(several_plots.methods(panels, "alt"), COLOURS[1])
        return columns[columns < columns.max() - 60], len(columns)

    low, high = at(0.2)[0], at(0.8)[0]
    assert np.median(low) + 40 < np.median(high)
    assert at(0.5, 0.3)[1] > at(0.5, 0.02)[1]  # bars grow with the spread


def test_every_method_needs_a_number_in_every_panel():
    with pytest.raises(KeyError, match="b"):
        several_plots.methods({"x": {"a": (0, 0), "b": (0, 0)}, "y": {"a": (0, 0)}}, "alt")
