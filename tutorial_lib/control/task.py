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
    noisier: time steps are drawn with a density that grows as t^noisier; 0 is the paper's, the same for all. Where
    there is much noise the hint says what the latents do not, and there the loss is small: a little of one noisy step
    drowns in that of ten clear ones.
    """

    def __init__(
        self,
        pipe,
        model: ControlNetModel | HintEncoder,
        pairs: Pairs,
        *,
        drop_prompt: float = 0.5,
        noisier: float = 0.0,
        watch: Callable[[], dict[str, float]] | None = None,
    ):
        check_fit(pipe, model)
        if not noisier >= 0:
            raise ValueError(f"noisier: expected 0 (every time step as often) or more, got {noisier!r}")
        self.model, self.hints, self.noisier = model, pairs.hints, noisier
        adapters = adapter_parameters(pipe.unet) if isinstance(model, HintEncoder) else {}
        trained = {f"control.{name}": p for name, p in model.named_parameters()} | adapters
        super().__init__(pipe, pairs.pictures, trained, drop_prompt=drop_prompt, watch=watch)

    def batch(self, samples: list[training.Sample]) -> dict:
        """As ever, and the hints: (n, 3, h, w) in [0, 1]."""
        batch = super().batch(samples)
        hints = self.hints[[sample.index for sample in samples]].float() / 255
        batch["hints"] = hints.to(self.pipe.unet.device)
        if self.noisier:
            batch["timesteps"] = torch.tensor([self._noisy_timestep(s) for s in samples]).to(batch["timesteps"])
        return batch

    def _noisy_timestep(self, sample: training.Sample) -> int:
        """t with a density that grows as t^noisier, by the inverse of its distribution function."""
        share = sample.rng("timestep").random() ** (1 / (1 + self.noisier))
        return int(share * self.scheduler.config.num_train_timesteps)

    def predict(self, noisy: torch.Tensor, context: torch.Tensor, batch: dict) -> torch.Tensor:
        return predict(self.pipe.unet, self.model, noisy, batch["timesteps"], context, batch["hints"])

    def train(self, mode: bool = True) -> None:
        super().train(mode)
        self.model.train(mode)

    def describe(self) -> dict:
        return super().describe() | {"hints": training.fingerprint(self.hints), "noisier": self.noisier}
