"""Watching a control being learned: the same prompts, hints and noise at each look, scored; and when it jumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tutorial_lib import metrics, sampling
from tutorial_lib.control.prediction import generate
from tutorial_lib.pocket import conditions


@dataclass
class Probe:
    """Fixed prompts, control pictures and noise, drawn again at each look at the training, and scored.

    score: from the drawn pictures to named numbers. `drawn` keeps the pictures of every look.
    """

    prompts: list[str]
    controls: list
    score: Callable[[list], dict[str, float]]
    seed: int = 0
    num_inference_steps: int = 10
    guidance_scale: float = sampling.DEFAULT_GUIDANCE
    drawn: list[list] = field(default_factory=list)

    def look(self, pipe, model) -> dict[str, float]:
        pictures = generate(
            pipe,
            model,
            self.prompts,
            self.controls,
            seed=self.seed,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            progress=False,
        )
        self.drawn.append(pictures)
        return self.score(pictures)


def edge_scores(pictures: list, controls: list) -> dict[str, float]:
    """F1 (tolerance: one pixel) and IoU of Canny's edges of the pictures against the edges that were asked for."""
    found = np.stack([conditions.canny(picture) for picture in pictures])
    asked = np.stack([conditions.edge_map(control) for control in controls])
    return {"F1": metrics.edge_f1(found, asked), "IoU": metrics.edge_iou(found, asked)}


def sudden_convergence(steps: list[int], scores: list[float], window: float = 0.2) -> tuple[float, float]:
    """The middle of the steepest `window` of a run, and which share of the whole rise falls into it.

    A score that rises evenly has the share `window`, one that jumps has 1. NaN where the score does not rise.
    """
    steps_, scores_ = np.asarray(steps, float), np.asarray(scores, float)
    if steps_.shape != scores_.shape or len(steps_) < 3 or not (np.diff(steps_) > 0).all():
        raise ValueError("expected three or more scores, each with its step, the steps in rising order.")
    width = window * (steps_[-1] - steps_[0])
    starts = np.unique(np.concatenate([steps_, steps_ - width]).clip(steps_[0], steps_[-1] - width))
    rises = np.interp(starts + width, steps_, scores_) - np.interp(starts, steps_, scores_)
    whole = scores_[-1] - scores_[0]
    steepest = int(rises.argmax())
    return float(starts[steepest] + width / 2), float(rises[steepest] / whole) if whole > 0 else float("nan")
