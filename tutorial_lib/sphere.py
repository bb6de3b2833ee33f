"""Directions on the unit hypersphere: angles, hyperspherical energy, interpolation.

The rows of a weight (dim 0, the rest flattened) are neurons; divided by their lengths they are points on a sphere.
Everything is computed in float64. Energies and angles are float64 for float64 input and float32 for all other input;
`slerp` and `lerp` keep the precision of theirs.

# Note [Near pairs]
The squared distance of unit vectors is 2 - 2 cos. That is one matrix product for all pairs, but its rounding error is
absolute, about 1e-15 in float64 (1e-7 in float32, where it ruins pairs nearer than 1e-3). So pairs nearer than 1e-2
are computed again from the difference of the two vectors, whose error is relative. There are few of them.
"""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

NEAR = 1e-4  # squared distance below which it is computed from the difference: 2 - 2 cos is then good to 1e-11
SAME = 1e-30  # squared distance that is rounding only: float64 holds a direction to about 1e-16
CHUNK = 2**22  # numbers held at once of a matrix over all pairs, 34 MB


def hyperspherical_energy(weight, s: float = 1.0, antipodal: bool = False, reduction: str = "mean"):
    """Energy of the rows' directions u: over unordered pairs 1 / |u_i - u_j|^s; s = 0: -log |u_i - u_j|.

    weight: (neurons, inputs, ...), for example of a linear layer or a convolution. Liu et al. 2018, equation 1, sums
    over ordered pairs, which is twice our sum. antipodal: over the 2n points u and -u, each u_i with its own -u_i
    included, as the official code of OFT does. reduction: "mean" over the pairs or "sum". Returns a scalar,
    differentiable once; memory stays bounded in both directions. Two rows of the same direction give inf, and an error
    in backward. Raises ValueError for fewer than two rows, and for a row that is zero or not finite, with its index.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction is "mean" or "sum", got {reduction!r}')
    if not 0 <= s < math.inf:
        raise ValueError(f"s is a number >= 0, got {s!r}")
    U = _unit_rows(weight)
    n = len(U)
    total = _Energy.apply(U, float(s), antipodal)
    if reduction == "mean":
        total = total / (n * (2 * n - 1) if antipodal else n * (n - 1) // 2)
    return _like(total, weight)


def pairwise_angles(weight):
    """The angles between all rows, (n(n-1)/2,) radians from 0 to pi, in the order (0,1), (0,2), ... (1,2), ...

    weight: (neurons, inputs, ...). As exact near 0 and pi as elsewhere; differentiable. Raises ValueError as
    `hyperspherical_energy` does.
    """
    U = _unit_rows(weight)
    return torch.cat([_like(_angles(U, rows), weight) for rows in _chunks(len(U))])


def slerp(a, b, t, dim=None):
    """The point at the share t of the way from a to b along the arc between their directions (Shoemake 1985).

    sin((1-t) W) / sin W * a + sin(t W) / sin W * b, with W the angle between a and b. Of equal lengths, every point
    between has this length too. a, b: tensors of one shape. dim: the dimension or dimensions that form one vector;
    default all, so a batch of noise needs dim=(1, 2, 3) and token-wise embeddings dim=-1. t: a number, or a tensor
    that broadcasts with a. Raises ValueError where a vector is zero, or the two point in opposite directions: then
    no arc is the shortest.
    """
    _check_pair(a, b)
    dim = tuple(range(a.ndim)) if dim is None else dim
    x, y = _double(a), _double(b)
    u, v = _unit(x, "a", dim), _unit(y, "b", dim)
    apart, together = (torch.linalg.vector_norm(w, dim=dim, keepdim=True) for w in (u - v, u + v))
    if (together < 1e-6).any():
        raise ValueError("slerp: a and b point in opposite directions, so the arc between them is not determined")
    angle = 2 * torch.atan2(apart, together)
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return _round(_share(1 - t, angle) * x + _share(t, angle) * y, a, b)


def lerp(a, b, t):
    """The point at the share t of the straight way from a to b: (1-t) a + t b.

    a, b: tensors of one shape. t: a number, or a tensor that broadcasts with a.
    """
    _check_pair(a, b)
    x, y = _double(a), _double(b)
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return _round((1 - t) * x + t * y, a, b)


# ------------------------------------------------------------------ energy


class _Energy(torch.autograd.Function):
    """The sum over pairs, block by block; the backward pass computes each block again instead of keeping it."""

    @staticmethod
    def forward(ctx, U, s, antipodal):
        total = U.new_zeros(())
        for _, _, squared in _blocks(U, antipodal):
            total += _potential(squared, s).triu_(1).sum()
        if antipodal:  # u_i, u_j are as near as -u_i, -u_j; u_i is at distance 2 from -u_i
            total = 2 * total + len(U) * _potential(U.new_full((), 4.0), s)
        ctx.save_for_backward(U, total)
        ctx.s, ctx.antipodal = s, antipodal
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        U, total = ctx.saved_tensors
        pull = torch.zeros_like(U)  # less its part along u_i, which the backward of _unit_rows takes away anyway
        for rows, sign, squared in _blocks(U, ctx.antipodal):
            if total.isinf():
                _check_apart(squared, rows.start, sign)
            force = _force(squared, ctx.s).triu_(1).mul_(sign)
            pull[rows].addmm_(force, U[rows.start :])
            pull[rows.start :].addmm_(force.T, U[rows])
        return grad * (2 if ctx.antipodal else 1) * pull, None, None


def _potential(squared, s):
    """The energy of pairs at these squared distances, in place."""
    return squared.log_().mul_(-0.5) if s == 0 else squared.pow_(-s / 2)


def _force(squared, s):
    """c in: gradient of the pair's energy by u_i = c u_j + a part along u_i; in place."""
    return squared.pow_(-s / 2 - 1).mul_(s or 1.0)


def _blocks(U, antipodal):
    """Yields (rows, sign, squared): squared[i, j] = |u_a - sign u_b|^2 with a = rows.start + i, b = rows.start + j.

    Only what is above the diagonal counts: pairs a < b. Sign -1 comes with `antipodal` only.
    """
    for rows in _chunks(len(U)):
        cos = U[rows] @ U[rows.start :].T  # (chunk, n - rows.start)
        for sign in (1, -1) if antipodal else (1,):
            squared = (-2 * sign * cos).add_(2)
            for i, j in _index_pairs((squared < NEAR).triu_(1), U):  # Note [Near pairs]
                exact = (U[rows.start + i] - sign * U[rows.start + j]).square().sum(1)
                squared[i, j] = exact.where(exact > SAME, 0.0)
            yield rows, sign, squared


def _check_apart(squared, start, sign) -> None:
    """Raises ValueError for the first two rows at distance 0."""
    same = (squared == 0).triu_(1).nonzero()
    if len(same):
        i, j = (same[0] + start).tolist()
        raise ValueError(
            f"rows {i} and {j} have {'one direction' if sign == 1 else 'opposite directions'}: their energy is "
            "infinite and has no gradient. Move one of them a little before you train."
        )


def _chunks(n: int) -> list[slice]:
    """Ranges of rows whose part of an (n, n) matrix fits into CHUNK."""
    rows = max(1, CHUNK // n)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def _index_pairs(mask, U):
    """Yields the row and column indices of the mask's true entries, as many at once as rows of U fit into CHUNK."""
    for part in mask.nonzero().split(max(1, CHUNK // U.shape[1])):
        yield part[:, 0], part[:, 1]


# ------------------------------------------------------------------ angles


def _angles(U, rows):
    """The angles of these rows with all later ones, row by row."""
    cos = U[rows] @ U[rows.start :].T
    i, j = torch.ones_like(cos, dtype=torch.bool).triu_(1).nonzero(as_tuple=True)
    cos = cos[i, j]
    near = cos.detach().abs() > 1 - NEAR / 2
    angles = torch.acos(cos.masked_fill(near, 0.0))
    parts = []
    for k in near.nonzero()[:, 0].split(max(1, CHUNK // U.shape[1])):
        u, v = U[rows.start + i[k]], U[rows.start + j[k]]
        parts.append(2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)))
    return angles.masked_scatter(near, torch.cat(parts)) if parts else angles


# ------------------------------------------------------------------ vectors


def _unit_rows(weight):
    """The rows divided by their lengths, (neurons, inputs) float64."""
    if not weight.is_floating_point() or weight.ndim < 2 or len(weight) < 2 or not weight[0].numel():
        raise ValueError(
            "expected a floating-point weight of shape (neurons, inputs, ...) with at least two neurons, "
            f"got {weight.dtype} of shape {tuple(weight.shape)}"
        )
    rows = _double(weight).flatten(1)
    largest = rows.detach().abs().amax(1, keepdim=True)
    _check_rows(~largest.isfinite(), "holds NaN or infinity", len(rows))
    _check_rows(largest == 0, "is zero and has no direction", len(rows))
    rows = rows / largest  # so that no square overflows or vanishes
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def _check_rows(bad, what: str, n: int) -> None:
    found = bad.nonzero()[:, 0].tolist()
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ValueError(f"row {found[0]} of {n}{more} {what}; leave such rows out or repair the weight")


def _unit(x, name: str, dim):
    """x divided by its length along `dim`."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    if not (length.isfinite() & (length > 0)).all():
        raise ValueError(f"slerp: a vector of {name} is zero or not finite and has no direction")
    return x / length


def _share(t, angle):
    """sin(t angle) / sin(angle), and its limit t at angle 0."""
    return torch.where(angle == 0, t, torch.sin(t * angle) / torch.sin(angle).where(angle > 0, 1.0))


def _check_pair(a, b) -> None:
    if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(
            "expected two floating-point tensors of one shape, "
            f"got {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        )


def _double(x):
    """In float64; on the CPU where the device has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _like(result, weight):
    """A result on the weight's device: float64 for float64, else float32."""
    return result.to(weight.device, weight.dtype if weight.dtype == torch.float64 else torch.float32)


def _round(result, a, b):
    """A result in the precision and on the device of a and b."""
    return result.to(a.device, torch.promote_types(a.dtype, b.dtype))
