"""Finds the mixing weights: settings, loss going down, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch

from tutorial_lib import ddim, sampling
from tutorial_lib.mixing.chain import initial_weights, sample
from tutorial_lib.mixing.loss import EditLoss, load_critic
from tutorial_lib.mixing.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """How weights are optimised; the defaults are the paper's.

    The paper's 0.05 of the content loss counts sums over VGG16's features; ours is relative to their size, so on
    Stable Diffusion it is a place to start from, and on the pocket model it was measured.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    neutral_share: float = 0.4  # the paper's t* = 20 of 50 steps; 0.2 for scenes and styles
    late: float = 0.0  # the weight after t*
    iterations: int = 10
    lr: float = 0.05
    style: float = 1.0  # what each part of the loss counts
    content: float = 0.05
    reach: float = 0.0  # not in the paper: keeps the edit from shrinking, which the cosine of `style` does not see
    pixels: float = 0.0
    smooth: float = 0.0  # the mean squared difference of neighbouring weights

    @property
    def t_star(self) -> int:
        return round(self.neutral_share * self.num_inference_steps)


PAPER = Settings()
POCKET = Settings(guidance_scale=sampling.DEFAULT_GUIDANCE, neutral_share=0.5, content=0.3, reach=1.0)


@dataclass(frozen=True)
class MixingResult(Recipe):
    """What `optimize` found. `images` were made with `weights`: the last of the history.

    images, originals: (n, 3, H, W) in [0, 1]. history: for each iteration, and once more for the final weights,
    the "loss" and its parts, means over the pictures, and the "weights".
    """

    images: torch.Tensor = field(kw_only=True)
    originals: torch.Tensor = field(kw_only=True)
    history: list[dict] = field(kw_only=True)


def optimize(
    pipe,
    neutral,
    styled,
    latents,
    settings: Settings | None = None,
    *,
    weights=None,
    shared: bool = True,
    eta: float = 0.0,
    seed=0,
    corrections=None,
    checkpoint: bool = True,
    critic=None,
    watch: Callable[[dict, torch.Tensor], None] | None = None,
    **changes,
) -> MixingResult:
    """Finds weights that bring the styled prompt into the picture and keep its content, by Adam.

    neutral, styled: prompts, one for all pictures or a list of n. latents: (n, c, h, w) starting noise; eta,
    seed, corrections, checkpoint as in `sample`. settings: default the paper's, for the pocket model the
    measured ones; **changes replace single ones (`lr=0.1`). weights: where to start, instead of t* of the
    settings. shared: one vector for all pictures, else one for each, as if optimised one by one.
    critic: the networks of the loss, by default those of the profile. watch(record, images): called after each
    evaluation. Source: Wu et al. 2023; in their code the saved weights are one update older than the
    picture shown, here they belong together.
    """
    settings = _settings(pipe, settings, changes)
    n, steps = len(latents), settings.num_inference_steps
    prompts = [_texts(p, n) for p in (neutral, styled)]
    embeds = [ddim.embed(pipe, p, n) for p in prompts]
    start = _start(settings, weights, None if shared else n).to(pipe.device)
    options = {"guidance_scale": settings.guidance_scale, "eta": eta, "seed": seed, "corrections": corrections}

    def make(weights):
        return sample(pipe, *embeds, weights, latents, checkpoint=checkpoint, **options)

    with torch.no_grad():
        originals, goals = make(torch.ones(steps)), make(torch.zeros(steps))
    loss = EditLoss(critic or load_critic(pipe), originals, goals, *prompts)
    history = []
    for record, images in _descend(make, loss, start, settings):
        history.append(record)
        if watch:
            watch(record, images)
    recipe = (record["weights"], neutral, styled, settings.guidance_scale, eta)
    return MixingResult(*recipe, images=images, originals=originals, history=history)


def _descend(make, loss: EditLoss, weights, settings: Settings):
    """Adam. Yields a record with the weights, and their pictures, before each update and after the last one."""
    weights = weights.requires_grad_(True)
    adam = torch.optim.Adam([weights], lr=settings.lr)
    for k in range(settings.iterations + 1):
        last = k == settings.iterations
        with torch.set_grad_enabled(not last):
            images = make(weights)
            total, record = _total(loss, images, weights, settings)
        yield record, images.detach()
        if not last:
            adam.zero_grad()
            total.backward()
            adam.step()


def _total(loss: EditLoss, images, weights, settings: Settings):
    """The loss to go down, and what to report of it. Pictures with weights of their own do not share a mean."""
    parts = {name: getattr(loss, name)(images) for name in ("style", "content", "reach", "pixels")}
    parts["smooth"] = weights.diff(dim=0).square().sum(0) / max(1, len(weights) - 1)
    each = sum(getattr(settings, name) * part for name, part in parts.items())
    record = {"loss": each.mean().item()} | {name: part.mean().item() for name, part in parts.items()}
    return (each.sum() if weights.ndim == 2 else each.mean()), record | {"weights": weights.detach().cpu().clone()}


def _settings(pipe, settings: Settings | None, changes: dict) -> Settings:
    known = [f.name for f in fields(Settings)]
    if unknown := [name for name in changes if name not in known]:
        raise TypeError(f"optimize: unknown setting {unknown[0]!r}; there are {', '.join(known)}")
    made = replace(settings or (POCKET if sampling.is_pocket(pipe.tokenizer) else PAPER), **changes)
    if made.num_inference_steps < 1 or made.iterations < 0 or not 0 <= made.neutral_share <= 1:
        raise ValueError(f"expected at least one step, no negative iterations, neutral_share in 0..1, got {made}")
    return made


def _texts(prompts, n: int) -> list[str]:
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    prompts = prompts * n if len(prompts) == 1 else prompts
    if len(prompts) != n or not all(isinstance(p, str) for p in prompts):
        raise ValueError(
            f"expected a prompt for all or one for each of the {n} latents, got {len(prompts)}: {prompts!r}"
        )
    return prompts


def _start(settings: Settings, weights, own: int | None):
    steps = settings.num_inference_steps
    if weights is None:
        weights = initial_weights(steps, settings.t_star, settings.late)
    weights = torch.as_tensor(weights, dtype=torch.float32).detach().clone()
    if len(weights) != steps:
        raise ValueError(f"expected {steps} weights, one a step, got {len(weights)}")
    return weights[:, None].repeat(1, own) if own and weights.ndim == 1 else weights
