"""Checks of lesson 04, Orthogonal fine-tuning."""

from __future__ import annotations

import torch

from tutorial_lib import orthogonal
from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor
from tutorial_lib.rotated import rotate


def _skew(blocks: int, size: int, seed: int = 0) -> torch.Tensor:
    U = randn(blocks, size, size, seed=seed)
    return (U - U.mT) / 2


def _eye(like: torch.Tensor) -> torch.Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype)


# ------------------------------------------------------------------ skew


@check
def skew(answer):
    """The numbers stand above the diagonal, row by row, their negatives mirrored below it, and zeros on it."""
    for size in (2, 4, 5):
        vector = torch.arange(1.0, size * (size - 1) // 2 + 1)
        given = tensor(answer(vector, size), (size, size))
        U = torch.zeros(size, size)
        row, column = torch.triu_indices(size, size, 1)
        U[row, column] = vector
        compare(given, U - U.T, _wrong_skews(U, vector, size), _not_skew(given))


def _wrong_skews(U: torch.Tensor, vector: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    by_columns = torch.zeros(size, size)
    row, column = torch.tril_indices(size, size, -1)
    by_columns[column, row] = vector
    by_columns = by_columns - by_columns.T
    return {
        "Only the upper triangle is filled: half of Q is missing. Q = U - U^T.": U,
        "This is U + U^T, a symmetric matrix. Below the diagonal the numbers change their sign: U - U^T.": U + U.T,
        "The signs are the wrong way round: this is U^T - U, which turns back. Your numbers belong above the "
        "diagonal as they are.": U.T - U,
        "This is (U - U^T)/2: the numbers are halved. Our Q has the numbers themselves.": (U - U.T) / 2,
        "The upper triangle was filled column by column. We go row by row: (0,1), (0,2), ..., (1,2), ...": by_columns,
    }


def _not_skew(given: torch.Tensor) -> str:
    if given.diagonal().abs().max() > 1e-6:
        return "The diagonal must be zero, because q_ii = -q_ii. Start above it: triu_indices(..., offset=1)."
    return ""


@skew.right
def _two_assignments(vector, size):
    Q = torch.zeros(size, size)
    row, column = torch.triu_indices(size, size, 1)
    Q[row, column], Q[column, row] = vector, -vector
    return Q


@skew.right
def _with_loops(vector, size):
    numbers = iter(vector.tolist())
    Q = torch.zeros(size, size)
    for i in range(size):
        for j in range(i + 1, size):
            Q[i, j] = next(numbers)
            Q[j, i] = -Q[i, j]
    return Q


@skew.right
def _by_the_librarys_own(vector, size):
    return orthogonal.skew_symmetric(vector[None], size)[0]


@skew.wrong("half of Q is missing")
def _only_upper(vector, size):
    U = torch.zeros(size, size)
    U[torch.triu_indices(size, size, 1).unbind()] = vector
    return U


@skew.wrong("a symmetric matrix")
def _symmetric(vector, size):
    return _only_upper(vector, size) + _only_upper(vector, size).T


@skew.wrong("which turns back")
def _opposite(vector, size):
    return _only_upper(vector, size).T - _only_upper(vector, size)


@skew.wrong("the numbers are halved")
def _halved(vector, size):
    return _two_assignments(vector, size) / 2


@skew.wrong("column by column")
def _columns_first(vector, size):
    U = torch.zeros(size, size)
    row, column = torch.tril_indices(size, size, -1)
    U[column, row] = vector
    return U - U.T


@skew.wrong("diagonal must be zero")
def _ones_on_the_diagonal(vector, size):
    return _two_assignments(vector, size) + torch.eye(size)


@skew.wrong("Expected a tensor of shape")
def _flat(vector, size):
    return _two_assignments(vector, size).flatten()


# ------------------------------------------------------------------ Cayley


@check
def cayley(answer):
    """Every block is a rotation, zero is the identity, and -Q turns back."""
    for blocks, size in ((1, 2), (3, 5)):
        Q = _skew(blocks, size, seed=size)
        given = tensor(answer(Q), Q.shape, {(size, size): "Keep the stack: one matrix for each block."})
        right = torch.linalg.solve(_eye(Q) - Q, _eye(Q) + Q)
        compare(given, right, _wrong_cayleys(Q), _no_rotation(given))


def _wrong_cayleys(Q: torch.Tensor) -> dict[str, torch.Tensor]:
    eye = _eye(Q)
    return {
        "Your R is the transpose of the right one: it turns back. The inverted factor is (I - Q), not (I + Q).": (
            torch.linalg.solve(eye + Q, eye - Q)
        ),
        "Nothing was inverted: this is the product (I + Q)(I - Q) = I - Q². One of the factors needs its inverse.": (
            (eye + Q) @ (eye - Q)
        ),
        "This is (I + Q) alone. It turns, but it also makes every vector longer; (I - Q)^{-1} takes that back.": eye
        + Q,
        "This is (I - Q)^{-1} alone: it turns half the way and makes every vector shorter.": torch.linalg.inv(eye - Q),
        "This is I + 2Q, the map near 0 only: right to first order, and no rotation.": eye + 2 * Q,
        "This is the matrix exponential of Q. It is a rotation too, but another map: it turns by t where the Cayley "
        "map turns by 2 arctan t.": torch.linalg.matrix_exp(Q),
        "This is exp(2Q). It is a rotation too, and agrees with the Cayley map near 0 only: exp turns by 2t, Cayley "
        "by 2 arctan t.": torch.linalg.matrix_exp(2 * Q),
        "You divided number by number. The inverse of a matrix is torch.linalg.inv, or better torch.linalg.solve.": (
            eye + Q
        )
        / (eye - Q),
        "This is the inverse of (I - Q) with its numbers doubled, and the identity is not taken away at the end.": 2
        * torch.linalg.inv(eye - Q),
    }


def _no_rotation(given: torch.Tensor) -> str:
    if not given.isfinite().all():
        return "Some of the numbers are not finite. Did you divide number by number instead of inverting a matrix?"
    error = (given @ given.mT - _eye(given)).abs().max().item()
    return f"This is no rotation: R R^T differs from I by up to {error:.2g}." if error > 1e-4 else ""


@cayley.right
def _by_inverse(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return (eye + Q) @ torch.linalg.inv(eye - Q)


@cayley.right
def _twice_the_inverse(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return 2 * torch.linalg.inv(eye - Q) - eye


@cayley.right
def _factors_in_the_other_order(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return torch.linalg.solve(eye - Q, eye + Q)


@cayley.right
def _one_by_one(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return torch.stack([(eye + block) @ torch.linalg.inv(eye - block) for block in Q])


@cayley.wrong("transpose of the right one")
def _inverted_map(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return (eye - Q) @ torch.linalg.inv(eye + Q)


@cayley.wrong("Nothing was inverted")
def _product(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return (eye + Q) @ (eye - Q)


@cayley.wrong("also makes every vector longer")
def _half_map(Q):
    return torch.eye(Q.shape[-1], dtype=Q.dtype) + Q


@cayley.wrong("makes every vector shorter")
def _other_half(Q):
    return torch.linalg.inv(torch.eye(Q.shape[-1], dtype=Q.dtype) - Q)


@cayley.wrong("right to first order")
def _first_order(Q):
    return torch.eye(Q.shape[-1], dtype=Q.dtype) + 2 * Q


@cayley.wrong("the matrix exponential of Q")
def _exponential(Q):
    return torch.linalg.matrix_exp(Q)


@cayley.wrong("agrees with the Cayley map near 0 only")
def _exponential_of_twice(Q):
    return torch.matrix_exp(2 * Q)


@cayley.wrong("You divided number by number")
def _elementwise(Q):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return (eye + Q) / (eye - Q)


@cayley.wrong("not taken away at the end")
def _forgot_the_identity(Q):
    return 2 * torch.linalg.inv(torch.eye(Q.shape[-1], dtype=Q.dtype) - Q)


@cayley.wrong("Keep the stack")
def _first_block_only(Q):
    return _by_inverse(Q[0])


@cayley.wrong("This is no rotation: R R^T differs")
def _ones_for_the_identity(Q):
    ones = torch.ones_like(Q)
    return torch.linalg.solve(2 * ones.triu() - Q, ones + Q)


# ------------------------------------------------------------------ how many numbers


@check
def trainable_numbers(answer):
    """Each of the r blocks has b(b-1)/2 free numbers, with b = n/r: about n²/(2r) in all, so more blocks are fewer."""
    for n, r in ((60, 5), (128, 8), (10, 1)):
        given = answer(n, r)
        if given is None:
            raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
        b = n // r
        if given != r * b * (b - 1) // 2:
            raise Mistake(
                _why_count(given, n, r) or f"For n = {n} and r = {r} expected {r * b * (b - 1) // 2}, got {given}."
            )


def _why_count(given, n: int, r: int) -> str | None:
    b = n // r
    triangle, r_as_size = b * (b - 1) // 2, b * (r * (r - 1) // 2)
    known = {
        r
        * b**2: "This counts full squares, b² a block. The lower triangle is the upper one with its sign changed, and "
        "the diagonal is zero.",
        r * (triangle + b): "This counts the diagonal too, b(b+1)/2 a block. It is always zero: b(b-1)/2.",
        r * 2 * triangle: "This counts both triangles. The lower one is not free: half of it.",
        n * (n - 1) // 2: "This is one block of the full size: r was not used.",
        triangle: "This is one block. There are r of them, each with its own numbers.",
        r_as_size: "You took r for the size of a block. Here r is the number of blocks, and the size is b = n/r.",
        2 * n * r: "This is LoRA's count for an n × n layer, r numbers for each input and output.",
    }
    return known.get(given)


@trainable_numbers.right
def _by_n_and_b(inputs, blocks):
    return inputs * (inputs // blocks - 1) // 2


@trainable_numbers.right
def _as_a_fraction(inputs, blocks):
    return blocks * (inputs / blocks) * (inputs / blocks - 1) / 2


@trainable_numbers.right
def _by_counting(inputs, blocks):
    size = inputs // blocks
    return sum(1 for _ in range(blocks) for i in range(size) for j in range(size) if i < j)


@trainable_numbers.wrong("full squares")
def _squares(inputs, blocks):
    return blocks * (inputs // blocks) ** 2


@trainable_numbers.wrong("counts the diagonal too")
def _with_diagonal(inputs, blocks):
    b = inputs // blocks
    return blocks * b * (b + 1) // 2


@trainable_numbers.wrong("both triangles")
def _both_triangles(inputs, blocks):
    b = inputs // blocks
    return blocks * b * (b - 1)


@trainable_numbers.wrong("r was not used")
def _one_large_block(inputs, blocks):
    return inputs * (inputs - 1) // 2


@trainable_numbers.wrong("This is one block. There are r")
def _one_small_block(inputs, blocks):
    b = inputs // blocks
    return b * (b - 1) // 2


@trainable_numbers.wrong("You took r for the size")
def _r_as_size(inputs, blocks):
    return inputs // blocks * blocks * (blocks - 1) // 2


@trainable_numbers.wrong("LoRA's count")
def _as_lora(inputs, blocks):
    return 2 * inputs * blocks


# ------------------------------------------------------------------ W R^T, block by block


@check
def turn_neurons(answer):
    """W R^T block by block: linear layers and convolutions alike, without a large matrix full of zeros."""
    for shape, size in (((5, 12), 4), ((6, 2, 3, 3), 6)):
        W, R = randn(*shape, seed=3), orthogonal.cayley(_skew(12 // 4 if size == 4 else 3, size, seed=4))
        given = tensor(answer(W, R), W.shape, {(len(W), W[0].numel()): "Give the weight its own shape back."})
        right = rotate(W.flatten(1), R.mT).view_as(W)
        compare(given, right, _wrong_turns(W, R), _lengths(given, W))


def _wrong_turns(W: torch.Tensor, R: torch.Tensor) -> dict[str, torch.Tensor]:
    rows, (r, b, _) = W.flatten(1), R.shape
    mixed = torch.einsum("nbr,rcb->ncr", rows.view(len(rows), b, r), R).reshape(W.shape)
    wrong = {
        "You turned by R where it should be R^T: each neuron went to R^T w. For a row it is w R^T.": rotate(rows, R),
        "The first block was used for all inputs. Block i turns the inputs i·b to (i+1)·b only.": rotate(
            rows, R[:1].mT
        ),
        "The blocks took every r-th input instead of b neighbouring ones: the row has to be cut as (r, b), not as "
        "(b, r).": mixed,
        "The weight came back as it was.": rows,
    }
    if W.ndim == 4:
        last = W.permute(0, 2, 3, 1).flatten(1)
        back = rotate(last, R.mT).view(len(W), *W.shape[2:], W.shape[1]).permute(0, 3, 1, 2)
        wrong["The axes of the kernel were moved before it was flattened. Use flatten(1) as it stands."] = back
    return {message: value.reshape(W.shape) for message, value in wrong.items()}


def _lengths(given: torch.Tensor, W: torch.Tensor) -> str:
    before, after = (x.flatten(1).norm(dim=1) for x in (W, given))
    off = ((after - before) / before).abs().max().item()
    if off > 1e-4:
        return (
            f"A rotation keeps the length of every neuron; yours change by up to {off:.0%}. Something was mixed that "
            "does not belong together: a neuron is one row of the flattened weight, and it is cut into r pieces."
        )
    return ""


@turn_neurons.right
def _by_einsum(weight, R):
    rows = weight.reshape(len(weight), *R.shape[:2])
    return torch.einsum("nrb,rcb->nrc", rows, R).reshape(weight.shape)


@turn_neurons.right
def _by_one_large_matrix(weight, R):
    return (weight.flatten(1) @ torch.block_diag(*R).T).reshape(weight.shape)


@turn_neurons.right
def _piece_by_piece(weight, R):
    pieces = weight.flatten(1).split(R.shape[-1], dim=1)
    return torch.cat([piece @ block.T for piece, block in zip(pieces, R, strict=True)], dim=1).view(weight.shape)


@turn_neurons.wrong("where it should be R^T")
def _not_transposed(weight, R):
    return (weight.flatten(1) @ torch.block_diag(*R)).reshape(weight.shape)


@turn_neurons.wrong("first block was used for all")
def _shared(weight, R):
    rows = weight.reshape(-1, R.shape[-1])
    return (rows @ R[0].T).reshape(weight.shape)


@turn_neurons.wrong("every r-th input")
def _interleaved(weight, R):
    r, b, _ = R.shape
    return torch.einsum("nbr,rcb->ncr", weight.reshape(len(weight), b, r), R).reshape(weight.shape)


@turn_neurons.wrong("came back as it was")
def _nothing_done(weight, R):
    return weight.clone()


@turn_neurons.wrong("Give the weight its own shape back")
def _left_flat(weight, R):
    return weight.flatten(1) @ torch.block_diag(*R).T


@turn_neurons.wrong("axes of the kernel were moved")
def _channels_last(weight, R):
    if weight.ndim == 2:
        return _by_einsum(weight, R)
    last = weight.permute(0, 2, 3, 1)
    return _by_einsum(last.reshape(len(weight), -1), R).view(last.shape).permute(0, 3, 1, 2)


@turn_neurons.wrong("Something was mixed")
def _reshaped_like_the_output(weight, R):
    rows = weight.reshape(-1, len(weight))  # the axes change places
    pieces = rows.T.reshape(len(weight), *R.shape[:2]) * R.diagonal(dim1=-2, dim2=-1)
    return pieces.reshape(weight.shape)


@turn_neurons.wrong("in place")
def _in_place(weight, R):
    weight.copy_(_by_einsum(weight, R))
    return weight


# ------------------------------------------------------------------ COFT's ball


@check
def into_ball(answer):
    """Each block on its own: inside the ball nothing happens, outside the nearest point of its surface is taken."""
    radius = 0.8
    direction = torch.nn.functional.normalize(randn(4, 6, seed=5), dim=1)
    vector = direction * radius * torch.tensor([[0.3], [0.65], [1.7], [0.0]], dtype=torch.float64)
    # row 1: ||v|| < radius < ||Q||; row 3: zero, where a careless division gives NaN
    given = tensor(answer(vector, radius), vector.shape)
    if not given.isfinite().all():
        raise Mistake(
            "A block of zeros became NaN: 0/0. Every training starts there; only scale blocks that are outside."
        )
    compare(given, orthogonal.project(vector, radius), _wrong_balls(vector, radius))


def _wrong_balls(vector: torch.Tensor, radius: float) -> dict[str, torch.Tensor]:
    norm = vector.norm(dim=1, keepdim=True)
    safe = norm.clamp_min(1e-12)
    everything = 2**0.5 * vector.norm()
    return {
        "The length of the vector was bounded, not that of Q. Each number stands in Q twice: ||Q||_F = √2 ||v||.": (
            vector * (radius / safe).clamp(max=1)
        ),
        "Blocks inside of the ball were stretched to its surface. They should stay as they are.": vector
        * (radius / (2**0.5 * safe)),
        "All blocks were measured and shrunk together. The ball is for each block on its own: norm(dim=1).": vector
        * min(1.0, (radius / everything).item()),
        "You cut each number at ± a bound. That is a cube; the ball bounds the norm of the whole block.": vector.clamp(
            -radius, radius
        ),
        "Too far in: you divided by the squared length. One factor, radius / ||Q||, is enough.": vector
        * (radius / (2 * safe**2)).clamp(max=1),
        "A block outside was set to zero. Take the nearest point of the surface.": vector * (2**0.5 * norm <= radius),
        "The bound is there, but on 2 ||v||. ||Q||_F² is the sum of all squares of Q: each number twice, so a factor 2 "
        "under the root.": vector * (radius / (2 * safe)).clamp(max=1),
    }


@into_ball.right
def _by_clamp(vector, radius):
    norm = 2**0.5 * vector.norm(dim=1, keepdim=True)
    return vector * (radius / norm.clamp_min(radius))


@into_ball.right
def _block_by_block(vector, radius):
    rows = []
    for row in vector:
        norm = (2 * (row**2).sum()).sqrt()
        rows.append(row * radius / norm if norm > radius else row)
    return torch.stack(rows)


@into_ball.right
def _by_where(vector, radius):
    norm = torch.linalg.matrix_norm(orthogonal.skew_symmetric(vector, 4))[:, None]
    return torch.where(norm > radius, vector * radius / norm, vector)


@into_ball.wrong("The length of the vector was bounded")
def _without_root(vector, radius):
    return vector * (radius / vector.norm(dim=1, keepdim=True).clamp_min(radius))


@into_ball.wrong("stretched to its surface")
def _always(vector, radius):
    return radius * vector / (2**0.5 * vector.norm(dim=1, keepdim=True) + 1e-12)


@into_ball.wrong("A block of zeros became NaN")
def _always_with_zero(vector, radius):
    return radius * vector / (2**0.5 * vector.norm(dim=1, keepdim=True))


@into_ball.wrong("measured and shrunk together")
def _all_at_once(vector, radius):
    return vector * (radius / (2**0.5 * vector.norm())).clamp(max=1)


@into_ball.wrong("That is a cube")
def _cut(vector, radius):
    return vector.clamp(-radius, radius)


@into_ball.wrong("set to zero")
def _dropped(vector, radius):
    return vector * (2**0.5 * vector.norm(dim=1, keepdim=True) <= radius)


@into_ball.wrong("on 2 ||v||")
def _two_for_its_root(vector, radius):
    return vector * (radius / (2 * vector.norm(dim=1, keepdim=True)).clamp_min(radius))


@into_ball.wrong("in place")
def _scaled_in_place(vector, radius):
    vector *= radius / (2**0.5 * vector.norm(dim=1, keepdim=True)).clamp_min(radius)
    return vector


# ------------------------------------------------------------------ the dial


@check
def at_strength(answer):
    """Cayley(s Q) is a rotation at every s: I at 0, R at 1, the inverse at -1."""
    Q = _skew(3, 4, seed=7)
    for s in (0.5, 0.0, 1.0, -1.0, 2.0):
        given = tensor(answer(Q, s), Q.shape)
        R = orthogonal.cayley(Q)
        compare(given, orthogonal.cayley(s * Q), _wrong_dials(Q, R, s), _no_rotation(given))


def _wrong_dials(Q: torch.Tensor, R: torch.Tensor, s: float) -> dict[str, torch.Tensor]:
    eye = _eye(Q).expand_as(Q)
    back = orthogonal.inverse_cayley(R)
    return {
        "This is I + s (R - I), the straight line from I to R. It leaves the rotations on the way: neurons become "
        "shorter between 0 and 1, and longer beyond. Put s in front of Q, inside of the Cayley map.": eye
        + s * (R - eye),
        "This is s R: every neuron s times as long, and all gone at s = 0.": s * R,
        "Negative strengths turn the same way as positive ones here. Use s, not its absolute value.": orthogonal.cayley(
            abs(s) * Q
        ),
        "The strength was not used: this is R at s = 1.": R,
        "You turned the other way: this is the rotation at -s.": orthogonal.cayley(-s * back),
        "This is R to the power s: the same path, walked at another pace, and a rotation too. We ask for the map that "
        "the library uses, which needs no eigenvalues: Cayley(s Q).": torch.linalg.matrix_exp(s * _logarithm(Q)),
        "I + s·2Q follows the tangent: only right for small s.": eye + 2 * s * Q,
    }


def _logarithm(Q: torch.Tensor) -> torch.Tensor:
    """log R for R = Cayley(Q): an eigenvalue i t of Q becomes 2 i arctan t."""
    values, vectors = torch.linalg.eigh(1j * Q.to(torch.complex128))  # Q = -i (iQ): eigenvalues -i times real ones
    return (vectors * (-2j * values.atan()).unsqueeze(-2) @ vectors.mH).real


@at_strength.right
def _cayley_of_the_scaled(Q, s):
    return orthogonal.cayley(s * Q)


@at_strength.right
def _by_solving(Q, s):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return torch.linalg.solve(eye - s * Q, eye + s * Q)


@at_strength.wrong("straight line from I to R")
def _straight(Q, s):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return eye + s * (orthogonal.cayley(Q) - eye)


@at_strength.wrong("This is s R")
def _times(Q, s):
    return s * orthogonal.cayley(Q)


@at_strength.wrong("The strength was not used")
def _ignored(Q, s):
    return orthogonal.cayley(Q)


@at_strength.wrong("turned the other way")
def _minus(Q, s):
    return orthogonal.cayley(-s * Q)


@at_strength.wrong("absolute value")
def _absolute(Q, s):
    return orthogonal.cayley(abs(s) * Q)


@at_strength.wrong("R to the power s")
def _power(Q, s):
    return torch.linalg.matrix_exp(s * _logarithm(Q))


@at_strength.wrong("follows the tangent")
def _tangent(Q, s):
    return torch.eye(Q.shape[-1], dtype=Q.dtype) + 2 * s * Q


@at_strength.wrong("This is no rotation: R R^T differs")
def _only_one_factor(Q, s):
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return (eye + s * Q) @ torch.linalg.inv(eye - Q)
