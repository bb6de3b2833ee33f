"""The task that the methods share: predict the noise in the latents of captioned pictures.

    loss = mean |eps - eps_theta(z_t, t, c)|^2          (Ho et al. 2020, eq. 14, in latents: Rombach et al. 2022, eq. 2)

DreamBooth's prior preservation adds the same term over pictures of the class (Ruiz et al. 2023, eq. 2). A method
hands in what it trains, or overrides the one hook in which it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch

from tutorial_lib.training.checkpoint import fingerprint
from tutorial_lib.training.latents import Encoded, TextCache
from tutorial_lib.training.samples import Sample, sample_at
from tutorial_lib.training.task import Task

Parameter = torch.nn.Parameter
Parameters = Mapping[str, Parameter] | Iterable[tuple[str, Parameter]] | Iterable[Parameter]


class DenoisingTask(Task):
    """Trains `parameters` (a dict, `module.named_parameters()` or a list) and freezes the rest of the pipeline.

    data: the pictures to learn. prior, prior_weight: pictures of the class, one beside each picture to learn.
    drop_prompt: how often a prompt is left empty. watch: called for the figures to follow. name: of the method.
    A batch is a dict: samples, latents, noise, timesteps, captions, weights, with the prior's samples behind the
    pictures to learn; a sample of the prior counts on from the last picture, index len(data) + k.
    """

    def __init__(
        self,
        pipe,
        data: Encoded,
        parameters: Parameters,
        *,
        prior: Encoded | None = None,
        prior_weight: float = 1.0,
        drop_prompt: float = 0.0,
        watch: Callable[[], dict[str, float]] | None = None,
        name: str | None = None,
    ):
        from diffusers import DDPMScheduler

        if not 0 <= drop_prompt <= 1:
            raise ValueError(f"drop_prompt: expected a share between 0 and 1, got {drop_prompt!r}")
        if not 0 <= prior_weight < float("inf"):
            raise ValueError(f"prior_weight: expected a finite weight, 0 or more, got {prior_weight!r}")
        if prior is not None and prior.mean.shape[1:] != data.mean.shape[1:]:
            raise ValueError(f"the prior's latents are {prior.mean.shape[1:]}, the pictures' {data.mean.shape[1:]}")
        self.pipe, self.data, self.prior, self.prior_weight = pipe, data, prior, prior_weight
        self.drop_prompt, self.watched, self.name = drop_prompt, watch, name or type(self).__name__
        self.trained = _named(parameters)
        self.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)  # the noise levels of pretraining
        self.texts: TextCache | None = None
        self._freeze()

    def _freeze(self) -> None:
        for module in (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder):
            module.requires_grad_(False)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)

    def __len__(self) -> int:
        return len(self.data)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return self.trained

    def batch(self, samples: list[Sample]) -> dict:
        rows = samples + ([] if self.prior is None else [self._beside(sample) for sample in samples])
        device, dtype = self.pipe.unet.device, self.pipe.unet.dtype
        levels = self.scheduler.config.num_train_timesteps
        return {
            "samples": rows,
            "latents": torch.stack([self.latents(s) for s in rows]).to(device, dtype),
            "noise": torch.stack([s.normal(self.data.mean.shape[1:], "noise") for s in rows]).to(device, dtype),
            "timesteps": torch.tensor([s.rng("timestep").integers(levels) for s in rows], device=device),
            "captions": ["" if s.rng("drop").random() < self.drop_prompt else self.caption(s) for s in rows],
            "weights": self._weights(len(samples), len(rows)).to(device),
        }

    def _beside(self, sample: Sample) -> Sample:
        """The prior's sample for a visit of a picture: all of them in turn, whatever the batch."""
        position = sample.visit * len(self.data) + sample.index
        found = sample_at(sample.seed, len(self.prior), position)
        return Sample(found.seed, len(self.data) + found.index, found.visit)

    def _weights(self, learned: int, rows: int) -> torch.Tensor:
        """(rows,): the mean over the pictures to learn, plus prior_weight times the mean over the prior."""
        weights = torch.full((rows,), 1.0 / learned)
        weights[learned:] *= self.prior_weight
        return weights

    def source(self, sample: Sample) -> tuple[Encoded, int]:
        """Where the sample's picture is: in which set, and its number there."""
        if sample.index < len(self.data):
            return self.data, sample.index
        return self.prior, sample.index - len(self.data)

    def latents(self, sample: Sample) -> torch.Tensor:
        """(c, h, w) clean latents z_0 of the sample's picture. Hook: augmentation."""
        data, index = self.source(sample)
        return data.draw(index, sample.normal(data.mean.shape[1:], "latents"))

    def caption(self, sample: Sample) -> str:
        """Hook: what is said of the picture at this visit."""
        data, index = self.source(sample)
        return data.captions[index]

    def context(self, captions: Sequence[str]) -> torch.Tensor:
        """(n, tokens, width). Hook: a method that trains text returns `embed(self.pipe, captions)`, with gradient."""
        if self.texts is None:
            known = self.data.captions + (self.prior.captions if self.prior else ())
            self.texts = TextCache(self.pipe, known)
        return self.texts(captions).to(self.pipe.unet.dtype)

    def predict(self, noisy: torch.Tensor, context: torch.Tensor, batch: dict) -> torch.Tensor:
        """(n, c, h, w): eps_theta(z_t, t, c). Hook: a ControlNet adds its residuals."""
        return self.pipe.unet(noisy, batch["timesteps"], encoder_hidden_states=context).sample

    def errors(self, predicted: torch.Tensor, target: torch.Tensor, batch: dict) -> torch.Tensor:
        """(n,): the mean squared error of each sample. Hook: a mask."""
        return (predicted.float() - target.float()).square().mean((1, 2, 3))

    def loss(self, batch: dict) -> torch.Tensor:
        noisy = self.scheduler.add_noise(batch["latents"], batch["noise"], batch["timesteps"])
        predicted = self.predict(noisy, self.context(batch["captions"]), batch)
        return (batch["weights"] * self.errors(predicted, self.target(batch), batch)).sum()

    def target(self, batch: dict) -> torch.Tensor:
        """What this model was trained to predict: the noise, or the velocity (Salimans and Ho 2022)."""
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return batch["noise"]
        if kind == "v_prediction":
            return self.scheduler.get_velocity(batch["latents"], batch["noise"], batch["timesteps"])
        raise ValueError(f"expected a model that predicts epsilon or v_prediction, this one predicts {kind!r}")

    def watch(self) -> dict[str, float]:
        return self.watched() if self.watched else {}

    def train(self, mode: bool = True) -> None:
        self.pipe.unet.train(mode)

    def describe(self) -> dict:
        return {
            "task": self.name,
            "pictures": self.data.fingerprint,
            "prior": self.prior and self.prior.fingerprint,
            "prior_weight": self.prior_weight,
            "drop_prompt": self.drop_prompt,
            "frozen weights": fingerprint(*self._frozen()),
        }

    def _frozen(self) -> Iterator[torch.Tensor]:
        """All that the run does not change: another base model, or another precision of it, is another run."""
        for module in (self.pipe.unet, self.pipe.text_encoder, self.pipe.vae):
            yield from (parameter for parameter in module.parameters() if not parameter.requires_grad)


def _named(parameters: Parameters) -> dict[str, Parameter]:
    """By name; where none are given, by number."""
    if isinstance(parameters, Mapping):
        return dict(parameters)
    listed = list(parameters)
    plain = all(isinstance(p, Parameter) for p in listed)
    return {str(k): p for k, p in enumerate(listed)} if plain else dict(listed)
