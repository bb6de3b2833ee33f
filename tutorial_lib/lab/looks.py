"""How lines and points look: each series has a colour, a mark and a line of its own.

A method of the course looks alike in the figures of all lessons.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import NamedTuple

# Okabe and Ito's palette, darkest first: told apart by all common kinds of colour vision, and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D", "v", "P", "X")


class Look(NamedTuple):
    """As matplotlib wants them."""

    colour: str
    mark: str
    line: str | tuple


_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY, _BLACK = COLOURS
METHODS = {  # of two with one colour, no lesson has both
    "before": Look("0.4", "*", "-"),
    "full": Look(_VERMILION, "s", "--"),
    "DreamBooth": Look(_VERMILION, "s", "--"),  # full fine-tuning, with pictures of the class
    "LoRA": Look(_ORANGE, "^", "-."),
    "OFT": Look(_BLUE, "o", "-"),
    "COFT": Look(_SKY, "D", ":"),
    "re-scaled OFT": Look(_GREEN, "v", (0, (5, 1, 1, 1))),
    "Custom Diffusion": Look(_GREEN, "P", "-"),
    "textual inversion": Look(_PURPLE, "X", ":"),
    "ControlNet": Look(_BLACK, "P", "-"),
    "Gaussian": Look(_GREEN, "v", "--"),
    "ControlNet-lite": Look(_PURPLE, "X", "-."),
}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name: a method's own; other names share those whose colour is left over, in order."""
    names = list(names)
    taken = {METHODS[name].colour for name in names if name in METHODS}
    left = [Look(*look) for look in zip(COLOURS, MARKS, cycle(LINES)) if look[0] not in taken]
    others = cycle(left or [Look(*look) for look in zip(COLOURS, MARKS, cycle(LINES))])
    return {name: METHODS[name] if name in METHODS else next(others) for name in names}
