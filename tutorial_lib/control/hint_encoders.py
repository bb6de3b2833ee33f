"""From a hint in pixels, in [0, 1], to features as large as the latents: the code's encoder and the paper's."""

from __future__ import annotations

import math

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import nn

CODE_WIDTHS = (16, 32, 96, 256)  # of the hint encoder in the official code, for a VAE with f = 8
SILU_GAIN = 1.68  # keeps the mean square of standard normal numbers z that pass SiLU: E[SiLU(z)²] = 1 / 1.68²
PAPER_WIDTHS = (16, 32, 64, 128)  # of the hint encoder in the paper's text


def zero(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution with weight and bias 0. y = wx + b: ∂y/∂w = x and ∂y/∂b = 1 are not 0, ∂y/∂x = w is."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def gaussian_weights(encoder: ControlNetConditioningEmbedding) -> None:
    """Gaussian weights that keep the hint's strength from layer to layer (He et al. 2015); the zero convolution stays.

    The default weights shrink it in every layer, so that at first nearly nothing of the hint arrives.
    """
    for convolution in (encoder.conv_in, *encoder.blocks):
        nn.init.normal_(convolution.weight, std=SILU_GAIN * convolution.weight[0].numel() ** -0.5)
        nn.init.zeros_(convolution.bias)


def code_widths(vae_factor: int) -> tuple[int, ...]:
    """The code's hint encoder for another VAE: one width, then one more for each halving; log2(f) + 1 in all."""
    halvings = _halvings(vae_factor)
    return (*CODE_WIDTHS, *[CODE_WIDTHS[-1]] * halvings)[: halvings + 1]


def vae_factor(vae) -> int:
    """f: pixels along a side for each latent; 4 for the pocket VAE, 8 for Stable Diffusion's."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _halvings(factor: int) -> int:
    if factor not in (2, 4, 8, 16, 32):
        raise ValueError(
            f"vae_factor is how many pixels one latent is wide: 2, 4, 8, 16 or 32, got {factor!r}. "
            "Read it with control.vae_factor(pipe.vae)."
        )
    return int(math.log2(factor))


class PaperHintEncoder(nn.Sequential):
    """The hint encoder as the paper describes it: 4x4 convolutions with stride 2, ReLU, Gaussian weights.

    The paper names four of them, which would shrink 512 to 32, while the latents have 64: as many as the VAE halves
    are built here. The zero convolution of eq. 2 follows and gives the UNet's width.
    """

    def __init__(self, out_channels: int, vae_factor: int, conditioning_channels: int = 3):
        widths = (conditioning_channels, *PAPER_WIDTHS, PAPER_WIDTHS[-1])[: _halvings(vae_factor) + 1]
        layers: list[nn.Module] = []
        for inside, outside in zip(widths, widths[1:]):
            layers += [nn.Conv2d(inside, outside, 4, stride=2, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            nn.init.zeros_(layers[-2].bias)
        super().__init__(*layers)
        self.conv_out = zero(nn.Conv2d(widths[-1], out_channels, 1))


class HintEncoder(ModelMixin, ConfigMixin):
    """A hint encoder on its own: OFT and LoRA for control add its features once, after the UNet's conv_in.

    (n, conditioning_channels, f·h, f·w) in [0, 1] -> (n, out_channels, h, w), all 0 at first.
    """

    @register_to_config
    def __init__(self, out_channels: int, vae_factor: int = 4, conditioning_channels: int = 3):
        super().__init__()
        self.encoder = ControlNetConditioningEmbedding(out_channels, conditioning_channels, code_widths(vae_factor))

    def forward(self, hints: torch.Tensor) -> torch.Tensor:
        return self.encoder(hints)
