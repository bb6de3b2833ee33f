"""Figures of concepts: every group and method is drawn, in its place, with words beside the picture."""

import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import concept_plots
from tutorial_lib.lab.plots import COLOURS


def _columns(shown, colour: str) -> np.ndarray:
    """The columns of the picture in which pixels of this very colour stand."""
    pixels = np.asarray(Image.open(io.BytesIO(shown.png)).convert("RGB"), dtype=int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((abs(pixels - wanted) < 6).all(-1))[1]


def test_a_method_stands_further_to_the_right_for_a_larger_x():
    def at(x):
        shown = concept_plots.plane(
            {"a": ((x, 0.1), (0.5, 0.1)), "b": ((0.0, 0.0), (0.2, 0.0)), "c": ((1.0, 0.0), (0.8, 0.0))}, "x", "y", "alt"
        )
        return np.median(_columns(shown, COLOURS[0]))

    assert at(0.2) + 50 < at(0.8)


def test_bars_grow_with_the_spread():
    def pixels(spread):
        shown = concept_plots.plane({"a": ((0.5, spread), (0.5, 0.1)), "b": ((0, 0.6), (1, 0))}, "x", "y", "alt")
        return len(_columns(shown, COLOURS[0]))

    assert pixels(0.5) > 1.2 * pixels(0.1) > 0


def test_groups_of_layers_are_drawn_the_same_every_time():
    panels = {"relative change": {"K and V": [0.1, 0.3], "other": [0.01, 0.02, 0.03]}, "moved": {"K and V": [1, 2]}}
    shown = concept_plots.groups(panels, alt="two panels")
    picture = Image.open(io.BytesIO(shown.png))
    assert shown.alt == "two panels" and picture.width == pytest.approx(720, abs=4)
    again = concept_plots.groups(panels, alt="two panels")
    assert shown.png == again.png  # the dots' places are not random
    more = concept_plots.groups({"relative change": {"K and V": [0.1, 0.9], "other": [0.01]}}, alt="")
    assert more.png != shown.png
    assert concept_plots.groups(panels, alt="two panels", log=["moved"]).png != shown.png
