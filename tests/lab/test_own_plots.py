"""The layouts of lesson 10: which bar has which colour."""

import numpy as np
from matplotlib.colors import to_rgb

from tutorial_lib.lab import own_plots

METHODS = [
    {"method": "A", "likeness": 0.9, "kept": 0.5, "MB": 60.0},
    {"method": "B", "likeness": 0.6, "kept": 0.9, "MB": 4.0},
    {"method": "C", "likeness": 0.3, "kept": 1.0, "MB": 4.0},
]


def _pixels(picture, colour) -> int:
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return int((np.abs(np.asarray(picture) - wanted).max(-1) < 3).sum())


def test_the_chosen_bar_is_dark_and_those_outside_are_grey():
    picture = own_plots.choice(METHODS, "B", least_kept=0.8, most_mb=10)
    dark, pale, grey = (_pixels(picture, c) for c in (own_plots.CHOSEN, own_plots.ALLOWED, own_plots.OUTSIDE))
    assert grey > dark > pale > 0  # as long as the likenesses of A, B, C


def test_nothing_within_the_limits_is_said_and_a_negative_likeness_is_drawn():
    methods = [dict(row, likeness=row["likeness"] - 0.5) for row in METHODS]
    picture = own_plots.choice(methods, None, least_kept=1.0, most_mb=1)
    assert _pixels(picture, own_plots.CHOSEN) == _pixels(picture, own_plots.ALLOWED) == 0
    assert _pixels(picture, own_plots.OUTSIDE) > 1000
