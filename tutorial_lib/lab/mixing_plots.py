"""Figures and sliders for editing by mixing: weights beside their picture, what is decided when, rates of success."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tutorial_lib.lab.plots import COLOURS, Shown, draw_curves, draw_heatmap, finish, subplots
from tutorial_lib.lab.widgets import Panel

WEIGHT_RANGE = (-0.6, 1.6)
GREY = "#999999"


def edited(picture, weights, *, alt: str, start=None, losses: Mapping[str, Sequence[float]] | None = None) -> Shown:
    """An edited picture (3, H, W) from 0 to 1, the weights (steps,) that made it, and how the loss went so far.

    start: the weights before the first update, drawn in grey. losses: for each part, its value at each iteration.
    """
    ratios = [1, 1.5, 1.2] if losses else [1, 1.5]
    figure, axes = subplots(1, len(ratios), width=9 if losses else 6.5, height=2.5)
    axes[0, 0].get_gridspec().set_width_ratios(ratios)
    axes[0, 0].imshow(picture.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy())  # (3, H, W) -> (H, W, 3)
    axes[0, 0].set_axis_off()
    draw_weights(axes[0, 1], {"start": start, "now": weights} if start is not None else {"weights": weights})
    if losses:
        series = {name: (range(len(values)), values) for name, values in losses.items()}
        draw_curves(axes[0, 2], series, "iteration", "part of the loss")
        axes[0, 2].set_ylim(bottom=0)
        axes[0, 2].locator_params(axis="x", integer=True)
    return finish(figure, alt)


def draw_weights(axes, series: Mapping[str, Sequence[float]]) -> None:
    """Named weights (steps,) as stairs, one stair a step, the first step at the left. A "start" is drawn in grey."""
    colours = iter(COLOURS)
    series = {name: np.asarray(weights) for name, weights in series.items()}
    for name, weights in series.items():
        colour = GREY if name == "start" else next(colours)
        edges = np.arange(len(weights) + 1) + 0.5
        style = "--" if name == "start" else "-"
        axes.stairs(weights, edges, baseline=None, color=colour, linewidth=2, linestyle=style, label=name)
    together = np.concatenate(list(series.values()))
    axes.set_ylim(min(WEIGHT_RANGE[0], together.min() - 0.1), max(WEIGHT_RANGE[1], together.max() + 0.1))
    axes.set_yticks([0, 1], ["0 styled", "1 neutral"])
    axes.set_xlabel("denoising step")
    axes.set_ylabel(r"weight $\lambda_k$")
    if len(series) > 1:
        axes.legend(frameon=False, loc="lower left")


def decided(after: Sequence[int], shown, kept) -> Shown:
    """Two tables over the step of the switch: the share of pictures with the new attribute, and with the rest kept.

    shown, kept: for each attribute its shares, one for each number of `after`.
    """
    figure, axes = subplots(1, 2, width=10, height=0.8 + 0.42 * len(shown))
    for axis, table, title in (
        (axes[0, 0], shown, "the new attribute is there"),
        (axes[0, 1], kept, "everything else is as before"),
    ):
        draw_heatmap(axis, list(table.values()), list(after), list(table), top=1)
        axis.set_title(f"share of pictures in which\n{title}", fontsize=10)
        axis.set_xlabel("steps with the neutral prompt, before the switch")
        axis.tick_params(axis="x", rotation=0)
    return finish(figure, "Two tables, attributes by switch step: the new attribute is there; all else is as before")


def rates(table: Mapping[str, Mapping[str, float]], means: Mapping[str, tuple[float, float]]) -> Shown:
    """Rates of success: for each method and edit as a table, and for each method over all edits, with its error.

    table: {method: {edit: rate}}. means: {method: (rate, standard error)}.
    """
    names = list(table)
    figure, axes = subplots(1, 2, width=10, height=1 + 0.34 * len(names))
    draw_heatmap(axes[0, 0], [list(row.values()) for row in table.values()], list(table[names[0]]), names, top=1)
    axes[0, 0].set_title("rate of success, edit by edit", fontsize=10)
    places = np.arange(len(names))
    middles, errors = zip(*(means[name] for name in names), strict=True)
    axes[0, 1].errorbar(middles, places, xerr=errors, fmt="o", color=COLOURS[0], capsize=3)
    axes[0, 1].set(ylim=(len(names) - 0.5, -0.5), xlim=(-0.03, 1.03), xlabel="rate of success, all edits")
    axes[0, 1].set_yticks(places, [""] * len(names))
    axes[0, 1].set_title("mean over the pictures ± standard error", fontsize=10)
    best = max(names, key=lambda name: means[name][0])
    told = ", ".join(f"{name} {means[name][0]:.2f}" for name in names)
    return finish(figure, f"Rates of success by method and edit. Over all edits: {told}. Best: {best}")


def weight_sliders(make: Callable, edits: Sequence[str], steps: int, knots: int = 5) -> Panel:
    """A choice of edits and sliders for the weights at some steps, the others on straight lines between them.

    make(edit, weights) gives the picture (3, H, W) for weights (steps,), a NumPy array.
    """
    import ipywidgets
    from PIL import Image

    wide = {"style": {"description_width": "80px"}, "layout": ipywidgets.Layout(width="480px")}
    at = np.linspace(0, steps - 1, knots)
    controls = {"edit": ipywidgets.Dropdown(options=list(edits), description="edit", **wide)}
    for k, step in enumerate(at):
        controls[f"knot_{k}"] = ipywidgets.FloatSlider(
            value=1.0 if k <= knots // 2 else 0.0,
            min=-0.5,
            max=1.5,
            step=0.25,
            description=f"step {round(step) + 1}",
            continuous_update=False,
            **wide,
        )

    def weights_of(knot_values) -> np.ndarray:
        return np.interp(np.arange(steps), at, list(knot_values))

    def draw(edit, **values):
        weights = weights_of(values.values())
        shown = edited(make(edit, weights), weights, alt="")
        return Image.open(io.BytesIO(shown.png))

    def describe(edit, **values):
        told = ", ".join(f"{value:g}" for value in values.values())
        return f"{edit}, weights {told}: 1 is neutral, 0 is styled"

    return Panel(controls, draw, describe, width=650)
