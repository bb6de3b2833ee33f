"""DDIM (Song et al. 2021), one step at a time, from noise to a picture and from a picture back to noise."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib import sampling


@dataclass(frozen=True)
class Schedule:
    """For each step, first to last: its timestep, ᾱ where it starts, ᾱ where it ends; all (steps,), on the CPU."""

    timesteps: torch.Tensor
    alpha: torch.Tensor
    alpha_prev: torch.Tensor

    def __len__(self) -> int:
        return len(self.timesteps)


def schedule(pipe, steps: int) -> Schedule:
    """DDIM's steps for a pipeline, whatever its own sampler is. ValueError unless its UNet predicts the noise ε."""
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(pipe.scheduler.config)
    if ddim.config.prediction_type != "epsilon":
        raise ValueError(f"DDIM here needs a model that predicts epsilon, got {ddim.config.prediction_type!r}")
    ddim.set_timesteps(steps)
    t = ddim.timesteps
    prev = t - ddim.config.num_train_timesteps // steps
    alpha_prev = torch.where(prev >= 0, ddim.alphas_cumprod[prev.clamp(min=0)], ddim.final_alpha_cumprod)
    return Schedule(t, ddim.alphas_cumprod[t], alpha_prev)


# ------------------------------------------------------------------ the two directions of one step


def predict_x0(x, eps, alpha):
    """Equation 9 of DDIM: x0 = (x - √(1-ᾱ) ε) / √ᾱ."""
    return (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5


def denoise(x, eps, alpha, alpha_prev, eta: float = 0.0, noise=None):
    """Equation 12 of DDIM: x_{t-1} = √ᾱ' x0 + √(1-ᾱ'-σ²) ε + σ z.

    x, eps: (n, c, h, w). eta: 0 adds no noise, 1 is the ancestral sampler. noise: z, needed when eta > 0.
    """
    sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5
    x_prev = alpha_prev**0.5 * predict_x0(x, eps, alpha) + (1 - alpha_prev - sigma**2) ** 0.5 * eps
    return x_prev if noise is None else x_prev + sigma * noise


def renoise(x_prev, eps, alpha, alpha_prev):
    """`denoise` (eta = 0) the other way: the x_t that it takes to x_prev, if ε were the same at both ends."""
    return alpha**0.5 * predict_x0(x_prev, eps, alpha_prev) + (1 - alpha) ** 0.5 * eps


# ------------------------------------------------------------------ the model


@contextmanager
def frozen(*modules):
    """No parameter of the modules takes part in autograd inside; afterwards each is as it was."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def predict_noise(pipe, x, t, conditional, unconditional, guidance_scale: float):
    """ε with classifier-free guidance: (n, c, h, w) float32. Embeddings are (n, tokens, width)."""
    dtype = pipe.unet.dtype
    if guidance_scale == 1:
        return pipe.unet(x.to(dtype), t, conditional.to(dtype)).sample.float()
    both = torch.cat([unconditional, conditional]).to(dtype)  # (2n, tokens, width), as diffusers orders them
    without, with_prompt = pipe.unet(torch.cat([x, x]).to(dtype), t, both).sample.float().chunk(2)
    return without + guidance_scale * (with_prompt - without)


def embed(pipe, prompts, n: int):
    """One embedding a picture, (n, tokens, width) float32, from a prompt for all or a list of n.

    A tensor (1 or n, tokens, width) is taken as embeddings already. ValueError for another number.
    """
    if not isinstance(prompts, torch.Tensor):
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or not all(isinstance(p, str) for p in prompts):
            raise ValueError(f"expected a prompt or a list of prompts, got {prompts!r}")
        sampling.warn_of_prompts(pipe.tokenizer, prompts)
        with torch.no_grad():
            prompts = pipe.encode_prompt(prompts, pipe.device, 1, False)[0]
    if prompts.ndim != 3 or len(prompts) not in (1, n):
        got = f"{len(prompts)} of shape {tuple(prompts.shape[1:])}"
        raise ValueError(f"expected one prompt for all or one for each of the {n} latents, got {got}")
    return prompts.to(pipe.device, torch.float32).expand(n, -1, -1)


# ------------------------------------------------------------------ between pictures and latents


def decode(pipe, latents):
    """Latents (n, c, h, w) to pictures (n, 3, H, W), float32 in [0, 1]; gradients pass through."""
    decoded = pipe.vae.decode((latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype)).sample
    return (decoded.float() / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def encode(pipe, images):
    """Pictures to the latents that the VAE finds likeliest: (n, c, h, w) float32.

    images: one PIL picture, a list of them, or a float tensor (n, 3, H, W) in [0, 1], of the model's own size.
    """
    pixels = to_pixels(images)
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    if pixels.shape[1:] != (3, size, size):
        raise ValueError(f"expected RGB pictures of {size}x{size}, got {tuple(pixels.shape)}: crop and resize them")
    distribution = pipe.vae.encode((pixels * 2 - 1).to(pipe.device, pipe.vae.dtype)).latent_dist
    return distribution.mode().float() * pipe.vae.config.scaling_factor


def to_pixels(images) -> torch.Tensor:
    """PIL pictures or a float tensor in [0, 1] to float32 (n, 3, H, W)."""
    if isinstance(images, torch.Tensor):
        pixels = images.detach().float()
        if pixels.ndim != 4 or not pixels.isfinite().all() or pixels.min() < 0 or pixels.max() > 1:
            raise ValueError(f"expected a float tensor (n, 3, h, w) in [0, 1], got shape {tuple(pixels.shape)}")
        return pixels
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if len({image.size for image in images}) != 1:
        raise ValueError(f"expected pictures of one size, got {[image.size for image in images]}")
    arrays = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255  # (n, h, w, 3) -> (n, 3, h, w)


# ------------------------------------------------------------------ inversion


@dataclass(frozen=True)
class Inversion:
    """What re-creates a given picture: the noise to start from, and what to add after each step.

    latents: (n, c, h, w). corrections: (steps, n, c, h, w), valid for the prompt and the guidance beside them.
    """

    latents: torch.Tensor
    corrections: torch.Tensor
    prompt: str | list[str]
    guidance_scale: float


@torch.no_grad()
def ddim_invert(
    pipe, image, prompt, num_inference_steps: int = 50, guidance_scale: float = sampling.DEFAULT_GUIDANCE
) -> Inversion:
    """Runs DDIM backwards from a picture, then stores by how much each forward step misses its path.

    With the corrections added, sampling with the same prompt and guidance gives the picture back, up to what
    the VAE loses. The path is walked without guidance: with it, small errors grow and the noise is no noise.
    image: PIL, a list, or a float tensor (n, 3, H, W) in [0, 1]. prompt: one for all or a list of n.
    Source: Wu et al. 2023, section on real images; theirs re-noises the picture anew for each step instead.
    """
    x = encode(pipe, image)
    plan = schedule(pipe, num_inference_steps)
    conditional, unconditional = embed(pipe, prompt, len(x)), embed(pipe, "", len(x))
    path = [x]  # from the picture to the noise
    for t, alpha, alpha_prev in reversed(list(zip(plan.timesteps, plan.alpha, plan.alpha_prev, strict=True))):
        eps = predict_noise(pipe, path[-1], t, conditional, unconditional, guidance_scale=1)
        path.append(renoise(path[-1], eps, alpha, alpha_prev))
    path.reverse()
    corrections = []
    for i, t in enumerate(plan.timesteps):
        eps = predict_noise(pipe, path[i], t, conditional, unconditional, guidance_scale)
        corrections.append(path[i + 1] - denoise(path[i], eps, plan.alpha[i], plan.alpha_prev[i]))
    return Inversion(path[0], torch.stack(corrections), prompt, guidance_scale)
