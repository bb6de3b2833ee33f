"""Control pictures: what is there is found, survives the way into colours and back, and becomes a hint in [0, 1]."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tutorial_lib import metrics
from tutorial_lib.pocket import conditions, judge, world


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


# ------------------------------------------------------------------ from scenes and from pictures


@pytest.fixture(scope="module")
def person():
    rng = np.random.default_rng(4)
    scenes = iter(lambda: world.sample_scene(rng), None)
    return next(s for s in scenes if s.style == "photo" and len(s.things) == 1 and world.landmarks(s) is not None)


def test_of_scene_is_the_worlds_own_truth(person):
    made = {kind: conditions.of_scene(kind, person) for kind in conditions.KINDS}
    assert all(picture.size == (64, 64) and picture.mode == "RGB" for picture in made.values())
    assert np.array_equal(conditions.edge_map(made["edges"]), conditions.canny(world.draw(person)))
    assert np.array_equal(conditions.edge_map(made["contours"]), world.edges(person))
    assert np.array_equal(conditions.segmentation_labels(made["segmentation"]), world.segmentation(person))
    assert not np.array_equal(made["edges"], made["contours"])


def test_a_scene_without_a_person_has_no_landmarks():
    scene = world.Scene("photo", "beach", (world.Thing("mug", "red"),))
    with pytest.raises(ValueError, match="choose scenes with a person"):
        conditions.of_scene("landmarks", scene)


def test_of_picture_reads_what_of_scene_knows(person):
    reader, picture = judge.load(), world.draw(person)
    assert np.array_equal(conditions.of_picture("edges", picture), conditions.of_scene("edges", person))
    labels = conditions.segmentation_labels(conditions.of_picture("segmentation", picture, reader))
    assert metrics.segmentation_scores(labels, world.segmentation(person))["aAcc"] > 0.85
    read, true = (
        np.asarray(p).astype(float)
        for p in (conditions.of_picture("landmarks", picture, reader), conditions.of_scene("landmarks", person))
    )
    assert np.abs(read - true).mean() < 0.5 * (np.abs(read).mean() + np.abs(true).mean())


def test_of_picture_says_what_is_missing():
    picture = Image.new("RGB", (64, 64))
    with pytest.raises(ValueError, match="judge=pocket.judge.load"):
        conditions.of_picture("segmentation", picture)
    with pytest.raises(ValueError, match="only a scene has contours"):
        conditions.of_picture("contours", picture)
    for make in (conditions.of_scene, conditions.of_picture):
        with pytest.raises(ValueError, match="unknown kind of control 'depth': expected 'edges'"):
            make("depth", picture)


def test_edges_survive_the_way_into_a_picture():
    edges = np.random.default_rng(0).random((20, 30)) < 0.3
    picture = conditions.edge_picture(edges)
    assert picture.size == (30, 20) and np.array_equal(conditions.edge_map(picture), edges)
    with pytest.raises(ValueError, match="True and False"):
        conditions.edge_picture(edges * 255)


def test_landmarks_are_where_they_should_be_in_their_colours():
    points = np.array([[20.0, 30.0], [40.0, 28.0], [31.0, 38.0], [24.0, 47.0], [38.0, 47.0]])
    pixels = np.asarray(conditions.landmark_picture(points)).astype(int)
    for (x, y), colour in zip(points[:3].astype(int), conditions.LANDMARK_COLOURS):
        assert np.abs(pixels[y - 1 : y + 1, x - 1 : x + 1] - colour).max() <= 2
    assert (pixels[46:48, 26:36] > 0).any(axis=-1).all(axis=0).any()
    assert not pixels[:25].any() and not pixels[52:].any()


def test_a_shift_of_half_a_pixel_is_seen():
    points = np.array([[20.0, 30.0], [40.0, 28.0], [31.0, 38.0], [24.0, 47.0], [38.0, 47.0]])
    one, other = (np.asarray(conditions.landmark_picture(p)).astype(int) for p in (points, points + [0.5, 0]))
    assert np.abs(one - other).max() > 30


@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.zeros((1, 5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_that_are_none_are_refused(points):
    with pytest.raises(ValueError, match="five x and y"):
        conditions.landmark_picture(points)


# ------------------------------------------------------------------ drawings and hints


def drawing(size=64, width=2, ink="black", paper="white") -> Image.Image:
    picture = Image.new("RGB", (size, size), paper)
    ImageDraw.Draw(picture).rectangle([size // 4, size // 4, 3 * size // 4, 3 * size // 4], outline=ink, width=width)
    return picture


@pytest.mark.parametrize("colours", [("black", "white"), ("white", "black"), ("navy", "ivory")])
def test_a_drawing_becomes_thin_edges_whatever_its_colours(colours):
    found = conditions.edge_map(conditions.of_drawing(drawing(64, 4, *colours)))
    wanted = np.zeros((64, 64), bool)
    wanted[17:48, 17:48] = True
    wanted[19:46, 19:46] = False
    assert 100 < found.sum() < 150  # about the square's circumference: one pixel wide
    assert metrics.edge_f1(found, wanted) > 0.95


def test_thin_lines_of_a_large_drawing_survive():
    with pytest.warns(UserWarning, match="resized from 512x512 to 64x64"):
        found = conditions.edge_map(conditions.of_drawing(drawing(512, 3)))
    assert metrics.edge_f1(found, conditions.edge_map(conditions.of_drawing(drawing(64, 1)))) > 0.9


def test_what_is_transparent_is_paper():
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(picture).line([(5, 32), (60, 32)], fill=(0, 0, 0, 255), width=2)
    assert 40 < conditions.edge_map(conditions.of_drawing(picture)).sum() < 64


@pytest.mark.parametrize("colour", ["white", "black", "grey"])
def test_an_empty_drawing_is_refused(colour):
    with pytest.raises(ValueError, match="the drawing is empty"):
        conditions.of_drawing(Image.new("RGB", (64, 64), colour))


def test_hints_are_pictures_between_zero_and_one(photo):
    pictures = [conditions.of_scene(kind, photo) for kind in ("edges", "segmentation")]
    hints = conditions.hints(pictures)
    assert hints.shape == (2, 3, 64, 64) and hints.dtype == torch.float32
    assert np.array_equal((hints[1].permute(1, 2, 0) * 255).round().numpy(), np.asarray(pictures[1]))
    assert torch.equal(conditions.hints(hints), hints)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conditions.hints(pictures)


def test_hints_of_another_size_are_resized_with_notice_and_others_refused():
    with pytest.warns(UserWarning, match="resized from 128x128 to 64x64"):
        hints = conditions.hints([drawing(128)])
    assert hints.shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="80x64, the picture to be made 64x64: crop or pad"):
        conditions.hints([Image.new("RGB", (80, 64))])
    with pytest.raises(ValueError, match=r"\(n, 3, 64, 64\), got \(1, 3, 32, 64\)"):
        conditions.hints(torch.zeros(1, 3, 32, 64))
    for empty in ([], drawing()):
        with pytest.raises(ValueError, match="a list of control pictures, one or more"):
            conditions.hints(empty)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 255.0), (0.0, float("nan"))])
def test_hints_outside_zero_and_one_are_refused(low, high):
    hint = torch.full((1, 3, 64, 64), low)
    hint[0, 0, 0, 0] = high
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got"):
        conditions.hints(hint)
