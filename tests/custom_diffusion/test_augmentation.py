"""Augmented pictures: sizes, words and masks fit together; the mask holds nothing but the picture."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import custom_diffusion
from tutorial_lib.custom_diffusion import augmentation

RED = (250, 20, 30)


def many(size: int, factor: int, count: int = 400) -> list:
    picture = Image.new("RGB", (size, size), RED)
    return [custom_diffusion.augment(picture, np.random.default_rng(k), factor) for k in range(count)]


@pytest.mark.parametrize(("size", "factor"), [(64, 4), (96, 8), (32, 8)])
def test_under_the_mask_is_the_picture_alone_and_around_it_one_cell_of_room(size, factor):
    for made in many(size, factor):
        mask = made.mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[0].bool().numpy()
        pixels = np.asarray(made.picture)
        assert made.picture.size == (size, size) and made.mask.sum() > 0
        assert (pixels[mask] == RED).all()
        if made.words in augmentation.SMALL:
            grown = torch.nn.functional.max_pool2d(made.mask, 3, 1, 1)
            grown = grown.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[0].bool().numpy()
            inner = np.abs(pixels.astype(int) - RED).max(2) == 0
            assert inner[grown].mean() > 0.5 and not made.mask.all()
        else:
            assert made.mask.all()


def test_sizes_come_as_often_as_the_paper_says():
    words = Counter(made.words for made in many(66, 1, 3000))
    small = sum(words[w] for w in augmentation.SMALL) / 3000
    large = sum(words[w] for w in augmentation.LARGE) / 3000
    assert abs(small - 2 / 3 * 0.4) < 0.04  # below 0.6, of sizes between 1/3 and 1
    assert abs(large - 1 / 3) < 0.04
    assert all(words[w] > 100 for w in (*augmentation.SMALL, *augmentation.LARGE))


def test_a_shrunk_picture_is_all_there_and_an_enlarged_one_is_cut():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3))
    mirrored = 0
    for k in range(60):
        made = custom_diffusion.augment(Image.fromarray(ramp), np.random.default_rng(k), 4)
        row = np.asarray(made.picture)[:, :, 0].astype(int)
        if made.words in augmentation.LARGE:
            span = abs(row[32, -1] - row[32, 0]) / 252
            assert 1 / 1.4 - 0.05 < span < 1 / 1.2 + 0.05
        if made.words == "":
            mirrored += row[32, 0] > row[32, -1]
            assert {row[32, 0], row[32, -1]} == {0, 252}
    assert mirrored > 3


def test_the_same_random_numbers_make_the_same_version():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    first, second = (custom_diffusion.augment(picture, np.random.default_rng(5), 4) for _ in range(2))
    assert first.picture.tobytes() == second.picture.tobytes() and torch.equal(first.mask, second.mask)


def test_words_stand_before_the_caption():
    assert augmentation.prefixed("very small", "a photo of a <new1> cat") == "very small photo of a <new1> cat"
    assert augmentation.prefixed("a far away", "photo of a cat") == "a far away photo of a cat"
    assert augmentation.prefixed("", "a photo of a cat") == "a photo of a cat"


def test_encoded_versions_have_their_masks_and_captions(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    colours = (RED, (10, 200, 30), (0, 0, 0))
    pictures = [Image.new("RGB", (32, 32), colour) for colour in colours]
    captions = [f"a photo of a <new1> {word}" for word in ("cat", "mug", "car")]
    data, masks = custom_diffusion.augmented(pipe, pictures, captions, versions=6, seed=3)
    assert data.mean.shape == (18, 4, 8, 8) and masks.shape == (18, 1, 8, 8)
    for k, caption in enumerate(data.captions):
        rng = np.random.default_rng((3, k // 6, k % 6))
        made = custom_diffusion.augment(pictures[k // 6], rng, 4)
        assert torch.equal(masks[k], made.mask)
        assert caption == augmentation.prefixed(made.words, captions[k // 6])
    again, _ = custom_diffusion.augmented(pipe, pictures, captions, versions=6, seed=4)
    assert again.fingerprint != data.fingerprint


@pytest.mark.parametrize("size", [(64, 48), (62, 62), (12, 12)])
def test_pictures_that_do_not_suit_are_refused(size):
    with pytest.raises(ValueError, match="expected a square picture, a multiple of 4"):
        custom_diffusion.augment(Image.new("RGB", size), np.random.default_rng(0), 4)


def test_at_least_one_version(pipe):
    with pytest.raises(ValueError, match="versions: expected"):
        custom_diffusion.augmented(pipe, [Image.new("RGB", (32, 32))], ["a cat"], versions=0)
