"""The pocket autoencoder: diffusers' `AutoencoderKL` with f = 4, so 64x64 pictures are 4x16x16 latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from tutorial_lib.pocket import world
from tutorial_lib.pocket.pretrain import data
from tutorial_lib.pocket.pretrain.sheets import grid

KL_WEIGHT = 2e-4
L1_WEIGHT = 0.03


def build() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


class VaeTask:
    """Mean squared error, a little absolute error for sharp lines, a little KL for a smooth latent space."""

    muon_lr, adam_lr, batch = 5e-3, 1e-3, 16

    def __init__(self, cache: Path):
        torch.manual_seed(data.SEED)
        self.module = build().to(data.DEVICE)
        self.pictures = data.pictures(cache)
        self.held_out = data.to_tensor(world.draw_many(data.held_out_scenes(96), progress=False)) * 2 - 1

    def loss(self, step: int):
        picked = np.random.default_rng((data.SEED, step)).integers(len(self.pictures), size=self.batch)
        x = data.to_tensor(self.pictures[np.sort(picked)]) * 2 - 1
        with data.autocast():
            posterior = self.module.encode(x).latent_dist
            y = self.module.decode(posterior.sample(data.generator(step))).sample
        error = y.float() - x
        mse = error.square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return mse + L1_WEIGHT * error.abs().mean() + KL_WEIGHT * kl, {"mse": mse.item(), "kl": kl.item()}

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        with data.autocast():
            return self.module.decode(self.module.encode(x).latent_dist.mode()).sample.float().clamp(-1, 1)

    def measure(self) -> dict[str, float]:
        error = (self.reconstruct(self.held_out) - self.held_out) / 2
        return {"psnr": (-10 * error.square().mean((1, 2, 3)).log10()).mean().item()}

    def sheet(self):
        x = self.held_out[:12]
        return grid(torch.cat([x, self.reconstruct(x)]) / 2 + 0.5, columns=12)


@torch.no_grad()
def standardise(vae: AutoencoderKL, pictures: np.ndarray) -> None:
    """Folds a shift and a scale into the 1x1 convolutions, so that each latent channel has mean 0, variance 1.

    Diffusion then starts from the distribution that it ends in, with `scaling_factor` 1.
    """
    chunks = np.array_split(pictures, -(-len(pictures) // 100))
    found = [vae.encode(data.to_tensor(chunk) * 2 - 1).latent_dist for chunk in chunks]
    means, variances = torch.cat([m.mean for m in found]), torch.cat([m.var for m in found])
    mean = means.mean((0, 2, 3))  # (4,)
    std = (means.var((0, 2, 3)) + variances.mean((0, 2, 3))).sqrt()  # (4,)
    into, out = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= std[None, :, None, None]
    into.weight[:channels] /= std[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.bias[channels:] -= 2 * std.log()  # the log-variances


def export(task: VaeTask) -> None:
    """Writes the standardised autoencoder, in half precision, into the pocket model."""
    from tutorial_lib.pocket.files import POCKET

    standardise(task.module, task.pictures[:2000])
    task.module.half().save_pretrained(POCKET / "vae")
