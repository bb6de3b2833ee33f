"""From prompts to pictures, the same for the same seeds."""

from __future__ import annotations

import warnings
from numbers import Integral

DEFAULT_GUIDANCE = 4.0
DEFAULT_STEPS = 25
BATCH = 16


def generate(
    pipe,
    prompts,
    seed=0,
    num_inference_steps: int = DEFAULT_STEPS,
    guidance_scale: float = DEFAULT_GUIDANCE,
    latents=None,
    controlnet=None,
    control_images=None,
    progress: bool = True,
    **options,
) -> list:
    """One PIL picture for each prompt.

    seed: a list of seeds, one a prompt, or a number s: picture i then has the seed s + i. A picture's noise
    depends on its own seed alone, not on the pictures around it. latents: (n, c, h, w) starting noise that
    replaces the seeds' own. controlnet, control_images: a diffusers ControlNetModel and one picture a prompt.
    Further options go to the pipeline as they are (`guess_mode`, `controlnet_conditioning_scale`, `eta`);
    `negative_prompt` may be a list, one a prompt.
    Warns of words that the pocket model never saw and of prompts that are too long. Raises ValueError where
    the numbers of prompts, seeds, latents or control images differ.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [seed + i for i in range(len(prompts))] if isinstance(seed, Integral) else list(seed)
    _check(prompts, seeds, num_inference_steps, latents, controlnet, control_images)
    negatives = _one_each(options.pop("negative_prompt", None), len(prompts))
    warn_of_prompts(pipe.tokenizer, prompts)
    runner = pipe if controlnet is None else _with_control(pipe, controlnet)
    generators = _generators(seeds)
    drawn = _draw(pipe, generators)  # also when latents are given: a stochastic sampler goes on from here
    latents = drawn if latents is None else latents
    pictures = []
    for k in range(0, len(prompts), BATCH):
        part = slice(k, k + BATCH)
        extra = {} if controlnet is None else {"image": list(control_images[part])}
        runner.set_progress_bar_config(disable=not progress, leave=False)
        pictures += runner(
            prompts[part],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            latents=latents[part].to(pipe.device, pipe.unet.dtype),
            generator=generators[part],
            negative_prompt=negatives and negatives[part],
            **extra,
            **options,
        ).images
    return pictures


def noise(pipe, seeds):
    """(n, c, h, w) float32 starting noise, each picture's from its own seed, drawn on the CPU."""
    return _draw(pipe, _generators(seeds))


def _draw(pipe, generators):
    import torch

    config = pipe.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def _generators(seeds) -> list:
    import torch

    return [torch.Generator().manual_seed(int(s)) for s in seeds]


def _with_control(pipe, controlnet):
    from diffusers import StableDiffusionControlNetPipeline

    parts = {k: v for k, v in pipe.components.items() if k != "image_encoder"}
    return StableDiffusionControlNetPipeline(**parts, controlnet=controlnet, requires_safety_checker=False)


def _check(prompts, seeds, steps, latents, controlnet, control_images) -> None:
    if not prompts or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"expected a prompt or a list of prompts, got {prompts!r}")
    if len(seeds) != len(prompts):
        raise ValueError(f"expected one seed for each of the {len(prompts)} prompts, got {len(seeds)}")
    if not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"num_inference_steps is a whole number from 1 on, got {steps!r}")
    if latents is not None and len(latents) != len(prompts):
        raise ValueError(f"expected latents for {len(prompts)} prompts, got {tuple(latents.shape)}")
    if (controlnet is None) != (control_images is None):
        raise ValueError("controlnet and control_images go together: give both or neither")
    if control_images is not None and len(control_images) != len(prompts):
        raise ValueError(f"expected {len(prompts)} control images, one a prompt, got {len(control_images)}")


def _one_each(negative_prompt, count: int) -> list[str] | None:
    """A negative prompt for each picture, where there is any: one for all, or a list."""
    if negative_prompt is None:
        return None
    negatives = [negative_prompt] * count if isinstance(negative_prompt, str) else list(negative_prompt)
    if len(negatives) != count:
        raise ValueError(f"expected one negative prompt, or one for each of the {count} prompts, got {len(negatives)}")
    return negatives


def warn_of_prompts(tokenizer, prompts) -> None:
    """One warning for words that the pocket model never saw, one for what is cut off at the end."""
    unknown = sorted({word for prompt in prompts for word in unknown_words(tokenizer, prompt)})
    if unknown:
        warnings.warn(
            f"the pocket model never saw these words and draws something all the same: {', '.join(unknown)}",
            stacklevel=3,
        )
    for prompt in prompts:
        if cut := cut_off(tokenizer, prompt):
            warnings.warn(
                f"the prompt is longer than {tokenizer.model_max_length - 2} tokens; this is cut off: {cut!r}",
                stacklevel=3,
            )


def is_pocket(tokenizer) -> bool:
    """Whether this is the pocket model's tokenizer, and not that of a model from the hub."""
    from tutorial_lib.pocket.tokenizer import MAX_LENGTH

    return tokenizer.model_max_length == MAX_LENGTH


def unknown_words(tokenizer, prompt: str) -> list[str]:
    """The prompt's words that the pocket model never saw; none for another model's tokenizer."""
    from tutorial_lib.pocket.tokenizer import RARE_WORDS, known_words

    if not is_pocket(tokenizer):
        return []
    known = known_words() | set(RARE_WORDS) | set(tokenizer.get_added_vocab())
    words = [w.strip(".,;:!?\"'()") for w in prompt.lower().split()]
    return [w for w in words if w and w not in known]


def cut_off(tokenizer, prompt: str) -> str:
    """What of the prompt does not fit the text encoder; empty if all does."""
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    room = tokenizer.model_max_length - 1
    return tokenizer.decode(ids[room:-1]) if len(ids) - 1 > room else ""
