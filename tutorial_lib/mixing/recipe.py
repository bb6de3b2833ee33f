"""Weights that can be used again: on other noise, with other prompts, on other pictures, in another session."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from tutorial_lib.mixing.chain import check_finite, sample

FORMAT = "mixing weights 1"


@dataclass(frozen=True)
class Recipe:
    """An edit that can be repeated on any picture: the prompts, one weight a step, and how it was sampled."""

    weights: torch.Tensor  # (steps,), or (steps, n) where each picture has its own
    neutral: str | list[str]
    styled: str | list[str]
    guidance_scale: float
    eta: float = 0.0


def apply(pipe, recipe: Recipe, latents, neutral=None, styled=None, seed=0, corrections=None):
    """Pictures (n, 3, H, W) by a recipe's weights: of other noise, other prompts, other pictures, no gradients."""
    with torch.no_grad():
        return sample(
            pipe,
            recipe.neutral if neutral is None else neutral,
            recipe.styled if styled is None else styled,
            recipe.weights,
            latents,
            guidance_scale=recipe.guidance_scale,
            eta=recipe.eta,
            seed=seed,
            corrections=corrections,
        )


def save(recipe: Recipe, file) -> None:
    """Writes a recipe as safetensors: "weights", with the rest as metadata. FileExistsError rather than overwrite."""
    from safetensors.torch import save_file

    file = Path(file)
    check_finite("weights", recipe.weights)
    if file.exists():
        raise FileExistsError(f"{file} exists: choose another name, or delete it first")
    rest = {"neutral": recipe.neutral, "styled": recipe.styled, "eta": recipe.eta}
    rest |= {"guidance_scale": recipe.guidance_scale, "num_inference_steps": len(recipe.weights)}
    half_done = file.with_name(file.name + ".part")
    save_file({"weights": recipe.weights.cpu().contiguous()}, half_done, {"format": FORMAT, "recipe": json.dumps(rest)})
    os.replace(half_done, file)


def load(file) -> Recipe:
    """The recipe in a file that `save` wrote. ValueError if it is another kind of file or damaged."""
    from safetensors import SafetensorError, safe_open

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is missing: expected mixing weights, as mixing.save writes them")
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{file} holds no mixing weights: its format is {metadata.get('format')!r}")
            weights = opened.get_tensor("weights")
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file or damaged ({error})") from error
    rest = json.loads(metadata["recipe"])
    if len(weights) != rest.pop("num_inference_steps"):
        raise ValueError(f"{file} is damaged: it does not hold one weight a step")
    check_finite(f"{file}: weights", weights)
    return Recipe(weights, **rest)
