"""What to measure on generated pictures, each figure with the network that it needs as an argument.

Pictures are a list of PIL images, a uint8 array (n, h, w, 3) or a float tensor (n, 3, h, w) in [0, 1].
A `judge` is what `tutorial_lib.pocket.judge.load` returns, a `clip` what `tutorial_lib.models.load_clip`
returns. Edge maps, segmentation maps and landmarks are plain arrays: make them with the judge or with
`tutorial_lib.pocket.conditions`, and hand them in. Bad input raises a ValueError.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib.pocket.scene import ANIMALS, EXTRAS, WEARABLES, Person, Scene

PERSON_ATTRIBUTES = ("skin", "hair colour", "hair length", "shirt", *EXTRAS)
ATTRIBUTES = ("object", "colour", "background", "style", *PERSON_ATTRIBUTES, "both objects", "both colours", "worn")
# What a style cannot show is never counted: a sketch is grey, and a smile is smaller than one big pixel.
HIDDEN = {
    "pencil sketch": ("colour", "both colours", "skin", "hair colour", "shirt"),
    "pixel art": ("smile",),
}


# ------------------------------------------------------------------ checking what comes in


def _count(name: str, items) -> int:
    """The number of items; an error that names them when they are no list or an empty one."""
    if isinstance(items, str) or not hasattr(items, "__len__"):
        raise ValueError(f"{name} must be a list, got one {type(items).__name__}: put it into [ ].")
    if len(items) == 0:
        raise ValueError(f"{name} are empty: there is nothing to measure.")
    return len(items)


def _same_count(**lists) -> None:
    counts = {name: _count(name, items) for name, items in lists.items()}
    if len(set(counts.values())) > 1:
        got = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{' and '.join(counts)} belong together one by one, got {got}.")


def _pair_of_arrays(dimensions: int, shape: str, **arrays) -> list[np.ndarray]:
    """Both as arrays with this many dimensions, a missing first one added; an error if they differ in shape."""
    made = []
    for name, array in arrays.items():
        array = np.asarray(array)
        array = array[None] if array.ndim == dimensions - 1 else array
        if array.ndim != dimensions or array.size == 0:
            raise ValueError(f"{name} must have the shape {shape}, got {array.shape}.")
        made.append(array)
    if made[0].shape != made[1].shape:
        shapes = " and ".join(f"{name} {array.shape}" for name, array in zip(arrays, made, strict=True))
        raise ValueError(f"both must have one shape, got {shapes}.")
    return made


# ------------------------------------------------------------------ did the picture become what was asked for?


@dataclass(frozen=True)
class Share:
    """`right` of `count` answers were right; `value` is their share, NaN when nothing was counted."""

    right: int
    count: int

    @property
    def value(self) -> float:
        return self.right / self.count if self.count else float("nan")

    def __add__(self, other: Share) -> Share:
        return Share(self.right + other.right, self.count + other.count)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.right} of {self.count})"


def prompt_fidelity(images, scenes: list[Scene], judge, absent: bool = False) -> dict[str, Share]:
    """How much of each scene's whole caption the judge finds in its picture, attribute by attribute.

    Only what the caption says is counted, and of that only what the style can show (`HIDDEN`). "object" and
    "colour" are those of a thing alone; "both objects" and "both colours" those of two things, in any order;
    "worn" counts each thing that an animal was asked to wear. With `absent`, what the scene does not have
    (no hat, no smile) must not be there either: that is how the judge is tested on drawn pictures.
    Attributes that were never asked for are not in the result.
    """
    _same_count(images=images, scenes=scenes)
    totals: dict[str, Share] = {}
    for scene, reading in zip(scenes, judge.read(images), strict=True):
        for attribute, right in _answers(scene, reading, absent):
            if attribute not in HIDDEN.get(scene.style, ()):
                totals[attribute] = totals.get(attribute, Share(0, 0)) + Share(int(right), 1)
    return {attribute: totals[attribute] for attribute in ATTRIBUTES if attribute in totals}


def _answers(scene: Scene, reading, absent: bool) -> Iterator[tuple[str, bool]]:
    """Every attribute of the scene with whether the judge's reading agrees."""
    yield "style", reading.style == scene.style
    yield "background", reading.background == scene.background
    if len(scene.things) == 2:
        yield "both objects", _kinds(scene) == _kinds(reading)
        yield "both colours", _kinds_and_colours(scene) == _kinds_and_colours(reading)
    elif isinstance(scene.things[0], Person):
        yield from _person_answers(scene.things[0], reading.person, absent)
    else:
        yield "object", _kinds(scene) == _kinds(reading)
        yield "colour", [scene.things[0].colour] == [thing.colour for thing in reading.things]
    yield from _worn_answers(scene, reading, absent)


def _kinds(picture) -> list[str]:
    return sorted(thing.kind for thing in picture.things)


def _kinds_and_colours(picture) -> list[tuple[str, str]]:
    return sorted((thing.kind, getattr(thing, "colour", None) or "") for thing in picture.things)


def _person_answers(person: Person, read, absent: bool) -> Iterator[tuple[str, bool]]:
    for name in PERSON_ATTRIBUTES:
        if name not in EXTRAS:
            field = name.replace(" ", "_")
            yield name, read is not None and getattr(read, field) == getattr(person, field)
        elif absent or name in person.extras:
            yield name, read is not None and (name in read.extras) == (name in person.extras)


def _worn_answers(scene: Scene, reading, absent: bool) -> Iterator[tuple[str, bool]]:
    worn = {thing.kind: thing.worn for thing in reading.things}
    for thing in scene.things:
        if thing.kind not in ANIMALS:
            continue
        for item in WEARABLES:
            if absent or item in thing.worn:
                yield "worn", thing.kind in worn and (item in worn[thing.kind]) == (item in thing.worn)


# ------------------------------------------------------------------ similarity in an embedding


def clip_text(images, prompts: list[str], clip) -> float:
    """CLIP-T: the mean cosine between each picture and its own prompt, in [-1, 1] (no factor 2.5)."""
    _same_count(images=images, prompts=prompts)
    pictures, words = clip.image_embeds(images), clip.text_embeds(list(prompts))
    return (pictures * words).sum(dim=-1).mean().item()


def clip_image(images, references, clip) -> float:
    """CLIP-I: the mean cosine over all pairs of a picture and a reference, in CLIP's embedding."""
    _count("images", images), _count("references", references)
    return (clip.image_embeds(images) @ clip.image_embeds(references).T).mean().item()


def subject_similarity(images, references, judge) -> float:
    """The mean cosine over all pairs of a picture and a reference, in the embedding that tells subjects apart."""
    _count("images", images), _count("references", references)
    return (judge.embed(images) @ judge.embed(references).T).mean().item()


def diversity(images, judge) -> float:
    """How much the pictures differ: the mean of 1 - cosine over their pairs, in the judge's embedding."""
    if _count("images", images) < 2:
        raise ValueError("diversity compares pictures with one another: give it two or more.")
    embeds = judge.embed(images)
    first, second = torch.triu_indices(len(embeds), len(embeds), offset=1)
    return (1 - (embeds[first] * embeds[second]).sum(dim=-1)).mean().item()


# ------------------------------------------------------------------ does the picture obey its control?


def _edge_maps(edges, target) -> list[torch.Tensor]:
    made = _pair_of_arrays(3, "(h, w) or (n, h, w)", edges=edges, target=target)
    for name, array in zip(("edges", "target"), made, strict=True):
        if array.dtype != bool:
            raise ValueError(f"{name} must be a map of True and False, got {array.dtype}: compare with a threshold.")
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in made]


def edge_f1(edges, target, tolerance: int = 1) -> float:
    """F1 of edge maps: an edge pixel is right when the other map has one at most `tolerance` pixels away.

    edges, target: bool, (h, w) or (n, h, w). Distances count diagonal steps as one. The mean over the
    pictures is returned; two empty maps agree (1), one empty map does not (0).
    """
    edges, target = _edge_maps(edges, target)
    precision = _share_near(edges, target, tolerance)
    recall = _share_near(target, edges, tolerance)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    both_empty = ~edges.flatten(1).any(1) & ~target.flatten(1).any(1)
    return torch.where(both_empty, 1.0, f1).mean().item()


def _share_near(edges: torch.Tensor, others: torch.Tensor, tolerance: int) -> torch.Tensor:
    """Of each picture's edge pixels, the share with one of the others nearby: (n, h, w) -> (n,)."""
    near = torch.nn.functional.max_pool2d(others[:, None].float(), 2 * tolerance + 1, 1, tolerance)[:, 0] > 0
    return (edges & near).sum(dim=(1, 2)) / edges.sum(dim=(1, 2)).clamp(min=1)


def edge_iou(edges, target) -> float:
    """Intersection over union of edge maps, pixel by pixel, the mean over the pictures: bool, (n, h, w)."""
    edges, target = _edge_maps(edges, target)
    union = (edges | target).sum(dim=(1, 2))
    shared = (edges & target).sum(dim=(1, 2))
    return torch.where(union == 0, 1.0, shared / union.clamp(min=1)).mean().item()


def segmentation_scores(labels, target) -> dict[str, float]:
    """mIoU, mAcc and aAcc of segmentation maps (n, h, w) of class indices, over the pixels of all pictures.

    mIoU is the mean over the classes that either side shows, mAcc over those that the target shows, and aAcc
    is the share of right pixels.
    """
    labels, target = _pair_of_arrays(3, "(h, w) or (n, h, w)", labels=labels, target=target)
    if not all(np.issubdtype(array.dtype, np.integer) for array in (labels, target)):
        raise ValueError(f"class indices are whole numbers, got {labels.dtype} and {target.dtype}.")
    if min(labels.min(), target.min()) < 0:
        raise ValueError("class indices are 0 or more, got a negative one: leave pixels without a class out.")
    n = int(max(labels.max(), target.max())) + 1
    confusion = np.bincount(target.ravel().astype(np.int64) * n + labels.ravel(), minlength=n * n).reshape(n, n)
    right, shown, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    union = shown + said - right
    return {
        "mIoU": float((right[union > 0] / union[union > 0]).mean()),
        "mAcc": float((right[shown > 0] / shown[shown > 0]).mean()),
        "aAcc": float(right.sum() / shown.sum()),
    }


def landmark_error(landmarks, target) -> float:
    """The mean distance between face landmarks and their targets, (n, points, 2), in pixels."""
    landmarks, target = _pair_of_arrays(3, "(n, points, 2)", landmarks=landmarks, target=target)
    if target.shape[-1] != 2:
        raise ValueError(f"a landmark is an x and a y, got shape {target.shape}.")
    if not np.isfinite(target).all():
        raise ValueError("a target without a face has no landmarks: leave such pictures out.")
    return float(np.linalg.norm(landmarks.astype(np.float64) - target, axis=-1).mean())


# ------------------------------------------------------------------ do the pictures look like the real ones?


def _features(real, images, judge) -> tuple[torch.Tensor, torch.Tensor]:
    for name, pictures in (("real", real), ("images", images)):
        if _count(name, pictures) < 2:
            raise ValueError(f"{name}: a distribution needs two pictures or more (hundreds for a figure to trust).")
    return judge.features(real).cpu().double(), judge.features(images).cpu().double()


def _feed(metric, real: torch.Tensor, made: torch.Tensor):
    metric.update(real, real=True)
    metric.update(made, real=False)
    return metric.compute()


def _features_as_they_are(size: int) -> torch.nn.Module:
    """The feature network handed to torchmetrics: features go in, so it changes nothing."""
    module = torch.nn.Identity()
    module.num_features = size
    return module


def fid(real, images, judge) -> float:
    """Fréchet distance between real and made pictures in the judge's features (not Inception's).

    Comparable only between runs with the same judge and the same numbers of pictures: few pictures raise it.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import

    real, made = _features(real, images, judge)
    metric = FrechetInceptionDistance(feature=_features_as_they_are(real.shape[1]))
    return max(_feed(metric, real, made).item(), 0.0)  # rounding takes the distance of a set to itself below 0


def kid(real, images, judge) -> float:
    """Kernel distance (squared, unbiased, cubic kernel) of real and made pictures in the judge's features.

    Unlike FID it does not grow when there are few pictures; alike sets give about 0, of either sign. The unit is that
    of the judge's features: only differences and ratios between KIDs of one judge mean something. When one set is
    longer, its first pictures are used, so the figure is the same every time.
    """
    from torchmetrics.image.kid import KernelInceptionDistance  # slow to import

    real, made = _features(real, images, judge)
    size = min(len(real), len(made))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        metric = KernelInceptionDistance(_features_as_they_are(real.shape[1]), subsets=1, subset_size=size)
    with torch.random.fork_rng(devices=[]):  # torchmetrics shuffles: leave the caller's random numbers alone
        return _feed(metric, real[:size], made[:size])[0].item()


def psnr(images, references) -> float:
    """Peak signal to noise ratio in dB, the mean over the pictures; pictures that are equal give infinity."""
    _same_count(images=images, references=references)
    images, references = _pixels(images), _pixels(references)
    if images.shape != references.shape:
        raise ValueError(f"pictures to compare must have one size, got {images.shape[1:]} and {references.shape[1:]}.")
    error = ((images - references) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return float((-10 * np.log10(error)).mean())


def _pixels(images) -> np.ndarray:
    """Pictures of any of the three kinds as float64, (n, h, w, 3) in [0, 1]."""
    if isinstance(images, torch.Tensor):
        return images.detach().cpu().double().permute(0, 2, 3, 1).numpy()
    if not isinstance(images, np.ndarray):
        images = np.stack([np.asarray(image.convert("RGB")) for image in images])
    if images.dtype != np.uint8:
        raise ValueError(f"an array of pictures must be uint8, got {images.dtype}: give floats as a tensor.")
    return images / 255.0
