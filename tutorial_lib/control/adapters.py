"""OFT and LoRA for control (Qiu et al. 2023): adapters in the UNet itself, which sees the hint after its conv_in.

Unlike ControlNet there is no copy of the encoder: the features of the hint are added once, and the adapted attention
and feed-forward layers learn to read them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tutorial_lib import oft
from tutorial_lib.control.hint_encoders import HintEncoder, gaussian_weights, vae_factor

NAME = "control"  # of the adapter, beside those of subjects
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj")  # the linear layers of attention, and GEGLU's


def with_oft(
    pipe,
    block_size: int,
    eps: float | None = None,
    seed: int = 0,
    targets: Sequence[str] = TARGETS,
    hint_encoder: str = "code",
) -> HintEncoder:
    """Attaches OFT (COFT with eps, see `oft.attach`) to the UNet and returns the hint encoder that goes with it.

    hint_encoder: "code", or "gaussian" for the code's layers with Gaussian weights, as in `from_unet`.
    """
    encoder = _hint_encoder(pipe, seed, hint_encoder)
    oft.attach(pipe.unet, list(targets), block_size, eps, name=NAME)
    return encoder


def with_lora(
    pipe, rank: int, seed: int = 0, targets: Sequence[str] = TARGETS, hint_encoder: str = "code"
) -> HintEncoder:
    """The same with peft's LoRA, alpha = rank."""
    from peft import LoraConfig

    encoder = _hint_encoder(pipe, seed, hint_encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
        pipe.unet.add_adapter(config, adapter_name=NAME)
    return encoder


def adapter_parameters(unet) -> dict[str, nn.Parameter]:
    """What there is to train of the UNet's active OFT or LoRA adapter, by name."""
    parts = (f".rotations.{NAME}.", f".lora_A.{NAME}.", f".lora_B.{NAME}.")
    return {
        f"unet.{name}": parameter
        for name, parameter in unet.named_parameters()
        if parameter.requires_grad and any(part in name for part in parts)
    }


def _hint_encoder(pipe, seed: int, kind: str) -> HintEncoder:
    if kind not in ("code", "gaussian"):
        raise ValueError(f"unknown hint encoder {kind!r}: expected 'code' or 'gaussian'.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = HintEncoder(pipe.unet.conv_in.out_channels, vae_factor(pipe.vae))
        if kind == "gaussian":
            gaussian_weights(encoder.encoder)
    return encoder.to(pipe.unet.device)
