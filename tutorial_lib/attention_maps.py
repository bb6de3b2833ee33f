"""Cross-attention maps: from which places of the picture the UNet reads each token's vector (Hertz et al. 2022)."""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial

import torch


class RecordingProcessor:
    """A diffusers attention processor: A = softmax(Q Kᵀ / √d), A V, and A goes to `keep`, averaged over the heads."""

    def __init__(self, keep):
        self.keep = keep

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, temb=None):
        """hidden_states: (n, pixels, c), encoder_hidden_states: (n, tokens, width) -> (n, pixels, c)."""
        if attention_mask is not None or attn.norm_cross:
            raise ValueError(
                "attention maps are recorded for Stable Diffusion 1.x only: no masks, no norm of the words"
            )
        Q = _heads(attn.to_q(hidden_states), attn.heads)
        K = _heads(attn.to_k(encoder_hidden_states), attn.heads)
        V = _heads(attn.to_v(encoder_hidden_states), attn.heads)
        A = (attn.scale * Q @ K.transpose(-1, -2)).float().softmax(-1)  # (n, heads, pixels, tokens)
        self.keep(A.mean(1))
        out = (A.to(V.dtype) @ V).transpose(1, 2).flatten(2)  # (n, heads, pixels, d) -> (n, pixels, c)
        return attn.to_out[1](attn.to_out[0](out))  # a linear layer and its dropout


def _heads(x, heads: int):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (n, length, heads * d) -> (n, heads, length, d)


class AttentionMaps:
    """What was recorded: for each layer the sum of its maps over the UNet's calls, (n, pixels, tokens)."""

    def __init__(self):
        self._sums: dict[str, torch.Tensor] = {}
        self._calls: dict[str, int] = {}

    def add(self, layer: str, A) -> None:
        """Takes the maps of one call. ValueError if they are of another batch than the maps before."""
        total = self._sums.get(layer, 0)
        if isinstance(total, torch.Tensor) and total.shape != A.shape:
            raise ValueError(f"maps of shape {tuple(total.shape)} were recorded, now {tuple(A.shape)}: record anew")
        self._sums[layer] = total + A.detach()
        self._calls[layer] = self._calls.get(layer, 0) + 1

    @property
    def sides(self) -> list[int]:
        """The resolutions of the recorded maps, coarsest first."""
        return sorted({_side(total) for total in self._sums.values()})

    def mean(self, side: int):
        """(n, tokens, side, side): the mean over calls, heads, and the layers of this resolution.

        With guidance a batch holds the empty prompts first, then the prompts. At each place the tokens' values add up
        to 1. ValueError where nothing of this resolution was recorded.
        """
        chosen = [total / self._calls[layer] for layer, total in self._sums.items() if _side(total) == side]
        if not chosen:
            raise ValueError(
                f"no maps of side {side} were recorded, only {self.sides}: sample inside `with record(unet)`"
            )
        A = torch.stack(chosen).mean(0)
        return A.transpose(1, 2).unflatten(2, (side, side))  # (n, pixels, tokens) -> (n, tokens, side, side)


def _side(total) -> int:
    pixels = total.shape[1]
    side = math.isqrt(pixels)
    if side**2 != pixels:
        raise ValueError(f"attention maps need square pictures, got a layer of {pixels} places")
    return side


@contextmanager
def record(unet):
    """Gives `AttentionMaps` that every cross-attention layer of the UNet adds to; afterwards it is as it was before."""
    maps, before = AttentionMaps(), unet.attn_processors
    recording = {
        name: RecordingProcessor(partial(maps.add, name)) if ".attn2." in name else processor
        for name, processor in before.items()
    }
    unet.set_attn_processor(dict(recording))
    try:
        yield maps
    finally:
        unet.set_attn_processor(dict(before))
