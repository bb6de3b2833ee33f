"""Checks of lesson 01, Hyperspherical energy."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tutorial_lib.lab.checks import Mistake, check


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def _tensor(given, shape: tuple, wrong_shapes: dict[tuple, str]) -> torch.Tensor:
    """What the student returned, as a finite float64 tensor of the right shape."""
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
    given = torch.as_tensor(given).detach().double()
    if given.shape != shape:
        told = wrong_shapes.get(tuple(given.shape), "")
        raise Mistake(f"Expected the shape {tuple(shape)}, got {tuple(given.shape)}. {told}".strip())
    return given


def _same(a, b, tolerance: float = 1e-4) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def _name(given: torch.Tensor, known: dict[str, torch.Tensor]) -> str | None:
    """The message whose value is the given one."""
    return next((message for message, value in known.items() if _same(given, value)), None)


# ------------------------------------------------------------------ directions


@check
def directions(answer):
    """One row for each neuron, each of length 1, for linear layers and for convolutions."""
    for weight in (2 * _random(4, 7) + 1, _random(5, 3, 2, 2)):  # a linear layer, a convolution
        rows = weight.flatten(1)
        given = _tensor(answer(weight), rows.shape, {tuple(weight.shape): "Flatten what follows the first dimension."})
        if not _same(given, _unit(rows)):
            raise Mistake(_name(given, _wrong_directions(weight)) or _lengths(given))


def _wrong_directions(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = weight.flatten(1)
    return {
        "You divided the columns by their lengths. A neuron is a row: take the norm along dim=1.": F.normalize(
            rows, dim=0
        ),
        "You divided by one number for the whole weight. Each neuron is divided by its own length; "
        "norm(dim=1, keepdim=True) gives one for each row.": rows / rows.norm(),
        "You divided by the squared length. A square root is missing.": rows / rows.square().sum(1, keepdim=True),
        "You divided by the sum of absolute values. The length is the root of the sum of squares.": F.normalize(
            rows, p=1
        ),
        "These are the flattened neurons; they still have their own lengths.": rows,
        "You normalised before you flattened, so each position of the kernel was divided by a length of its own. "
        "Flatten first.": F.normalize(weight).flatten(1),
        "The shape is right, but the numbers of different neurons are mixed: reshape(-1, n) does not keep a neuron "
        "together. Flatten everything after the first dimension instead.": _unit(weight.reshape(-1, len(weight)).T),
    }


def _lengths(given: torch.Tensor) -> str:
    return f"Your rows should have length 1 and their old directions; their lengths are {given.norm(dim=1).tolist()}."


@directions.right
def _by_the_library(weight):
    return F.normalize(weight.flatten(1), dim=1)


@directions.right
def _row_by_row(weight):
    return torch.stack([row.flatten() / row.square().sum().sqrt() for row in weight])


@directions.wrong("divided the columns")
def _columns(weight):
    rows = weight.flatten(1)
    return rows / rows.norm(dim=0)


@directions.wrong("one number for the whole weight")
def _whole(weight):
    return weight.flatten(1) / weight.norm()


@directions.wrong("square root is missing")
def _squared(weight):
    rows = weight.flatten(1)
    return rows / (rows**2).sum(1, keepdim=True)


@directions.wrong("sum of absolute values")
def _absolute(weight):
    rows = weight.flatten(1)
    return rows / rows.abs().sum(dim=1, keepdim=True)


@directions.wrong("Flatten what follows")
def _not_flattened(weight):
    return weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


@directions.wrong("normalised before you flattened")
def _too_early(weight):
    return F.normalize(weight).flatten(1)


@directions.wrong("numbers of different neurons are mixed")
def _mixed(weight):
    return _unit(weight.reshape(-1, len(weight)).T)


@directions.wrong("in place")
def _in_place(weight):
    rows = weight.flatten(1)
    rows /= rows.norm(dim=1, keepdim=True)
    return rows


@directions.wrong("still have their own lengths")
def _only_flattened(weight):
    return weight.flatten(1)


# ------------------------------------------------------------------ energy


@check
def mean_energy(answer):
    """Each pair counts once, by the inverse of its distance, and a point is no pair with itself."""
    u = _unit(_random(6, 4))
    right = (1 / F.pdist(u.double())).mean()
    given = _tensor(answer(u), (), {(15,): "Take the mean over the pairs.", (6, 6): "Take the mean over the pairs."})
    if not torch.isfinite(given):
        raise Mistake(
            "The result is not a finite number: each point was paired with itself, at distance 0. Keep the pairs with "
            "i < j only, for example with torch.triu_indices(n, n, offset=1)."
        )
    if not _same(given, right, 1e-3):
        told = _name(given, _wrong_energies(u.double()))
        raise Mistake(told or f"Expected about {right:.4f} for these six points, got {given:.4f}.")


def _wrong_energies(u: torch.Tensor) -> dict[str, torch.Tensor]:
    d, n = F.pdist(u), len(u)
    return {
        "This is the sum over the pairs; divide by how many there are.": (1 / d).sum(),
        "You divided by the squared distance. Take its root first (for s = 2 it would be right).": (1 / d**2).mean(),
        "This is the mean distance. The energy takes 1/distance of each pair.": d.mean(),
        "You inverted the mean. Invert each distance first, then take the mean: near pairs must count most.": 1
        / d.mean(),
        "You divided by the angle. Here the distance is the straight one, through the sphere.": (
            1 / torch.acos(1 - d**2 / 2)
        ).mean(),
        "A factor of 2: each pair was counted as (i, j) and as (j, i), but divided by n(n-1)/2.": 2 * (1 / d).mean(),
        "You divided by n * n, the size of the whole matrix; there are n(n-1)/2 pairs.": 2 * (1 / d).sum() / n**2,
        "You divided by n * n, the size of the whole matrix, and counted each pair once.": (1 / d).sum() / n**2,
        "The diagonal was replaced and counted: it holds no pairs. Leave it out of the mean.": (2 * (1 / d).sum() + n)
        / n**2,
    }


@mean_energy.right
def _with_pdist(u):
    return (1 / torch.pdist(u)).mean()


@mean_energy.right
def _all_ordered_pairs(u):
    distance = (u[:, None] - u[None]).norm(dim=2)
    off_diagonal = ~torch.eye(len(u), dtype=torch.bool)
    return (1 / distance[off_diagonal]).mean()


@mean_energy.right
def _by_cosines(u):
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (2 - 2 * (u @ u.T)[i, j]).rsqrt().mean().item()


@mean_energy.wrong("paired with itself")
def _with_diagonal(u):
    return (1 / (u[:, None] - u[None]).norm(dim=2)).mean()


@mean_energy.wrong("This is the sum")
def _sum(u):
    return (1 / torch.pdist(u)).sum()


@mean_energy.wrong("squared distance")
def _no_root(u):
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (1 / (u[i] - u[j]).square().sum(1)).mean()


@mean_energy.wrong("mean distance")
def _not_inverted(u):
    return torch.pdist(u).mean()


@mean_energy.wrong("inverted the mean")
def _inverted_late(u):
    return 1 / torch.pdist(u).mean()


@mean_energy.wrong("by the angle")
def _geodesic(u):
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (1 / torch.acos((u[i] * u[j]).sum(1))).mean()


@mean_energy.wrong("A factor of 2")
def _pairs_twice(u):
    n = len(u)
    distance = (u[:, None] - u[None]).norm(dim=2).fill_diagonal_(torch.inf)
    return (1 / distance).sum() / (n * (n - 1) / 2)


@mean_energy.wrong("size of the whole matrix; there are")
def _over_n_squared(u):
    return (1 / (u[:, None] - u[None]).norm(dim=2).fill_diagonal_(torch.inf)).mean()


@mean_energy.wrong("The diagonal was replaced")
def _ones_on_the_diagonal(u):
    return (1 / ((u[:, None] - u[None]).norm(dim=2) + torch.eye(len(u)))).mean()


@mean_energy.wrong("Take the mean over the pairs.")
def _forgot_the_mean(u):
    return 1 / torch.pdist(u)


# ------------------------------------------------------------------ repel


@check
def repel(answer):
    """The points move away from one another and stay on the sphere."""
    points, rate = _unit(_random(5, 3)).double(), 0.05
    given = _tensor(answer(points, rate), points.shape, {})
    if given.isnan().any():
        raise Mistake(
            "There are NaNs: the force of a point on itself is 0/0. Leave it out, for example by setting the diagonal "
            "of the distances to infinity."
        )
    if not any(_same(given, _unit(points + rate * force)) for force in _right_forces(points)):
        raise Mistake(_name(given, _wrong_steps(points, rate)) or _repel_clue(given, points))


def _force(points: torch.Tensor, power: int = 3) -> torch.Tensor:
    apart = points[:, None] - points[None]  # (n, n, 3): from j to i
    distance = apart.norm(dim=2, keepdim=True) + torch.eye(len(points))[..., None]
    return (apart / distance**power).sum(1)


def _right_forces(points: torch.Tensor) -> list[torch.Tensor]:
    """The force, and the force without its part along the radius: both lead to the same minimum."""
    force = _force(points)
    return [force, force - (force * points).sum(1, keepdim=True) * points]


def _wrong_steps(points: torch.Tensor, rate: float) -> dict[str, torch.Tensor]:
    force = _force(points)
    return {
        "Your points attract one another: the sign is the wrong way round. The force on point i has the direction "
        "x_i - x_j, away from j. (Or the sum ran over the wrong index.)": _unit(points - rate * force),
        "The points have left the sphere. After the move divide each by its length.": points + rate * force,
        "Divide the difference by the distance to the power 3: one power makes the difference a unit vector, "
        "two are the force 1/distance². You used the power 2.": _unit(points + rate * _force(points, 2)),
        "Divide the difference by the distance to the power 3. You used the power 1, "
        "so that far points push as hard as near ones.": _unit(points + rate * _force(points, 1)),
        "The rate was not used, or not as a factor of the force.": _unit(points + force),
        "You divided by one length for all points together; each point has its own.": (points + rate * force)
        / (points + rate * force).norm(),
        "You moved one point after the other: later ones felt the moved ones. Compute all forces first.": _one_by_one(
            points, rate
        ),
        "This is the force itself. Add rate times the force to the points, then put them back on the sphere.": force,
    }


def _one_by_one(points: torch.Tensor, rate: float) -> torch.Tensor:
    moved = points.clone()
    for i in range(len(moved)):
        moved[i] = _unit(moved + rate * _force(moved))[i]
    return moved


def _repel_clue(given: torch.Tensor, points: torch.Tensor) -> str:
    lengths = ", ".join(f"{value:.3f}" for value in given.norm(dim=1).tolist())
    right = _unit(points + 0.05 * _force(points))[0]
    told = ", ".join(f"{value:.3f}" for value in right.tolist())
    return f"The first point should move to ({told}). Your points have the lengths {lengths}."


@repel.right
def _by_autograd(points, rate):
    x = points.clone().requires_grad_()
    (1 / torch.pdist(x)).sum().backward()
    return F.normalize((x - rate * x.grad).detach())


@repel.right
def _along_the_sphere(points, rate):
    return _unit(points + rate * _right_forces(points)[1])


@repel.right
def _with_loops(points, rate):
    moved = []
    for i, x in enumerate(points):
        force = sum((x - y) / torch.dist(x, y) ** 3 for j, y in enumerate(points) if j != i)
        moved.append((x + rate * force) / (x + rate * force).norm())
    return torch.stack(moved)


@repel.wrong("attract one another")
def _attract(points, rate):
    return _unit(points - rate * _force(points))


@repel.wrong("left the sphere")
def _off_the_sphere(points, rate):
    return points + rate * _force(points)


@repel.wrong("You used the power 2")
def _power_two(points, rate):
    return _unit(points + rate * _force(points, 2))


@repel.wrong("You used the power 1")
def _power_one(points, rate):
    return _unit(points + rate * _force(points, 1))


@repel.wrong("on itself is 0/0")
def _self_pairs(points, rate):
    apart = points[:, None] - points[None]
    return _unit(points + rate * (apart / apart.norm(dim=2, keepdim=True) ** 3).sum(1))


@repel.wrong("The rate was not used")
def _no_rate(points, rate):
    return _unit(points + _force(points))


@repel.wrong("one length for all points")
def _common_length(points, rate):
    moved = points + rate * _force(points)
    return moved / moved.norm()


@repel.wrong("one point after the other")
def _sequential(points, rate):
    return _one_by_one(points, rate)


@repel.wrong("in place")
def _moves_the_given(points, rate):
    points += rate * _force(points)
    return _unit(points)


# ------------------------------------------------------------------ rotate_inputs


@check
def rotate_inputs(answer):
    """W Rᵀ: every neuron is turned by the same R, so all angles between neurons stay."""
    for weight in (_random(8, 8), _random(8, 2, 2, 2)):
        R = torch.linalg.qr(_random(8, 8, seed=1))[0]
        rows = weight.flatten(1)
        flat = {tuple(rows.shape): "Give the weight back in the shape that it came in."}
        given = _tensor(answer(weight, R), weight.shape, flat)
        if not _same(given.flatten(1), rows @ R.T):
            told = _name(given.flatten(1), _wrong_rotations(rows, R))
            raise Mistake(told or _rotation_clue(given.flatten(1), rows))


def _wrong_rotations(rows: torch.Tensor, R: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "This is W R: each neuron was turned by the inverse of R, since the inverse of a rotation is its transpose. "
        "A row w becomes R w, which for all rows at once is W Rᵀ.": rows @ R,
        "This is R W: it turns the output side. It mixes the neurons with one another, and their angles change.": R
        @ rows,
        "This is Rᵀ W: it turns the output side, backwards. It mixes the neurons instead of turning each.": R.T @ rows,
        "The result is transposed: R Wᵀ has the neurons as columns. Transpose it back, or use W Rᵀ.": R @ rows.T,
        "The weight came back as it was.": rows,
        "You multiplied entry by entry (*). A rotation is a matrix product (@).": rows * R.T,
        "You multiplied entry by entry (*) with R. A rotation is a product of matrices (@).": rows * R,
        "You added the rotation to the weight. OFT multiplies: W Rᵀ.": rows + R,
    }


def _rotation_clue(given: torch.Tensor, rows: torch.Tensor) -> str:
    if _same(given.norm(dim=1), rows.norm(dim=1)):
        return "The neurons kept their lengths, but they do not stand where R takes them: row i should be R w_i."
    return "A rotation keeps the length of each neuron, and yours changed. Row i of the result should be R w_i."


@rotate_inputs.right
def _by_einsum(weight, R):
    return torch.einsum("ij,nj->ni", R, weight.flatten(1)).reshape(weight.shape)


@rotate_inputs.right
def _neuron_by_neuron(weight, R):
    return torch.stack([(R @ neuron.flatten()).view(neuron.shape) for neuron in weight])


@rotate_inputs.right
def _by_linear(weight, R):
    return F.linear(weight.flatten(1), R).view_as(weight)


@rotate_inputs.wrong("This is W R:")
def _inverse(weight, R):
    return (weight.flatten(1) @ R).view_as(weight)


@rotate_inputs.wrong("This is R W:")
def _output_side(weight, R):
    return (R @ weight.flatten(1)).view_as(weight)


@rotate_inputs.wrong("This is Rᵀ W:")
def _output_side_backwards(weight, R):
    return (R.T @ weight.flatten(1)).view_as(weight)


@rotate_inputs.wrong("The result is transposed")
def _transposed(weight, R):
    return (R @ weight.flatten(1).T).reshape(weight.shape)


@rotate_inputs.wrong("in the shape that it came in")
def _flat(weight, R):
    return weight.flatten(1) @ R.T


@rotate_inputs.wrong("entry by entry (*). A rotation")
def _entrywise(weight, R):
    return (weight.flatten(1) * R.T).view_as(weight)


@rotate_inputs.wrong("in place")
def _into_the_given(weight, R):
    weight.copy_((weight.flatten(1) @ R.T).view_as(weight))
    return weight


@rotate_inputs.wrong("A rotation keeps the length")
def _twice_the_size(weight, R):
    return (2 * weight.flatten(1) @ R.T).view_as(weight)


@rotate_inputs.wrong("do not stand where R takes them")
def _twice(weight, R):
    return (weight.flatten(1) @ R.T @ R.T).view_as(weight)


# ------------------------------------------------------------------ careful_energy


def _twins(gap: float) -> torch.Tensor:
    """(30, 16) float32 rows; row 20 + k differs by about `gap` in direction from row k."""
    weight = _random(30, 16, seed=2)
    weight[20:] = weight[:10] + gap * weight[:10].norm(dim=1, keepdim=True) * _unit(_random(10, 16, seed=3))
    return weight


def _true_energy(weight: torch.Tensor) -> float:
    return float((1 / F.pdist(_unit(weight.flatten(1).double()))).mean())


@check
def careful_energy(answer):
    """Right also for twins and for convolutions: float64 first of all, and distances from differences."""
    far = _off(answer, torch.cat([_random(5, 16), 3 * _random(25, 16, seed=4)]))
    if abs(far) > 1e-3:
        raise Mistake(
            f"Already without twins the energy is {far:+.1%} off. Divide the rows by their lengths, then take the mean "
            "of 1/distance over the pairs i < j."
        )
    convolution = _off(answer, _random(30, 3, 2, 2, seed=5))
    if abs(convolution) > 1e-3:
        raise Mistake(
            f"Right for a matrix; for a convolution's weight (30, 3, 2, 2) the energy is {convolution:+.1%} off. A "
            "neuron is all that belongs to one output: flatten what follows the first dimension."
        )
    near, nearest = _off(answer, _twins(1e-4)), _off(answer, _twins(1e-7))
    if not math.isfinite(near):
        raise Mistake(
            "With twins 1e-4 apart the result is not a finite number. Their cosine rounds to 1 in float32, so 2 - 2 "
            "cos becomes 0 (or less, and its root NaN)."
        )
    if near < -0.02 or nearest < -0.5:
        raise Mistake(
            f"With twins the energy is {-min(near, nearest):.0%} too small. A clamp, a small number added to the "
            "distance or a pair left out: the number is finite, and wrong. Compute the small distance, do not hide it."
        )
    if abs(near) > 2e-6:
        raise Mistake(
            f"With twins 1e-4 apart the energy is off by {abs(near):.0e} of its value. Something was rounded to "
            "float32 on the way, perhaps when the rows were divided by their lengths, or a small number was added to "
            "the distances. Start with weight.double() and add nothing."
        )
    if not abs(nearest) < 1e-4:
        raise Mistake(
            "Right for twins 1e-4 apart, not for 1e-7: there 1 - cos is 5e-15, and float64 holds a cosine near 1 only "
            "to 1e-16. Compute the distances from differences, (u_i - u_j).norm()."
        )


def _off(answer, weight: torch.Tensor) -> float:
    """By which share of the truth the answer is off."""
    given = _tensor(answer(weight), (), {(435,): "Take the mean over the pairs."})
    return float(given) / _true_energy(weight) - 1


@careful_energy.right
def _all_differences(weight):
    u = _unit(weight.flatten(1).double())
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (1 / (u[i] - u[j]).norm(dim=1)).mean()


@careful_energy.right
def _row_against_later_rows(weight):
    u = F.normalize(weight.flatten(1).double())
    return sum((1 / (u[i + 1 :] - u[i]).norm(dim=1)).sum() for i in range(len(u))) / (len(u) * (len(u) - 1) / 2)


@careful_energy.right
def _exact_cdist(weight):
    u = F.normalize(weight.flatten(1).double())
    d = torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return float((1 / d).sum() / (len(u) * (len(u) - 1)))


@careful_energy.wrong("is not a finite number")
def _float32_gram(weight):
    u = F.normalize(weight.flatten(1))
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (2 - 2 * (u @ u.T)[i, j]).clamp(min=0).rsqrt().mean()


@careful_energy.wrong("A clamp, a small number added")
def _clamped(weight):
    u = F.normalize(weight.flatten(1))
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (2 - 2 * (u @ u.T)[i, j]).clamp(min=1e-6).rsqrt().mean()


@careful_energy.wrong("Something was rounded")
def _rounded_rows(weight):
    return (1 / torch.pdist(F.normalize(weight.flatten(1)).double())).mean()


@careful_energy.wrong("not for 1e-7")
def _float64_gram(weight):
    u = F.normalize(weight.flatten(1).double())
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (2 - 2 * (u @ u.T)[i, j]).abs().rsqrt().nan_to_num(posinf=1e9).mean()


@careful_energy.wrong("Already without twins")
def _no_directions(weight):
    return (1 / torch.pdist(weight.flatten(1).double())).mean()


@careful_energy.wrong("Take the mean over the pairs.")
def _no_mean(weight):
    return 1 / torch.pdist(F.normalize(weight.flatten(1).double()))


@careful_energy.wrong("for a convolution's weight")
def _for_matrices_only(weight):
    u = F.normalize(weight.double())
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (1 / (u[i] - u[j]).flatten(1).norm(dim=1)).mean()
