"""The autoencoder's decoder alone, trained on: sharper pictures, and every latent stays what it was.

The UNet learned the encoder's latents. So the encoder is frozen here, and runs once over the pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from tutorial_lib.pocket import world
from tutorial_lib.pocket.files import POCKET
from tutorial_lib.pocket.pretrain import data, latents
from tutorial_lib.pocket.pretrain.vae import L1_WEIGHT


class DecoderTask:
    """Mean squared error and a little absolute error of the pictures that come out of their latents."""

    muon_lr, adam_lr, batch = 2.5e-3, 5e-4, 16

    def __init__(self, cache: Path):
        torch.manual_seed(data.SEED)
        self.vae = AutoencoderKL.from_pretrained(POCKET / "vae").float().to(data.DEVICE)
        self.module = torch.nn.ModuleDict({"post_quant_conv": self.vae.post_quant_conv, "decoder": self.vae.decoder})
        self.pictures = data.pictures(cache)
        self.moments = latents.moments(self.vae, cache)
        self.held_out = data.to_tensor(world.draw_many(data.held_out_scenes(96), progress=False)) * 2 - 1
        with torch.no_grad():
            self.held_out_latents = self.vae.encode(self.held_out).latent_dist.mode()

    def loss(self, step: int):
        picked = np.sort(np.random.default_rng((data.SEED, step)).integers(len(self.pictures), size=self.batch))
        x = data.to_tensor(self.pictures[picked]) * 2 - 1
        moments = self.moments[torch.from_numpy(picked)]
        noise = torch.randn(len(moments), 4, *moments.shape[2:], generator=data.generator(step))
        error = self._decode(latents.sample(moments, noise).to(data.DEVICE)) - x
        mse = error.square().mean()
        return mse + L1_WEIGHT * error.abs().mean(), {"mse": mse.item()}

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        with data.autocast():
            return self.vae.decode(z).sample.float()

    def measure(self) -> dict[str, float]:
        error = (self._decode(self.held_out_latents).clamp(-1, 1) - self.held_out) / 2
        return {"psnr": (-10 * error.square().mean((1, 2, 3)).log10()).mean().item()}

    def sheet(self):
        return None


def export(task: DecoderTask) -> None:
    """Writes the autoencoder's weights, in half precision, into the pocket model; its config stays."""
    save_file(task.vae.half().state_dict(), POCKET / "vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
