"""Figures of lesson 08: ControlNet as a drawing, where the gradient arrives, and a control being learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.lab.plots import COLOURS, LINES, Shown, finish, subplots

LOCKED, TRAINED, ZERO = "#DDDDDD", COLOURS[5], COLOURS[4]  # frozen, trainable copy, zero convolution
LEVELS = ("64, 16×16", "128, 8×8", "256, 4×4")  # channels and places of the pocket UNet's three levels
SMALLEST = 1e-9  # where the axis of gradients begins


# ------------------------------------------------------------------ the network


def diagram() -> Shown:
    """The frozen UNet at the left, the trainable copy of its encoder at the right, zero convolutions between them."""
    figure, axes = subplots(1, 1, width=9, height=5)
    place = axes[0, 0]
    place.set(xlim=(0, 10), ylim=(0, 6.4))
    place.set_axis_off()
    heights = (5.0, 3.9, 2.8)
    for name, x, colour in (("encoder", 1.5, LOCKED), ("decoder", 4.3, LOCKED), ("copy", 8.0, TRAINED)):
        for y, level in zip(heights, LEVELS, strict=True):
            _box(place, x, y, f"{name}\n{level}", colour)
    _box(place, 2.9, 1.5, "middle\n256, 4×4", LOCKED)
    _box(place, 8.0, 1.5, "copy of the\nmiddle", TRAINED)
    _frozen_arrows(place, heights)
    _branch_arrows(place, heights)
    _legend(place)
    return finish(
        figure,
        "The frozen UNet: encoder, middle, decoder. Beside it a trainable copy of encoder and middle, which takes the "
        "noisy picture plus the encoded hint; each of its outputs passes a zero convolution into the frozen decoder",
    )


def _box(place, x: float, y: float, words: str, colour: str, width: float = 1.7, height: float = 0.8) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    place.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0.02", facecolor=colour, edgecolor="0.4"))
    place.text(x, y, words, ha="center", va="center", fontsize=8)


def _arrow(place, start, end, **style) -> None:
    place.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3", **style})


def _frozen_arrows(place, heights) -> None:
    """Down the encoder, through the middle, up the decoder, and straight across."""
    _arrow(place, (1.5, 6.1), (1.5, 5.45))
    place.text(1.5, 6.15, "noisy latents $x_t$", ha="center", fontsize=9)
    _arrow(place, (4.3, 5.45), (4.3, 6.1))
    place.text(4.3, 6.15, r"noise $\hat\epsilon$", ha="center", fontsize=9)
    for above, below in zip(heights, heights[1:]):
        _arrow(place, (1.5, above - 0.45), (1.5, below + 0.45))
        _arrow(place, (4.3, below + 0.45), (4.3, above - 0.45))
    _arrow(place, (1.5, 2.35), (2.4, 1.95))
    _arrow(place, (3.4, 1.95), (4.3, 2.35))
    for y in heights:
        _arrow(place, (2.4, y), (3.4, y), linestyle="--")


def _branch_arrows(place, heights) -> None:
    """The hint on its way in, and every output on its way out through a zero convolution."""
    _arrow(place, (7.6, 6.1), (7.6, 5.45))
    place.text(7.6, 6.15, "$x_t$", ha="center", fontsize=9)
    _arrow(place, (8.9, 6.1), (8.3, 5.45))
    place.text(9.0, 6.15, "encoded hint $c$", ha="center", fontsize=9)
    _diamond(place, 8.63, 5.81)
    for above, below in zip(heights, (*heights[1:], 1.5)):
        _arrow(place, (8.0, above - 0.45), (8.0, below + 0.45))
    for y, x_end in (*((y, 5.2) for y in heights), (1.5, 3.8)):
        _arrow(place, (7.1, y), (x_end, y))
        _diamond(place, 6.2, y)


def _diamond(place, x: float, y: float) -> None:
    place.plot([x], [y], "D", color=ZERO, markeredgecolor="0.3", markersize=13, zorder=5)
    place.text(x, y, "0", ha="center", va="center", fontsize=8, zorder=6)


def _legend(place) -> None:
    from matplotlib.lines import Line2D

    kinds = (("s", LOCKED, "frozen"), ("s", TRAINED, "trainable copy"), ("D", ZERO, "zero convolution"))
    marks = [
        Line2D([], [], marker=m, color="none", markerfacecolor=c, markeredgecolor="0.4", markersize=11, label=words)
        for m, c, words in kinds
    ]
    place.legend(handles=marks, frameon=False, ncols=3, loc="lower center", fontsize=9)


# ------------------------------------------------------------------ where the gradient arrives


def gradients(found: Mapping[int, Mapping[str, float]]) -> Shown:
    """Bars of the gradient's norm for each part of the branch at the first steps: {step: {part: norm}}.

    The axis is logarithmic, and a gradient of 0 has no bar but the word.
    """
    figure, axes = subplots(1, len(found), width=3.2 * len(found), height=2.6)
    parts = list(next(iter(found.values())))
    top = max(max(norms.values()) for norms in found.values())
    for k, (place, (step, norms)) in enumerate(zip(axes[0], found.items(), strict=True)):
        values = [norms[part] for part in parts]
        place.barh(range(len(parts)), values, left=SMALLEST, color=COLOURS[: len(parts)])
        for row, value in enumerate(values):
            place.text(2 * max(value, SMALLEST), row, f"{value:.0e}" if value else "0", va="center", fontsize=8)
        place.set(xscale="log", xlim=(SMALLEST, 300 * top), title=f"step {step}", xlabel="norm of the gradient")
        place.set_yticks(range(len(parts)), parts if k == 0 else [])
        place.invert_yaxis()
    words = "; ".join(
        f"step {step}: "
        + ", ".join(f"{part} {'nothing' if not norm else f'{norm:.0e}'}" for part, norm in norms.items())
        for step, norms in found.items()
    )
    return finish(figure, f"Norm of the gradient in each part of the branch. {words}")


# ------------------------------------------------------------------ a control being learned


def learning(
    steps: Sequence[int],
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    ceilings: Mapping[str, float],
    steepest: tuple[float, float],
) -> Shown:
    """A panel for each measure over the steps: {measure: {regime: values}}, its ceiling, and the steepest window."""
    figure, axes = subplots(1, len(scores), width=4.6 * len(scores), height=3.3)
    for place, (measure, regimes) in zip(axes[0], scores.items(), strict=True):
        place.axvspan(*steepest, color="0.9", zorder=0)
        place.axhline(ceilings[measure], color="0.4", linewidth=1)
        place.text(steps[0], ceilings[measure], " the VAE's own", va="bottom", fontsize=8, color="0.3")
        for k, (regime, values) in enumerate(regimes.items()):
            place.plot(steps, values, LINES[k], marker="os^D"[k], markersize=4, color=COLOURS[k], label=regime)
        place.set(xlabel="training steps", title=measure, ylim=(0, 1.15 * ceilings[measure]))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    ends = "; ".join(
        f"{measure} {regime} from {values[0]:.2f} to {values[-1]:.2f}"
        for measure, regimes in scores.items()
        for regime, values in regimes.items()
    )
    return finish(figure, f"Scores over the training steps: {ends}; the steepest fifth of the run is shaded grey")


def seeds(runs: Sequence[tuple[str, Sequence[float], Sequence[float], float]], y_label: str) -> Shown:
    """One curve a run, and where each was steepest: (label, steps, scores, step of the jump)."""
    figure, axes = subplots(1, 1, width=7, height=3.2)
    place = axes[0, 0]
    for k, (label, steps, values, jump) in enumerate(runs):
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)]}
        place.plot(steps, values, label=label, **style)
        place.plot([jump], [np.interp(jump, steps, values)], "D", color=style["color"], markersize=7)
    place.set(xlabel="training steps", ylabel=y_label)
    place.legend(frameon=False, fontsize=8)
    jumps = ", ".join(f"{label} at step {jump:.0f}" for label, _, _, jump in runs)
    return finish(
        figure, f"{y_label} over the training steps; a diamond marks the middle of the steepest part: {jumps}"
    )
