"""Editing by mixing two text embeddings, step by step (Wu et al. 2023).

With every noise held fixed, a "neutral" and a "styled" prompt are mixed anew at each denoising step, by one
weight a step: **weight 1 is neutral, weight 0 is styled**. `sample` makes the picture and is differentiable
in the weights; `optimize` finds weights that bring the style in and keep the content; the model never changes.
"""

from tutorial_lib.ddim import Inversion, ddim_invert
from tutorial_lib.mixing.chain import initial_weights, mix, sample, step_noise
from tutorial_lib.mixing.optimise import PAPER, POCKET, MixingResult, Settings, optimize
from tutorial_lib.mixing.recipe import Recipe, apply, load, save

__all__ = [
    "PAPER",
    "POCKET",
    "Inversion",
    "MixingResult",
    "Recipe",
    "Settings",
    "apply",
    "ddim_invert",
    "initial_weights",
    "load",
    "mix",
    "optimize",
    "sample",
    "save",
    "step_noise",
]
