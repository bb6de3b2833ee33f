"""What is drawn is what was handed in; the sliders make the weights that they show."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.lab import mixing_plots


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figure that is made next."""
    made = []
    finish = mixing_plots.finish
    monkeypatch.setattr(mixing_plots, "finish", lambda figure, alt: made.extend(figure.axes) or finish(figure, alt))
    return made


def _stairs(axis):
    return {patch.get_label(): patch.get_data().values.tolist() for patch in axis.patches}


def test_edited_shows_the_picture_its_weights_and_the_loss_so_far(drawn):
    picture = torch.stack([torch.full((6, 8), 1.2), torch.zeros(6, 8), torch.full((6, 8), 0.5)])
    losses = {"style": [0.9, 0.4], "content": [0.1, 0.2]}
    shown = mixing_plots.edited(picture, torch.tensor([1.0, 0.5, -0.2]), start=[1, 1, 0], losses=losses, alt="words")
    image = drawn[0].images[0].get_array()
    assert image.shape == (6, 8, 3) and np.allclose(image[0, 0], [1, 0, 0.5])
    assert np.allclose(_stairs(drawn[1])["now"], [1, 0.5, -0.2]) and _stairs(drawn[1])["start"] == [1, 1, 0]
    assert [line.get_data()[1].tolist() for line in drawn[2].lines] == [[0.9, 0.4], [0.1, 0.2]]
    assert drawn[2].get_ylim()[0] == 0 and shown.alt == "words"
    assert Image.open(io.BytesIO(shown.png)).size == (900, 250)


def test_weights_far_out_are_still_in_the_picture(drawn):
    mixing_plots.edited(torch.zeros(3, 4, 4), torch.tensor([2.5, -3.0]), alt="")
    low, high = drawn[1].get_ylim()
    assert low < -3 and high > 2.5 and len(drawn) == 2
    assert drawn[1].patches[0].get_data().edges.tolist() == [0.5, 1.5, 2.5], "steps are counted from 1"


def test_decided_draws_attributes_by_steps(drawn):
    shown = {"smile": [1.0, 0.75, 0.0], "hat": [0.5, 0.25, 0.0]}
    kept = {"smile": [0.0, 0.5, 1.0], "hat": [0.25, 0.75, 1.0]}
    mixing_plots.decided([0, 4, 10], shown, kept)
    assert [np.asarray(axis.images[0].get_array()).tolist() for axis in drawn] == [
        list(shown.values()),
        list(kept.values()),
    ]
    assert [label.get_text() for label in drawn[0].get_xticklabels()] == ["0", "4", "10"]
    assert [label.get_text() for label in drawn[1].get_yticklabels()] == ["smile", "hat"]
    assert drawn[0].images[0].get_clim() == (0, 1)


def test_rates_put_each_mean_beside_its_row(drawn):
    table = {"new prompt": {"smile": 0.5, "hat": 0.25}, "optimised": {"smile": 0.75, "hat": 1.0}}
    shown = mixing_plots.rates(table, {"optimised": (0.9, 0.1), "new prompt": (0.4, 0.05)})
    assert np.asarray(drawn[0].images[0].get_array()).tolist() == [[0.5, 0.25], [0.75, 1.0]]
    assert drawn[1].lines[0].get_data()[0].tolist() == [0.4, 0.9], "in the order of the table's rows"
    assert drawn[1].get_ylim() == drawn[0].get_ylim() == (1.5, -0.5)
    assert "Best: optimised" in shown.alt


def test_sliders_set_the_weights_at_their_steps_and_lines_between(drawn):
    asked = []

    def make(edit, weights):
        asked.append((edit, weights.tolist()))
        return torch.zeros(3, 4, 4)

    panel = mixing_plots.weight_sliders(make, ["smile", "hat"], steps=9, knots=3)
    assert asked == [("smile", [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])]
    before = panel.picture.value
    panel.controls["knot_2"].value = 1.5
    panel.controls["edit"].value = "hat"
    assert asked[-1] == ("hat", [1, 1, 1, 1, 1, 1.125, 1.25, 1.375, 1.5])
    assert panel.picture.value != before and "hat, weights 1, 1, 1.5" in panel.message.value
    assert [c.description for c in panel.controls.values()] == ["edit", "step 1", "step 5", "step 9"]
