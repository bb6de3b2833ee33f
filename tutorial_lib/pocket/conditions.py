"""Control pictures for the pocket world: edges of any picture, segmentation maps as coloured pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tutorial_lib.pocket.world import CLASSES

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


def canny(image: Image.Image, sigma: float = 1.0) -> np.ndarray:
    """Canny edges of the picture's brightness: bool, (64, 64) for a pocket picture. A larger `sigma` sees less."""
    from skimage.feature import canny as skimage_canny

    if sigma <= 0:
        raise ValueError(f"sigma is the width of a blur in pixels and must be positive, got {sigma}.")
    return skimage_canny(np.asarray(image.convert("L"), np.float64) / 255, sigma=sigma)


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
