"""Figures of lesson 09: how several controls are learned, what they reach, from how many pairs; who was preferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.lab.looks import COLOURS, MARKS, looks
from tutorial_lib.lab.plots import Shown, finish, subplots

Curve = tuple[Sequence[float], Sequence[float]]  # steps, scores


def convergence(methods: Mapping[str, Sequence[Curve]], y_label: str, ceiling: float | None = None) -> Shown:
    """Scores over the steps: {method: one curve a seed}. Thin lines are the seeds, the thick one is their mean."""
    figure, axes = subplots(1, 1, width=8, height=3.6)
    place, told = axes[0, 0], []
    for method, (colour, _, line) in looks(methods).items():
        curves, style = methods[method], {"color": colour, "linestyle": line}
        for steps, scores in curves:
            place.plot(steps, scores, linewidth=0.7, alpha=0.5, **style)
        steps, means = curves[0][0], np.mean([scores for _, scores in curves], 0)
        place.plot(steps, means, linewidth=2.5, label=method, **style)
        told.append(f"{method} from {means[0]:.2f} to {means[-1]:.2f}")
    if ceiling is not None:
        place.axhline(ceiling, color="0.4", linewidth=1)
        place.text(0, ceiling, " the VAE's own", va="bottom", fontsize=8, color="0.3")
    place.set(xlabel="training steps", ylabel=y_label)
    place.legend(frameon=False, fontsize=8)
    return finish(figure, f"{y_label} over the training steps, the mean over seeds: {'; '.join(told)}")


def by_seed(panels: Mapping[str, Mapping[str, Sequence[float]]], floors: Mapping[str, float], floor_name: str) -> Shown:
    """One panel a figure, one line a method: {title: {method: one score a seed}}; a large mark is the mean.

    floors: of each title, what is reached without any of the methods: a dotted line.
    """
    methods = list(next(iter(panels.values())))
    figure, axes = subplots(1, len(panels), width=1.4 + 2.6 * len(panels), height=1.0 + 0.42 * len(methods))
    told = []
    for k, (place, (title, panel)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        _draw_seeds(place, panel)
        place.axvline(floors[title], color="0.4", linestyle=":", linewidth=1.5)
        place.set_yticks(range(len(methods)), methods if k == 0 else [""] * len(methods))
        place.set_title(title, fontsize=10)
        means = ", ".join(f"{method} {np.mean(scores):.2f}" for method, scores in panel.items())
        told.append(f"{title}: {means}, {floor_name} {floors[title]:.2f}")
    first = next(iter(floors.values()))
    axes[0, 0].annotate(floor_name, (first, -0.45), (3, 0), textcoords="offset points", fontsize=8, va="top")
    return finish(figure, f"A small mark is a seed, a large one the mean over seeds. {'; '.join(told)}")


def _draw_seeds(place, panel: Mapping[str, Sequence[float]]) -> None:
    for row, (method, (colour, mark, _)) in enumerate(looks(panel).items()):
        scores, style = panel[method], {"color": colour, "marker": mark, "linestyle": "none"}
        place.plot(scores, [row] * len(scores), markersize=4, alpha=0.5, **style)
        place.plot(np.mean(scores), row, markersize=9, **style)
    place.set_ylim(row + 0.5, -0.5)


def sizes(panels: Mapping[str, Mapping[float, Sequence[float]]], floors: Mapping[str, float]) -> Shown:
    """One panel a figure: {title: {pairs to learn from: one score a seed}}, and the score before training."""
    figure, axes = subplots(1, len(panels), width=4.2 * len(panels), height=3.2)
    told = []
    for k, (place, (title, points)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        means = [np.mean(scores) for scores in points.values()]
        place.plot(list(points), means, "-", color=COLOURS[k], linewidth=2)
        for pairs, scores in points.items():
            place.plot([pairs] * len(scores), scores, MARKS[k], color=COLOURS[k], markersize=6, alpha=0.7)
        place.axhline(floors[title], color="0.4", linestyle=":", linewidth=1)
        place.annotate("before training", (min(points), floors[title]), (0, 3), textcoords="offset points", fontsize=8)
        place.set(xscale="log", xlabel="pairs to learn from", title=title)
        steps = ", ".join(f"{mean:.2f} of {pairs:g}" for pairs, mean in zip(points, means))
        told.append(f"{title}: {steps}, before training {floors[title]:.2f}")
    return finish(figure, f"What more pairs bring; a mark is a seed. {'; '.join(told)}")


def preferred(averages: Mapping[str, tuple[float, float]], best: int, who: str) -> Shown:
    """Bars of average rankings with their spread: {method: (mean, spread)}; `best` points are the most."""
    figure, axes = subplots(1, 1, width=7, height=0.8 + 0.42 * len(averages))
    place = axes[0, 0]
    means, spreads = zip(*averages.values())
    errors = None if np.isnan(spreads).any() else spreads  # one person has no spread
    colours = [look.colour for look in looks(averages).values()]
    place.barh(range(len(averages)), means, xerr=errors, color=colours, capsize=3)
    place.set_yticks(range(len(averages)), list(averages))
    place.set(xlim=(1, best), xlabel=f"average ranking by {who}: {best} is best")
    place.invert_yaxis()
    told = ", ".join(f"{method} {mean:.2f}" for method, (mean, _) in averages.items())
    return finish(figure, f"Average ranking by {who}, {best} is best: {told}")
