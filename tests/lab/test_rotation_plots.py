"""Arrows are drawn where they are, angles are told right, and the sliders move the pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.lab import plots, rotation_plots
from tutorial_lib.orthogonal import cayley, skew_symmetric

W = [[1.2, 0.45], [0.45, 1.1], [-0.9, 0.75]]
B, A = [[0.9], [-0.3], [-0.5]], [[0.5, 0.9]]


def _coloured(picture, colour: str) -> np.ndarray:
    """(pixels, 2): x and y of all pixels of this colour, from the middle, upwards, in shares of half the width."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(picture.convert("RGB"), dtype=int)
    rows, columns = np.nonzero((abs(pixels - wanted) < 12).all(-1))
    half = rotation_plots.SIZE / 2
    return np.stack([columns - half, half - rows], axis=1) / half


def _tip(picture, colour: str) -> np.ndarray:
    found = _coloured(picture, colour)
    return found[np.linalg.norm(found, axis=1).argmax()]


@pytest.mark.parametrize("end", [(1.0, 0.0), (0.0, 1.2), (-0.8, -0.5)])
def test_an_arrow_ends_where_its_neuron_does(end):
    picture = rotation_plots.neurons(np.array([end]) * 1e-3, np.array([end]), "one neuron")
    scale = rotation_plots.TITLE / rotation_plots.REACH
    reach = np.array(end) / min(1, np.linalg.norm(end))  # the dot on the circle lies further out than a short arrow
    np.testing.assert_allclose(_tip(picture, plots.COLOURS[0]), scale * reach, atol=0.05)


@pytest.mark.parametrize("q", [-3.0, 0.4])
def test_the_turn_is_the_librarys_cayley_map(q):
    expected = cayley(skew_symmetric(torch.tensor([[q]], dtype=torch.float64), 2))[0]
    np.testing.assert_allclose(rotation_plots.turn(q), expected, atol=1e-12)


def test_angles_between_neighbours():
    rows = np.array([[2.0, 0], [3.0, 3.0], [0, 0.5], [0, -1]])
    np.testing.assert_allclose(rotation_plots.angles_between(rows), [45, 45, 180], atol=1e-4)


def test_turning_keeps_the_angles_that_adding_changes():
    panel = rotation_plots.change_panel(W, B, A)
    for amount in (-1.0, 0.3, 1.0):
        panel.controls["amount"].value = amount
        turned = np.array(W) @ rotation_plots.turn(amount).T
        np.testing.assert_allclose(
            rotation_plots.angles_between(turned), rotation_plots.angles_between(np.array(W)), atol=1e-5
        )
        assert "up to 0°" not in panel.message.value and "changes none" in panel.message.value
    panel.controls["amount"].value = 0.0
    assert "up to 0°" in panel.message.value


def test_both_ends_of_the_rhombus_lie_on_the_circle_and_turn_with_q():
    scale = rotation_plots.TITLE / 1.35
    for q, angle in ((0.5, 53.13), (2.0, 126.87)):
        picture = rotation_plots.rhombus(q)
        middle = _coloured(picture, plots.COLOURS[0]), _coloured(picture, plots.COLOURS[1])
        tips = [found[abs(np.linalg.norm(found, axis=1) - scale).argmin()] for found in middle]
        np.testing.assert_allclose([np.linalg.norm(tip) for tip in tips], scale, atol=0.03)
        directions = [np.degrees(np.arctan2(tip[1], tip[0])) for tip in tips]
        assert directions[0] > 0 > directions[1], "x - Qx is above x, x + Qx below: clockwise"
        assert directions[0] - directions[1] == pytest.approx(angle, abs=6)


def test_the_dot_of_the_curve_rises_and_stays_below_the_half_turn():
    heights = [_coloured(rotation_plots.angle_curve(q), plots.COLOURS[1])[:, 1].mean() for q in (-5, 0, 1, 5)]
    assert heights == sorted(heights) and heights[1] == pytest.approx(0, abs=0.01)
    assert heights[2] == pytest.approx(rotation_plots.TITLE / 1.12 / 2, abs=0.01), "q = 1 is a quarter turn"
    assert heights[-1] < rotation_plots.TITLE / 1.12


def test_sliders_move_the_pictures_and_say_the_numbers():
    panels = rotation_plots.change_panel(W, B, A, amount=0.5), rotation_plots.cayley_panel()
    for panel, name, value, words in (
        (panels[0], "amount", -0.5, "turning by -53°"),
        (panels[1], "q", 1.0, "2 arctan q = 90.0°"),
    ):
        before = panel.picture.value
        panel.controls[name].value = value
        assert panel.picture.value != before and words in panel.message.value
        picture = Image.open(io.BytesIO(panel.picture.value))
        assert picture.size == (2 * rotation_plots.SIZE, rotation_plots.SIZE)
