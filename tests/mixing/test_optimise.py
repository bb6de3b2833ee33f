"""Optimising the weights: from the paper's start downwards, with pictures that belong to the weights."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tutorial_lib import mixing
from tutorial_lib.mixing import optimise

STEPS = 5
NEUTRAL, STYLED = "a photo of a person on a beach", "a watercolor of a person with a hat on a beach"


@pytest.fixture(scope="module")
def result(pipe, latents):
    seen = []
    found = mixing.optimize(
        pipe,
        NEUTRAL,
        STYLED,
        latents,
        num_inference_steps=STEPS,
        iterations=2,
        lr=0.02,
        smooth=0.1,
        pixels=0.5,
        eta=0.3,
        seed=5,
        watch=lambda record, images: seen.append((record, images)),
    )
    return found, seen


@torch.no_grad()
def test_the_final_picture_belongs_to_the_final_weights(pipe, latents, result):
    found, seen = result
    again = mixing.apply(pipe, found, latents, seed=5)
    assert torch.allclose(found.images, again, atol=1e-6)
    assert torch.equal(found.history[-1]["weights"], found.weights) and torch.equal(seen[-1][1], found.images)
    before_last = mixing.sample(pipe, NEUTRAL, STYLED, found.history[-2]["weights"], latents, eta=0.3, seed=5)
    assert (found.images - before_last).abs().max() > 1e-4
    neutral = mixing.sample(pipe, NEUTRAL, STYLED, torch.ones(STEPS), latents, eta=0.3, seed=5)
    assert torch.allclose(found.originals, neutral, atol=1e-6)


def test_it_starts_where_the_paper_does_and_goes_down(result):
    found, seen = result
    share = mixing.POCKET.neutral_share
    assert torch.equal(found.history[0]["weights"], mixing.initial_weights(STEPS, round(share * STEPS)))
    assert len(found.history) == len(seen) == 3 and [record for record, _ in seen] == found.history
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    moved = (found.weights - found.history[0]["weights"]).abs()
    assert (moved > 0).all() and moved.max() <= 2 * 0.02 * 1.01  # Adam's steps are at most about lr


def test_the_parts_add_up_to_the_loss(result):
    found, _ = result
    counts = {name: getattr(mixing.POCKET, name) for name in ("style", "content", "reach")}
    counts |= {"pixels": 0.5, "smooth": 0.1}
    for record in found.history:
        assert record["loss"] == pytest.approx(sum(counts[name] * record[name] for name in counts), rel=1e-4)
        assert record["smooth"] == pytest.approx(record["weights"].diff().square().mean().item())
        assert record["style"] > 0 and record["content"] > 0 and record["reach"] >= 0


class Redness:
    """A loss that is quick to compute: how red the pictures are, each by itself."""

    def style(self, images):
        return images[:, 0].mean((1, 2))

    def content(self, images):
        return torch.zeros(len(images))

    reach = pixels = content


def test_pictures_with_weights_of_their_own_do_not_hear_of_one_another(pipe, latents):
    def gradient(latents, weights):
        images = mixing.sample(pipe, NEUTRAL, STYLED, weights.requires_grad_(True), latents, checkpoint=False)
        optimise._total(Redness(), images, weights, replace(mixing.POCKET, smooth=0.01))[0].backward()
        return weights.grad

    start = torch.tensor([1.0, 0.3, 0.2])
    together, alone = gradient(latents, start[:, None].repeat(1, 2)), gradient(latents[1:], start.clone())
    assert torch.allclose(together[:, 1], alone, rtol=1e-3, atol=1e-5)
    assert (together[:, 0] - alone).abs().max() > 1e-3
    own = mixing.optimize(pipe, NEUTRAL, STYLED, latents, shared=False, num_inference_steps=2, iterations=0)
    assert own.weights.tolist() == [[1, 1], [0, 0]] and len(own.history) == 1


def test_the_profile_decides_the_settings(pipe):
    other = SimpleNamespace(tokenizer=SimpleNamespace(model_max_length=77))
    assert optimise._settings(pipe, None, {}) == mixing.POCKET
    assert optimise._settings(other, None, {}) == mixing.PAPER
    assert mixing.PAPER.t_star == 20 and mixing.PAPER.iterations == 10
    assert (mixing.PAPER.lr, mixing.PAPER.content, mixing.PAPER.reach) == (0.05, 0.05, 0)
    assert optimise._settings(pipe, mixing.PAPER, {"lr": 0.5}).lr == 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": 1}, TypeError, "unknown setting 'learning_rate'; there are .*lr"),
        ({"weights": torch.ones(7)}, ValueError, "expected 5 weights, one a step, got 7"),
        ({"neutral_share": 1.5}, ValueError, "neutral_share in 0..1"),
        ({"iterations": -1}, ValueError, "no negative iterations"),
    ],
)
def test_bad_input_to_optimize(pipe, latents, options, error, message):
    with pytest.raises(error, match=message):
        mixing.optimize(pipe, NEUTRAL, STYLED, latents, num_inference_steps=STEPS, **options)


def test_different_numbers_of_prompts(pipe, latents):
    with pytest.raises(ValueError, match="one for each of the 2 latents"):
        mixing.optimize(pipe, [NEUTRAL] * 2, [STYLED] * 3, latents, num_inference_steps=STEPS)
