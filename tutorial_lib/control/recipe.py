"""How the course trains a control: in one place, for the lesson that does it live and the benchmark that repeats it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib import ddim
from tutorial_lib.control.watching import edge_scores
from tutorial_lib.pocket import world
from tutorial_lib.pocket.scene import Scene

TRAINING, TEST = 11, 12  # first part of the seeds of scenes to train on and to test with


@dataclass(frozen=True)
class Recipe:
    """What `training.fit` and `ControlTask` need, besides the model and the seed."""

    pairs: int  # pictures with their hints
    steps: int
    batch_size: int
    lr: float
    hint_encoder: str  # of `from_unet`
    drop_prompt: float
    noisier: float  # of `ControlTask`
    ema: float  # of `training.fit`: the trained branch is a running mean of the last 1 / (1 - ema) steps or so


EDGES = Recipe(1000, 500, batch_size=8, lr=1e-3, hint_encoder="gaussian", drop_prompt=0.5, noisier=1.0, ema=0.97)


def scenes(stream: int, count: int, wanted: Callable[[Scene], bool] = lambda scene: True) -> list[Scene]:
    """The first `count` wanted scenes of TRAINING or of TEST, always the same."""
    every = (world.sample_scene(np.random.default_rng((stream, k))) for k in itertools.count())
    return list(itertools.islice(filter(wanted, every), count))


def edge_ceiling(pipe, pictures: list, controls: list) -> dict[str, float]:
    """`edge_scores` of true pictures after a round trip through the VAE: what is lost there no control can draw."""
    return edge_scores(through_vae(pipe, pictures), controls)


@torch.no_grad()
def through_vae(pipe, pictures: list) -> list:
    """The pictures encoded and decoded again, as PIL pictures."""
    from diffusers.image_processor import VaeImageProcessor

    decoded = ddim.decode(pipe, ddim.encode(pipe, pictures))  # (n, 3, h, w) in [0, 1]
    return VaeImageProcessor.numpy_to_pil(decoded.cpu().permute(0, 2, 3, 1).numpy())
