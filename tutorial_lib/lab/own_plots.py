"""The layouts of lesson 10."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from tutorial_lib.lab import plots

CHOSEN, ALLOWED, OUTSIDE = plots.COLOURS[0], plots.COLOURS[5], "#dddddd"


def choice(methods: Sequence[dict], chosen: str | None, least_kept: float, most_mb: float) -> Image.Image:
    """A bar a method, as long as its likeness: the chosen one dark, those outside of the limits grey.

    methods: dicts with method, likeness, kept, MB; likeness may be below 0.
    """
    figure, axes = plots.subplots(width=6.4, height=0.6 + 0.45 * len(methods))
    place = axes[0, 0]
    for k, row in enumerate(methods):
        allowed = row["kept"] >= least_kept and row["MB"] <= most_mb
        colour = CHOSEN if row["method"] == chosen else ALLOWED if allowed else OUTSIDE
        place.barh(k, row["likeness"], color=colour)
        words = f" keeps {row['kept']:.2f}, {row['MB']:.1f} MB{'' if allowed else ': outside of the limits'}"
        place.text(max(row["likeness"], 0), k, words, va="center", fontsize=8)
    place.grid(False, axis="y")
    place.set_yticks(range(len(methods)), [row["method"] for row in methods])
    place.invert_yaxis()
    place.set_xlim(min(0, *(row["likeness"] for row in methods)), 1)
    place.set_xlabel("likeness to the subject")
    limits = f"keep {least_kept:.2f} or more, in {most_mb:.0f} MB or less"
    place.set_title(f"{limits}: {chosen or 'no method does'}", fontsize=10)
    return Image.open(io.BytesIO(plots.finish(figure, "").png)).convert("RGB")
