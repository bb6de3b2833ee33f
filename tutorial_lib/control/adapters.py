"""OFT and LoRA for control (Qiu et al. 2023): adapters in the UNet itself, which sees the hint after its conv_in.

Unlike ControlNet there is no copy of the encoder: the features of the hint are added once, and the adapted attention
and feed-forward layers learn to read them.
"""

from __future__ import annotations

import torch
from torch import nn

from tutorial_lib import oft
from tutorial_lib.control.hint_encoders import HintEncoder, vae_factor

NAME = "control"  # of the adapter, beside those of subjects
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj")  # the linear layers of attention, and GEGLU's


def with_oft(pipe, block_size: int, eps: float | None = None, seed: int = 0) -> HintEncoder:
    """Attaches OFT (COFT with eps, see `oft.attach`) to the UNet and returns the hint encoder that goes with it."""
    oft.attach(pipe.unet, list(TARGETS), block_size, eps, name=NAME)
    return _hint_encoder(pipe, seed)


def with_lora(pipe, rank: int, seed: int = 0) -> HintEncoder:
    """The same with peft's LoRA, alpha = rank."""
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS))
        pipe.unet.add_adapter(config, adapter_name=NAME)
    return _hint_encoder(pipe, seed)


def adapter_parameters(unet) -> dict[str, nn.Parameter]:
    """What there is to train of the UNet's active OFT or LoRA adapter, by name."""
    parts = (f".rotations.{NAME}.", f".lora_A.{NAME}.", f".lora_B.{NAME}.")
    return {
        f"unet.{name}": parameter
        for name, parameter in unet.named_parameters()
        if parameter.requires_grad and any(part in name for part in parts)
    }


def _hint_encoder(pipe, seed: int) -> HintEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = HintEncoder(pipe.unet.conv_in.out_channels, vae_factor(pipe.vae))
    return encoder.to(pipe.unet.device)
