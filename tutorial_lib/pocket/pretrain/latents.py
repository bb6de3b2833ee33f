"""The training pictures as latents: encoded once, kept in the cache folder, sampled anew at each visit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from tqdm import tqdm

from tutorial_lib.pocket.files import load_weights
from tutorial_lib.pocket.pretrain import data


def moments(vae: AutoencoderKL, cache: Path) -> torch.Tensor:
    """(n, 8, 16, 16) float16: means and log-variances of the training pictures, so that a visit draws its sample."""
    return kept(cache / f"moments_{_encoder_hash(vae)}.safetensors", lambda: _encode(vae, data.pictures(cache)))


def sample(moments: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """(n, 4, 16, 16) latents of moments (n, 8, 16, 16) and standard normal noise (n, 4, 16, 16)."""
    mean, log_variance = moments.float().chunk(2, 1)
    return mean + (0.5 * log_variance).exp() * noise


def kept(file: Path, make) -> torch.Tensor:
    """The tensor in the file, made and written once: minutes that a resumed run need not spend again."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        save_file({"values": make().contiguous()}, partial)
        partial.replace(file)
    return load_weights(file)["values"]


@torch.no_grad()
def _encode(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    parts = []
    chunks = np.array_split(pictures, max(1, len(pictures) // 256))
    for chunk in tqdm(chunks, desc="encoding pictures", unit="batch"):
        with data.autocast():
            latents = vae.encode(data.to_tensor(chunk) * 2 - 1).latent_dist
        parts.append(torch.cat([latents.mean, latents.logvar], 1).half().cpu())
    return torch.cat(parts)


def _encoder_hash(vae: AutoencoderKL) -> str:
    """Eight digits of what decides the latents: a decoder trained further leaves them valid."""
    digest = hashlib.sha256()
    for part in (vae.encoder, vae.quant_conv):
        for value in part.state_dict().values():
            digest.update(value.half().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]
