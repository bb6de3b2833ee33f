"""Pictures and captions encoded once, for all methods.

A third of a training step would go into the VAE, and always for the same pictures. What is kept of a picture is the
mean and the deviation of its latents, not one draw of them, so that each visit still gets a draw of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib.sampling import warn_of_prompts
from tutorial_lib.training.checkpoint import fingerprint

CHUNK = 8  # encoded at once; fixed, as the last bits of an encoding depend on it


@dataclass(frozen=True, eq=False)
class Encoded:
    """Pictures as the UNet sees them: means and deviations (n, c, h, w) of their latents, and their captions.

    fingerprint: of the pictures and captions themselves, to know them again.
    """

    mean: torch.Tensor
    std: torch.Tensor
    captions: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, index: int, noise: torch.Tensor) -> torch.Tensor:
        """(c, h, w): a draw of the picture's latents by the reparametrisation trick, mean + std * noise."""
        return self.mean[index] + self.std[index] * noise


def encode(pipe, pictures: Sequence, captions: Sequence[str]) -> Encoded:
    """Encodes pictures of one size with the pipeline's VAE, scaled as its UNet expects.

    pictures: PIL pictures or (n, h, w, 3) uint8. Raises ValueError when there are none, when they differ in size or
    do not suit the VAE, when the captions are fewer or more, and when a picture's latents are not finite.
    """
    pixels = _pixels(pipe.vae, pictures)
    captions = tuple(captions)
    if len(captions) != len(pixels) or not all(isinstance(c, str) for c in captions):
        raise ValueError(
            f"expected one caption for each of the {len(pixels)} pictures, got {len(captions)}: {captions}"
        )
    warn_of_prompts(pipe.tokenizer, sorted(set(captions)))
    moments = [_moments(pipe.vae, pixels[k : k + CHUNK]) for k in range(0, len(pixels), CHUNK)]
    mean, std = (torch.cat(part) for part in zip(*moments))
    if broken := [k for k in range(len(mean)) if not (mean[k].isfinite() & std[k].isfinite()).all()]:
        raise ValueError(
            f"the VAE makes no finite latents of the pictures {broken} in {pipe.vae.dtype}: load the model with "
            "dtype=torch.float32 (or bfloat16, if the GPU has it)"
        )
    return Encoded(mean, std, captions, fingerprint(pixels, *captions))


def _pixels(vae, pictures: Sequence) -> np.ndarray:
    """(n, h, w, 3) uint8."""
    arrays = [np.asarray(picture) for picture in pictures]
    if not arrays:
        raise ValueError("there are no pictures to train on")
    shapes = {a.shape for a in arrays}
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    good = len(shapes) == 1 and all(a.dtype == np.uint8 and a.ndim == 3 and a.shape[2] == 3 for a in arrays)
    if not good or any(side % factor for side in arrays[0].shape[:2]):
        raise ValueError(
            f"expected RGB pictures of one size, with sides that are multiples of {factor}, got the shapes "
            f"{sorted(shapes)} in {arrays[0].dtype}: pictures.load_folder(folder, size) makes them so"
        )
    return np.stack(arrays)


@torch.no_grad()
def _moments(vae, pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation, each (n, c, h, w), scaled, float32 on the CPU."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1  # (n, h, w, 3) -> (n, 3, h, w) in [-1, 1]
    latents = vae.encode(x.to(vae.device, vae.dtype)).latent_dist
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
    return (latents.mean.float().cpu() - shift) * scale, latents.std.float().cpu() * scale


def embed(pipe, captions: Sequence[str]) -> torch.Tensor:
    """(n, tokens, width): what the UNet reads of the captions. Gradients pass, for methods that train a token."""
    ids = pipe.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(ids.to(pipe.text_encoder.device))[0]


class TextCache:
    """Embeds each caption once. Call it with captions, get (n, tokens, width); new ones are added as they come."""

    def __init__(self, pipe, captions: Iterable[str] = ()):
        self.pipe = pipe
        self.known: dict[str, torch.Tensor] = {}
        new = sorted({"", *captions})
        with torch.no_grad():
            for k in range(0, len(new), CHUNK):
                self.known.update(zip(new[k : k + CHUNK], embed(pipe, new[k : k + CHUNK])))

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        for caption in captions:
            if caption not in self.known:  # alone, so that its bits do not depend on what comes with it
                self.known[caption] = embed(self.pipe, [caption])[0]
        return torch.stack([self.known[caption] for caption in captions])
