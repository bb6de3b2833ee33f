"""What the checks of several lessons do with an answer before they judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tutorial_lib.lab.checks import Mistake


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers, the same for a seed every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tensor(given, shape: Sequence[int], shapes: dict[tuple[int, ...], str] | None = None) -> torch.Tensor:
    """The answer as a tensor of this shape; Mistake where it is none. `shapes`: what to say of known wrong ones."""
    shape = tuple(shape)  # also of a torch.Size, which is written in another way
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
    try:
        given = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mistake(f"Expected a tensor of shape {shape}, got {type(given).__name__}.") from error
    if tuple(given.shape) != shape:
        why = (shapes or {}).get(tuple(given.shape), "")
        raise Mistake(f"Expected a tensor of shape {shape}, got {tuple(given.shape)}. {why}".strip())
    return given.detach().float()


def compare(given: torch.Tensor, right: torch.Tensor, known: Mapping[str, torch.Tensor], otherwise: str = "") -> None:
    """Mistake unless the answer is right: in the words of the known mistake that leads to it, or `otherwise`."""
    right = right.to(given.dtype)
    if torch.allclose(given, right, rtol=1e-4, atol=1e-5):
        return
    for message, wrong in known.items():
        if wrong.shape == given.shape and torch.allclose(given, wrong.to(given.dtype), rtol=1e-4, atol=1e-5):
            raise Mistake(message)
    difference = (given - right).abs().max().item()
    raise Mistake(f"{otherwise or 'The shape is right, the numbers are not.'} Yours are off by up to {difference:.3g}.")
