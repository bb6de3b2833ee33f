"""Checks of lesson 00, Start here."""

from __future__ import annotations

import numpy as np

from tutorial_lib.lab.checks import Mistake, check


def _case() -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture whose masked part is reddish, and the mask, which covers about a third of it."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 120, size=(64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:40, 20:60] = True
    mask[10:20, 20:30] = False  # not a rectangle: its rows differ
    picture[mask] += np.array([120, 60, 10], dtype=np.uint8)
    return picture, mask


@check
def mean_colour(answer):
    """The mean runs over the pixels of the mask alone, and each of red, green and blue keeps its own."""
    picture, mask = _case()
    given = answer(picture, mask)
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
    given = np.asarray(given, dtype=float)
    _check_shape(given, int(mask.sum()))
    right = picture[mask].mean(axis=0)
    if not np.allclose(given, right, atol=0.51):
        raise Mistake(_diagnose(given, right, picture, mask))


def _check_shape(given: np.ndarray, pixels: int) -> None:
    if given.ndim == 0:
        raise Mistake(
            "You returned one number: red, green and blue were averaged together. Average over the pixels only; "
            "after picture[mask] these are axis 0."
        )
    if given.shape == (pixels,):
        raise Mistake(
            f"You returned {pixels} numbers, one for each pixel: the mean ran over the colour axis. "
            "picture[mask] has the shape (pixels, 3), so average over axis 0."
        )
    if given.shape != (3,):
        raise Mistake(f"Expected three numbers (red, green, blue), got an array of shape {given.shape}.")


def _diagnose(given: np.ndarray, right: np.ndarray, picture: np.ndarray, mask: np.ndarray) -> str:
    """Names the mistake that leads to exactly these three numbers."""
    known = {
        "This is the mean of the whole picture: the mask was not used.": picture.mean(axis=(0, 1)),
        "This is the mean of the background: the mask is the wrong way round (~mask instead of mask).": picture[
            ~mask
        ].mean(axis=0),
        "Too dark. The pixels outside the mask were set to 0 but still counted: divide by the number of pixels "
        "in the mask, not by all 64 x 64.": (picture * mask[..., None]).mean(axis=(0, 1)),
        "The numbers are right but run from 0 to 1. Keep the picture's own scale, 0 to 255.": right / 255,
        "This is the sum over the pixels of the mask. Divide by how many there are.": picture[mask].sum(axis=0),
        "This is the median, not the mean.": np.median(picture[mask], axis=0),
        "The three numbers are in the wrong order: red comes first, blue last.": right[::-1],
    }
    for message, colour in known.items():
        if np.allclose(given, colour, rtol=1e-3, atol=1e-3):
            return message
    return f"Expected about {right.round(1).tolist()} for this test picture, got {given.round(1).tolist()}."


@mean_colour.right
def _by_division(picture, mask):
    return (picture * mask[..., None]).sum(axis=(0, 1)) / mask.sum()


@mean_colour.right
def _pixel_by_pixel(picture, mask):
    rows, columns = np.nonzero(mask)
    total = [0.0, 0.0, 0.0]
    for row, column in zip(rows, columns, strict=True):
        total = [old + float(new) for old, new in zip(total, picture[row, column], strict=True)]
    return tuple(value / len(rows) for value in total)


@mean_colour.right
def _rounded(picture, mask):
    return [round(float(np.average(picture[..., c], weights=mask))) for c in range(3)]


@mean_colour.wrong("mask was not used")
def _whole_picture(picture, mask):
    return picture.mean(axis=(0, 1))


@mean_colour.wrong("wrong way round")
def _inverted(picture, mask):
    return picture[~mask].mean(axis=0)


@mean_colour.wrong("Too dark")
def _divided_by_all(picture, mask):
    return (picture * mask[..., None]).mean(axis=(0, 1))


@mean_colour.wrong("one number")
def _no_axis(picture, mask):
    return picture[mask].mean()


@mean_colour.wrong("one for each pixel")
def _wrong_axis(picture, mask):
    return picture[mask].mean(axis=1)


@mean_colour.wrong("from 0 to 1")
def _zero_to_one(picture, mask):
    return picture[mask].mean(axis=0) / 255


@mean_colour.wrong("This is the sum")
def _only_summed(picture, mask):
    return picture[mask].sum(axis=0)


@mean_colour.wrong("median")
def _median(picture, mask):
    return np.median(picture[mask], axis=0)


@mean_colour.wrong("wrong order")
def _blue_first(picture, mask):
    return picture[mask].mean(axis=0)[::-1]


@mean_colour.wrong("returned nothing")
def _forgot_to_return(picture, mask):
    picture[mask].mean(axis=0)


@mean_colour.wrong("got an array of shape (64, 3)")
def _rows_only(picture, mask):
    return (picture * mask[..., None]).mean(axis=0)


@mean_colour.wrong("Your code stopped with IndexError")
def _mask_as_number(picture, mask):
    return picture[mask.sum()].mean(axis=0)


@mean_colour.wrong("Expected about")
def _overflow(picture, mask):
    return picture[mask].sum(axis=0, dtype=np.uint8) / mask.sum()
