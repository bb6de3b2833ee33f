"""Rotations made from a vector of numbers: the Cayley map and what belongs to it. Nothing but torch.

The convention of the whole course. Q = U - U^T is skew-symmetric, with the vector as the strict upper triangle of U,
row by row. The rotation is

    R = (I + Q)(I - Q)^{-1}    (Qiu et al. 2023)

and it turns the *inputs* of a layer: W_eff = W R^T, where the rows of W (dimension 0, the rest flattened) are neurons.
All rows turn together, so the angles between them, and with them the hyperspherical energy, stay as they are.
peft's exact branch is (I - Q)(I + Q)^{-1}, the inverse for the same vector: crossing over negates the vector.

An eigenvalue i t of Q becomes (1 + i t) / (1 - i t), a turn by the angle 2 arctan(t) in one plane: Q = 0 is no turn at
all, a small Q turns by about 2 t, -Q turns back, and only a half turn is out of reach.

Everything takes a stack of r blocks at once, shape (r, b, b), and computes in float32 at least: a rotation made in
half precision is none.
"""

from __future__ import annotations

import torch

SMALL = 16  # blocks up to this size are inverted by LU, larger ones by halves


def skew_symmetric(vector: torch.Tensor, block_size: int) -> torch.Tensor:
    """Q = U - U^T. vector: (r, b(b-1)/2), the strict upper triangle of U row by row; returns (r, b, b)."""
    count = block_size * (block_size - 1) // 2
    if vector.ndim != 2 or vector.shape[1] != count:
        raise ValueError(
            f"a block of size {block_size} has {count} free numbers: expected a vector of shape (blocks, {count}), "
            f"got {tuple(vector.shape)}"
        )
    row, column = torch.triu_indices(block_size, block_size, 1, device=vector.device)
    place = torch.full((block_size, block_size), 2 * count, device=vector.device)  # where Q's numbers are in [v, -v, 0]
    place[row, column] = torch.arange(count, device=vector.device)
    place[column, row] = place[row, column] + count
    numbers = torch.cat([vector, -vector, vector.new_zeros(len(vector), 1)], dim=1)
    return numbers.index_select(1, place.flatten()).view(-1, block_size, block_size)


def upper_triangle(Q: torch.Tensor) -> torch.Tensor:
    """The vector that `skew_symmetric` makes Q of: (r, b, b) to (r, b(b-1)/2)."""
    row, column = torch.triu_indices(*Q.shape[-2:], 1, device=Q.device)
    return Q.flatten(1).index_select(1, row * Q.shape[-1] + column)


def cayley(Q: torch.Tensor) -> torch.Tensor:
    """R = (I + Q)(I - Q)^{-1} = 2 (I - Q)^{-1} - I, orthogonal for every skew-symmetric Q.

    Q: (..., b, b); returns the same shape, float32 for a Q in half precision. ||R R^T - I||_2 stays below 2e-5 in
    float32 for blocks up to 128 and ||Q||_2 up to 10. Its derivative is dR = (R + I) dQ (R + I) / 2.
    """
    if Q.ndim < 2 or Q.shape[-1] != Q.shape[-2]:
        raise ValueError(f"expected square matrices (..., b, b), got the shape {tuple(Q.shape)}")
    with torch.autocast(Q.device.type, enabled=False):
        Q = _at_least_float32(Q)
        eye = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
        return 2 * _Inverse.apply(eye - Q) - eye


def cayley_neumann(Q: torch.Tensor, terms: int) -> torch.Tensor:
    """The Cayley map's series cut off, as peft does it by default. For comparison only: not orthogonal.

    (I + Q)(I + Q + Q^2 + ...) with the given number of terms: 5 terms are I + 2Q + 2Q^2 + 2Q^3 + Q^4. As in peft, 1 is
    I, 2 is I + 2Q, and 3 and 4 are the same matrix. Its error in ||R R^T - I||_2 grows like ||Q||_2^4 for 5 terms.
    """
    if terms < 1:
        raise ValueError(f"expected at least one term of the series, got {terms}")
    coefficients = [1.0, 2.0][:terms] if terms < 3 else [1.0, *[2.0] * (max(terms, 4) - 2), 1.0]
    with torch.autocast(Q.device.type, enabled=False):
        Q = _at_least_float32(Q)
        eye = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
        R = torch.zeros_like(Q)
        for coefficient in reversed(coefficients):  # Horner's scheme
            R = R @ Q + coefficient * eye
        return R


def inverse_cayley(R: torch.Tensor) -> torch.Tensor:
    """Q = (R - I)(R + I)^{-1}: the way back, for a rotation without a half turn. (..., b, b), exactly skew."""
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    Q = torch.linalg.solve(R + eye, R - eye, left=False)
    return (Q - Q.mT) / 2


def project(vector: torch.Tensor, radius: float) -> torch.Tensor:
    """COFT: each block's nearest point in the ball ||Q||_F <= radius around 0, where ||Q||_F = sqrt(2) ||vector||.

    vector: (r, b(b-1)/2). A block inside stays bit for bit; one outside lands a millionth inside of the surface, so
    that rounding cannot put it out again and projecting twice is projecting once.
    """
    if not 0 < radius < float("inf"):
        raise ValueError(f"the radius of the ball must be a positive number, got {radius}")
    norm = 2**0.5 * torch.linalg.vector_norm(vector, dim=-1, keepdim=True, dtype=_at_least_float32(vector).dtype)
    shrink = (1 - 1e-6) * radius / norm.clamp_min(radius)  # the clamp keeps the gradient finite at 0
    return vector * torch.where(norm > radius, shrink, torch.ones_like(norm)).to(vector.dtype)


def orthogonality_error(R: torch.Tensor) -> torch.Tensor:
    """||R R^T - I||_2 of the worst block, measured in float64. R: (..., b, b); returns a scalar."""
    R = R.detach().to("cpu", torch.float64)
    eye = torch.eye(R.shape[-1], dtype=R.dtype)
    return torch.linalg.matrix_norm(R @ R.mT - eye, ord=2).max()


class _Inverse(torch.autograd.Function):
    """A^{-1} of A = I - Q, with d(A^{-1}) = -A^{-1} dA A^{-1} as its derivative: the inverse is all that is kept."""

    @staticmethod
    def forward(ctx, A: torch.Tensor) -> torch.Tensor:
        # On a CPU, LU takes the blocks one by one and is slow; halves are batched products. A GPU has a batched LU, and
        # its products may be of reduced precision.
        if A.is_cuda or A.shape[-1] <= SMALL:
            X = torch.linalg.inv(A)
        else:
            blocks = A.reshape(-1, *A.shape[-2:])
            X = _polished(blocks, _inverse_by_halves(blocks)).view(A.shape)
        ctx.save_for_backward(X)
        return X

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        (X,) = ctx.saved_tensors
        return -X.mT @ grad @ X.mT


def _inverse_by_halves(A: torch.Tensor) -> torch.Tensor:
    """The inverse of A = I - Q, (r, b, b), through the Schur complement S of its upper left quarter.

    A and S both have a positive definite symmetric part, so neither is ever singular.
    """
    if A.shape[-1] <= SMALL:
        return torch.linalg.inv(A)
    h = A.shape[-1] // 2
    B, C, D = A[:, :h, h:], A[:, h:, :h], A[:, h:, h:]
    P = _inverse_by_halves(A[:, :h, :h])
    PB = torch.bmm(P, B)
    S = _inverse_by_halves(torch.baddbmm(D, C, PB, alpha=-1))
    SCP = torch.bmm(S, torch.bmm(C, P))
    X = torch.empty_like(A)
    X[:, :h, :h] = torch.baddbmm(P, PB, SCP)
    X[:, :h, h:] = torch.bmm(PB, S).neg_()
    X[:, h:, :h] = SCP.neg_()
    X[:, h:, h:] = S
    return X


def _polished(A: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """One step of Newton's method towards A^{-1}, X + X (I - A X), where A = I - Q is large enough to need it.

    Halving does without pivots, which loses digits as ||Q||_2^2 grows; the step squares the error I - A X.
    """
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    if torch.linalg.matrix_norm(A).max() < (A.shape[-1] + 4) ** 0.5:  # ||A||_F^2 = b + ||Q||_F^2, so ||Q||_2 < 1.5
        return X
    return torch.baddbmm(X, X, torch.baddbmm(eye, A, X, alpha=-1))


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
