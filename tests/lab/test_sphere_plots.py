"""The globe and its panel: what is drawn where, and that the sliders move it."""

import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import sphere_plots

OCTAHEDRON = np.concatenate([np.eye(3), -np.eye(3)])
KNOWN = {2: 0.5, 6: 9.985281374}


def _blue(picture):
    """Where a picture shows a calm point in front: (rows, columns)."""
    pixels = np.asarray(picture, dtype=int)
    return np.nonzero((abs(pixels - sphere_plots.CALM) < 12).all(-1))


@pytest.mark.parametrize(
    ("point", "x", "y"),
    [((0, 0, 1), 0.5, 0.05), ((1, 0, 0), 0.95, 0.5), ((0, -1, 0), 0.5, 0.5), ((-1, 0, 0), 0.05, 0.5)],
)
def test_a_point_is_drawn_where_it_stands(point, x, y):
    opposite = -np.array(point)  # behind, or at the other rim
    picture = sphere_plots.globe(np.array([point, opposite]), turn=0, tilt=0, size=200)
    rows, columns = _blue(picture)
    distance = np.hypot(columns - 200 * x, rows - 200 * y)
    assert distance.min() < 3


def test_turning_by_a_quarter_moves_a_point_from_the_front_to_the_rim():
    front = np.array([[0.0, -1, 0], [0, 1, 0]])
    rows, columns = _blue(sphere_plots.globe(front, turn=90, tilt=0, size=200))
    assert columns.max() > 180 and abs(rows.mean() - 100) < 3


def test_tilting_brings_the_top_to_the_front():
    pole = np.array([[0.0, 0, 1], [0, 0, -1]])
    rows, columns = _blue(sphere_plots.globe(pole, turn=30, tilt=90, size=200))
    assert abs(rows.mean() - 100) < 3 and abs(columns.mean() - 100) < 3


def test_neighbours_of_an_octahedron_are_its_twelve_edges():
    pairs = sphere_plots._neighbours(OCTAHEDRON)
    assert len(pairs) == 12 and all(abs(j - i) != 3 for i, j in pairs)


def test_crowded_points_are_orange_and_equal_ones_all_blue():
    crowded = np.array([[1.0, 0, 0], [0.995, 0.0999, 0], [-0.6, 0, 0.8]])
    colours = sphere_plots._colours(crowded)
    np.testing.assert_allclose(colours[:2], [sphere_plots.TENSE] * 2, atol=1)
    np.testing.assert_allclose(colours[2], sphere_plots.CALM, atol=1e-6)
    np.testing.assert_allclose(sphere_plots._colours(OCTAHEDRON), [sphere_plots.CALM] * 6, atol=1e-6)


def test_the_dot_of_the_curve_falls_with_the_energy():
    energies = [20.0, 15.0, 10.0]
    orange = np.array([213, 94, 0])  # the colour of the dot
    heights = []
    for step in range(3):
        picture = np.asarray(sphere_plots.energy_curve(energies, step, 10.0), dtype=int)
        rows, columns = np.nonzero((abs(picture - orange) < 12).all(-1))
        heights.append(rows.mean())
    assert heights[0] < heights[1] - 20 < heights[2] - 40


def test_sliders_move_the_picture_and_say_the_energy():
    calls = []

    def descend(n):
        calls.append(n)
        points = OCTAHEDRON[[0, 3]] if n == 2 else OCTAHEDRON
        return np.stack([np.roll(points, k, axis=1) for k in range(4)]), [12.0, 11.0, 10.5, 9.985281]

    panel = sphere_plots.descent_panel(descend, KNOWN, n=6)
    shown = [panel.picture.value]
    for name, value in (("step", 1), ("turn", 200), ("tilt", 50), ("n", 2)):
        panel.controls[name].value = value
        shown.append(panel.picture.value)
    assert len(set(shown)) == 5
    assert Image.open(io.BytesIO(shown[0])).size == (2 * sphere_plots.SIZE, sphere_plots.SIZE)
    assert "2 points" in panel.message.value and "step 1: energy 11.000000" in panel.message.value
    assert calls == [6, 2], "a descent is computed once for each n"
