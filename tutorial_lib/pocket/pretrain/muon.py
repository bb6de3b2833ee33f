"""Muon: momentum whose matrix is replaced by the nearest orthogonal one, for weights of two or more axes.

Jordan et al. 2024. It needs fewer steps than AdamW, and steps are what two CPU cores are short of. Written here
because torch.optim.Muon takes no convolutions.
"""

from __future__ import annotations

import torch
from torch import nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic that pushes singular values to one
SMALLEST_SIDE = 9  # matrices with a shorter side gain nothing


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Five steps of the Newton-Schulz quintic: U Vᵀ of the matrix, roughly; axes after the first are one.

    X ← (a + b G + c G²) X with G = X Xᵀ. All these polynomials of the first G commute, so the loop runs on
    the small square matrices alone and X is multiplied once: a third of the work for wide matrices.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.flatten(1)  # (out, in · k · k)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    gram, product = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        factor = torch.addmm(b * gram, gram, gram, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return (x.T if tall else x).reshape(matrix.shape)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum 0.95, decoupled weight decay 0.01, updates scaled to the size that Adam's have."""

    def __init__(self, parameters, lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                update = orthogonalise(p.grad.lerp(momentum, 0.95))
                rows, columns = p.shape[0], p[0].numel()
                p.mul_(1 - 0.01 * group["lr"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights that Muon trains, and those that AdamW does: vectors, embeddings, thin matrices."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    matrices, others = [], []
    for p in module.parameters():
        if not p.requires_grad:
            continue
        wide = p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= SMALLEST_SIDE and id(p) not in tables
        (matrices if wide else others).append(p)
    return matrices, others
