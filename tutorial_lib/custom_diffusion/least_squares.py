"""The least change of a matrix that satisfies linear constraints: the mathematics of merging, on plain tensors.

    min_W ||(W - W0) C_reg^T||_F^2 + ridge ||W - W0||_F^2    subject to    W C^T = V^T

With Lagrange multipliers Lambda (o, s) the stationary point is (W - W0) G = Lambda C, where G = C_reg^T C_reg +
ridge I. So the change is W - W0 = (V^T - W0 C^T) D with D = (C G^-1 C^T)^-1 C G^-1, and D knows nothing of W0:
it is computed once for all matrices that read the same features. Everything inside is float64.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

ONE_ROW = 1e-12  # singular values of the constraints below this share of the largest: rows that say the same twice
CONTRADICTION = 1e-6  # share of the wanted change that no matrix can give


def triangle(chunks: Iterable[Tensor]) -> Tensor:
    """The upper triangular R (d, d) with R^T R = C_reg^T C_reg, for chunks (n, d) of the rows of C_reg.

    QR rather than the product C_reg^T C_reg: the condition number stays that of the features, not its square.
    """
    R = None
    for chunk in chunks:
        rows = chunk.double() if R is None else torch.cat([R, chunk.double()])
        R = torch.linalg.qr(rows, mode="r").R
    if R is None or len(R) == 0:
        raise ValueError("there are no features to regularise with: expected at least one row")
    return torch.cat([R, R.new_zeros(R.shape[1] - R.shape[0], R.shape[1])]) if R.shape[0] < R.shape[1] else R


class LeastChange:
    """The solution operator of the problem above, for many matrices W0 of any height o.

    R: (d, d) from `triangle`. C: (s, d) constraint rows. noise: relative error of the features, below which a
    direction counts as missing. Raises ValueError where C_reg leaves directions free and no ridge is given.
    """

    def __init__(self, R: Tensor, C: Tensor, ridge: float = 0.0, noise: float = 1e-13):
        if not ridge >= 0:
            raise ValueError(f"ridge: expected a number, 0 or more, got {ridge!r}")
        if C.ndim != 2 or C.shape[1] != R.shape[1]:
            raise ValueError(f"the constraints need the shape (rows, {R.shape[1]}), got {tuple(C.shape)}")
        self.C, self.ridge = C.double(), float(ridge)
        root = self.ridge**0.5 * torch.eye(len(R), dtype=torch.float64, device=R.device)
        self.R = torch.linalg.qr(torch.cat([R.double(), root]), mode="r").R if ridge else R.double()
        self.condition_features = self._check_features(noise)
        A = torch.linalg.solve_triangular(self.R.T, self.C.T, upper=False)  # (d, s): G^-1/2 C^T
        sizes = torch.linalg.svdvals(A)
        self.rank = int((sizes > ONE_ROW * sizes[0]).sum())
        self.condition_constraints = (sizes[0] / sizes[self.rank - 1]).item()
        pseudo = torch.linalg.pinv(A, rtol=ONE_ROW)  # (s, d): rows given twice share one multiplier
        self.reachable = pseudo @ A  # (s, s): the identity unless rows depend on one another
        self.D = torch.linalg.solve_triangular(self.R, pseudo.T, upper=True).T  # (s, d)
        self.pull = pseudo @ pseudo.T @ self.C  # (s, d): (C G^-1 C^T)^-1 C, so that Lambda C = wanted pull
        self.gradient = self.D @ self.R.T @ self.R  # (s, d): D G, so that (W - W0) G = wanted gradient

    def _check_features(self, noise: float) -> float:
        """The condition number of C_reg (with the ridge), an error where it says that directions are missing."""
        sizes = torch.linalg.svdvals(self.R)
        rank = int((sizes > noise * sizes[0]).sum())
        if rank < len(sizes):
            suggested = (sizes.square().mean() * 1e-6).item()
            raise ValueError(
                f"the regularisation features span only {rank} of {len(sizes)} directions, so the problem has no "
                f"single solution: give more and more varied captions, or a ridge such as ridge={suggested:.1g}"
            )
        return (sizes[0] / sizes[-1]).item()

    def solve(self, wanted: Tensor) -> Tensor:
        """W - W0 (o, d) in float64, from `wanted` = V^T - W0 C^T (o, s). ValueError if the constraints contradict."""
        wanted = wanted.double()
        impossible = (wanted - wanted @ self.reachable).norm()
        if impossible > CONTRADICTION * wanted.norm():
            raise ValueError(
                f"the constraints contradict one another: {impossible / wanted.norm():.1%} of the wanted change cannot "
                f"be had. Either two concepts' tokens are equal, so that nothing can tell them apart (train them from "
                f"different initial words), or {len(self.C)} rows are too many for {self.C.shape[1]} directions"
            )
        return wanted @ self.D

    def constraint_error(self, change: Tensor, wanted: Tensor) -> float:
        """||(W - W0) C^T - wanted||_F / ||wanted||_F."""
        return _relative(change.double() @ self.C.T - wanted.double(), wanted.double())

    def stationarity_error(self, wanted: Tensor) -> float:
        """||(W - W0) G - Lambda C||_F / ||Lambda C||_F with Lambda = wanted (C G^-1 C^T)^-1: the KKT condition."""
        wanted = wanted.double()
        return _relative(wanted @ (self.gradient - self.pull), wanted @ self.pull)


def _relative(error: Tensor, reference: Tensor) -> float:
    size = reference.norm().item()
    return error.norm().item() / size if size else error.norm().item()
