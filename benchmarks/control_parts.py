"""Which trainings benchmarks/control.py compares, and how each of their methods begins."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from control_exam import REGIMES

from tutorial_lib import control, profiles

SILENT_AND_PERFECT = ("none", "perfect")

# Adapters sit on nearly all layers, as in lesson 05: the attention of the pocket model is too coarse for edges.
TARGETS, RANK, BLOCK = profiles.POCKET.layers, 8, 32  # LoRA's rank and OFT's blocks: about as many parameters
EPS = 0.1  # COFT's bound on ||Q||_F / sqrt(b): OFT at 2e-3 passes it in its first layers within 40 steps
RATES = {"full": (5e-4, 1e-3, 2e-3), "OFT": (1e-3, 2e-3, 4e-3), "LoRA": (2e-3, 4e-3, 8e-3)}  # to search
COLLAPSING = 4e-3  # of LoRA: the search's best by a hair, and too much for two other seeds of three
ADAPTERS = ("OFT", "COFT", "LoRA")


@dataclass(frozen=True)
class Part:
    """Which runs there are, and what is asked of them."""

    control: str
    methods: tuple[str, ...]
    regimes: tuple[str, ...] = REGIMES
    followed: tuple[str, ...] = ()  # prompts of the pictures that are drawn on the way: they cost as much as training
    pairs: tuple[int, ...] = ()  # sizes of the training set, where they are not the recipe's
    pictured: bool = False  # one seed of each method leaves a sheet of pictures


PARTS = {
    "edges": Part("edges", ("full",), followed=SILENT_AND_PERFECT, pictured=True),
    "ablations": Part("edges", ("gaussian", "lite"), followed=("none",), pictured=True),
    "search": Part("edges", ("full", "OFT", "LoRA"), regimes=("none",)),
    "adapters": Part("edges", ADAPTERS, followed=("none",), pictured=True),
    "collapse": Part("edges", ("LoRA",), ("none",), followed=("none",)),
    "pairs": Part("edges", ("full",), SILENT_AND_PERFECT, pairs=(100, 10_000)),
    "segmentation": Part("segmentation", ("full", *ADAPTERS), SILENT_AND_PERFECT, pictured=True),
    "landmarks": Part("landmarks", ("full", *ADAPTERS), SILENT_AND_PERFECT, pictured=True),
}


def begin(method: str, pipe, seed: int) -> tuple:
    """Pipeline and fresh control. An adapter gets a UNet of its own, so that the one that is given stays as it is."""
    kind = control.EDGES.hint_encoder
    if method not in ADAPTERS:
        return pipe, control.from_unet(pipe.unet, method, control.vae_factor(pipe.vae), kind, seed)
    pipe = copy.copy(pipe)
    pipe.unet = copy.deepcopy(pipe.unet)
    options = {"seed": seed, "targets": TARGETS, "hint_encoder": kind}
    if method == "LoRA":
        return pipe, control.with_lora(pipe, RANK, **options)
    return pipe, control.with_oft(pipe, BLOCK, EPS if method == "COFT" else None, **options)
