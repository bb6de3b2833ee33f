"""What the lessons compare with: full fine-tuning (DreamBooth), LoRA by peft, and textual inversion.

    task = baselines.lora(pipe, training.encode(pipe, pictures, captions), rank=8)
    training.fit(task, steps=200, lr=1e-4, batch_size=4)

Each returns a task for `training.fit`, trains the pipeline in place, and takes what `training.DenoisingTask` takes:
prior, prior_weight, drop_prompt, watch.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch

from tutorial_lib.custom_diffusion import CustomDiffusionTask
from tutorial_lib.training import DenoisingTask, Encoded

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # of self- and cross-attention
ADAPTER = "lora"


def dreambooth(pipe, data: Encoded, **options) -> DenoisingTask:
    """Full fine-tuning of the UNet; with `prior`, DreamBooth's prior preservation (Ruiz et al. 2023, eq. 2)."""
    return DenoisingTask(pipe, data, pipe.unet.named_parameters(), name="DreamBooth", **options)


def lora(
    pipe,
    data: Encoded,
    rank: int = 8,
    *,
    targets: Sequence[str] = ATTENTION,
    dropout: float = 0.0,
    seed: int = 0,
    **options,
) -> DenoisingTask:
    """LoRA (Hu et al. 2022, eq. 3): W + B A for the targeted layers, B zero at the start, A drawn from the seed.

    alpha is the rank, so nothing is scaled, and the saved file means the same in every program. Raises ValueError
    if the UNet has a LoRA already, or no layer of such a name.
    """
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank: expected a whole number, 1 or more, got {rank!r}")
    if ADAPTER in getattr(pipe.unet, "peft_config", {}):
        raise ValueError("the UNet has a LoRA already: baselines.remove_lora(pipe) takes it off")
    _check_targets(pipe.unet, targets)
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(targets), lora_dropout=dropout, init_lora_weights="gaussian"
    )
    pipe.unet.requires_grad_(False)
    with torch.random.fork_rng([pipe.unet.device] if pipe.unet.device.type == "cuda" else []):
        torch.manual_seed(seed)
        pipe.unet.add_adapter(config, adapter_name=ADAPTER)
    cast_training_params(pipe.unet, torch.float32)
    named = {name: p for name, p in pipe.unet.named_parameters() if f".{ADAPTER}." in name}
    return DenoisingTask(pipe, data, named, name="LoRA", **options)


def _check_targets(unet, targets: Sequence[str]) -> None:
    """ValueError for a name that no layer ends in; peft would notice too, with the UNet half adapted."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = [name for name, module in unet.named_modules() if isinstance(module, kinds)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            ends = sorted({part for name in layers for part in (name.split(".")[-1], ".".join(name.split(".")[-2:]))})
            near = ", ".join(difflib.get_close_matches(target, ends, 3)) or ", ".join(ATTENTION)
            raise ValueError(
                f"no linear layer or convolution of the UNet is named {target!r}: expected names such as {near}"
            )


def save_lora(pipe, folder: str | Path) -> None:
    """Writes the LoRA as diffusers reads it: `pipe.load_lora_weights(folder)`.

    With peft's names of the weights. diffusers' `convert_state_dict_to_diffusers` gives older names to those of
    attention layers alone, and of a file with both kinds of names diffusers loads only the newer ones.
    """
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(pipe.unet, adapter_name=ADAPTER)
    type(pipe).save_lora_weights(folder, unet_lora_layers=state)


def remove_lora(pipe) -> None:
    """Takes the LoRA off; the UNet is what it was before, bit for bit."""
    pipe.unet.delete_adapters(ADAPTER)
    pipe.unet.unload_lora()


def textual_inversion(pipe, data: Encoded, **options) -> TextualInversion:
    """Textual inversion (Gal et al. 2023, eq. 2): only the embedding rows of new words, which the captions use.

    The words come from `custom_diffusion.add_concept(pipe, "<new1>", init="ktn")`; this is Custom Diffusion with
    keys and values left as they are.
    """
    return TextualInversion(pipe, data, **options)


class TextualInversion(CustomDiffusionTask):
    """Of what Custom Diffusion trains, the words alone."""

    def __init__(self, pipe, data: Encoded, **options):
        super().__init__(pipe, data, **options)
        self.trained = {token: self.trained[token] for token in self.tokens}
        self._freeze()
        self.start = {token: row.detach().clone() for token, row in self.trained.items()}

    def watch(self) -> dict[str, float]:
        """How far each word has moved, as a share of the length that it began with."""
        if self.watched != self.change:
            return super().watch()
        return {t: ((row - self.start[t]).norm() / self.start[t].norm()).item() for t, row in self.trained.items()}
