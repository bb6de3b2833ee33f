"""What the loop asks of a method."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tutorial_lib.training.samples import Sample


class Task:
    """What is trained, and on what: all that the loop knows of a method. Methods subclass it."""

    def __len__(self) -> int:
        """How many samples there are to draw from."""
        raise NotImplementedError

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What is trained, by name."""
        raise NotImplementedError

    def batch(self, samples: list[Sample]):
        """Whatever `loss` needs for these samples; all that is random in it is drawn from them."""
        raise NotImplementedError

    def loss(self, batch) -> torch.Tensor:
        """The mean loss of the batch, a scalar."""
        raise NotImplementedError

    def watch(self) -> dict[str, float]:
        """Numbers to follow beside the loss, always under the same names."""
        return {}

    def describe(self) -> dict:
        """Plain values that a checkpoint must agree with before a run goes on from it: the method, its data, its base.

        Asked before training, and only if there is a folder for checkpoints. `training.fingerprint` makes a plain
        value of tensors.
        """
        return {"task": type(self).__name__}

    def train(self, mode: bool = True) -> None:
        """Called with True before training, and with False before each look at the model and at the end."""


def check(task: Task, named: Mapping[str, torch.nn.Parameter]) -> None:
    """Raises ValueError unless there is something to train on and something that can be trained."""
    who = type(task).__name__
    if not len(task):
        raise ValueError(f"{who} has no samples to train on")
    if not named:
        raise ValueError(f"{who} has no parameters to train: attach an adapter, or name what is to be trained")
    if frozen := [name for name, p in named.items() if not p.requires_grad]:
        raise ValueError(f"{who} is to train parameters that are frozen: {_first(frozen)}; unfreeze them first")
    if half := [name for name, p in named.items() if p.dtype not in (torch.float32, torch.float64)]:
        raise ValueError(
            f"{who} is to train parameters in half precision, where small steps are lost: {_first(half)}; make them "
            'float32 (diffusers.training_utils.cast_training_params) and ask for speed with precision="bf16"'
        )
    if len(places := sorted({str(p.device) for p in named.values()})) > 1:
        raise ValueError(f"{who} has its parameters on several devices, {', '.join(places)}: move them to one")


def _first(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
