"""The runs of benchmarks/subject_driven.py, read from their CSV, and the statistics that lesson 05 makes of them.

The seeds of one subject are not independent samples of "a subject". So every comparison is paired by subject: the mean
over its seeds of one method, less that of the other; then mean and standard error over the subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutorial_lib import results
from tutorial_lib.lab import claims

BASE = "before"
METHODS = ("full", "LoRA", "OFT", "COFT", "re-scaled OFT")
LISTS = ("looks", "similarity_at", "context_at", "others_at")


def read(file: Path | str) -> list[dict]:
    """One dict a run: words as they are, `LISTS` as arrays, all else as numbers. FileNotFoundError says what to run."""
    rows = results.read(Path(file))
    return [row | {name: np.array(str(row[name]).split(), dtype=float) for name in LISTS} for row in rows]


def complete(runs: Sequence[dict], methods: Sequence[str] = (BASE, *METHODS)) -> list[dict]:
    """The runs of the main part with a subject and a seed that every method has: nothing else is comparable."""
    main = [run for run in runs if run["part"] == "main" and run["method"] in methods]
    pairs = [{(run["subject"], run["seed"]) for run in main if run["method"] == method} for method in methods]
    shared = set.intersection(*pairs)
    return [run for run in main if (run["subject"], run["seed"]) in shared]


def chosen_rates(runs: Sequence[dict]) -> dict[str, float]:
    """The learning rate of each method in the main part."""
    return {run["method"]: run["rate"] for run in runs if run["part"] == "main" and run["method"] != BASE}


def by_subject(runs: Sequence[dict], method: str, figure) -> dict[str, float]:
    """For each subject the mean over seeds of a figure: a column's name, or a function of a run."""
    value = figure if callable(figure) else lambda run: run[figure]
    found: dict[str, list[float]] = {}
    for run in runs:
        if run["method"] == method:
            found.setdefault(run["subject"], []).append(value(run))
    return {subject: float(np.mean(values)) for subject, values in sorted(found.items())}


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error over subjects; nan where there is one subject only."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"


def estimate(values) -> Estimate:
    """Mean and standard error of independent values."""
    values = np.asarray(list(values), dtype=float)
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Estimate(float(values.mean()), float(error))


def average(runs: Sequence[dict], method: str, figure) -> Estimate:
    """A method's figure over subjects."""
    return estimate(by_subject(runs, method, figure).values())


def difference(runs: Sequence[dict], method: str, other: str, figure) -> Estimate:
    """How much higher a method's figure is than another's, paired by subject."""
    return paired(by_subject(runs, method, figure), by_subject(runs, other, figure))


def paired(mine: dict[str, float], theirs: dict[str, float]) -> Estimate:
    """How much higher mine is than theirs, over the subjects; ValueError for fewer than two."""
    mean, two_errors = claims.difference(list(mine.values()), [theirs[subject] for subject in mine])
    return Estimate(mean, two_errors / 2)


def verdict(differences: Sequence[Estimate]) -> str:
    """Of a claim that all these differences are positive, each by more than two errors."""
    return claims.joint_verdict(*((found.mean, 2 * found.error) for found in differences))


def early(run: dict) -> float:
    """How much likeness a run has won on the way: the mean over its looks before the last, less that of the start."""
    return float(run["similarity_at"][1:-1].mean() - run["similarity_at"][0])


def spread_over_seeds(runs: Sequence[dict], method: str, figure: str) -> dict[str, float]:
    """For each subject the standard deviation of a figure over its seeds: how much depends on luck."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if run["method"] == method:
            found.setdefault(run["subject"], []).append(run[figure])
    return {subject: float(np.std(values, ddof=1)) for subject, values in sorted(found.items()) if len(values) > 1}


def kept(run: dict) -> float:
    """What a run keeps of what the model could: prompts of other things and of the class, together."""
    return (run["others"] + run["class_fidelity"]) / 2
