"""The figures of lesson 09."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import compared_plots
from tutorial_lib.lab.looks import COLOURS, METHODS, looks
from tutorial_lib.lab.plots import Shown


def coloured(shown, colour: str) -> int:
    """How many pixels have this colour."""
    assert isinstance(shown, Shown) and len(shown.alt) > 30
    pixels = np.asarray(Image.open(io.BytesIO(shown.png)).convert("RGB")).astype(int)
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(pixels - rgb).max(-1) < 3).sum())


def test_every_method_has_its_mean_over_seeds():
    steps = [0, 50, 100]
    methods = {"ControlNet": [(steps, [0.2, 0.3, 0.8]), (steps, [0.2, 0.5, 0.6])], "OFT": [(steps, [0.2, 0.4, 0.5])]}
    shown = compared_plots.convergence(methods, "F1", 0.9)
    assert "ControlNet from 0.20 to 0.70; OFT from 0.20 to 0.50" in shown.alt
    assert all(coloured(shown, METHODS[method].colour) > 100 for method in methods)


def test_a_method_looks_alike_in_all_figures():
    steps, oft = [0, 50], METHODS["OFT"].colour
    curve = [(steps, [0.2, 0.8])]
    alone = compared_plots.convergence({"OFT": curve}, "F1")
    third = compared_plots.convergence({"ControlNet": curve, "OFT twice": curve, "OFT": curve}, "F1")
    lines = compared_plots.by_seed({"F1": {"LoRA": [0.5], "OFT": [0.8]}}, {"F1": 0.3}, "no control")
    bars = compared_plots.preferred({"OFT": (4.5, 0.2), "LoRA": (1.5, 0.2)}, 5, "one person")
    assert all(coloured(shown, oft) > 80 for shown in (alone, third, lines, bars))
    assert coloured(third, looks(["ControlNet", "OFT twice", "OFT"])["OFT twice"].colour) > 20
    assert not coloured(alone, METHODS["LoRA"].colour)


def test_every_method_is_a_line_with_its_mean_and_the_floor():
    panels = {"F1": {"ControlNet": [0.5, 0.7], "OFT": [0.8, 0.9]}, "things": {"ControlNet": [0.2], "OFT": [0.4]}}
    shown = compared_plots.by_seed(panels, {"F1": 0.3, "things": 0.1}, "no control")
    assert "F1: ControlNet 0.60, OFT 0.85, no control 0.30; " in shown.alt
    assert "things: ControlNet 0.20, OFT 0.40, no control 0.10" in shown.alt
    assert all(coloured(shown, METHODS[method].colour) > 80 for method in panels["F1"])
    with pytest.raises(KeyError):
        compared_plots.by_seed(panels, {"F1": 0.3}, "no control")


def test_more_pairs_and_the_floor():
    panels = {"F1": {100: [0.5, 0.7], 1000: [0.8, 0.8]}, "IoU": {100: [0.1], 1000: [0.3]}}
    shown = compared_plots.sizes(panels, {"F1": 0.4, "IoU": 0.05})
    assert "F1: 0.60 of 100, 0.80 of 1000, before training 0.40; IoU: 0.10 of 100" in shown.alt
    assert all(coloured(shown, colour) > 50 for colour in COLOURS[:2])
    with pytest.raises(KeyError):
        compared_plots.sizes(panels, {"F1": 0.4})


def test_longer_bars_are_better_and_a_spread_may_be_missing():
    shown = compared_plots.preferred({"LoRA": (4.5, math.nan), "OFT": (1.5, 0.2)}, 5, "one person")
    assert "LoRA 4.50, OFT 1.50" in shown.alt and "one person" in shown.alt
    assert coloured(shown, METHODS["LoRA"].colour) > 3 * coloured(shown, METHODS["OFT"].colour) > 300
