"""Checks of lesson 10, Your own pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tutorial_lib.lab.checks import Mistake, check


def _refuse_nothing(given) -> None:
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")


def _whole_numbers(given, count: int) -> tuple[int, ...]:
    """The answer as so many whole numbers; Mistake where it is anything else."""
    _refuse_nothing(given)
    try:
        given = tuple(given)
    except TypeError:
        raise Mistake(f"Expected {count} numbers, got {type(given).__name__}.") from None
    if len(given) != count or not all(isinstance(v, (int, float, np.number)) for v in given):
        raise Mistake(f"Expected {count} numbers, got {given!r}.")
    if any(int(v) != v for v in given):
        raise Mistake(f"These are counts of pixels or pictures, so whole numbers: use //, not /. Got {given}.")
    return tuple(int(v) for v in given)


# ------------------------------------------------------------------ the square in the middle

_SIZES = {
    (480, 256): (112, 0, 368, 256),
    (100, 260): (0, 80, 100, 180),
    (64, 64): (0, 0, 64, 64),
    (101, 64): (18, 0, 82, 64),  # what is too much is odd
    (64, 101): (0, 18, 64, 82),
}


@check
def middle_square(answer):
    """The largest square in the middle: its side is the shorter of the two, and what is cut is cut evenly."""
    for (width, height), right in _SIZES.items():
        given = _whole_numbers(answer(width, height), 4)
        if given != right:
            raise Mistake(_square_mistake(given, width, height, right))


def _square_mistake(given: tuple[int, ...], width: int, height: int, right: tuple[int, ...]) -> str:
    left, top, x, y = given
    side, what = min(width, height), f"For a picture of {width} x {height}"
    if given == (0, 0, side, side):
        return f"{what} this is the square at the upper left. Half of what is too much goes away on each side."
    if given == (right[0], right[1], side, side):
        return f"{what} you returned (left, top, side, side). A box is (left, top, right, bottom)."
    if given == (right[1], right[0], right[3], right[2]):
        return f"{what} rows and columns are exchanged: x comes first, left and right."
    if (x - left, y - top) == (max(width, height),) * 2:
        return f"{what} your square is larger than the picture: its side is the shorter of width and height."
    if (x - left, y - top) != (side, side) and (left, top, x, y) == (0, 0, width, height):
        return f"{what} this is the whole picture, which is no square."
    if (left, top) == (width - side, height - side):
        return f"{what} this is the square at the lower right: what is too much was not halved."
    return f"{what} the box is {right}, and yours is {given}."


@middle_square.right
def _square_by_side(width, height):
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


@middle_square.right
def _square_by_case(width, height):
    if width > height:
        left = int((width - height) / 2)
        return [left, 0, left + height, height]
    top = int((height - width) / 2)
    return [0, top, width, top + width]


@middle_square.wrong("at the upper left")
def _upper_left(width, height):
    return 0, 0, min(width, height), min(width, height)


@middle_square.wrong("(left, top, side, side)")
def _with_side(width, height):
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


@middle_square.wrong("exchanged")
def _rows_first(width, height):
    left, top, right, bottom = _square_by_side(width, height)
    return top, left, bottom, right


@middle_square.wrong("larger than the picture")
def _longer_side(width, height):
    side = max(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


@middle_square.wrong("no square")
def _whole(width, height):
    return 0, 0, width, height


@middle_square.wrong("not halved")
def _lower_right(width, height):
    side = min(width, height)
    return width - side, height - side, width, height


@middle_square.wrong("use //")
def _with_fractions(width, height):
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


# ------------------------------------------------------------------ the word in the caption

_CAPTIONS = {
    ("a photo of a cat on a table", "sks", "cat"): "a photo of a sks cat on a table",
    ("catkins behind a cat", "sks", "cat"): "catkins behind a sks cat",
    ("a cat and another cat", "sks", "cat"): "a sks cat and another cat",
    ("a photo of a sks cat in the snow", "sks", "cat"): "a photo of a sks cat in the snow",
    ("a cat with tusks on a beach", "sks", "cat"): "a sks cat with tusks on a beach",
}


@check
def with_word(answer):
    """The word stands once, right before the first mention of the class, and no other word has changed."""
    for (caption, token, word), right in _CAPTIONS.items():
        given = answer(caption, token, word)
        _refuse_nothing(given)
        if not isinstance(given, str):
            raise Mistake(f"Expected the new caption, a string, got {type(given).__name__}.")
        if given != right:
            raise Mistake(_word_mistake(given, caption, token, word, right))


def _word_mistake(given: str, caption: str, token: str, word: str, right: str) -> str:
    if f"{token} {token}" in given:
        return f"The word was there already, and now it stands twice: {given!r}. Look before you insert."
    if re.search(rf"{token} {word}\w", given):
        return f"{given!r}: your search found {word!r} inside of another word. Compare whole words."
    if given.count(token) > 1:
        return f"{given!r}: the word was put before every {word!r}. One subject is in the picture: once is enough."
    if f"{word} {token}" in given:
        return f"{given!r}: the word stands after the class. It belongs before it, as an adjective does."
    if token in given and word not in given.split():
        return f"{given!r}: the class is gone. Its word lends the subject all that the model knows of it."
    if given.startswith(token) or given.endswith(token):
        return f"{given!r}: the word belongs right before {word!r}, not at the caption's end or beginning."
    if given == caption and token in caption:
        return f"{caption!r} has {token!r} only as a part of another word, so yours is missing. Compare whole words."
    if given == caption:
        return f"{caption!r} came back as it was."
    return f"Expected {right!r}, got {given!r}."


@with_word.right
def _by_words(caption, token, class_word):
    words = caption.split()
    if token not in words:
        words.insert(words.index(class_word), token)
    return " ".join(words)


@with_word.right
def _by_expression(caption, token, class_word):
    if token in caption.split():
        return caption
    return re.sub(rf"\b{class_word}\b", f"{token} {class_word}", caption, count=1)


@with_word.wrong("only as a part of another word")
def _letters_of_the_token(caption, token, class_word):
    return caption if token in caption else re.sub(rf"\b{class_word}\b", f"{token} {class_word}", caption, count=1)


@with_word.wrong("stands twice")
def _always(caption, token, class_word):
    words = caption.split()
    words.insert(words.index(class_word), token)
    return " ".join(words)


@with_word.wrong("inside of another word")
def _first_letters(caption, token, class_word):
    if token in caption:
        return caption
    return caption.replace(class_word, f"{token} {class_word}", 1)


@with_word.wrong("before every")
def _everywhere(caption, token, class_word):
    if token in caption:
        return caption
    return " ".join(f"{token} {w}" if w == class_word else w for w in caption.split())


@with_word.wrong("after the class")
def _behind(caption, token, class_word):
    return caption if token in caption else re.sub(rf"\b{class_word}\b", f"{class_word} {token}", caption, count=1)


@with_word.wrong("the class is gone")
def _instead(caption, token, class_word):
    return caption if token in caption else re.sub(rf"\b{class_word}\b", token, caption, count=1)


@with_word.wrong("not at the caption's end")
def _in_front(caption, token, class_word):
    return caption if token in caption else f"{token}, {caption}"


@with_word.wrong("came back as it was")
def _unchanged(caption, token, class_word):
    return caption


# ------------------------------------------------------------------ as many as fit

_FITS = {(8, 4): (4, 2), (6, 4): (3, 2), (5, 4): (1, 5), (4, 9): (4, 1)}


@check
def as_many_as_fit(answer):
    """The product is the batch that the recipe wants, and no forward pass is larger than what fits."""
    for (batch, most), right in _FITS.items():
        given = _whole_numbers(answer(batch, most), 2)
        if given != right:
            raise Mistake(_fit_mistake(given, batch, most, right))


def _fit_mistake(given: tuple[int, ...], batch: int, most: int, right: tuple[int, ...]) -> str:
    size, times = given
    what = f"A step of {batch} pictures, at most {most} at once:"
    if given == right[::-1]:
        return f"{what} {given} is the right pair in the wrong order. First the pictures, then the passes."
    if size * times > batch:
        return f"{what} {size} x {times} is {size * times} pictures: another batch, and so another training."
    if size * times < batch:
        return f"{what} {size} x {times} is {size * times} pictures: some of the recipe's are missing."
    if size > most:
        return f"{what} {size} at once do not fit."
    return f"{what} {size} x {times} works, but {right[0]} at once fit as well, and fewer passes are faster."


@as_many_as_fit.right
def _downwards(batch, most):
    size = next(size for size in range(min(batch, most), 0, -1) if batch % size == 0)
    return size, batch // size


@as_many_as_fit.right
def _largest_divisor(batch, most):
    size = max(s for s in range(1, most + 1) if batch % s == 0)
    return [size, batch // size]


@as_many_as_fit.wrong("another batch")
def _rounded_up(batch, most):
    size = min(batch, most)
    return size, -(-batch // size)


@as_many_as_fit.wrong("are missing")
def _rounded_down(batch, most):
    size = min(batch, most)
    return size, batch // size


@as_many_as_fit.wrong("do not fit")
def _all_at_once(batch, most):
    return batch, 1


@as_many_as_fit.wrong("fewer passes are faster")
def _one_by_one(batch, most):
    return 1, batch


@as_many_as_fit.wrong("wrong order")
def _passes_first(batch, most):
    return _downwards(batch, most)[::-1]


# ------------------------------------------------------------------ which method

_METHODS = [
    {"method": "A", "likeness": 0.9, "kept": 0.6, "MB": 60.0},
    {"method": "B", "likeness": 0.7, "kept": 0.9, "MB": 60.0},
    {"method": "C", "likeness": 0.6, "kept": 0.9, "MB": 4.0},
    {"method": "D", "likeness": -0.1, "kept": 1.0, "MB": 0.1},  # a cosine may be negative
]


@check
def choose(answer):
    """Of the methods within the limits the one that is most like the subject; None where no method is."""
    cases = {
        (0.8, 10.0): "C",
        (0.8, 100.0): "B",
        (0.5, 100.0): "A",
        (0.9, 4.0): "C",
        (0.95, 10.0): "D",
        (0.99, 0.01): None,
    }
    for (kept, size), right in cases.items():
        try:
            given = answer(_METHODS, kept, size)
        except (ValueError, IndexError, TypeError) as error:
            if right is not None:
                raise
            raise Mistake(f"Where no method is within the limits, return None. Yours raised {error!r}.") from error
        if isinstance(given, Mapping):
            raise Mistake("You returned the whole row. Return the method's name.")
        if given is not None and not isinstance(given, str):
            raise Mistake(f"Expected the name of a method, got {given!r}.")
        if given != right:
            raise Mistake(_choice_mistake(given, kept, size, right))


def _choice_mistake(given: str | None, kept: float, size: float, right: str | None) -> str:
    what = f"With at least {kept} kept and at most {size:g} MB"
    row = next((row for row in _METHODS if row["method"] == given), None)
    if (kept, size) == (0.9, 4.0) and given in (None, "D"):
        return f"{what} you left out C, which has exactly these figures. At least and at most include the limit."
    if row is None:
        return f"{what} you found none, and {right} is within the limits."
    if right is None:
        return f"{what} no method is left, and you chose {given}."
    if row["kept"] < kept:
        return f"{what} you chose {given}, which keeps only {row['kept']}."
    if row["MB"] > size:
        return f"{what} you chose {given}, whose file has {row['MB']:g} MB."
    return f"{what} {given} is allowed, but {right} is more like the subject."


@choose.right
def _by_max(methods, least_kept, most_mb):
    allowed = [row for row in methods if row["kept"] >= least_kept and row["MB"] <= most_mb]
    return max(allowed, key=lambda row: row["likeness"])["method"] if allowed else None


@choose.right
def _by_loop(methods, least_kept, most_mb):
    best = None
    for row in methods:
        fits = row["kept"] >= least_kept and row["MB"] <= most_mb
        if fits and (best is None or row["likeness"] > best["likeness"]):
            best = row
    return best and best["method"]


@choose.wrong("which keeps only")
def _by_size_only(methods, least_kept, most_mb):
    allowed = [row for row in methods if row["MB"] <= most_mb]
    return max(allowed, key=lambda row: row["likeness"])["method"] if allowed else None


@choose.wrong("whose file has")
def _by_kept_only(methods, least_kept, most_mb):
    allowed = [row for row in methods if row["kept"] >= least_kept]
    return max(allowed, key=lambda row: row["likeness"])["method"] if allowed else None


@choose.wrong("is more like the subject")
def _most_kept(methods, least_kept, most_mb):
    allowed = [row for row in methods if row["kept"] >= least_kept and row["MB"] <= most_mb]
    return max(allowed, key=lambda row: row["kept"])["method"] if allowed else None


@choose.wrong("include the limit")
def _strictly(methods, least_kept, most_mb):
    allowed = [row for row in methods if row["kept"] > least_kept and row["MB"] < most_mb]
    return max(allowed, key=lambda row: row["likeness"])["method"] if allowed else None


@choose.wrong("you found none")
def _from_zero(methods, least_kept, most_mb):
    best, likeness = None, 0.0
    for row in methods:
        if row["kept"] >= least_kept and row["MB"] <= most_mb and row["likeness"] > likeness:
            best, likeness = row["method"], row["likeness"]
    return best


@choose.wrong("the whole row")
def _row(methods, least_kept, most_mb):
    return next((row for row in methods if row["method"] == _by_max(methods, least_kept, most_mb)), None)


@choose.wrong("Where no method is within the limits")
def _raising(methods, least_kept, most_mb):
    return max((r for r in methods if r["kept"] >= least_kept and r["MB"] <= most_mb), key=lambda r: r["likeness"])[
        "method"
    ]


# ------------------------------------------------------------------ are they the same pictures?


def _two_pictures() -> tuple[np.ndarray, np.ndarray]:
    """Equal but for three numbers: one is 5 larger in the first; one 7 and one 150 larger in the second."""
    first = np.random.default_rng(0).integers(60, 100, (2, 4, 5, 3)).astype(np.uint8)
    second = first.copy()
    second[0, 1, 2, 0] -= 5
    second[0, 0, 3, 1] += 7
    second[1, 3, 4, 2] += 150  # more than a signed byte holds
    return first, second


@check
def largest_difference(answer):
    """No number of the two differs by more, in either direction, and bytes did not run over."""
    first, second = _two_pictures()
    given = answer(first, second)
    _refuse_nothing(given)
    if np.size(given) != 1:
        raise Mistake(f"Expected one number, got an array of shape {np.shape(given)}: take the largest of it.")
    try:
        given = float(np.asarray(given).item())
    except (TypeError, ValueError):
        raise Mistake(f"Expected a number, got {type(given).__name__}.") from None
    apart = first.astype(int) - second
    known = {
        float(
            (first - second).max()
        ): "Bytes hold 0 to 255 and run over below zero: 5 - 7 is 254. Make them int first.",
        float(apart.max()): "You took the largest of first - second. The second may be larger, too: take abs first.",
        float(abs(apart).mean()): "This is the mean. One wrong pixel would be lost in it: take the largest.",
        float(abs(apart[0]).max()): "Only the first pair of pictures was compared.",
        float(abs(apart).sum()): "This is a sum over all numbers. Take the largest.",
        float(abs(apart).max()) / 255: "This is a share of 255. Count in steps of the picture, 0 to 255.",
        float(np.abs(first.astype(np.int8) - second.astype(np.int8)).max()): "np.int8 holds -128 to 127 only, so large "
        "differences run over. Take int.",
    }
    if given != 150:
        raise Mistake(known.get(given, f"Expected 150 for this test case, got {given:g}."))
    if answer(second, second) != 0:
        raise Mistake("Equal pictures must give 0.")


@largest_difference.right
def _as_int(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max()


@largest_difference.right
def _by_order(first, second):
    return int((np.maximum(first, second) - np.minimum(first, second)).max())


@largest_difference.wrong("run over below zero")
def _in_bytes(first, second):
    return (first - second).max()


@largest_difference.wrong("np.int8 holds")
def _in_signed_bytes(first, second):
    return np.abs(first.astype(np.int8) - second.astype(np.int8)).max()


@largest_difference.wrong("take abs first")
def _one_direction(first, second):
    return (first.astype(int) - second).max()


@largest_difference.wrong("This is the mean")
def _mean(first, second):
    return np.abs(first.astype(int) - second).mean()


@largest_difference.wrong("a sum over all")
def _sum(first, second):
    return np.abs(first.astype(int) - second).sum()


@largest_difference.wrong("a share of 255")
def _share(first, second):
    return np.abs(first.astype(int) - second).max() / 255


@largest_difference.wrong("an array of shape")
def _all_of_them(first, second):
    return np.abs(first.astype(int) - second)
