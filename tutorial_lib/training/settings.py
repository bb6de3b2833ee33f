"""What of a run changes its result, and which values make sense."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """A checkpoint goes on only under the very same settings. Raises ValueError for values that make no sense.

    batch: samples a step in all: batch size x accumulation x processes.
    """

    lr: float
    batch: int
    seed: int
    warmup: int
    weight_decay: float
    clip: float | None
    ema: float | None
    precision: str

    def __post_init__(self):
        expect(is_number(self.lr) and self.lr > 0, "lr", "a positive learning rate such as 1e-4", self.lr)
        expect(is_whole(self.seed), "seed", "a whole number, 0 or more", self.seed)
        expect(is_whole(self.warmup), "warmup", "a number of steps, 0 or more", self.warmup)
        decay, clip, ema = self.weight_decay, self.clip, self.ema
        expect(is_number(decay) and decay >= 0, "weight_decay", "a number, 0 or more", decay)
        expect(clip is None or (is_number(clip) and clip > 0), "clip", "a positive gradient norm, or None", clip)
        expect(ema is None or (is_number(ema) and 0 < ema < 1), "ema", "a decay such as 0.99, or None", ema)


def expect(holds: bool, name: str, expected: str, got) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def is_whole(value, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
