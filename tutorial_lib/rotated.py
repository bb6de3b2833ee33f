"""Linear and convolution layers that are turned by the adapter that is active: W_eff = W R^T.

Why a change of class. A layer that gets an adapter stays the same object at the same path: only its class becomes
`RotatedLinear` or `RotatedConv2d`, subclasses of what it was. So `to_q.weight` keeps its name in the state dict,
`isinstance(layer, nn.Linear)` stays true, the base weight is never written, and giving the class back removes
everything. A wrapper would rename the weight to `to_q.base_layer.weight`; `torch.nn.utils.parametrize` renames it as
well, and can only turn the weight, never the input.

Which side is turned. x W_eff^T = (x R) W^T, so R may turn the weight or the input. Whichever has fewer numbers is
turned. Where that is the weight, the backward pass needs no second large product either (see `_RotatedProduct`).

Who computes R. Small matrices are slow one by one. So one forward pass of the whole model solves for all of its
rotations at once, one call for each block size; a layer that is called on its own solves for itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from tutorial_lib.orthogonal import cayley, project, skew_symmetric, upper_triangle

CACHED = 2**18  # numbers in the blocks that a CPU solves for at a time: 1 MB stays in its cache


class Rotation(nn.Module):
    """What one adapter learns in one layer: the numbers in Q, and a magnitude for each neuron if it is re-fitted."""

    def __init__(self, vector: torch.Tensor, block_size: int, radius: float | None, magnitude=None):
        super().__init__()
        self.vector = nn.Parameter(vector)  # (r, b(b-1)/2); r = 1 if all blocks share it
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)  # (neurons,)
        self.block_size = block_size
        self.radius = radius  # COFT: of the ball that ||Q||_F stays in; None is no bound

    def in_ball(self) -> torch.Tensor:
        """The vector, projected where COFT asks for it: what is saved."""
        vector = self.vector.detach()
        return vector if self.radius is None else project(vector, self.radius)


@dataclass
class Settings:
    """Of one adapter, for all of its layers."""

    eps: float | None
    block_share: bool
    strength: float = 1.0


class Adapters:
    """What the rotated layers of one model share: its adapters, the active one, and the R of this forward pass."""

    def __init__(self, model: nn.Module):
        self.settings: dict[str, Settings] = {}  # of each adapter, by name
        self.active: str | None = None
        self.layers: dict[str, RotatedLayer] = {}  # by path
        self._blocks: dict[Rotation, torch.Tensor] = {}  # filled while the model's forward runs
        self._kept: dict = {}  # block size, device and radius -> (vector, R) of the last pass without gradients
        self._trainable = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
        self._hooks = [
            model.register_forward_pre_hook(self._open),
            model.register_forward_hook(self._close, always_call=True),
        ]
        model.requires_grad_(False)

    def release(self, model: nn.Module) -> None:
        """Undoes what the constructor did to the model."""
        for hook in self._hooks:
            hook.remove()
        for key, parameter in model.named_parameters():
            if key in self._trainable:
                parameter.requires_grad_(True)

    @property
    def strength(self) -> float:
        """Of the active adapter."""
        return self.settings[self.active].strength

    def rotations(self, name: str | None) -> dict[str, Rotation]:
        """An adapter's rotations by path, in the model's order."""
        return {path: layer.rotations[name] for path, layer in self.layers.items() if name in layer.rotations}

    def R(self, rotation: Rotation) -> torch.Tensor:
        """(r, b, b) of one layer, at the active adapter's strength."""
        return self._blocks[rotation] if rotation in self._blocks else self._solve([rotation])[rotation]

    def _open(self, *_) -> None:
        """Before the model's forward: solve for all rotations together."""
        self._blocks = self._solve(self.rotations(self.active).values(), keep=True)

    def _close(self, *_) -> None:
        """After it: forget them, for an optimiser may change the vectors next."""
        self._blocks = {}

    def _solve(self, rotations: Iterable[Rotation], keep: bool = False) -> dict[Rotation, torch.Tensor]:
        def kind(rotation: Rotation):
            return rotation.block_size, str(rotation.vector.device), rotation.radius or 0.0

        found = {}
        for key, group in groupby(sorted(rotations, key=kind), kind):
            members = list(group)
            if members[0].radius is not None:
                _pull_into_ball(members)
            vector = self.strength * torch.cat([member.vector for member in members])
            R = self._remembered(key, vector) if keep else _rotations(vector, key[0])
            found |= zip(members, R.split([len(member.vector) for member in members]))
        return found

    def _remembered(self, key, vector: torch.Tensor) -> torch.Tensor:
        """R of the last pass if nothing changed since, as while sampling; compared by value, which no write escapes."""
        if vector.requires_grad or torch.is_inference_mode_enabled():
            return _rotations(vector, key[0])
        last, R = self._kept.get(key, (None, None))
        if last is None or not torch.equal(last, vector):
            R = _rotations(vector, key[0])
            self._kept[key] = vector, R
        return R


class RotatedLayer:
    """What `RotatedLinear` and `RotatedConv2d` share."""

    rotations: nn.ModuleDict  # one `Rotation` for each adapter of this layer, by the adapter's name
    adapters: Adapters

    def rotation(self) -> Rotation | None:
        """That of the active adapter, if it has one for this layer."""
        name = self.adapters.active
        return self.rotations[name] if name in self.rotations else None

    def scaled_weight(self, rotation: Rotation) -> torch.Tensor:
        """The base weight with its neurons' magnitudes re-fitted (re-scaled OFT): row i times s_i."""
        if rotation.magnitude is None:
            return self.weight
        s = 1 + self.adapters.strength * (rotation.magnitude - 1)
        return self.weight * s.to(self.weight.dtype).view(-1, *[1] * (self.weight.ndim - 1))

    @torch.no_grad()
    def effective_weight(self) -> torch.Tensor:
        """W_eff of the active adapter in the weight's shape, computed in float32 at least."""
        rotation = self.rotation()
        if rotation is None:
            return self.weight.detach().clone()
        weight, R = self.scaled_weight(rotation), self.adapters.R(rotation)
        return rotate(weight.flatten(1).to(R.dtype), R.mT).view_as(weight)


class RotatedLinear(RotatedLayer, nn.Linear):
    """y = (x R) W^T + bias. The blocks span consecutive inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rotation = self.rotation()
        if rotation is None:
            return super().forward(x)
        weight, R = self.scaled_weight(rotation), self.adapters.R(rotation).to(self.weight.dtype)
        if x.numel() < weight.numel():
            return F.linear(rotate(x, R), weight, self.bias)
        return _RotatedProduct.apply(x, weight, self.bias, R)


class RotatedConv2d(RotatedLayer, nn.Conv2d):
    """A convolution with W R^T. A neuron is a whole filter, in_channels / groups * height * width numbers in a row.

    The blocks span consecutive numbers of that row: channel by channel, in each the kernel's rows one after the other.
    A block of k * k is one channel's k x k kernel; larger multiples take whole channels together. Every filter, of
    every group, is turned by the same R. Always the weight is turned: the patches of the input would be k * k as large.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rotation = self.rotation()
        if rotation is None:
            return super().forward(x)
        weight, R = self.scaled_weight(rotation), self.adapters.R(rotation).to(self.weight.dtype)
        return self._conv_forward(x, rotate(weight.flatten(1), R.mT).view_as(weight), self.bias)


ROTATED = {nn.Linear: RotatedLinear, nn.Conv2d: RotatedConv2d}


def rotate(x: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
    """Each row of x times the block-diagonal R. x: (..., n); R: (n/b, b, b), or (1, b, b) for all blocks alike."""
    r, b, _ = R.shape
    if r == 1:
        return (x.reshape(-1, b) @ R[0]).view(x.shape)
    blocks = x.reshape(-1, r, b).transpose(0, 1)  # (rows, r, b) -> (r, rows, b)
    return torch.bmm(blocks, R).transpose(0, 1).reshape(x.shape)


def _block_products(x: torch.Tensor, y: torch.Tensor, r: int, b: int) -> torch.Tensor:
    """x_i^T y_i for each block i, summed over the rows, and over the blocks where they share R: (r, b, b)."""
    if r == 1:
        return (x.reshape(-1, b).T @ y.reshape(-1, b))[None]
    return torch.bmm(x.reshape(-1, r, b).permute(1, 2, 0), y.reshape(-1, r, b).transpose(0, 1))


class _RotatedProduct(torch.autograd.Function):
    """x W_eff^T + bias with W_eff = W R^T, where turning the weight is cheaper than turning x.

    The gradient of R is x_i^T (dL/d(xR))_i, block by block. Since R^{-1} = R^T, dL/d(xR) = (dL/dx) R, and dL/dx is
    needed in any case. So dL/dR_i = (x_i^T (dL/dx)_i) R_i: no gradient of the large W_eff is ever formed.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, R):
        ctx.save_for_backward(x, weight, R)
        return F.linear(x, rotate(weight, R.mT), bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight, R = (saved.to(grad.dtype) for saved in ctx.saved_tensors)
        _, needs_weight, needs_bias, needs_R = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # (..., out) -> (tokens, out)
        grad_x = grad @ rotate(weight, R.mT)
        grad_weight = rotate(rows.T @ x.reshape(len(rows), -1), R) if needs_weight else None
        grad_R = _block_products(x, grad_x, *R.shape[:2]) @ R if needs_R else None
        return grad_x, grad_weight, rows.sum(0) if needs_bias else None, grad_R


def _rotations(vector: torch.Tensor, block_size: int) -> torch.Tensor:
    return _CayleyOfVector.apply(vector, block_size)


class _CayleyOfVector(torch.autograd.Function):
    """R = cayley(skew_symmetric(vector)), whose derivative dR = (R + I) dQ (R + I) / 2 needs R alone.

    R is kept by hand, not by `save_for_backward`: then several backward passes may run through one R (losses of two
    forward passes, each with its own backward), and gradient checkpointing, which counts what is saved and runs a layer
    again outside of the model's forward, finds the same count both times.
    """

    @staticmethod
    def forward(ctx, vector, block_size):
        ctx.at_a_time = len(vector) if vector.is_cuda else max(1, CACHED // block_size**2)
        R = torch.cat([cayley(skew_symmetric(part, block_size)) for part in vector.split(ctx.at_a_time)])
        ctx.R, ctx.dtype = R.detach(), vector.dtype
        return R

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        parts = zip(ctx.R.split(ctx.at_a_time), grad.split(ctx.at_a_time))
        return torch.cat([_gradient_of_vector(R, grad_R) for R, grad_R in parts]).to(ctx.dtype), None


def _gradient_of_vector(R: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """From dL/dR to the gradient of the vector: the skew part of (R + I)^T dL/dR (R + I)^T / 2. Both (r, b, b)."""
    R_plus_I = R + torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    grad_Q = R_plus_I.mT @ grad @ R_plus_I.mT
    return upper_triangle(grad_Q - grad_Q.mT) / 2


@torch.no_grad()
def _pull_into_ball(rotations: list[Rotation]) -> None:
    """COFT's step, as in the paper: the parameters themselves move back before they are used (projected gradient).

    Projecting only what is used would leave a vector outside for good: its gradient has no part along the radius.
    """
    inside = project(torch.cat([r.vector for r in rotations]), rotations[0].radius)
    for rotation, vector in zip(rotations, inside.split([len(r.vector) for r in rotations])):
        rotation.vector.copy_(vector)
