"""DDIM sampling in which each step's condition is a mixture of two prompts, differentiable in the weights."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from tutorial_lib import ddim, sampling


def mix(neutral, styled, weights):
    """c_t = λ_t c(neutral) + (1 - λ_t) c(styled), for every step.

    neutral, styled: (n, tokens, width). weights: (steps,), for all pictures alike, or (steps, n).
    Returns (steps, n, tokens, width). ValueError if the shapes do not fit.
    """
    if neutral.shape != styled.shape:
        raise ValueError(f"neutral {tuple(neutral.shape)} and styled {tuple(styled.shape)} must have one shape")
    check_weights(weights, len(neutral))
    weights = weights.reshape(*weights.shape, *[1] * (neutral.ndim + 1 - weights.ndim))  # (steps, n or 1, 1, 1)
    return weights * neutral + (1 - weights) * styled


def initial_weights(steps: int, t_star: int, late: float = 0.0):
    """The paper's start: weight 1 (neutral) for the first t_star steps, then `late`. (steps,)"""
    if not 0 <= t_star <= steps:
        raise ValueError(f"t_star counts steps from the first, so it is in 0..{steps}, got {t_star}")
    return torch.cat([torch.ones(t_star), torch.full((steps - t_star,), float(late))])


def step_noise(pipe, steps: int, seeds):
    """(steps, n, c, h, w) noise that a stochastic sampler adds, each picture's from its own seed, on the CPU.

    A seed's first draw is the starting noise of `sampling.noise`; these are the ones that follow.
    """
    config = pipe.unet.config
    shape = (steps + 1, config.in_channels, config.sample_size, config.sample_size)
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(draws, dim=1)[1:]


def sample(
    pipe,
    neutral,
    styled,
    weights,
    latents,
    guidance_scale: float = sampling.DEFAULT_GUIDANCE,
    eta: float = 0.0,
    seed=0,
    corrections=None,
    checkpoint: bool = True,
):
    """DDIM with the two prompts mixed anew at each step: pictures (n, 3, H, W) in [0, 1], differentiable.

    neutral, styled: a prompt for all pictures, a list of n, or embeddings (n, tokens, width).
    weights: (steps,) or (steps, n); there are as many steps as weights. latents: (n, c, h, w) starting noise.
    eta, seed: with eta > 0 noise is added at each step, always the same for the same seed (a number s: picture i
    has the seed s + i; or a list of n). corrections: those of an `Inversion`, to edit a picture of one's own.
    checkpoint: for gradients, keep one latent a step and compute each step a second time; False keeps
    everything, which is faster and takes memory in proportion to the steps. Gradients reach the weights (and
    latents that ask for them) but never the model. ValueError for numbers that do not fit or are not finite.
    """
    weights = torch.as_tensor(weights, dtype=torch.float32)
    _check_chain(pipe, weights, latents, corrections)
    n, steps = len(latents), len(weights)
    plan = ddim.schedule(pipe, steps)
    neutral, styled, nothing = (ddim.embed(pipe, prompts, n) for prompts in (neutral, styled, ""))
    added = step_noise(pipe, steps, _seeds(seed, n)).to(pipe.device) if eta else [None] * steps

    def step(x, weight, i):
        with ddim.frozen(pipe.unet):  # in here, because the step may run again during `backward`
            c = mix(neutral, styled, weight[None])[0]
            eps = ddim.predict_noise(pipe, x, plan.timesteps[i], c, nothing, guidance_scale)
            return ddim.denoise(x, eps, plan.alpha[i], plan.alpha_prev[i], eta, added[i])

    x, weights = latents.to(pipe.device, torch.float32), weights.to(pipe.device)
    run = _Forgotten.apply if checkpoint else _plainly
    for i in range(steps):
        x = run(step, x, weights[i], i)
        if corrections is not None:
            x = x + corrections[i].to(x)
    with ddim.frozen(pipe.vae):
        return ddim.decode(pipe, x)


class _Forgotten(torch.autograd.Function):
    """A step that keeps what went in, and is computed a second time when its gradient is asked for.

    `torch.utils.checkpoint` frees the tensors inside too, but keeps the step's whole graph of empty nodes: over
    50 steps of a small model that is more than the tensors of one step.
    """

    @staticmethod
    def forward(ctx, step, x, weight, i):
        ctx.step, ctx.i = step, i
        ctx.save_for_backward(x, weight)
        return step(x, weight, i)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = (tensor.detach().requires_grad_(True) for tensor in ctx.saved_tensors)
        with torch.enable_grad():
            x_prev = ctx.step(x, weight, ctx.i)
        return None, *torch.autograd.grad(x_prev, (x, weight), gradient), None


def _plainly(step, *inputs):
    return step(*inputs)


def _seeds(seed, n: int) -> list[int]:
    seeds = [seed + i for i in range(n)] if isinstance(seed, int) else list(seed)
    if len(seeds) != n:
        raise ValueError(f"expected one seed for each of the {n} pictures, got {len(seeds)}")
    return seeds


def check_weights(weights, n: int) -> None:
    if weights.ndim not in (1, 2) or weights.numel() == 0 or (weights.ndim == 2 and weights.shape[1] != n):
        raise ValueError(f"expected weights (steps,) or (steps, {n}), one a step, got shape {tuple(weights.shape)}")


def check_finite(name: str, tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinity: expected finite numbers")


def _check_chain(pipe, weights, latents, corrections) -> None:
    config = pipe.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    if latents.ndim != 4 or len(latents) == 0 or latents.shape[1:] != shape:
        raise ValueError(f"expected latents (n, {', '.join(map(str, shape))}), got {tuple(latents.shape)}")
    check_weights(weights, len(latents))
    check_finite("weights", weights), check_finite("latents", latents)
    if corrections is not None and corrections.shape != (len(weights), *latents.shape):
        raise ValueError(
            f"expected corrections {(len(weights), *latents.shape)}, got {tuple(corrections.shape)}: an inversion "
            "serves the number of steps and of pictures that it was made with"
        )
