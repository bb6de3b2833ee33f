"""The loss of Custom Diffusion, eq. 2: noise prediction on a few pictures of V*, and on pictures of its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib.custom_diffusion.concepts import concepts_of, keys_and_values, named_trainable
from tutorial_lib.training import DenoisingTask, Encoded, TextCache, embed


def masked_errors(predicted: Tensor, target: Tensor, masks: Tensor) -> Tensor:
    """(n,): each picture's mean squared error over the values (n, c, h, w) where its mask (n, 1, h, w) is 1.

    The mean is over all valid values, so a full mask gives the plain mean. Two well-known implementations divide by
    the valid places without counting the c channels: there the instance term weighs c = 4 times as much as the
    prior term. AdamW does not see a factor common to both, so prior_weight=1/4 has the effect of theirs.
    """
    places = masks.sum((1, 2, 3))  # (n,)
    if not places.all():
        raise ValueError("a mask is empty: expected at least one valid place in each picture")
    squares = ((predicted.float() - target.float()).square() * masks).sum((1, 2, 3))
    return squares / (places * predicted.shape[1])


class CustomDiffusionTask(DenoisingTask):
    """Teaches a pipeline the concepts that `add_concept` gave it; for several at once, hand in pictures of them all.

    data, masks: pictures whose captions hold the concepts' tokens, from `augmented`, or from `training.encode`
    without masks. prior: pictures of the class, one beside each picture to learn, weighted by prior_weight.
    Raises ValueError where a concept's token is in no caption, or where data and masks do not fit.
    """

    def __init__(
        self,
        pipe,
        data: Encoded,
        masks: Tensor | None = None,
        *,
        prior: Encoded | None = None,
        prior_weight: float = 1.0,
        watch: Callable[[], dict[str, float]] | None = None,
    ):
        n, _, h, w = data.mean.shape
        masks = torch.ones(n, 1, h, w) if masks is None else masks
        if masks.shape != (n, 1, h, w):
            raise ValueError(f"masks: expected the shape {(n, 1, h, w)}, got {tuple(masks.shape)}")
        self.masks, self.tokens = masks, tuple(concepts_of(pipe).class_words)
        for token in self.tokens:
            if not any(token in caption for caption in data.captions):
                raise ValueError(f"no caption holds the token {token!r}, so it would not be trained")
        named = named_trainable(pipe)
        super().__init__(pipe, data, named, prior=prior, prior_weight=prior_weight, watch=watch or self.change)

    def context(self, captions: Sequence[str]) -> Tensor:
        """(n, tokens, width): with gradient where a concept's token is, from the cache where none is."""
        if self.texts is None:
            self.texts = TextCache(self.pipe, self.prior.captions if self.prior else ())
        learned = sorted({c for c in captions if any(token in c for token in self.tokens)})
        rows = dict(zip(learned, embed(self.pipe, learned))) if learned else {}
        return torch.stack([rows[c] if c in rows else self.texts([c])[0] for c in captions])

    def errors(self, predicted: Tensor, target: Tensor, batch: dict) -> Tensor:
        """(n,): over the valid part of each picture to learn, over all of each picture of the prior."""
        whole = torch.ones_like(self.masks[0])
        masks = [self.masks[s.index] if s.index < len(self.data) else whole for s in batch["samples"]]
        return masked_errors(predicted, target, torch.stack(masks).to(predicted.device))

    def change(self) -> dict[str, float]:
        """How far keys and values are from where they began: ||W - W0|| / ||W0||."""
        base, layers = concepts_of(self.pipe).base, keys_and_values(self.pipe.unet)
        moved = sum((layers[p].weight - w0.to(layers[p].weight)).square().sum().item() for p, w0 in base.items())
        return {"change of K and V": (moved / sum(w0.square().sum().item() for w0 in base.values())) ** 0.5}

    def _frozen(self) -> Iterator[Tensor]:
        """All that the run does not change: of the embedding table, the rows that are no concept's."""
        table = self.pipe.text_encoder.get_input_embeddings().weight
        learned = set(self.pipe.tokenizer.convert_tokens_to_ids(list(self.tokens)))
        others = [k for k in range(len(table)) if k not in learned]
        for parameter in super()._frozen():
            yield parameter[others] if parameter is table else parameter
