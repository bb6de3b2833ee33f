"""Training a control: predict the noise as ever, with a hint in view and half of the prompts left out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import ControlNetModel

from tutorial_lib import training
from tutorial_lib.control.adapters import adapter_parameters
from tutorial_lib.control.hint_encoders import HintEncoder
from tutorial_lib.control.pairs import Pairs
from tutorial_lib.control.prediction import check_fit, predict


class ControlTask(training.DenoisingTask):
    """Trains a branch, or a hint encoder together with the UNet's adapters; all else of the pipeline is frozen.

    model: of `from_unet`, `with_oft` or `with_lora`. drop_prompt: 0.5 in the paper, so that the hint is read for
    itself; the official training code drops none. watch: called for the figures to follow, such as `Probe.look`.
    """

    def __init__(
        self,
        pipe,
        model: ControlNetModel | HintEncoder,
        pairs: Pairs,
        *,
        drop_prompt: float = 0.5,
        watch: Callable[[], dict[str, float]] | None = None,
    ):
        check_fit(pipe, model)
        self.model, self.hints = model, pairs.hints
        adapters = adapter_parameters(pipe.unet) if isinstance(model, HintEncoder) else {}
        trained = {f"control.{name}": p for name, p in model.named_parameters()} | adapters
        super().__init__(pipe, pairs.pictures, trained, drop_prompt=drop_prompt, watch=watch)

    def batch(self, samples: list[training.Sample]) -> dict:
        """As ever, and the hints: (n, 3, h, w) in [0, 1]."""
        hints = self.hints[[sample.index for sample in samples]].float() / 255
        return super().batch(samples) | {"hints": hints.to(self.pipe.unet.device)}

    def predict(self, noisy: torch.Tensor, context: torch.Tensor, batch: dict) -> torch.Tensor:
        return predict(self.pipe.unet, self.model, noisy, batch["timesteps"], context, batch["hints"])

    def train(self, mode: bool = True) -> None:
        super().train(mode)
        self.model.train(mode)

    def describe(self) -> dict:
        return super().describe() | {"hints": training.fingerprint(self.hints)}
