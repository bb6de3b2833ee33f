"""Figures of lesson 05: the search, curves over steps, the frontier, and a run's weights while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.lab.looks import looks
from tutorial_lib.lab.plots import Shown, finish, subplots
from tutorial_lib.lab.subject_runs import BASE, METHODS, average, kept

LOOKS = looks((BASE, *METHODS))
SMALL = 1e-9  # where the axis of energy changes ends: float32 weights hold no less


def search(runs: Sequence[dict]) -> Shown:
    """Likeness and fidelity over the learning rates that were tried, one panel a method; the score's best is ringed."""
    tried = [run for run in runs if run["part"] == "search"]
    methods = [method for method in METHODS if any(run["method"] == method for run in tried)]
    figure, axes = subplots(1, len(methods), width=2.2 * len(methods), height=2.8)
    for place, method in zip(axes[0], methods, strict=True):
        own = sorted((run for run in tried if run["method"] == method), key=lambda run: run["rate"])
        rates, scores = [run["rate"] for run in own], [score(run) for run in own]
        for name, line, marker in (("subject_similarity", "-", "o"), ("context", "--", "s"), ("others", ":", "^")):
            label = {"subject_similarity": "likeness", "others": "other things"}.get(name, name)
            place.plot(rates, [run[name] for run in own], line, marker=marker, label=label, color=LOOKS[method][0])
        best = int(np.argmax(scores))
        place.axvline(rates[best], color="0.7", linewidth=6, zorder=0)
        place.set(xscale="log", ylim=(-0.1, 1.08), title=method, xlabel="learning rate")
        place.set_xticks(rates, [f"{rate:g}" for rate in rates], fontsize=7)
        place.minorticks_off()
    axes[0, 0].legend(frameon=False, fontsize=7, loc="lower left")
    return finish(
        figure,
        "For each method, likeness to the subject and fidelity of the subject's and of other prompts at three learning "
        "rates; a grey bar marks the rate that was chosen",
    )


def score(run: dict) -> float:
    """What the benchmark chose the rates by."""
    return run["subject_similarity"] * run["context"] * run["others"]


def curves(runs: Sequence[dict], real: float) -> Shown:
    """Likeness and both fidelities over steps: mean over runs, the band one standard error over subjects wide."""
    names = {"similarity_at": "likeness to the subject", "context_at": "context as asked", "others_at": "other things"}
    figure, axes = subplots(1, 3, width=11, height=3.4)
    for place, (name, label) in zip(axes[0], names.items(), strict=True):
        for method in METHODS:
            steps = next(run["looks"] for run in runs if run["method"] == method)
            points = [average(runs, method, lambda run, name=name, k=k: run[name][k]) for k in range(len(steps))]
            mean, error = (np.array([getattr(point, part) for point in points]) for part in ("mean", "error"))
            colour, marker, line = LOOKS[method]
            place.plot(steps, mean, color=colour, marker=marker, markersize=4, linestyle=line, label=method)
            place.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        place.set(xlabel="training steps", title=label)
    axes[0, 0].axhline(real, color="0.4", linewidth=1)
    axes[0, 0].text(0, real, "real pictures", va="bottom", fontsize=8, color="0.4")
    _legend_below(figure)
    return finish(figure, "Likeness to the subject, context and other things over training steps, one line a method")


def long_runs(runs: Sequence[dict]) -> Shown:
    """Likeness and the fidelity of other prompts in the runs that were trained on and on."""
    chosen = [run for run in runs if run["part"] == "long"]
    figure, axes = subplots(1, 2, width=9, height=3.2)
    names = {"similarity_at": "likeness to the subject", "others_at": "other things"}
    for place, (name, label) in zip(axes[0], names.items(), strict=True):
        for run in chosen:
            colour, marker, line = LOOKS[run["method"]]
            place.plot(run["looks"], run[name], color=colour, marker=marker, linestyle=line, label=run["method"])
        place.set(xlabel="training steps", title=label)
    _legend_below(figure)
    return finish(figure, "Likeness and fidelity of other prompts when training goes on and on")


def _legend_below(figure) -> None:
    """One legend for all panels, outside of them: inside it would lie on lines."""
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=8)


def frontier(runs: Sequence[dict], real: float) -> Shown:
    """What each method wins against what it loses: small marks are runs, large ones means over subjects with errors."""
    figure, axes = subplots(1, 1, width=7, height=4.4)
    place = axes[0, 0]
    for method, (colour, marker, _) in LOOKS.items():
        own = [run for run in runs if run["method"] == method]
        if not own:
            continue
        x, y = [run["subject_similarity"] for run in own], [kept(run) for run in own]
        place.plot(x, y, marker, color=colour, alpha=0.3, markersize=4)
        across, up = average(runs, method, "subject_similarity"), average(runs, method, kept)
        bars = {"xerr": across.error, "yerr": up.error, "capsize": 3, "color": colour, "markeredgecolor": "black"}
        place.errorbar(across.mean, up.mean, fmt=marker, markersize=10, label=method, **bars)
    place.axvline(real, color="0.4", linewidth=1)
    place.text(real, place.get_ylim()[0], " real\n pictures", va="bottom", fontsize=8, color="0.4")
    place.set(xlabel="likeness to the subject", ylabel="kept: prompts without the subject")
    place.legend(frameon=False, fontsize=8)
    return finish(figure, "Likeness to the subject against what is kept of other prompts, each method with error bars")


def weights_while_training(watched: Mapping[str, tuple]) -> Shown:
    """How far the weights moved, and how much their energy changed: {method: (steps, moved, energy change)}."""
    figure, axes = subplots(1, 2, width=9, height=3.2)
    for method, (steps, moved, energy) in watched.items():
        colour, marker, line = LOOKS[method]
        style = {"color": colour, "marker": marker, "markersize": 4, "linestyle": line, "label": method}
        axes[0, 0].plot(steps, moved, **style)
        axes[0, 1].plot(steps, np.maximum(energy, SMALL), **style)
    axes[0, 0].set(title="how far the weights moved, ‖ΔW‖ / ‖W‖", xlabel="training steps")
    axes[0, 1].set(title="largest relative change of energy", xlabel="training steps", yscale="log")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return finish(figure, "How far the weights moved, and the change of their hyperspherical energy, for each method")
