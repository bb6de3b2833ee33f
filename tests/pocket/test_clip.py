"""The shipped CLIP on drawn pictures that it never trained on."""

import pytest
import torch

from tutorial_lib import metrics, models
from tutorial_lib.pocket import world
from tutorial_lib.pocket.pretrain.data import held_out_scenes


@pytest.fixture(scope="module")
def clip():
    return models.load_clip()


@pytest.fixture(scope="module")
def scenes():
    return held_out_scenes(64)


def test_finds_the_caption_of_a_picture(clip, scenes):
    pictures = [world.draw(scene) for scene in scenes]
    images, texts = clip.image_embeds(pictures), clip.text_embeds([world.caption(s) for s in scenes])
    torch.testing.assert_close(images.norm(dim=1), torch.ones(len(scenes)))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(len(scenes)))
    assert ((images @ texts.T).argmax(1) == torch.arange(len(scenes))).float().mean() > 0.85


def test_clip_scores_prefer_the_right_caption(clip, scenes):
    pictures = [world.draw(scene) for scene in scenes]
    captions = [world.caption(scene) for scene in scenes]
    assert metrics.clip_text(pictures, captions, clip) > metrics.clip_text(pictures, captions[1:] + captions[:1], clip)


def test_gradients_reach_the_pictures(clip, scenes):
    """Lesson 03 optimises pictures by their CLIP embedding."""
    picture = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    clip.image_embeds(picture)[0, 0].backward()
    assert picture.grad.abs().sum() > 0


def test_only_the_pocket_profile_brings_a_clip():
    with pytest.raises(ValueError, match="pocket"):
        models.load_clip("sd15")
