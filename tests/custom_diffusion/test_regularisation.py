"""Pictures of the class: drawn by the world and chosen by caption, or drawn by the model."""

import numpy as np
import pytest
import torch

from tutorial_lib import custom_diffusion, models


class OneWordClip:
    """Text embeddings that count two words, so that the nearest captions are known."""

    def text_embeds(self, texts):
        rows = torch.tensor([[1.0, 2.0 * ("red" not in t), 1.0 * ("beach" not in t)] for t in texts])
        return torch.nn.functional.normalize(rows, dim=1)


def test_the_drawn_pictures_captions_name_the_class_and_the_nearest_come_first():
    pictures, captions = custom_diffusion.drawn("gate", OneWordClip(), count=12, seed=1)
    assert len(pictures) == len(captions) == 12
    assert all("gate" in caption.split() for caption in captions)
    clip = OneWordClip()
    similarity = clip.text_embeds(captions) @ clip.text_embeds(["a photo of a gate"])[0]
    assert (similarity.diff() <= 1e-6).all()
    assert not any("red" in caption for caption in captions)
    assert len({picture.tobytes() for picture in pictures}) == 12


def test_drawn_pictures_show_what_their_captions_say():
    from tutorial_lib.pocket import judge

    pictures, captions = custom_diffusion.drawn("teapot", models.load_clip(), count=8)
    readings = judge.load().read(pictures)
    assert sum(any(thing.kind == "teapot" for thing in r.things) for r in readings) >= 7
    assert custom_diffusion.drawn("teapot", models.load_clip(), count=8)[1] == captions


def test_generated_pictures_are_the_models_own(pipe):
    pictures, captions = custom_diffusion.generated(pipe, "cat", 3, num_inference_steps=2, progress=False)
    again, _ = custom_diffusion.generated(pipe, "cat", 3, num_inference_steps=2, progress=False)
    assert captions == ["a photo of a cat"] * 3 and pictures[0].size == (32, 32)
    assert np.array_equal(np.asarray(pictures[1]), np.asarray(again[1]))
    assert not np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))


def test_bad_input(pipe):
    with pytest.raises(ValueError, match="the pocket world has no 'dragon'.*mug"):
        custom_diffusion.drawn("dragon", OneWordClip())
    for make in (
        lambda: custom_diffusion.drawn("cat", OneWordClip(), 0),
        lambda: custom_diffusion.generated(pipe, "cat", 0),
    ):
        with pytest.raises(ValueError, match="count: expected"):
            make()
