"""Figures of lesson 07: the least change under a constraint, what differences do to words, methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.lab.looks import COLOURS, MARKS, looks
from tutorial_lib.lab.plots import Shown, draw_heatmap, finish, subplots


def least_change(G, w0, c, v: float, points: Mapping[str, Sequence[float]], alt: str) -> Shown:
    """A matrix of one row (w_1, w_2) as a point: the cost (w - w0) G (w - w0)^T as rings, the line w c = v.

    points: solutions by name, each with a marker of its own and a short line along the gradient of the cost there.
    """
    G, w0, c = (np.asarray(a, dtype=float) for a in (G, w0, c))
    figure, axes = subplots(1, 1, width=8.4, height=4.6)
    axis, reach = axes[0, 0], 1.6 * max(np.linalg.norm(np.subtract(p, w0)) for p in points.values())
    x, y = np.meshgrid(*(np.linspace(m - reach, m + reach, 200) for m in w0))
    off = np.stack([x - w0[0], y - w0[1]], -1)
    axis.contour(x, y, np.sqrt(np.einsum("...i,ij,...j", off, G, off)), levels=9, colors="#999999", linewidths=0.8)
    along, foot = np.array([-c[1], c[0]]) / np.linalg.norm(c), v * c / (c @ c)
    ends = np.stack([foot + s * along for s in ((w0 - foot) @ along + np.array([-3, 3]) * reach)])
    axis.plot(*ends.T, color="black", linewidth=2, label="the constraint, W c = v")
    axis.plot(*w0, marker="*", markersize=14, color="black", linestyle="none", label="W₀")
    for k, (name, point) in enumerate(points.items()):
        gradient = G @ np.subtract(point, w0)
        tip = point + 0.35 * reach * gradient / np.linalg.norm(gradient)
        axis.annotate("", tip, point, arrowprops={"arrowstyle": "->", "color": COLOURS[k], "linewidth": 2})
        axis.plot(*point, marker=MARKS[k], markersize=9, color=COLOURS[k], linestyle="none", label=name)
    axis.set(xlim=w0[0] + np.array([-1, 1]) * reach, ylim=w0[1] + np.array([-1, 1]) * reach, aspect="equal")
    axis.set_xlabel("first number of W")
    axis.set_ylabel("second number of W")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return finish(figure, alt)


def tables(panels: Mapping[str, Mapping[str, Sequence[float]]], columns: Sequence[str], alt: str) -> Shown:
    """Tables of numbers, one panel each: title -> {row name: numbers}, all on one scale of colours."""
    rows = max(len(panel) for panel in panels.values())
    figure, axes = subplots(1, len(panels), width=5 * len(panels), height=1.5 + 0.5 * rows)
    top = max(value for panel in panels.values() for row in panel.values() for value in row)
    for axis, (title, panel) in zip(axes[0], panels.items(), strict=True):
        draw_heatmap(axis, list(panel.values()), columns, list(panel), top)
        axis.set_title(title, fontsize=10)
    return finish(figure, alt)


def methods(panels: Mapping[str, Mapping[str, tuple[float, float]]], alt: str) -> Shown:
    """One panel a figure, one line a method: title -> {method: (mean, spread)}. Shares: every axis is from 0 to 1."""
    names = list(next(iter(panels.values())))
    figure, axes = subplots(1, len(panels), width=1.2 + 2.3 * len(panels), height=1.0 + 0.42 * len(names))
    for k, (axis, (title, panel)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        for row, (name, look) in enumerate(looks(names).items()):
            mean, spread = panel[name]
            axis.errorbar(mean, row, xerr=spread, color=look.colour, marker=look.mark, markersize=7, capsize=3)
        axis.set_yticks(range(len(names)), names if k == 0 else [""] * len(names))
        axis.set(xlim=(-0.04, 1.04), ylim=(len(names) - 0.5, -0.5))
        axis.set_title(title, fontsize=10)
    return finish(figure, alt)
