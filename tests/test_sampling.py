"""Generating: the same for the same seeds, whatever stands around; warnings; bad input."""

import warnings

import numpy as np
import pytest
import torch

from tutorial_lib import models, sampling

PROMPTS = ["a photo of a red mug on a table", "a watercolor of a cat in the snow", "pixel art of a car at night"]


@pytest.fixture(scope="module")
def pipe():
    return models.load("pocket", device="cpu")


def draw(pipe, prompts, **options):
    pictures = sampling.generate(pipe, prompts, **{"num_inference_steps": 4, "progress": False} | options)
    return np.stack([np.asarray(p) for p in pictures]).astype(int)


def test_same_seed_same_picture_and_another_seed_another(pipe):
    first, again = draw(pipe, PROMPTS, seed=5), draw(pipe, PROMPTS, seed=5)
    assert first.shape == (3, 64, 64, 3)
    assert np.array_equal(first, again)
    assert np.abs(first - draw(pipe, PROMPTS, seed=6)).mean() > 3


def test_a_number_stands_for_one_seed_after_the_other(pipe):
    first = draw(pipe, PROMPTS, seed=5)
    assert np.array_equal(first, draw(pipe, PROMPTS, seed=[5, 6, 7]))
    assert np.array_equal(first, draw(pipe, PROMPTS, seed=np.int64(5)))


@pytest.mark.parametrize(
    "scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_a_picture_depends_on_its_own_seed_alone(pipe, scheduler):
    """Also with a scheduler that draws noise at every step. The batch's size moves a value by rounding at most."""
    import diffusers

    own = pipe.scheduler
    try:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(own.config)
        together, alone = draw(pipe, PROMPTS, seed=[3, 9, 4]), draw(pipe, PROMPTS[1], seed=[9])
    finally:
        pipe.scheduler = own
    assert np.abs(together[1] - alone[0]).max() <= 2


def test_more_prompts_than_a_batch_come_back_in_order(pipe):
    many = PROMPTS * 6
    pictures = draw(pipe, many, seed=[1, 2, 3] * 6)
    assert len(many) > sampling.BATCH and np.abs(pictures[:3] - pictures[-3:]).max() <= 2


def test_each_prompt_keeps_its_own_negative_prompt(pipe, monkeypatch):
    """Also where the pictures are drawn in several batches."""
    negatives = ["a red mug", "a person", "snow"]
    together = draw(pipe, PROMPTS, seed=5, negative_prompt=negatives)
    monkeypatch.setattr(sampling, "BATCH", 2)
    assert np.abs(together - draw(pipe, PROMPTS, seed=5, negative_prompt=negatives)).max() <= 2
    for_all = draw(pipe, PROMPTS, seed=5, negative_prompt="snow")
    assert np.abs(together[2] - for_all[2]).max() <= 2 < np.abs(together[:2] - for_all[:2]).max()


def test_given_latents_replace_the_seeds_noise(pipe):
    latents = sampling.noise(pipe, [8, 9, 10])
    assert latents.shape == (3, 4, 16, 16)
    assert np.array_equal(draw(pipe, PROMPTS, seed=0, latents=latents), draw(pipe, PROMPTS, seed=8))


def test_the_noise_of_a_step_is_not_the_starting_noise_again(pipe, monkeypatch):
    """Nor does it change when the starting noise is given."""
    from diffusers.schedulers import scheduling_ddim

    added, real = [], scheduling_ddim.randn_tensor
    monkeypatch.setattr(scheduling_ddim, "randn_tensor", lambda *a, **k: added.append(real(*a, **k)) or added[-1])
    start = sampling.noise(pipe, [3])
    draw(pipe, PROMPTS[0], seed=[3], eta=1.0)
    draw(pipe, PROMPTS[0], seed=[3], eta=1.0, latents=start)
    first, again = added[0], added[len(added) // 2]
    assert torch.equal(first, again)
    assert torch.corrcoef(torch.stack([first.flatten(), start.flatten()]))[0, 1].abs() < 0.2


def test_a_fresh_controlnet_changes_nothing(pipe):
    """Its zero convolutions give zeros, so the pictures are those of the pipeline alone."""
    from diffusers import ControlNetModel
    from PIL import Image

    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32, 64))
    edges = [Image.new("RGB", (64, 64), "white")] * 3
    with_control = draw(pipe, PROMPTS, seed=5, controlnet=control, control_images=edges)
    assert np.abs(with_control - draw(pipe, PROMPTS, seed=5)).max() <= 1


def test_words_never_seen_are_named_in_one_warning(pipe):
    with pytest.warns(UserWarning, match="never saw these words.*dragon, zebra") as caught:
        draw(pipe, ["a photo of a zebra, a dragon and a red mug"])
    assert len([w for w in caught if "never saw" in str(w.message)]) == 1


def test_known_words_and_rare_ones_are_silent(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sampling.unknown_words(pipe.tokenizer, "A photo of sks cat, with a hat.") == []
        sampling.warn_of_prompts(pipe.tokenizer, PROMPTS)


def test_what_does_not_fit_is_named(pipe):
    prompt = "a photo of " + "a red mug and " * 10 + "a blue ball"
    with pytest.warns(UserWarning, match="cut off: '.*a blue ball'"):
        draw(pipe, [prompt])


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "expected a prompt"),
        ([3], {}, "expected a prompt"),
        (PROMPTS, {"seed": [1, 2]}, "one seed for each of the 3"),
        (PROMPTS, {"latents": torch.zeros(2, 4, 16, 16)}, "latents for 3 prompts"),
        (PROMPTS, {"control_images": [None] * 3}, "go together"),
        (PROMPTS, {"negative_prompt": ["a hat"]}, "each of the 3 prompts, got 1"),
        (PROMPTS, {"num_inference_steps": 0}, "whole number from 1 on, got 0"),
        (PROMPTS, {"num_inference_steps": 2.5}, "whole number from 1 on, got 2.5"),
    ],
)
def test_bad_input(pipe, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        draw(pipe, prompts, **options)
