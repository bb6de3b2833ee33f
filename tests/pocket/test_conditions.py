"""Canny finds the edges that are there; segmentation maps survive the way into colours and back."""

import numpy as np
import pytest
from PIL import Image

from tutorial_lib import metrics
from tutorial_lib.pocket import conditions, world


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(1)
    return next(scene for scene in iter(lambda: world.sample_scene(rng), None) if scene.style == "photo")


def square() -> Image.Image:
    pixels = np.full((64, 64, 3), 40, np.uint8)
    pixels[16:48, 16:48] = 200
    return Image.fromarray(pixels)


def test_canny_finds_a_square_and_nothing_else():
    edges = conditions.canny(square())
    border = np.zeros((64, 64), bool)
    border[16:48, 16:48] = True
    border[17:47, 17:47] = False
    assert edges.shape == (64, 64) and edges.dtype == bool
    assert metrics.edge_f1(edges, border) > 0.97
    assert not conditions.canny(Image.new("RGB", (64, 64), (90, 90, 90))).any()


def test_canny_sees_the_contours_of_a_drawn_photo(photo):
    edges = conditions.canny(world.draw(photo))
    assert metrics.edge_f1(edges, world.edges(photo)) > 0.65
    assert metrics.edge_f1(edges, np.roll(world.edges(photo), 9, axis=(0, 1))) < 0.6


def test_a_wider_blur_sees_fewer_edges(photo):
    picture = world.draw(photo)
    assert conditions.canny(picture, sigma=3).sum() < 0.8 * conditions.canny(picture, sigma=0.6).sum()
    with pytest.raises(ValueError, match="positive, got 0"):
        conditions.canny(picture, sigma=0)


def test_every_class_has_its_own_far_colour():
    assert set(conditions.PALETTE) == set(world.CLASSES)
    rows = conditions.PALETTE_ROWS.astype(float)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)[np.triu_indices(len(rows), 1)]
    assert distances.min() >= 70


def test_segmentation_survives_colours_and_noise():
    labels = np.random.default_rng(2).integers(len(world.CLASSES), size=(64, 64)).astype(np.uint8)
    picture = conditions.segmentation_picture(labels)
    assert np.array_equal(conditions.segmentation_labels(picture), labels)
    noise = np.random.default_rng(3).integers(-19, 20, size=(64, 64, 3))
    noisy = Image.fromarray((np.asarray(picture).astype(int) + noise).clip(0, 255).astype(np.uint8))
    assert np.array_equal(conditions.segmentation_labels(noisy), labels)


def test_a_scenes_map_is_shown_in_its_classes_colours(photo):
    labels = world.segmentation(photo)
    picture = np.asarray(conditions.segmentation_picture(labels))
    kind = photo.things[0].kind
    assert (picture[world.mask(photo)] == conditions.PALETTE[kind]).all() and world.mask(photo).any()
    assert np.array_equal(conditions.segmentation_labels(Image.fromarray(picture)), labels)


def test_maps_that_are_none_are_refused():
    with pytest.raises(ValueError, match="whole numbers"):
        conditions.segmentation_picture(np.zeros((64, 64)))
    with pytest.raises(ValueError, match="whole numbers"):
        conditions.segmentation_picture(np.zeros((1, 64, 64), int))
    with pytest.raises(ValueError, match=f"got 0 to {len(world.CLASSES)}"):
        conditions.segmentation_picture(np.array([[0, len(world.CLASSES)]]))
