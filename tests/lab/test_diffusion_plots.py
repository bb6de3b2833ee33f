"""What is drawn is what was handed in: figures are compared through the data that reach the axes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.lab import diffusion_plots


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figure that is made next."""
    made = []
    finish = diffusion_plots.finish
    monkeypatch.setattr(diffusion_plots, "finish", lambda figure, alt: made.extend(figure.axes) or finish(figure, alt))
    return made


def _size(shown):
    return Image.open(io.BytesIO(shown.png)).size


def test_stages_shows_each_kind_of_data_with_its_shape(drawn):
    vectors = torch.arange(20.0)[:, None] * torch.ones(20, 5)
    noise, latents = torch.full((4, 6, 8), -9.0), torch.zeros(4, 6, 8)
    picture = torch.stack([torch.ones(12, 16), torch.zeros(12, 16), torch.zeros(12, 16)])
    tokens = ["<|startoftext|>", "a</w>", *(f"w{i}</w>" for i in range(18))]
    shown = diffusion_plots.stages(tokens, vectors, noise, latents, picture)
    first = drawn[0].images[0].get_array()
    assert first.shape == (16, 5) and np.allclose(first[:, 0], np.arange(16) - 9.5)
    assert [label.get_text() for label in drawn[0].get_yticklabels()][:3] == ["startoftext", "a", "w0"]
    images = [axis.images[0].get_array() for axis in drawn[1:]]
    assert [image.shape for image in images] == [(6, 8, 3), (6, 8, 3), (12, 16, 3)]
    assert (images[0] == 0).all() and (images[1] == 0.5).all() and (images[2] == [1, 0, 0]).all()
    assert "4 × 6 × 8" in drawn[1].get_title() and _size(shown) == (1100, 320)


def test_losses_are_averaged_by_step_and_by_timestep(drawn):
    times = np.tile(np.arange(0, 1000, 5), (40, 1))
    values = times / 1000 + np.where(np.arange(40) < 20, 1.0, 0.0)[:, None]  # the first half is worse
    diffusion_plots.losses(torch.tensor(values), torch.tensor(times), steps_together=10)
    steps, by_step = drawn[0].lines[0].get_data()
    assert steps.tolist() == [10, 20, 30, 40] and np.allclose(by_step, [1.4975, 1.4975, 0.4975, 0.4975])
    middles, by_time = drawn[1].lines[0].get_data()
    assert middles[:2].tolist() == [25, 75] and np.allclose(by_time, middles / 1000, atol=0.003)
    assert drawn[0].get_ylim()[0] == drawn[1].get_ylim()[0] == 0


def test_flow_keeps_the_colour_of_the_start(drawn):
    start = torch.tensor([[-1.0, 0.5], [0.0, 2.0], [1.5, -1.0]])
    diffusion_plots.flow({0: start, 7: start.flip(0)})
    colours = [axis.collections[0].get_array().tolist() for axis in drawn]
    assert colours[0] == colours[1] == [-1.0, 0.0, 1.5]
    assert np.allclose(drawn[1].collections[0].get_offsets(), start.flip(0))
    assert [axis.get_title() for axis in drawn] == ["after 0 steps", "after 7 steps"]


def test_shell_draws_each_way_from_0_to_1_and_says_its_middle(drawn):
    shown = diffusion_plots.shell(torch.tensor([31.0, 32.0, 33.0]), {"arc": [32, 32, 32], "line": [32, 22.5, 32]})
    assert [line.get_data()[0].tolist() for line in drawn[1].lines] == [[0, 0.5, 1]] * 2
    assert drawn[1].lines[1].get_data()[1].tolist() == [32, 22.5, 32]
    assert "32.0 for arc and 22.5 for line" in shown.alt
