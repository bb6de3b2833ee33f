"""Control pictures: edges, contours, segmentation maps and face landmarks, as pictures and as hints in [0, 1].

`of_scene` makes them from the world's ground truth, `of_picture` from any picture (a judge reads it where that is
needed), `of_drawing` from what a user drew. `hints` turns control pictures into what a ControlNet takes.
"""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image, ImageDraw

from tutorial_lib.pocket import world
from tutorial_lib.pocket.canvas import ZOOM
from tutorial_lib.pocket.scene import Scene
from tutorial_lib.pocket.world import CLASSES, SIDE

KINDS = ("edges", "contours", "segmentation", "landmarks")

# One colour a class: the scenery pale, the things strong. Any two differ by 70 or more of 441 in RGB, so a
# generated or recompressed picture can still be read back.
PALETTE = {
    "sky": (150, 205, 255),
    "ground": (120, 110, 90),
    "backdrop": (200, 200, 180),
    "mug": (230, 25, 25),
    "teapot": (255, 130, 0),
    "house": (130, 0, 0),
    "car": (0, 80, 220),
    "fish": (0, 200, 220),
    "cat": (40, 40, 40),
    "flower": (255, 120, 190),
    "ball": (255, 225, 25),
    "tree": (0, 120, 50),
    "gate": (120, 40, 200),
    "moon": (255, 255, 255),
    "person": (100, 230, 60),
}
PALETTE_ROWS = np.array([PALETTE[name] for name in CLASSES], np.uint8)
LANDMARK_COLOURS = ((86, 180, 233), (230, 159, 0), (255, 255, 255))  # left eye, right eye, nose
MOUTH_COLOUR = (204, 121, 167)
LANDMARK_RADIUS = 1.6  # pixels
SAME_ASPECT = 0.02  # sides may differ by this share from the wanted proportions: a pixel lost in a crop


def of_scene(kind: str, scene: Scene) -> Image.Image:
    """The scene's control picture, 64x64 RGB. "edges" are Canny's of its picture, "contours" the world's own."""
    _check_kind(kind)
    if kind == "edges":
        return edge_picture(canny(world.draw(scene)))
    if kind == "contours":
        return edge_picture(world.edges(scene))
    if kind == "segmentation":
        return segmentation_picture(world.segmentation(scene))
    points = world.landmarks(scene)
    if points is None:
        raise ValueError("the scene shows no person, so it has no face landmarks: choose scenes with a person.")
    return landmark_picture(points)


def of_picture(kind: str, picture: Image.Image, judge=None) -> Image.Image:
    """The control picture of any picture. Segmentation and landmarks need a judge, from `pocket.judge.load()`."""
    _check_kind(kind)
    if kind == "edges":
        return edge_picture(canny(picture))
    if kind == "contours":
        raise ValueError('only a scene has contours; of a picture take kind="edges".')
    if judge is None:
        raise ValueError(f"{kind} of a picture are read by a judge: pass judge=pocket.judge.load().")
    if kind == "segmentation":
        return segmentation_picture(judge.segment([picture])[0].cpu().numpy())
    return landmark_picture(judge.landmarks([picture])[0].cpu().numpy())


def of_drawing(drawing: Image.Image, side: int = SIDE) -> Image.Image:
    """Lines drawn by a user, dark on light or light on dark, as thin white edges on black: (side, side) RGB.

    A drawing of another size is resized with a warning, one of another shape or without any line is refused.
    """
    from skimage.morphology import skeletonize

    paper = Image.new("RGBA", drawing.size, "white")
    grey = np.asarray(Image.alpha_composite(paper, drawing.convert("RGBA")).convert("L"), np.float64) / 255
    ink = np.abs(grey - np.median(grey)) > 0.3  # most of a drawing is paper
    lines = Image.fromarray((ink * 255).astype(np.uint8))
    thick = np.asarray(_resized(lines, side)) > 50  # a fifth of the pixel: thin lines survive the way down
    if not thick.any():
        raise ValueError("the drawing is empty: draw at least one line, dark on light or light on dark.")
    return edge_picture(skeletonize(thick))


def canny(image: Image.Image, sigma: float = 1.0) -> np.ndarray:
    """Canny edges of the picture's brightness: bool, (64, 64) for a pocket picture. A larger `sigma` sees less."""
    from skimage.feature import canny as skimage_canny

    if sigma <= 0:
        raise ValueError(f"sigma is the width of a blur in pixels and must be positive, got {sigma}.")
    return skimage_canny(np.asarray(image.convert("L"), np.float64) / 255, sigma=sigma)


def edge_picture(edges: np.ndarray) -> Image.Image:
    """A map of True and False, (h, w), as white lines on black."""
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.dtype != bool:
        raise ValueError(f"edges must be True and False of shape (h, w), got {edges.dtype} {edges.shape}.")
    return Image.fromarray((edges * 255).astype(np.uint8)).convert("RGB")


def edge_map(picture: Image.Image) -> np.ndarray:
    """The inverse: True where the picture is bright, bool (h, w)."""
    return np.asarray(picture.convert("L")) > 127


def landmark_picture(points: np.ndarray, side: int = SIDE) -> Image.Image:
    """Eyes and nose as dots and the mouth as a line, each in its own colour on black.

    points: (5, 2) x and y in pixels, as `world.landmarks` gives them. Painted larger and reduced, so that parts of
    a pixel count.
    """
    points = np.asarray(points, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks are five x and y, an array (5, 2) of finite numbers; got shape {points.shape}.")
    large = Image.new("RGB", (side * ZOOM, side * ZOOM))
    draw, radius = ImageDraw.Draw(large), LANDMARK_RADIUS * ZOOM
    for (x, y), colour in zip(points[:3] * ZOOM, LANDMARK_COLOURS):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    draw.line([tuple(corner) for corner in points[3:] * ZOOM], fill=MOUTH_COLOUR, width=round(radius))
    return large.reduce(ZOOM)


def segmentation_picture(labels: np.ndarray) -> Image.Image:
    """A map of indices into CLASSES, (h, w), as a picture in the colours of PALETTE."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers of shape (h, w), got {labels.dtype} {labels.shape}.")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"labels must be 0 to {len(CLASSES) - 1}, got {labels.min()} to {labels.max()}.")
    return Image.fromarray(PALETTE_ROWS[labels])


def segmentation_labels(picture: Image.Image) -> np.ndarray:
    """The inverse: for each pixel the class whose colour is nearest, uint8 (h, w)."""
    pixels = np.asarray(picture.convert("RGB"), np.int64)
    distance = ((pixels[:, :, None] - PALETTE_ROWS.astype(np.int64)) ** 2).sum(axis=-1)  # (h, w, classes)
    return distance.argmin(axis=-1).astype(np.uint8)


def hints(pictures, side: int = SIDE):
    """Control pictures as a ControlNet takes them: float32 tensor (n, 3, side, side) in [0, 1].

    pictures: a list of PIL pictures, or a float tensor (n, 3, h, w) in [0, 1] of the right size. A picture of
    another size is resized with a warning; another shape, an empty list or values outside [0, 1] are refused.
    """
    import torch

    if isinstance(pictures, torch.Tensor):
        return _checked(pictures.float(), side)
    if isinstance(pictures, Image.Image) or len(pictures) == 0:
        raise ValueError("expected a list of control pictures, one or more: put a single one into [ ].")
    rows = np.stack([np.asarray(_resized(picture.convert("RGB"), side)) for picture in pictures])
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255  # (n, h, w, 3) -> (n, 3, h, w)


def _checked(hint, side: int):
    if hint.ndim != 4 or hint.shape[1:] != (3, side, side):
        raise ValueError(f"a hint must have the shape (n, 3, {side}, {side}), got {tuple(hint.shape)}.")
    low, high = hint.min().item(), hint.max().item()
    if not (0 <= low and high <= 1):  # also refuses NaN
        raise ValueError(
            f"a hint must lie in [0, 1], got {low:.3g} to {high:.3g}: divide bytes by 255; only the picture that is "
            "to be made lies in [-1, 1]."
        )
    return hint


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """The picture as a square; with a warning where pixels change, refused where proportions would."""
    if picture.size == (side, side):
        return picture
    width, height = picture.size
    if abs(width / height - 1) > SAME_ASPECT:
        raise ValueError(
            f"the control is {width}x{height}, the picture to be made {side}x{side}: crop or pad it to a square."
        )
    warnings.warn(f"control picture resized from {width}x{height} to {side}x{side} pixels", stacklevel=3)
    return picture.resize((side, side), Image.Resampling.BOX)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of control {kind!r}: expected {', '.join(map(repr, KINDS))}.")
