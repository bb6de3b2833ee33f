"""Mixing and sampling: exact at its ends, the same again, right gradients in little memory, an untouched model."""

import numpy as np
import pytest
import torch

from tutorial_lib import mixing, sampling

STEPS = 5
NEUTRAL, STYLED = "a photo of a person on a beach", "a watercolor of a person with a hat on a beach"


@torch.no_grad()
def make(pipe, latents, weights, **options):
    return mixing.sample(pipe, NEUTRAL, STYLED, torch.as_tensor(weights), latents, **options)


def grey_levels(images):
    return (images.detach() * 255).round().permute(0, 2, 3, 1).numpy()


# ------------------------------------------------------------------ mixing


def test_weight_one_is_neutral_and_zero_is_styled():
    neutral, styled = torch.randn(2, 3, 5, 7)
    mixed = mixing.mix(neutral, styled, torch.tensor([1.0, 0.0, 0.25, -0.2]))
    assert mixed.shape == (4, 3, 5, 7)
    assert torch.equal(mixed[0], neutral) and torch.equal(mixed[1], styled)
    assert torch.allclose(mixed[2], styled + 0.25 * (neutral - styled), atol=1e-6)
    assert torch.equal(mixing.mix(neutral[0], styled[0], torch.tensor([1.0, 0.25])), mixed[[0, 2], 0])  # one, alone
    assert torch.allclose(mixed[3], styled + 0.2 * (styled - neutral), atol=1e-6)  # beyond the styled prompt


def test_each_picture_can_have_weights_of_its_own():
    neutral, styled = torch.randn(2, 3, 5, 7)
    weights = torch.rand(4, 3)
    mixed = mixing.mix(neutral, styled, weights)
    for k in range(3):
        alone = mixing.mix(neutral[k : k + 1], styled[k : k + 1], weights[:, k])
        assert torch.equal(mixed[:, k : k + 1], alone)


@pytest.mark.parametrize("weights", [torch.rand(4, 2), torch.rand(()), torch.rand(0), torch.rand(4, 3, 1)])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match=r"expected weights \(steps,\) or \(steps, 3\)"):
        mixing.mix(torch.zeros(3, 5, 7), torch.zeros(3, 5, 7), weights)


def test_embeddings_that_do_not_fit():
    with pytest.raises(ValueError, match="must have one shape"):
        mixing.mix(torch.zeros(3, 5, 7), torch.zeros(2, 5, 7), torch.rand(4))


def test_the_papers_start():
    assert mixing.initial_weights(5, 2, late=-0.2).tolist() == pytest.approx([1, 1, -0.2, -0.2, -0.2])
    with pytest.raises(ValueError, match=r"in 0..5, got 6"):
        mixing.initial_weights(5, 6)


# ------------------------------------------------------------------ sampling


@pytest.mark.parametrize(("weight", "prompt"), [(1.0, NEUTRAL), (0.0, STYLED)])
def test_at_its_ends_it_is_ordinary_generation(pipe, latents, weight, prompt):
    options = {"num_inference_steps": STEPS, "progress": False, "latents": latents}
    expected = np.stack([np.asarray(p) for p in sampling.generate(pipe, [prompt] * 2, **options)])
    images = make(pipe, latents, torch.full((STEPS,), weight))
    assert images.shape == (2, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    assert np.abs(grey_levels(images) - expected).max() <= 1


def test_a_late_switch_lies_between_the_two_pictures(pipe, latents):
    neutral, styled = (make(pipe, latents, torch.full((STEPS,), w)) for w in (1.0, 0.0))
    late = make(pipe, latents, mixing.initial_weights(STEPS, STEPS - 1))
    assert 0 < (late - neutral).abs().mean() < (styled - neutral).abs().mean()


def test_each_picture_of_a_batch_is_as_if_made_alone(pipe, latents):
    weights = torch.stack([torch.linspace(1, 0, STEPS), torch.linspace(0, 1, STEPS)], 1)
    together = make(pipe, latents, weights, eta=0.7, seed=[3, 9])
    alone = make(pipe, latents[1:], weights[:, 1], eta=0.7, seed=9)
    assert np.abs(grey_levels(together[1:]) - grey_levels(alone)).max() <= 1


def test_added_noise_is_fixed_by_its_seed(pipe, latents):
    weights = mixing.initial_weights(STEPS, 2)
    first, again, other = (make(pipe, latents, weights, eta=1.0, seed=s) for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01
    assert (first - make(pipe, latents, weights)).abs().mean() > 0.01  # eta = 0


def test_added_noise_is_new_at_each_step_and_is_not_the_starting_noise(pipe):
    noise = mixing.step_noise(pipe, STEPS, [4, 5])
    assert noise.shape == (STEPS, 2, 4, 16, 16)
    every = torch.cat([sampling.noise(pipe, [4, 5])[None], noise]).flatten(0, 1).flatten(1)  # (6 * 2, 1024)
    correlation = torch.corrcoef(every).fill_diagonal_(0)
    assert correlation.abs().max() < 0.2 and abs(noise.std() - 1) < 0.05


def test_the_pipelines_own_sampler_does_not_matter(pipe, latents, monkeypatch):
    from diffusers import EulerDiscreteScheduler

    expected = make(pipe, latents, torch.ones(2))
    monkeypatch.setattr(pipe, "scheduler", EulerDiscreteScheduler.from_config(pipe.scheduler.config))
    assert torch.equal(make(pipe, latents, torch.ones(2)), expected)


# ------------------------------------------------------------------ gradients


def gradient(pipe, latents, checkpoint, **options):
    weights = mixing.initial_weights(STEPS, 2).requires_grad_(True)
    images = mixing.sample(pipe, NEUTRAL, STYLED, weights, latents, checkpoint=checkpoint, **options)
    (images - 0.4).square().mean().backward()
    return weights.grad


def test_gradients_with_and_without_checkpointing_are_the_same(pipe, latents):
    with_it, without = (gradient(pipe, latents, c, eta=0.5, seed=2) for c in (True, False))
    assert torch.allclose(with_it, without, rtol=1e-5, atol=1e-5 * without.abs().max().item())
    assert (without.abs() > 0).all()


def test_the_gradient_is_the_slope(pipe, latents):
    """Along its own direction, against a central difference of the loss."""
    slope, weights, h = gradient(pipe, latents, True), mixing.initial_weights(STEPS, 2), 1e-2
    ahead, behind = (
        (make(pipe, latents, weights + s * h * slope / slope.norm()) - 0.4).square().mean() for s in (1, -1)
    )
    assert ((ahead - behind) / (2 * h)).item() == pytest.approx(slope.norm().item(), rel=0.05)


def kept_bytes(pipe, latents, steps, checkpoint):
    """What autograd keeps for the backward pass outside of checkpointed steps."""
    kept = {}

    def note(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = torch.full((steps,), 0.5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        images = mixing.sample(pipe, NEUTRAL, STYLED, weights, latents, checkpoint=checkpoint)
    assert images.requires_grad
    return sum(kept.values())


def test_checkpointing_keeps_about_one_latent_a_step(pipe, latents):
    latent = latents.numel() * 4
    a_step = (kept_bytes(pipe, latents, 4, True) - kept_bytes(pipe, latents, 2, True)) / 2
    assert a_step <= 6 * latent
    everything = (kept_bytes(pipe, latents, 4, False) - kept_bytes(pipe, latents, 2, False)) / 2
    assert everything > 100 * latent


# ------------------------------------------------------------------ the model stays as it was


def parts(pipe):
    return [p for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()]


def test_the_model_is_left_untouched(pipe, latents):
    pipe.unet.conv_in.weight.requires_grad_(False)
    try:
        asked = [p.requires_grad for p in parts(pipe)]
        before = [p.detach().clone() for p in parts(pipe)]
        gradient(pipe, latents, True), gradient(pipe, latents, False)
        mixing.optimize(pipe, NEUTRAL, STYLED, latents, num_inference_steps=2, iterations=1)
        assert [p.requires_grad for p in parts(pipe)] == asked and len(set(asked)) == 2
        assert all(p.grad is None for p in parts(pipe))
        assert all(torch.equal(a, b) for a, b in zip(parts(pipe), before))
    finally:
        pipe.unet.conv_in.weight.requires_grad_(True)


# ------------------------------------------------------------------ bad input


def bad(**changes):
    return {"neutral": NEUTRAL, "styled": STYLED, "weights": torch.ones(STEPS)} | changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(neutral=[NEUTRAL] * 3), "each of the 2 latents, got 3"),
        (bad(neutral=[]), "expected a prompt"),
        (bad(weights=torch.ones(STEPS, 3)), r"\(steps, 2\)"),
        (bad(weights=torch.tensor([1.0, float("nan")])), "weights hold NaN"),
        (bad(corrections=torch.zeros(4, 2, 4, 16, 16)), "expected corrections"),
        (bad(latents=torch.zeros(2, 4, 8, 8)), r"latents \(n, 4, 16, 16\)"),
        (bad(latents=torch.full((2, 4, 16, 16), float("inf"))), "latents hold NaN or infinity"),
        (bad(eta=0.5, seed=[1, 2, 3]), "one seed for each of the 2"),
    ],
)
def test_bad_input_to_sample(pipe, latents, arguments, message):
    arguments = {"latents": latents} | arguments
    with pytest.raises(ValueError, match=message):
        mixing.sample(pipe, **arguments)
