"""The figures of lesson 08."""

import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import control_plots
from tutorial_lib.lab.plots import Shown


def picture(shown) -> np.ndarray:
    assert isinstance(shown, Shown) and len(shown.alt) > 30
    return np.asarray(Image.open(io.BytesIO(shown.png)).convert("RGB")).astype(int)


def coloured(shown, colour: str) -> int:
    """How many pixels have this colour."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(picture(shown) - rgb).max(-1) < 3).sum())


def test_the_diagram_shows_frozen_blocks_copies_and_zero_convolutions():
    shown = control_plots.diagram()
    areas = {name: coloured(shown, getattr(control_plots, name)) for name in ("LOCKED", "TRAINED", "ZERO")}
    assert areas["LOCKED"] > 1.4 * areas["TRAINED"] > 1.4 * areas["ZERO"] > 1000  # 7 boxes, 4 boxes, 5 marks


def test_a_gradient_of_zero_has_no_bar_and_is_called_nothing():
    parts = {"zero convolutions": 0.5, "copy": 0.0}
    silent = control_plots.gradients({1: parts})
    loud = control_plots.gradients({1: parts | {"copy": 0.3}})
    orange = control_plots.COLOURS[1]
    assert coloured(silent, orange) == 0 < coloured(loud, orange)
    assert "copy nothing" in silent.alt and "copy 3e-01" in loud.alt


@pytest.fixture
def curves():
    return {
        "F1": {"with prompts": [0.5, 0.6, 0.8], "without": [0.4, 0.4, 0.7]},
        "IoU": {"with prompts": [0.1, 0.2, 0.4], "without": [0.1, 0.1, 0.3]},
    }


def test_curves_say_where_they_begin_and_end(curves):
    shown = control_plots.learning([0, 50, 100], curves, {"F1": 0.9, "IoU": 0.6}, (40, 60))
    assert "F1 without from 0.40 to 0.70" in shown.alt and "IoU with prompts from 0.10 to 0.40" in shown.alt
    for colour in control_plots.COLOURS[:2]:
        assert coloured(shown, colour) > 100
    other = control_plots.learning([0, 50, 100], curves, {"F1": 0.9, "IoU": 0.6}, (80, 100))
    assert not np.array_equal(picture(shown), picture(other))


def test_a_measure_without_a_ceiling_is_an_error(curves):
    with pytest.raises(KeyError):
        control_plots.learning([0, 50, 100], curves, {"F1": 0.9}, (40, 60))


def test_every_seed_has_its_own_line_and_its_jump():
    runs = [("seed 0", [0, 50, 100], [0.1, 0.2, 0.8], 75.0), ("seed 1", [0, 50, 100], [0.1, 0.7, 0.8], 25.0)]
    shown = control_plots.seeds(runs, "F1")
    assert "seed 0 at step 75, seed 1 at step 25" in shown.alt
    assert all(coloured(shown, colour) > 50 for colour in control_plots.COLOURS[:2])
