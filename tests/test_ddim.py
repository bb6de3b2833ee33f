"""DDIM step by step equals diffusers', backwards it undoes itself, and a picture comes back from its noise."""

import numpy as np
import pytest
import torch

from tutorial_lib import ddim, metrics, models
from tutorial_lib.pocket import world

STEPS = 6


@pytest.fixture(scope="module")
def pipe():
    return models.load("pocket", device="cpu")


@pytest.fixture(scope="module")
def drawn():
    """Two drawn pictures, which the model never saw, and their captions."""
    rng = np.random.default_rng(5)
    scenes = [world.sample_scene(rng, held_out=True) for _ in range(2)]
    return [world.draw(scene) for scene in scenes], [world.caption(scene) for scene in scenes]


def diffusers_ddim(pipe, steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [1, 6, 7, 50])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_every_step_equals_that_of_diffusers(pipe, steps, eta):
    theirs, plan = diffusers_ddim(pipe, steps), ddim.schedule(pipe, steps)
    assert torch.equal(plan.timesteps, theirs.timesteps) and len(plan) == steps
    x, eps, z = torch.randn(3, 2, 4, 16, 16, generator=torch.Generator().manual_seed(steps))
    for i, t in enumerate(theirs.timesteps):
        expected = theirs.step(eps, t, x, eta=eta, variance_noise=z if eta else None).prev_sample
        x = ddim.denoise(x, eps, plan.alpha[i], plan.alpha_prev[i], eta, z if eta else None)
        assert torch.allclose(x, expected, rtol=1e-4, atol=1e-5)


def test_a_step_back_undoes_a_step():
    x, eps = torch.randn(2, 3, 4, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, alpha_prev = torch.tensor([0.2, 0.7], dtype=torch.float64)
    there = ddim.denoise(x, eps, alpha, alpha_prev)
    assert (there - x).abs().max() > 0.1
    assert torch.allclose(ddim.renoise(there, eps, alpha, alpha_prev), x, atol=1e-12)


def test_the_schedule_is_ddims_whatever_the_pipelines_own_sampler_is(pipe, monkeypatch):
    from diffusers import PNDMScheduler

    expected = ddim.schedule(pipe, 10)
    monkeypatch.setattr(pipe, "scheduler", PNDMScheduler.from_config(pipe.scheduler.config))
    assert torch.equal(ddim.schedule(pipe, 10).timesteps, expected.timesteps)


def test_a_model_that_does_not_predict_noise_is_refused(pipe, monkeypatch):
    from diffusers import DDIMScheduler

    other = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    monkeypatch.setattr(pipe, "scheduler", other)
    with pytest.raises(ValueError, match="predicts epsilon, got 'v_prediction'"):
        ddim.schedule(pipe, 10)


def test_guidance_moves_away_from_the_empty_prompt(pipe):
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    mug, nothing = ddim.embed(pipe, "a photo of a red mug on a table", 2), ddim.embed(pipe, "", 2)
    with torch.no_grad():
        plain, without, guided = (
            ddim.predict_noise(pipe, x, 500, cond, nothing, g) for cond, g in ((mug, 1), (nothing, 1), (mug, 3.0))
        )
    assert torch.allclose(guided, without + 3 * (plain - without), atol=1e-4)
    assert (plain - without).abs().max() > 0.01


def test_prompts_become_one_embedding_a_picture(pipe):
    cat, car = "a photo of a cat", "a photo of a car"
    both = ddim.embed(pipe, [cat, car], 2)
    assert both.shape == (2, 40, 192)
    assert torch.allclose(both[1:], ddim.embed(pipe, car, 1), atol=1e-5)
    assert torch.allclose(ddim.embed(pipe, cat, 2)[1], both[0], atol=1e-5)
    assert torch.equal(ddim.embed(pipe, both, 2), both)


@pytest.mark.parametrize("prompts", [[], ["a cat"] * 3, [3, 4], torch.zeros(3, 40, 192), torch.zeros(40, 192)])
def test_prompts_that_do_not_fit_the_pictures(pipe, prompts):
    with pytest.raises(ValueError, match="expected (a|one) prompt"):
        ddim.embed(pipe, prompts, 2)


def test_frozen_parameters_are_as_before_also_after_an_error():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].weight.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(KeyError), ddim.frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        raise KeyError
    assert [p.requires_grad for p in model.parameters()] == before == [False, True, True, True]


# ------------------------------------------------------------------ inversion


def resampled(pipe, inversion, corrections):
    """The picture that sampling from the inversion's noise gives, step by step."""
    plan, x = ddim.schedule(pipe, len(inversion.corrections)), inversion.latents
    cond, nothing = (ddim.embed(pipe, p, len(x)) for p in (inversion.prompt, ""))
    for i, t in enumerate(plan.timesteps):
        eps = ddim.predict_noise(pipe, x, t, cond, nothing, inversion.guidance_scale)
        x = ddim.denoise(x, eps, plan.alpha[i], plan.alpha_prev[i]) + corrections[i]
    return ddim.decode(pipe, x)


@torch.no_grad()
def test_an_inverted_picture_comes_back_as_well_as_the_vae_can(pipe, drawn):
    pictures, prompts = drawn
    vae = metrics.psnr(ddim.decode(pipe, ddim.encode(pipe, pictures)), ddim.to_pixels(pictures))
    inversion = ddim.ddim_invert(pipe, pictures, prompts, num_inference_steps=STEPS)
    assert inversion.latents.shape == (2, 4, 16, 16) and inversion.corrections.shape == (STEPS, 2, 4, 16, 16)
    back = resampled(pipe, inversion, inversion.corrections)
    assert abs(metrics.psnr(back, ddim.to_pixels(pictures)) - vae) < 0.1  # the promise is 0.5 dB
    without = resampled(pipe, inversion, torch.zeros_like(inversion.corrections))
    assert metrics.psnr(without, ddim.to_pixels(pictures)) < vae - 2  # the corrections are needed


@torch.no_grad()
def test_one_picture_alone_as_pil_or_as_a_tensor(pipe, drawn):
    picture, prompt = drawn[0][1], drawn[1][1]
    from_pil = ddim.ddim_invert(pipe, picture, prompt, num_inference_steps=2)
    from_tensor = ddim.ddim_invert(pipe, ddim.to_pixels(picture), prompt, num_inference_steps=2)
    assert from_pil.latents.shape == (1, 4, 16, 16)
    assert torch.equal(from_pil.latents, from_tensor.latents)
    assert torch.equal(from_pil.corrections, from_tensor.corrections)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.rand(1, 3, 32, 64), "pictures of 64x64"),
        (torch.rand(1, 3, 64, 64) * 255, r"in \[0, 1\]"),
        (torch.full((1, 3, 64, 64), float("nan")), r"in \[0, 1\]"),
        (torch.rand(3, 64, 64), r"\(n, 3, h, w\)"),
    ],
)
def test_pictures_that_cannot_be_inverted(pipe, picture, message):
    with pytest.raises(ValueError, match=message):
        ddim.ddim_invert(pipe, picture, "a photo of a cat", num_inference_steps=2)


def test_pictures_of_several_sizes(pipe):
    from PIL import Image

    with pytest.raises(ValueError, match="one size"):
        ddim.encode(pipe, [Image.new("RGB", (64, 64)), Image.new("RGB", (32, 64))])
