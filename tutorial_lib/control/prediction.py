"""The frozen UNet under control: one prediction of ε, and whole pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from tutorial_lib import sampling
from tutorial_lib.control.hint_encoders import HintEncoder, vae_factor
from tutorial_lib.pocket import conditions


@contextmanager
def hinted(unet: UNet2DConditionModel, encoder: HintEncoder, hints: torch.Tensor, scale: float = 1.0) -> Iterator:
    """Within it, the UNet adds the encoder's features of the hints (n, 3, f·h, f·w) to the output of its conv_in.

    A batch of k·n latents, as guidance makes them, meets the hints k times over.
    """
    features = scale * encoder(hints)

    def add(module, inputs, output):
        return output + features.repeat(len(output) // len(features), 1, 1, 1).to(output.dtype)

    handle = unet.conv_in.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def predict(
    unet: UNet2DConditionModel,
    model: ControlNetModel | HintEncoder,
    x_t: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    hints: torch.Tensor,
    scale: float = 1.0,
) -> torch.Tensor:
    """ε̂ (n, c, h, w) of the UNet under control, for x_t (n, c, h, w), t (n,), context (n, l, d), hints in [0, 1]."""
    if isinstance(model, HintEncoder):
        with hinted(unet, model, hints, scale):
            return unet(x_t, t, context).sample
    down, middle = model(x_t, t, context, hints, conditioning_scale=scale, return_dict=False)
    return unet(x_t, t, context, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample


def picture_side(pipe) -> int:
    """Pixels along a side of the pipeline's pictures."""
    return pipe.unet.config.sample_size * vae_factor(pipe.vae)


def check_fit(pipe, model) -> None:
    """ValueError in plain words for a branch or encoder that was made for another UNet or another VAE."""
    if isinstance(model, HintEncoder):
        theirs = {"width of conv_in": model.config.out_channels, "VAE factor": model.config.vae_factor}
        ours = {"width of conv_in": pipe.unet.conv_in.out_channels, "VAE factor": vae_factor(pipe.vae)}
    else:
        names = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
        theirs = {name: _plain(model.config[name]) for name in names}
        ours = {name: _plain(pipe.unet.config[name]) for name in names}
        theirs["VAE factor"] = 2 ** (len(model.config.conditioning_embedding_out_channels) - 1)
        ours["VAE factor"] = vae_factor(pipe.vae)
    if differ := [
        f"{name} {theirs[name]} (the pipeline has {ours[name]})" for name in ours if theirs[name] != ours[name]
    ]:
        raise ValueError(f"this control was made for another model: {', '.join(differ)}. Train one for this pipeline.")


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def generate(
    pipe,
    model,
    prompts: list[str],
    controls: list,
    seed=0,
    scale: float = 1.0,
    guess_mode: bool = False,
    latents: torch.Tensor | None = None,
    **options,
) -> list:
    """One PIL picture for each prompt and control picture; `options` are those of `sampling.generate`.

    model: a branch or a `HintEncoder`; or a list of branches, and then `controls` is a list of lists, one for each
    branch, and the branches' outputs are added up. guess_mode: the prompt-free half of guidance sees no control.
    """
    several = isinstance(model, (list, tuple))
    models, given = (list(model), list(controls)) if several else ([model], [controls])
    if len(models) != len(given):
        raise ValueError(f"expected a list of control pictures for each of {len(models)} branches, got {len(given)}.")
    for each in models:
        check_fit(pipe, each)
    hints = [conditions.hints(each, picture_side(pipe)).to(pipe.unet.device) for each in given]
    if len({len(each) for each in hints}) > 1:
        raise ValueError(f"expected as many control pictures for each branch, got {[len(each) for each in hints]}.")
    if any(isinstance(each, HintEncoder) for each in models):
        if several or guess_mode:
            raise ValueError("guess mode and several controls at once are for ControlNet branches, not hint encoders.")
        with _one_precision(pipe, models):
            return _generate_hinted(pipe, model, prompts, hints[0], seed, scale, latents, options)
    options |= {"controlnet_conditioning_scale": float(scale), "guess_mode": guess_mode, "latents": latents}
    rows = [list(row) for row in zip(*hints)] if several else list(hints[0])
    with _one_precision(pipe, models):
        return sampling.generate(
            pipe, prompts, seed, controlnet=models if several else model, control_images=rows, **options
        )


def _one_precision(pipe, models: list) -> torch.autocast:
    """For a branch in float32, as training leaves it, beside a UNet in half precision: all computed in the latter."""
    half = pipe.unet.dtype != torch.float32 and any(model.dtype != pipe.unet.dtype for model in models)
    return torch.autocast(pipe.device.type, pipe.unet.dtype if half else torch.bfloat16, enabled=half)


def _generate_hinted(pipe, encoder: HintEncoder, prompts, hints, seed, scale, latents, options) -> list:
    """As many pictures at a time as `sampling.generate` makes in one batch, so that each meets its own hint."""
    seeds = [seed + i for i in range(len(prompts))] if isinstance(seed, int) else list(seed)
    if not len(prompts) == len(hints) == len(seeds):
        counts = f"{len(prompts)} prompts, {len(hints)} control pictures and {len(seeds)} seeds"
        raise ValueError(f"expected one control picture and one seed for each prompt, got {counts}.")
    pictures = []
    for k in range(0, len(prompts), sampling.BATCH):
        part = slice(k, k + sampling.BATCH)
        own = None if latents is None else latents[part]
        with torch.no_grad(), hinted(pipe.unet, encoder, hints[part], scale):
            pictures += sampling.generate(pipe, prompts[part], seeds[part], latents=own, **options)
    return pictures
