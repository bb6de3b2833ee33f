import dataclasses

import numpy as np
import pytest
import torch

from tutorial_lib import training
from tutorial_lib.pocket.subjects import SUBJECTS
from tutorial_lib.pocket.world import draw
from tutorial_lib.training import TextCache, embed, encode

SCENES = SUBJECTS["two-tone-cat"].scenes


def test_the_moments_are_those_of_the_vae_as_the_unet_expects_them(pipe):
    pictures = [draw(scene).resize((96, 64)) for scene in SCENES[:3]]
    data = encode(pipe, pictures, ["a photo of a cat"] * 3)
    assert data.mean.shape == data.std.shape == (3, 4, 16, 24) and len(data) == 3
    x = pipe.image_processor.preprocess(pictures[1])
    with torch.no_grad():
        posterior = pipe.vae.encode(x).latent_dist
    scale = pipe.vae.config.scaling_factor
    assert torch.allclose(data.mean[1], posterior.mean[0] * scale, atol=1e-5)
    assert torch.allclose(data.std[1], posterior.std[0] * scale, atol=1e-5)


def test_scale_and_shift_of_the_vae_are_respected(pipe, monkeypatch):
    picture = [draw(SCENES[0])]
    plain = encode(pipe, picture, ["a cat"])
    config = dict(pipe.vae.config) | {"scaling_factor": 0.5, "shift_factor": 0.25}
    monkeypatch.setattr(type(pipe.vae), "config", type("Config", (), config))
    moved = encode(pipe, picture, ["a cat"])
    assert torch.allclose(moved.mean, (plain.mean - 0.25) * 0.5, atol=1e-5)
    assert torch.allclose(moved.std, plain.std * 0.5, atol=1e-6)


def test_each_visit_gets_a_draw_of_its_own(cat):
    drawn = torch.stack([cat.draw(2, training.Sample(0, 2, visit).normal((4, 16, 16), "z")) for visit in range(400)])
    assert torch.allclose(drawn.mean(0), cat.mean[2], atol=6 * cat.std[2].max().item() / 20)
    assert drawn.std(0).mean() == pytest.approx(cat.std[2].mean().item(), rel=0.05)


def test_arrays_and_pictures_are_the_same_and_others_are_not(pipe):
    pictures, captions = [draw(scene) for scene in SCENES[:2]], ["a cat", "a cat on a beach"]
    first = encode(pipe, pictures, captions)
    array = np.stack([np.asarray(p) for p in pictures])
    assert encode(pipe, array, captions).fingerprint == first.fingerprint
    array[0, 0, 0, 0] ^= 1
    assert encode(pipe, array, captions).fingerprint != first.fingerprint
    assert encode(pipe, pictures, captions[::-1]).fingerprint != first.fingerprint


def test_pictures_that_do_not_suit_are_refused(pipe):
    picture = draw(SCENES[0])
    for pictures, message in [
        ([], "no pictures"),
        ([picture, picture.resize((32, 32))], r"one size.*\(32, 32, 3\), \(64, 64, 3\).*load_folder"),
        ([picture.convert("L")], "expected RGB"),
        ([picture.resize((66, 64))], "multiples of 4"),
        ([np.asarray(picture) / 255.0], "float64"),
    ]:
        with pytest.raises(ValueError, match=message):
            encode(pipe, pictures, ["a cat"] * len(pictures))
    with pytest.raises(ValueError, match="one caption for each of the 1 pictures"):
        encode(pipe, [picture], ["a cat", "a dog"])
    with pytest.raises(ValueError, match="one caption"):
        encode(pipe, [picture], [None])


def test_latents_that_are_not_finite_are_named_by_their_picture(pipe, monkeypatch):
    encode_ = pipe.vae.encode

    def overflow(x):
        out = encode_(x)
        out.latent_dist.mean[1] = float("nan")
        return out

    monkeypatch.setattr(pipe.vae, "encode", overflow)
    with pytest.raises(ValueError, match=r"no finite latents of the pictures \[1\] in torch.float32"):
        encode(pipe, [draw(scene) for scene in SCENES[:3]], ["a cat"] * 3)


def test_embeddings_are_the_pipelines_own_and_are_made_once(pipe, monkeypatch):
    captions = ["a photo of a cat", "a red mug on a beach", ""]
    cache = TextCache(pipe, captions)
    made = cache(captions)
    theirs = pipe.encode_prompt(captions, "cpu", 1, False)[0]
    assert made.shape == theirs.shape and torch.allclose(made, theirs, atol=1e-5)
    calls = []
    forward = pipe.text_encoder.forward
    monkeypatch.setattr(pipe.text_encoder, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    again = cache(captions[::-1])
    assert torch.equal(again, made.flip(0)) and calls == []
    cache(["a photo of a dog", "a photo of a dog", "a cat"])
    assert len(calls) == 2


def test_new_captions_have_the_same_bits_whatever_comes_with_them(pipe):
    one, other = TextCache(pipe), TextCache(pipe)
    first = one(["a red mug", "a photo of a cat in the snow"])[1]
    assert torch.equal(first, other(["a photo of a cat in the snow"])[0])


def test_gradients_reach_the_token_embeddings(pipe):
    table = pipe.text_encoder.get_input_embeddings().weight
    pipe.text_encoder.requires_grad_(False)
    table.requires_grad_(True)
    embed(pipe, ["a photo of a cat"]).square().sum().backward()
    ids = pipe.tokenizer("a photo of a cat").input_ids
    assert table.grad[ids].abs().sum(1).min() > 0
    table.grad = None
    table.requires_grad_(False)


def test_words_that_the_model_never_saw_are_named(pipe):
    with pytest.warns(UserWarning, match="zebra"):
        encode(pipe, [draw(SCENES[0])], ["a photo of a zebra"])


def test_encoded_pictures_cannot_be_changed_by_accident(cat):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cat.captions = ()
