"""Each metric on a case whose answer is known: by hand, in closed form, or because nothing changed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import metrics
from tutorial_lib.metrics import Share
from tutorial_lib.pocket.judge import PersonReading, Reading, ThingReading
from tutorial_lib.pocket.scene import Person, Scene, Thing

# ------------------------------------------------------------------ stand-ins for the networks


class TableJudge:
    """Reads each "picture" by looking it up: a picture here is the reading itself."""

    def read(self, images):
        return list(images)


class RowNetwork:
    """A picture here is its own row of features; embeddings are the rows made unit."""

    def features(self, images):
        return torch.as_tensor(np.asarray(images), dtype=torch.float32)

    def embed(self, images):
        return torch.nn.functional.normalize(self.features(images), dim=-1)

    image_embeds = embed

    def text_embeds(self, texts):
        return torch.nn.functional.normalize(torch.tensor([[float(n) for n in text.split()] for text in texts]), dim=-1)


def read_rightly(scene: Scene) -> Reading:
    things = tuple(
        ThingReading("person", None) if isinstance(t, Person) else ThingReading(t.kind, t.colour, t.worn)
        for t in scene.things
    )
    person = None
    if len(scene.things) == 1 and isinstance(scene.things[0], Person):
        p = scene.things[0]
        person = PersonReading(p.skin, p.hair_colour, p.hair_length, p.shirt, p.extras)
    return Reading(scene.style, scene.background, things, person)


MUG = Scene("photo", "beach", (Thing("mug", "red"),))
CAT = Scene("photo", "night", (Thing("cat", "black", worn=("hat",)),))
PERSON = Scene("photo", "snow", (Person("dark", "red", "long", "blue", ("glasses", "smile")),))
PAIR = Scene("watercolor", "table", (Thing("mug", "red"), Thing("ball", "blue")))
PERSON_AND_FISH = Scene("photo", "city", (Person(), Thing("fish", "green", worn=("glasses",))))


def fidelity(scene, reading, **options):
    return metrics.prompt_fidelity([reading], [scene], TableJudge(), **options)


# ------------------------------------------------------------------ prompt fidelity


@pytest.mark.parametrize("scene", [MUG, CAT, PERSON, PAIR, PERSON_AND_FISH])
@pytest.mark.parametrize("absent", [False, True])
def test_a_right_reading_is_right_in_everything(scene, absent):
    result = fidelity(scene, read_rightly(scene), absent=absent)
    assert result and all(share.value == 1 for share in result.values())


def test_only_what_the_caption_says_is_counted():
    assert set(fidelity(MUG, read_rightly(MUG))) == {"object", "colour", "background", "style"}
    assert set(fidelity(PAIR, read_rightly(PAIR))) == {"both objects", "both colours", "background", "style"}
    person = {"background", "style", "skin", "hair colour", "hair length", "shirt", "glasses", "smile"}
    assert set(fidelity(PERSON, read_rightly(PERSON))) == person
    assert set(fidelity(PERSON, read_rightly(PERSON), absent=True)) == person | {"hat", "beard"}
    assert fidelity(CAT, read_rightly(CAT))["worn"] == Share(1, 1)
    assert fidelity(CAT, read_rightly(CAT), absent=True)["worn"] == Share(2, 2)


def test_only_what_the_style_shows_is_counted():
    sketch, pixels = replace(PERSON, style="pencil sketch"), replace(PERSON, style="pixel art")
    shown = {"background", "style", "hair length", "glasses", "smile"}
    assert set(fidelity(sketch, read_rightly(sketch))) == shown
    assert "smile" not in fidelity(pixels, read_rightly(pixels))
    sketched_pair = replace(PAIR, style="pencil sketch")
    assert set(fidelity(sketched_pair, read_rightly(sketched_pair))) == {"both objects", "background", "style"}


@pytest.mark.parametrize(
    "scene, change, wrong",
    [
        (MUG, {"style": "pixel art"}, {"style"}),
        (MUG, {"background": "snow"}, {"background"}),
        (MUG, {"things": (ThingReading("teapot", "red"),)}, {"object"}),
        (MUG, {"things": (ThingReading("mug", "pink"),)}, {"colour"}),
        (MUG, {"things": (ThingReading("mug", "red"), ThingReading("mug", "red"))}, {"object", "colour"}),
        (CAT, {"things": (ThingReading("cat", "black", ("glasses",)),)}, {"worn"}),
        (CAT, {"things": (ThingReading("fish", "black", ("hat",)),)}, {"object", "worn"}),
        (PAIR, {"things": (ThingReading("ball", "blue"), ThingReading("mug", "red"))}, set()),
        (PAIR, {"things": (ThingReading("mug", "blue"), ThingReading("ball", "red"))}, {"both colours"}),
        (PAIR, {"things": (ThingReading("mug", "red"),)}, {"both objects", "both colours"}),
        (PERSON_AND_FISH, {"things": (ThingReading("person", None), ThingReading("fish", "green"))}, {"worn"}),
        (PERSON, {"person": PersonReading("light", "red", "long", "blue", ("glasses", "smile"))}, {"skin"}),
        (PERSON, {"person": PersonReading("dark", "red", "short", "blue", ("glasses",))}, {"hair length", "smile"}),
        (PERSON, {"person": None}, {"skin", "hair colour", "hair length", "shirt", "glasses", "smile"}),
    ],
)  # fmt: skip
def test_each_mistake_costs_its_own_attribute(scene, change, wrong):
    result = fidelity(scene, replace(read_rightly(scene), **change))
    assert {attribute for attribute, share in result.items() if share.value == 0} == wrong
    assert all(share.value == 1 for attribute, share in result.items() if attribute not in wrong)


def test_what_nobody_asked_for_counts_only_on_request():
    bearded = replace(
        read_rightly(PERSON), person=PersonReading("dark", "red", "long", "blue", ("glasses", "beard", "smile"))
    )
    assert "beard" not in fidelity(PERSON, bearded)
    assert fidelity(PERSON, bearded, absent=True)["beard"] == Share(0, 1)


def test_shares_add_up_over_pictures():
    scenes = [MUG, MUG, CAT, PERSON]
    readings = [read_rightly(s) for s in scenes]
    readings[1] = replace(readings[1], things=(ThingReading("ball", "red"),))
    result = metrics.prompt_fidelity(readings, scenes, TableJudge())
    assert result["object"] == Share(2, 3)
    assert result["background"] == Share(4, 4)
    assert str(result["object"]) == "0.667 (2 of 3)"
    assert math.isnan(Share(0, 0).value)


def test_fidelity_says_what_is_wrong_with_its_input():
    with pytest.raises(ValueError, match="got 2 images and 1 scenes"):
        metrics.prompt_fidelity([read_rightly(MUG)] * 2, [MUG], TableJudge())
    with pytest.raises(ValueError, match="images are empty"):
        metrics.prompt_fidelity([], [], TableJudge())
    with pytest.raises(ValueError, match="images must be a list"):
        metrics.prompt_fidelity(Image.new("RGB", (64, 64)), [MUG], TableJudge())


# ------------------------------------------------------------------ embeddings


def test_clip_text_compares_each_picture_with_its_own_prompt():
    images = [[3.0, 4.0], [0.0, 2.0]]
    assert metrics.clip_text(images, ["1 0", "0 5"], RowNetwork()) == pytest.approx((0.6 + 1.0) / 2)
    assert metrics.clip_text(images, ["0 5", "1 0"], RowNetwork()) == pytest.approx((0.8 + 0.0) / 2)
    with pytest.raises(ValueError, match="got 2 images and 1 prompts"):
        metrics.clip_text(images, ["1 0"], RowNetwork())
    with pytest.raises(ValueError, match="prompts must be a list"):
        metrics.clip_text(images, "1 0", RowNetwork())


@pytest.mark.parametrize("similarity", [metrics.clip_image, metrics.subject_similarity])
def test_similarity_is_the_mean_over_all_pairs(similarity):
    images, references = [[3.0, 4.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    assert similarity(images, references, RowNetwork()) == pytest.approx((0.6 + 0.8 - 0.6 + 1 + 0 - 1) / 6)
    assert similarity([[3.0, 4.0]], [[3.0, 4.0]], RowNetwork()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="references are empty"):
        similarity(images, [], RowNetwork())


def test_diversity_is_the_mean_distance_of_pairs():
    assert metrics.diversity([[3.0, 4.0], [1.0, 0.0], [0.0, 1.0]], RowNetwork()) == pytest.approx((0.4 + 0.2 + 1) / 3)
    assert metrics.diversity([[3.0, 4.0]] * 4, RowNetwork()) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="two or more"):
        metrics.diversity([[3.0, 4.0]], RowNetwork())


# ------------------------------------------------------------------ edges


def square_edges(x=20, y=20):
    edges = np.zeros((64, 64), bool)
    edges[y, x : x + 20] = edges[y + 19, x : x + 20] = True
    edges[y : y + 20, x] = edges[y : y + 20, x + 19] = True
    return edges


def test_edges_shifted_by_one_pixel_agree_and_by_two_do_not():
    edges = square_edges()
    assert metrics.edge_f1(edges, edges) == metrics.edge_iou(edges, edges) == 1
    assert metrics.edge_f1(square_edges(21, 21), edges) == 1
    # Two to the right: of the level lines' 40 pixels 38 are near, of the upright ones' 36 the 2 beside a corner.
    assert metrics.edge_f1(square_edges(22), edges) == pytest.approx(40 / 76)
    assert metrics.edge_f1(square_edges(22), edges, tolerance=2) == 1
    assert metrics.edge_f1(square_edges(21, 21), edges, tolerance=0) < 0.1


def test_edge_f1_weighs_precision_and_recall():
    edges = square_edges()
    half = edges.copy()
    half[:30] = False  # precision 1; of the 76 pixels 38 are left and tolerance reaches 2 more
    assert half.sum() == 38
    assert metrics.edge_f1(half, edges) == pytest.approx(2 * (40 / 76) / (1 + 40 / 76))
    assert metrics.edge_f1(half, edges) == metrics.edge_f1(edges, half)
    assert metrics.edge_iou(half, edges) == pytest.approx(0.5)


def test_edge_scores_are_means_over_pictures_and_empty_maps_agree():
    empty, edges = np.zeros((64, 64), bool), square_edges()
    made, target = np.stack([edges, empty, edges]), np.stack([edges, empty, empty])
    assert metrics.edge_f1(made, target) == pytest.approx(2 / 3)
    assert metrics.edge_iou(made, target) == pytest.approx(2 / 3)


def test_edge_scores_refuse_other_maps():
    with pytest.raises(ValueError, match="one shape"):
        metrics.edge_f1(square_edges(), np.zeros((32, 32), bool))
    with pytest.raises(ValueError, match="True and False"):
        metrics.edge_iou(square_edges().astype(np.uint8), square_edges())
    with pytest.raises(ValueError, match=r"\(n, h, w\)"):
        metrics.edge_f1(np.zeros((0, 64, 64), bool), np.zeros((0, 64, 64), bool))


# ------------------------------------------------------------------ segmentation, landmarks


def test_segmentation_scores_by_hand():
    target = np.array([[[0, 0, 0, 1], [0, 0, 2, 2]]])
    labels = np.array([[[0, 0, 1, 1], [0, 0, 2, 5]]])
    scores = metrics.segmentation_scores(labels, target)
    # class 0: 4 of 4+1; class 1: 1 of 2; class 2: 1 of 2; class 5 is said, never shown: 0
    assert scores["mIoU"] == pytest.approx((4 / 5 + 1 / 2 + 1 / 2 + 0) / 4)
    assert scores["mAcc"] == pytest.approx((4 / 5 + 1 + 1 / 2) / 3)
    assert scores["aAcc"] == pytest.approx(6 / 8)
    assert metrics.segmentation_scores(target, target) == {"mIoU": 1.0, "mAcc": 1.0, "aAcc": 1.0}


def test_segmentation_counts_pixels_over_all_pictures():
    target = np.array([[[0, 0], [0, 0]], [[1, 1], [1, 0]]], dtype=np.uint8)
    labels = np.array([[[0, 0], [0, 1]], [[1, 1], [1, 0]]], dtype=np.uint8)
    assert metrics.segmentation_scores(labels, target)["mIoU"] == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert metrics.segmentation_scores(torch.from_numpy(labels), torch.from_numpy(target))["aAcc"] == 7 / 8
    with pytest.raises(ValueError, match="one shape"):
        metrics.segmentation_scores(labels, target[:, :1])
    with pytest.raises(ValueError, match="whole numbers"):
        metrics.segmentation_scores(labels.astype(float), target)
    with pytest.raises(ValueError, match="a negative one"):
        metrics.segmentation_scores(labels, target.astype(int) - 1)


def test_landmark_error_is_a_mean_distance():
    target = np.arange(20.0).reshape(2, 5, 2)
    moved = target.copy()
    moved[0] += (3, 4)
    assert metrics.landmark_error(moved, target) == pytest.approx(2.5)
    assert metrics.landmark_error(target, target) == 0
    with pytest.raises(ValueError, match="without a face"):
        metrics.landmark_error(moved, np.full((2, 5, 2), np.nan))
    with pytest.raises(ValueError, match="one shape"):
        metrics.landmark_error(moved, target[:1])


# ------------------------------------------------------------------ distributions


def sample_with(mean, covariance, n, seed):
    """n rows whose sample mean and (n - 1) covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(n, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return rows @ np.linalg.cholesky(np.array(covariance)).T + np.array(mean)


def test_fid_of_two_gaussians_is_the_closed_form():
    real = sample_with([0, 1, 2], np.diag([1.0, 4.0, 9.0]), 400, seed=0)
    made = sample_with([1, 1, 0], np.diag([4.0, 4.0, 1.0]), 300, seed=1)
    closed = (1 + 0 + 4) + (1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 1) ** 2
    assert metrics.fid(real, made, RowNetwork()) == pytest.approx(closed, rel=1e-4)


def test_fid_of_covariances_that_do_not_commute():
    first, second = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 5.0]])
    values = np.linalg.eigvals(first @ second)
    closed = np.trace(first) + np.trace(second) - 2 * np.sqrt(values).sum()
    result = metrics.fid(sample_with([0, 0], first, 200, 2), sample_with([0, 0], second, 200, 3), RowNetwork())
    assert result == pytest.approx(closed, rel=1e-4) and result > 1


def test_fid_of_a_set_with_itself_is_zero_even_with_few_pictures():
    few = np.random.default_rng(4).normal(size=(20, 64))  # fewer pictures than features: a flat covariance
    assert 0 <= metrics.fid(few, few, RowNetwork()) < 1e-3
    assert metrics.fid(few, few + 1, RowNetwork()) == pytest.approx(64, rel=1e-2)


def test_kid_is_the_unbiased_kernel_distance():
    rng = np.random.default_rng(5)
    real, made = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) * 1.5 + 0.5

    def kernel(a, b):
        return (a @ b.T / 4 + 1) ** 3

    def off_diagonal_mean(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    by_hand = (
        off_diagonal_mean(kernel(real, real)) + off_diagonal_mean(kernel(made, made)) - 2 * kernel(real, made).mean()
    )
    assert metrics.kid(real, made, RowNetwork()) == pytest.approx(by_hand, rel=1e-4)
    assert by_hand > 0.5


def test_kid_repeats_itself_and_leaves_random_numbers_alone():
    rng = np.random.default_rng(6)
    real, made = rng.normal(size=(50, 3)), rng.normal(size=(40, 3)) + 1
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = metrics.kid(real, made, RowNetwork())
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert metrics.kid(real, made, RowNetwork()) == pytest.approx(first, abs=1e-6)
    alike = metrics.kid(rng.normal(size=(400, 3)), rng.normal(size=(400, 3)), RowNetwork())
    assert abs(alike) < 0.1 * first


def test_distributions_need_two_pictures():
    for metric in (metrics.fid, metrics.kid):
        with pytest.raises(ValueError, match="images: a distribution needs two"):
            metric(np.ones((3, 4)), np.ones((1, 4)), RowNetwork())


# ------------------------------------------------------------------ pixels


def test_psnr_by_hand_for_every_kind_of_picture():
    grey = np.full((2, 64, 64, 3), 100, np.uint8)
    lighter = grey.copy()
    lighter[0] += 10  # the first picture is off by 10, the second by 20
    lighter[1] += 20
    expected = (20 * np.log10(255 / 10) + 20 * np.log10(255 / 20)) / 2
    assert metrics.psnr(lighter, grey) == pytest.approx(expected)
    as_pil = [Image.fromarray(picture) for picture in lighter]
    as_tensor = torch.from_numpy(grey).permute(0, 3, 1, 2) / 255
    assert metrics.psnr(as_pil, as_tensor) == pytest.approx(expected, abs=1e-4)
    assert metrics.psnr(grey, grey) == math.inf
    with pytest.raises(ValueError, match="got 2 images and 1 references"):
        metrics.psnr(grey, grey[:1])
    with pytest.raises(ValueError, match="one size"):
        metrics.psnr(grey, grey[:, :32])
    with pytest.raises(ValueError, match="must be uint8"):
        metrics.psnr(grey / 255, grey)
