"""Figures for lessons on learning a concept: groups of layers side by side, methods in a plane with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.lab.looks import COLOURS, looks
from tutorial_lib.lab.plots import Shown, finish, subplots

JITTER = 0.32  # of the distance between two groups


def groups(panels: Mapping[str, Mapping[str, Sequence[float]]], alt: str, log: Sequence[str] = ()) -> Shown:
    """One panel a measure: for each group of layers a dot a layer, and a bar at their median. Positive numbers.

    log: the panels with a logarithmic axis; the others begin at 0.
    """
    count = max(len(panel) for panel in panels.values())
    figure, axes = subplots(1, len(panels), width=3.6 * len(panels), height=0.9 + 0.5 * count)
    for k, (axis, (title, panel)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        for row, values in enumerate(panel.values()):
            _draw_group(axis, row, np.asarray(values, dtype=float), COLOURS[row % len(COLOURS)])
        axis.set_yticks(range(len(panel)), list(panel) if k == 0 else [""] * len(panel))
        axis.set_ylim(len(panel) - 0.4, -0.6)
        if title in log:
            axis.set_xscale("log")
        else:
            axis.set_xlim(left=0)
            axis.xaxis.set_major_formatter("{x:g}")  # a short 0: the panels' outer labels are neighbours
        axis.set_title(title, fontsize=10)
    return finish(figure, alt)


def _draw_group(axis, row: int, values: np.ndarray, colour: str) -> None:
    spread = row + JITTER * (2 * ((np.arange(len(values)) * 0.618) % 1) - 1)  # golden ratio: even, and always the same
    axis.scatter(values, spread, s=12, color=colour, alpha=0.45, linewidths=0)
    axis.plot([np.median(values)] * 2, [row - 0.4, row + 0.4], color="black", linewidth=2.5)


def plane(methods: Mapping[str, tuple], x_label: str, y_label: str, alt: str) -> Shown:
    """Methods as points with bars: name -> ((x mean, x spread), (y mean, y spread)); marker and colour both differ."""
    figure, axes = subplots(1, 1, width=8, height=4.2)
    axis = axes[0, 0]
    for name, look in looks(methods).items():
        (x, dx), (y, dy) = methods[name]
        axis.errorbar(
            x,
            y,
            xerr=dx,
            yerr=dy,
            label=name,
            color=look.colour,
            marker=look.mark,
            markersize=8,
            capsize=3,
            linestyle="none",
        )
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return finish(figure, alt)
