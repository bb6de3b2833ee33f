"""Which sample comes when, and all its randomness, from (seed, sample index, visit) and nothing else.

So two small batches draw what one large batch draws, several processes draw what one would, and a run that goes on
from its checkpoint draws what it would have drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
import torch


@dataclass(frozen=True)
class Sample:
    """One visit of one training sample. Whatever is random about it comes from `rng` or `normal`."""

    seed: int
    index: int
    visit: int

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose ("timestep"), independent of those for another ("drop")."""
        return np.random.default_rng(self._key(purpose))

    def normal(self, shape, purpose: str) -> torch.Tensor:
        """Gaussian noise of that shape, float32, drawn on the CPU so that every device gets the same."""
        key = np.random.SeedSequence(self._key(purpose)).generate_state(1, np.uint64)[0]
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(key)))

    def _key(self, purpose: str) -> tuple[int, ...]:
        return (self.seed, self.index, self.visit, crc32(purpose.encode()))


def sample_at(seed: int, length: int, position: int) -> Sample:
    """The sample at a position of the endless list: pass after pass over `length` samples, each pass reshuffled."""
    visit, place = divmod(position, length)
    return Sample(seed, int(_order(seed, length, visit)[place]), visit)


@lru_cache(maxsize=8)
def _order(seed: int, length: int, visit: int) -> np.ndarray:
    return np.random.default_rng((seed, visit)).permutation(length)
