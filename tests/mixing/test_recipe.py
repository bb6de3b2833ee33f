"""Recipes: kept in a file, read again, applied to other noise, other prompts and pictures of one's own."""

import numpy as np
import pytest
import torch

from tutorial_lib import ddim, metrics, mixing, sampling
from tutorial_lib.pocket import world

STEPS = 5
NEUTRAL, STYLED = "a photo of a person on a beach", "a watercolor of a person with a hat on a beach"


@pytest.fixture(scope="module")
def recipe():
    return mixing.Recipe(torch.linspace(1.1, -0.1, STEPS), NEUTRAL, STYLED, guidance_scale=3.0, eta=0.3)


def test_a_recipe_comes_back_from_its_file(pipe, latents, recipe, tmp_path):
    mixing.save(recipe, tmp_path / "hat.safetensors")
    loaded = mixing.load(tmp_path / "hat.safetensors")
    assert torch.equal(loaded.weights, recipe.weights)
    assert (loaded.neutral, loaded.styled, loaded.eta, loaded.guidance_scale) == (NEUTRAL, STYLED, 0.3, 3.0)
    images = mixing.apply(pipe, loaded, latents, seed=5)
    assert torch.equal(images, mixing.apply(pipe, recipe, latents, seed=5))
    assert [file.name for file in tmp_path.iterdir()] == ["hat.safetensors"]


def test_weights_of_several_pictures_and_their_prompts_are_kept_too(tmp_path):
    several = mixing.Recipe(torch.rand(4, 2), ["a cat", "a car"], ["a red cat", "a red car"], 2.5)
    mixing.save(several, tmp_path / "red.safetensors")
    loaded = mixing.load(tmp_path / "red.safetensors")
    assert torch.equal(loaded.weights, several.weights) and loaded.weights.shape == (4, 2)
    assert (loaded.neutral, loaded.styled) == (several.neutral, several.styled)


def test_weights_apply_to_other_noise_other_prompts_and_other_numbers_of_pictures(pipe, recipe):
    noise = sampling.noise(pipe, [21, 22, 23])
    cat, red_cat = "a photo of a cat at night", "a photo of a red cat at night"
    applied = mixing.apply(pipe, recipe, noise, neutral=cat, styled=[red_cat] * 3, seed=1)
    with torch.no_grad():
        expected = mixing.sample(pipe, cat, red_cat, recipe.weights, noise, guidance_scale=3.0, eta=0.3, seed=1)
    assert torch.equal(applied, expected)
    assert (applied - mixing.apply(pipe, recipe, noise, seed=1)).abs().mean() > 0.01


def test_an_inverted_picture_can_be_edited_and_is_itself_at_weight_one(pipe):
    scene = world.sample_scene(np.random.default_rng(8), held_out=True)
    picture, prompt = world.draw(scene), world.caption(scene)
    inversion = mixing.ddim_invert(pipe, picture, prompt, num_inference_steps=STEPS)
    plain = mixing.Recipe(torch.ones(STEPS), prompt, "a watercolor of a house", inversion.guidance_scale)
    itself = mixing.apply(pipe, plain, inversion.latents, corrections=inversion.corrections)
    pixels = ddim.to_pixels(picture)
    with torch.no_grad():
        vae = ddim.decode(pipe, ddim.encode(pipe, picture))
    assert abs(metrics.psnr(itself, pixels) - metrics.psnr(vae, pixels)) < 0.1  # the promise is 0.5 dB
    edit = mixing.Recipe(mixing.initial_weights(STEPS, 2), prompt, plain.styled, inversion.guidance_scale)
    edited = mixing.apply(pipe, edit, inversion.latents, corrections=inversion.corrections)
    assert (edited - itself).abs().mean() > 0.01


def test_files_that_are_missing_damaged_foreign_or_in_the_way(tmp_path):
    from safetensors.torch import save_file

    recipe = mixing.Recipe(torch.rand(4), "a cat", "a dog", 4.0)
    file = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="is missing"):
        mixing.load(file)
    mixing.save(recipe, file)
    with pytest.raises(FileExistsError, match="choose another name"):
        mixing.save(mixing.Recipe(torch.zeros(4), "a cat", "a dog", 4.0), file)
    assert torch.equal(mixing.load(file).weights, recipe.weights)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="damaged"):
        mixing.load(file)
    save_file({"weights": torch.rand(4)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no mixing weights"):
        mixing.load(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="NaN"):
        mixing.save(
            mixing.Recipe(torch.tensor([1.0, float("nan")]), "a cat", "a dog", 4.0), tmp_path / "new.safetensors"
        )
    assert not (tmp_path / "new.safetensors").exists()
