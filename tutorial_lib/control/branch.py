"""ControlNet (Zhang et al. 2023, eq. 2): y_c = F(x; Θ) + Z(F(x + Z(c; Θ_z1); Θ_c); Θ_z2), and its ablations.

F is a block of the frozen UNet, Θ_c its trainable copy, Z a zero convolution, c the encoded hint.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from tutorial_lib.control.hint_encoders import HintEncoder, PaperHintEncoder, code_widths, gaussian_weights


class _LiteBlock(nn.Module):
    """In place of an encoder block: one 3x3 convolution for each of its layers, and one for its downsampler."""

    def __init__(self, inside: int, outside: int, layers: int, downsample: bool):
        super().__init__()
        widths = [inside] + [outside] * layers
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        if downsample:
            self.convs.append(nn.Conv2d(outside, outside, 3, stride=2, padding=1))

    def forward(self, hidden_states: torch.Tensor, temb=None):
        outputs = ()
        for conv in self.convs:
            hidden_states = nn.functional.silu(conv(hidden_states))
            outputs += (hidden_states,)
        return hidden_states, outputs


class _LiteMiddle(nn.Conv2d):
    """In place of the middle block: one 3x3 convolution."""

    def forward(self, sample: torch.Tensor, temb=None) -> torch.Tensor:
        return nn.functional.silu(super().forward(sample))


class _NoTime(nn.Module):
    """Convolutions alone have no use for the time step."""

    def forward(self, sample: torch.Tensor, condition=None) -> torch.Tensor:
        return sample


class ControlNetLite(ControlNetModel):
    """The paper's ControlNet-lite: each copied block replaced by one convolution, which sees no time and no prompt.

    Hint encoder, conv_in and zero convolutions are as in ControlNet, and so are arguments and outputs.
    """

    @functools.wraps(ControlNetModel.__init__)  # diffusers reads from the signature what belongs into config.json
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        widths, layers = self.config.block_out_channels, self.config.layers_per_block
        last = len(widths) - 1
        self.time_embedding = _NoTime()
        self.down_blocks = nn.ModuleList(
            _LiteBlock(widths[max(k - 1, 0)], width, layers, downsample=k < last) for k, width in enumerate(widths)
        )
        self.mid_block = _LiteMiddle(widths[-1], widths[-1], 3, padding=1)


class ControlNetPaperHint(ControlNetModel):
    """ControlNet with the hint encoder of the paper's text in place of the code's."""

    @functools.wraps(ControlNetModel.__init__)
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        config = self.config
        factor = 2 ** (len(config.conditioning_embedding_out_channels) - 1)
        self.controlnet_cond_embedding = PaperHintEncoder(
            config.block_out_channels[0], factor, config.conditioning_channels
        )


VARIANTS = {"full": ControlNetModel, "lite": ControlNetLite, "gaussian": ControlNetModel}
CLASSES = {made.__name__: made for made in (ControlNetModel, ControlNetLite, ControlNetPaperHint, HintEncoder)}


def from_unet(
    unet: UNet2DConditionModel, variant: str = "full", vae_factor: int = 4, hint_encoder: str = "code", seed: int = 0
) -> ControlNetModel:
    """A fresh control branch for the UNet, a diffusers `ControlNetModel` or a subclass of it, in float32.

    variant: "full" (trainable copy, zero convolutions), "gaussian" (the same, every zero convolution drawn from
    N(0, 1/fan_in) instead), "lite" (each copied block replaced by one convolution). vae_factor: 4 for the pocket
    VAE, 8 for Stable Diffusion. hint_encoder: "code"; "gaussian", the code's layers with the paper's Gaussian weights,
    so that the hint is not lost on the way; or for a full or gaussian branch "paper", the paper's layers too, which
    plain diffusers cannot load. seed: decides all that is random. Raises ValueError for anything else. Zhang et al.
    2023, sections 3.1 and 4.2.
    """
    made = _class(variant, hint_encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branch = made.from_unet(
            unet,
            conditioning_embedding_out_channels=code_widths(vae_factor),
            load_weights_from_unet=variant != "lite",
        )
        if variant == "lite":
            branch.conv_in.load_state_dict(unet.conv_in.state_dict())
        if hint_encoder == "gaussian":
            gaussian_weights(branch.controlnet_cond_embedding)
        if variant == "gaussian":
            for convolution in zero_convolutions(branch).values():
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
    return branch.to(unet.device)


def _class(variant: str, hint_encoder: str) -> type[ControlNetModel]:
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: expected {', '.join(map(repr, VARIANTS))}.")
    if hint_encoder not in ("code", "gaussian", "paper"):
        raise ValueError(f"unknown hint encoder {hint_encoder!r}: expected 'code', 'gaussian' or 'paper'.")
    if hint_encoder != "paper":
        return VARIANTS[variant]
    if variant == "lite":
        raise ValueError("the paper's hint encoder goes with the variants 'full' and 'gaussian', not with 'lite'.")
    return ControlNetPaperHint


def zero_convolutions(branch: ControlNetModel) -> dict[str, nn.Conv2d]:
    """The zero convolutions by name: the hint encoder's last, one after each encoder output, one after the middle.

    SD1.5 has 14, the pocket model 8.
    """
    named = {"controlnet_cond_embedding.conv_out": branch.controlnet_cond_embedding.conv_out}
    for k, convolution in enumerate(branch.controlnet_down_blocks):
        named[f"controlnet_down_blocks.{k}"] = convolution
    return named | {"controlnet_mid_block": branch.controlnet_mid_block}


def load(folder: Path | str, device=None) -> ControlNetModel | HintEncoder:
    """What `save_pretrained(folder)` wrote, as the class that its config.json names."""
    file = Path(folder) / "config.json"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: expected the folder that save_pretrained wrote.")
    name = json.loads(file.read_text()).get("_class_name")
    if name not in CLASSES:
        raise ValueError(f"{folder} holds a {name}, not a control branch: expected one of {', '.join(CLASSES)}.")
    return CLASSES[name].from_pretrained(folder, local_files_only=True).to(device or "cpu")
