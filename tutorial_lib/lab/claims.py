"""Claims of the papers, measured: each is recorded in the notebook, and CLAIMS.md is made from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tutorial_lib.lab.notes import note

VERDICTS = ("reproduced", "not visible at this scale", "contradicted")


@dataclass(frozen=True)
class Claim:
    """What a paper claims and what we measured. Shown as a sentence; the record goes into the output's metadata."""

    id: str
    text: str
    paper: str
    measured: str
    verdict: str
    seeds: tuple[int, ...]
    results: str | None = None

    def _repr_mimebundle_(self, include=None, exclude=None):
        record = asdict(self) | {"seeds": list(self.seeds)}
        measured = f"Measured: {self.measured} (seeds {', '.join(map(str, self.seeds))})."
        text = f"{self.text} ({self.paper})\n{measured}\nVerdict: {self.verdict}."
        return note("Claim.", text), {"course": {"claim": record}}


def claim(id, text, paper, measured, verdict, seeds, results=None) -> Claim:
    """Records one measured claim; the last line of its cell.

    `measured`: the numbers, in words. `verdict`: one of VERDICTS, best computed from the numbers. `seeds`: all that
    the numbers rest on. `results`: the table in results/ that they come from, where the cell did not measure them.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"claim {id!r}: the verdict is one of {VERDICTS}, not {verdict!r}")
    if not seeds:
        raise ValueError(f"claim {id!r}: name the seeds that the numbers rest on")
    return Claim(id, text, paper, measured, verdict, tuple(int(seed) for seed in seeds), results)


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """How much higher a is than b: the mean of the paired differences a[k] - b[k], and two standard errors of it.

    a[k] and b[k] belong together: the same subject, the same seed. ValueError for fewer than two pairs, for a value
    without a partner, and for nan.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"a difference needs two lists of two or more paired values, got shapes {a.shape}, {b.shape}")
    if missing := np.flatnonzero(np.isnan(a) | np.isnan(b)).tolist():
        raise ValueError(f"pairs {missing} have no value (nan): measure them, or leave them out of both lists")
    apart = a - b
    return float(apart.mean()), float(2 * apart.std(ddof=1) / len(apart) ** 0.5)


def verdict(mean: float, error: float) -> str:
    """Of a claim that says "the mean is positive"; `error`: two standard errors, as `difference` gives them."""
    return "reproduced" if mean > error else "contradicted" if mean < -error else "not visible at this scale"


def joint_verdict(*differences: tuple[float, float]) -> str:
    """Of a claim that says "all of these means are positive": reproduced if each is, contradicted if one is negative.

    `differences`: a mean and its error each, as for `verdict`. ValueError for none.
    """
    if not differences:
        raise ValueError("a joint verdict needs one or more differences, got none")
    found = {verdict(*each) for each in differences}
    return next(word for word in ("contradicted", "not visible at this scale", "reproduced") if word in found)
