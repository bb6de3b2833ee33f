"""Checks of lesson 07, several concepts."""

from __future__ import annotations

import torch

from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor

# ------------------------------------------------------------------ omission

FOUND = (["person", "cat"], ["person"], ["fish", "person"], ["cat", "person"], ["cat", "cat"], ["person", "ball"])
ASKED = ("person", "cat")


@check
def omission(answer):
    """One share for each concept: a model that always drops the same one looks fine in the mean."""
    given = answer(FOUND, ASKED)
    if isinstance(given, float | int):
        raise Mistake("That is one number for all. Give each concept its own share: who gets lost is the question.")
    if not isinstance(given, dict) or set(given) != set(ASKED):
        raise Mistake(f"Expected a dict with a share for each of {', '.join(ASKED)}, got {given!r}.")
    missing = torch.tensor([sum(word not in kinds for kinds in FOUND) for word in ASKED], dtype=torch.float32)
    times = torch.tensor([sum(kinds.count(word) for kinds in FOUND) for word in ASKED], dtype=torch.float32)
    n = len(FOUND)
    compare(
        tensor([given[word] for word in ASKED], (2,)),
        missing / n,
        {
            "These are counts. Divide by the number of pictures, so that tables of different sizes can be compared.": (
                missing
            ),
            "This is the share of pictures in which the concept is there. Omission counts those where it is not.": (
                1 - missing / n
            ),
            "You divided by the number of concepts. Each concept is asked for in every picture: divide by the number "
            "of pictures.": missing / len(ASKED),
            "Two cats in a picture were counted twice, and hide that a cat is missing from another. Ask of each "
            "picture whether the word is in it.": 1 - times / n,
        },
    )


@omission.right
def _omission_by_loops(found, asked):
    shares = {}
    for word in asked:
        missing = 0
        for kinds in found:
            if word not in kinds:
                missing += 1
        shares[word] = missing / len(found)
    return shares


@omission.right
def _omission_by_means(found, asked):
    return {w: torch.tensor([float(w not in set(kinds)) for kinds in found]).mean() for w in asked}


@omission.wrong("These are counts")
def _omission_counts(found, asked):
    return {word: sum(word not in kinds for kinds in found) for word in asked}


@omission.wrong("in which the concept is there")
def _omission_present(found, asked):
    return {word: sum(word in kinds for kinds in found) / len(found) for word in asked}


@omission.wrong("one number for all")
def _omission_of_all(found, asked):
    return sum(word not in kinds for kinds in found for word in asked) / (len(found) * len(asked))


@omission.wrong("divided by the number of concepts")
def _omission_by_concepts(found, asked):
    return {word: sum(word not in kinds for kinds in found) / len(asked) for word in asked}


@omission.wrong("counted twice")
def _omission_by_count(found, asked):
    return {word: 1 - sum(kinds.count(word) for kinds in found) / len(found) for word in asked}


# ------------------------------------------------------------------ added


@check
def added(answer):
    """What each concept changed is added once, to a base that stands once."""
    base, tuned = randn(3, 5, seed=1), [randn(3, 5, seed=2), randn(3, 5, seed=3), randn(3, 5, seed=4)]
    given = tensor(answer(base, tuned), (3, 5))
    total = sum(tuned)
    compare(
        given,
        base + sum(w - base for w in tuned),
        {
            "You added the matrices themselves, so the base is in the sum three times. Add what each one changed.": (
                total
            ),
            "The base is in the sum as well as in each matrix. Take the differences first, then add the base once.": (
                base + total
            ),
            "These are the differences alone: the base is missing, and with it all that the model knew.": (
                total - 3 * base
            ),
            "This is the mean: each concept has a third of its strength only.": total / 3,
            "Only the last concept is left. Add up all of them, not each to the base anew.": tuned[-1],
        },
    )


@added.right
def _added_in_a_loop(base, tuned):
    result = base.clone()
    for w in tuned:
        result += w - base
    return result


@added.right
def _added_by_counting(base, tuned):
    return torch.stack(tuned).sum(0) - (len(tuned) - 1) * base


@added.wrong("base is in the sum three times")
def _added_matrices(base, tuned):
    return sum(tuned)


@added.wrong("as well as in each matrix")
def _added_base_and_matrices(base, tuned):
    return base + sum(tuned)


@added.wrong("differences alone")
def _added_differences(base, tuned):
    return sum(w - base for w in tuned)


@added.wrong("third of its strength")
def _added_mean(base, tuned):
    return torch.stack(tuned).mean(0)


@added.wrong("Only the last")
def _added_last(base, tuned):
    for w in tuned:
        result = base + (w - base)
    return result


@added.wrong("in place")
def _added_in_place(base, tuned):
    start = base.clone()
    for w in tuned:
        base += w - start
    return base


# ------------------------------------------------------------------ merged


def _problem(o: int = 4, d: int = 6, s: int = 2, n: int = 20):
    """W0 (o, d), C (s, d), V (s, o), C_reg (n, d) in float64; the directions of C_reg differ in weight."""
    scale = torch.linspace(0.5, 2, d)
    parts = (randn(o, d, seed=5), randn(s, d, seed=6), randn(s, o, seed=7), randn(n, d, seed=8) * scale)
    return tuple(part.double() for part in parts)


def _solution(W0, C, V, C_reg):
    D = C @ torch.linalg.inv(C_reg.T @ C_reg)
    return W0 + (V.T - W0 @ C.T) @ torch.linalg.inv(D @ C.T) @ D


@check
def merged(answer):
    """It does to its words exactly what was asked, and of all such matrices it changes the captions least."""
    W0, C, V, C_reg = problem = _problem()
    shapes = {
        (6, 4): "It is transposed: W has as many rows as W0.",
        (4, 2): "This is the change that is wanted of the words, or the multipliers. A matrix d must still follow.",
    }
    given = tensor(answer(*problem), (4, 6), shapes)
    right = _solution(*problem)
    D, wanted = C @ torch.linalg.inv(C_reg.T @ C_reg), V.T - W0 @ C.T
    soft = (W0 @ C_reg.T @ C_reg + V.T @ C) @ torch.linalg.inv(C_reg.T @ C_reg + C.T @ C)
    compare(
        given,
        right,
        {
            "This is the change alone. Add W0.": right - W0,
            "W0 is added, but what it makes of the words was not taken off: the wanted change is V^T - W0 C^T.": (
                W0 + V.T @ torch.linalg.inv(D @ C.T) @ D
            ),
            "The constraint holds, but C_reg has no effect: this is the least change of the matrix, not of what it "
            "makes of captions. Use d = C (C_reg^T C_reg)^-1.": W0 + wanted @ torch.linalg.inv(C @ C.T) @ C,
            "(d C^T)^-1 is missing: the words are changed in the right direction by the wrong amount.": W0 + wanted @ D,
            "You multiplied by C_reg^T C_reg where its inverse belongs: directions that captions use often would be "
            "changed most.": _solution_with(W0, C, V, C_reg.T @ C_reg),
            "This is a compromise between words and captions (one least-squares problem for both). The words are a "
            "constraint: they must hold exactly.": soft,
        },
    )


def _solution_with(W0, C, V, inverse):
    D = C @ inverse
    return W0 + (V.T - W0 @ C.T) @ torch.linalg.inv(D @ C.T) @ D


@merged.right
def _merged_by_solve(W0, C, V, C_reg):
    D = torch.linalg.solve(C_reg.T @ C_reg, C.T).T
    multipliers = torch.linalg.solve(D @ C.T, (V.T - W0 @ C.T).T).T
    return W0 + multipliers @ D


@merged.right
def _merged_by_one_system(W0, C, V, C_reg):
    """The KKT conditions as one linear system, row by row of W."""
    G, s = C_reg.T @ C_reg, len(C)
    K = torch.cat([torch.cat([G, C.T], 1), torch.cat([C, torch.zeros(s, s, dtype=C.dtype)], 1)])
    rows = torch.linalg.solve(K, torch.cat([G @ W0.T, V]))
    return rows[: G.shape[0]].T


@merged.wrong("the change alone")
def _merged_change(W0, C, V, C_reg):
    return _solution(W0, C, V, C_reg) - W0


@merged.wrong("was not taken off")
def _merged_without_base(W0, C, V, C_reg):
    D = C @ torch.linalg.inv(C_reg.T @ C_reg)
    return W0 + V.T @ torch.linalg.inv(D @ C.T) @ D


@merged.wrong("C_reg has no effect")
def _merged_unregularised(W0, C, V, C_reg):
    return W0 + (V.T - W0 @ C.T) @ torch.linalg.pinv(C.T)


@merged.wrong("is missing: the words")
def _merged_without_inverse(W0, C, V, C_reg):
    return W0 + (V.T - W0 @ C.T) @ C @ torch.linalg.inv(C_reg.T @ C_reg)


@merged.wrong("where its inverse belongs")
def _merged_gram(W0, C, V, C_reg):
    return _solution_with(W0, C, V, C_reg.T @ C_reg)


@merged.wrong("compromise")
def _merged_softly(W0, C, V, C_reg):
    rows, wanted = torch.cat([C_reg, C]), torch.cat([C_reg @ W0.T, V])
    return torch.linalg.lstsq(rows, wanted).solution.T


@merged.wrong("transposed")
def _merged_transposed(W0, C, V, C_reg):
    return _solution(W0, C, V, C_reg).T


@merged.wrong("in place")
def _merged_in_place(W0, C, V, C_reg):
    W0 += _solution(W0, C, V, C_reg) - W0
    return W0


# ------------------------------------------------------------------ kkt


@check
def kkt(answer):
    """Both must vanish: the words are as asked, and no change that leaves the words alone could lower the cost."""
    W0, C, V, C_reg = problem = _problem()
    G, least = C_reg.T @ C_reg, W0 + (V.T - W0 @ C.T) @ torch.linalg.pinv(C.T)
    at_solution, given, free = (_two(answer(W, *problem)) for W in (_solution(*problem), least, W0))
    if at_solution[0] < 1e-8 and at_solution[1] > 1e-8 and given[1] < 1e-8:
        raise Mistake(
            "The second number is 0 for the least change of the matrix, which is not the solution: C_reg is missing. "
            "The gradient is (W - W0) G with G = C_reg^T C_reg."
        )
    if max(at_solution) > 1e-8:
        if at_solution[0] < 1e-8:
            raise Mistake(
                "At the solution the second number is not 0. The gradient (W - W0) G itself does not vanish there: the "
                "constraints hold against it. Take off the part that is made of the rows of C."
            )
        raise Mistake("At the solution the first number is not 0: it is the length of W C^T - V^T.")
    if given[0] > 1e-8:
        raise Mistake(
            "For a matrix that does what the words ask, the first number is not 0: it is the length of W C^T - V^T."
        )
    inside = torch.linalg.pinv(C) @ C
    gradient = (least - W0) @ G
    rest = gradient - gradient @ inside
    if abs(given[1] - 2 * rest.norm().item()) < 1e-3 * given[1]:
        raise Mistake("The second number is twice too large: the factor 2 of the square's gradient is left out here.")
    if abs(free[0] - (W0 @ C.T - V.T).square().sum().item()) < 1e-3:
        raise Mistake("The first number is a square. A length is the root of the sum of squares: use .norm().")
    if abs(given[1] - rest.square().sum().item()) < 1e-3 * given[1]:
        raise Mistake("The second number is a square. A length is the root of the sum of squares: use .norm().")
    right = ((W0 @ C.T - V.T).norm().item(), rest.norm().item())
    for value, expected, which in ((free[0], right[0], "first"), (given[1], right[1], "second")):
        if abs(value - expected) > 1e-3 * expected:
            raise Mistake(f"The {which} number is {value:.4g} in a test where it should be {expected:.4g}.")


def _two(given) -> tuple[float, float]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Mistake(f"Expected two numbers, (constraint, stationarity), got {type(given).__name__}.")
    try:
        return tuple(float(value) for value in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mistake("Expected two numbers: take the length of each remainder, with .norm().") from error


@kkt.right
def _kkt_by_least_squares(W, W0, C, V, C_reg):
    gradient = (W - W0) @ C_reg.T @ C_reg
    multipliers = torch.linalg.lstsq(C.T, gradient.T).solution
    return (W @ C.T - V.T).norm(), (gradient.T - C.T @ multipliers).norm()


@kkt.right
def _kkt_by_projection(W, W0, C, V, C_reg):
    basis = torch.linalg.qr(C.T).Q
    gradient = (W - W0) @ (C_reg.T @ C_reg)
    rest = gradient - gradient @ basis @ basis.T
    return (C @ W.T - V).square().sum().sqrt().item(), rest.square().sum().sqrt().item()


@kkt.wrong("constraints hold against it")
def _kkt_gradient(W, W0, C, V, C_reg):
    return (W @ C.T - V.T).norm(), ((W - W0) @ C_reg.T @ C_reg).norm()


@kkt.wrong("At the solution the first number")
def _kkt_against_base(W, W0, C, V, C_reg):
    good = _kkt_by_projection(W, W0, C, V, C_reg)
    return (W @ C.T - W0 @ C.T).norm(), good[1]


@kkt.wrong("C_reg is missing")
def _kkt_without_captions(W, W0, C, V, C_reg):
    """Zero for the least change of the matrix, and not for the solution."""
    change = W - W0
    return (W @ C.T - V.T).norm(), (change - change @ torch.linalg.pinv(C) @ C).norm()


@kkt.wrong("first number is a square")
def _kkt_squares(W, W0, C, V, C_reg):
    good = _kkt_by_projection(W, W0, C, V, C_reg)
    return good[0] ** 2, good[1] ** 2


@kkt.wrong("second number is a square")
def _kkt_second_square(W, W0, C, V, C_reg):
    good = _kkt_by_projection(W, W0, C, V, C_reg)
    return good[0], good[1] ** 2


@kkt.wrong("twice too large")
def _kkt_with_factor(W, W0, C, V, C_reg):
    good = _kkt_by_projection(W, W0, C, V, C_reg)
    return good[0], 2 * good[1]


@kkt.wrong("Expected two numbers: take the length")
def _kkt_matrices(W, W0, C, V, C_reg):
    gradient = (W - W0) @ C_reg.T @ C_reg
    return W @ C.T - V.T, gradient - gradient @ torch.linalg.pinv(C) @ C


# ------------------------------------------------------------------ kept_rank

SPECTRA = ((5.0, 3.0, 1.0, 0.6, 0.4), (9.0, 0.5, 0.3, 0.2), (2.1, 2.0, 2.0, 1.8, 1.1, 1.0))


@check
def kept_rank(answer):
    """As many as sum up to at most the ratio, and one at least, or the concept would be gone."""
    cases = [(torch.tensor(values), ratio) for values in SPECTRA for ratio in (0.6, 0.85)]
    given = [_whole(answer(values, ratio)) for values, ratio in cases]
    right = [max(1, _within(values, ratio)) for values, ratio in cases]
    if given == right:
        return
    known = {
        "One too many: the value with which the sum passes the ratio is left out.": [
            _within(values, ratio) + 1 for values, ratio in cases
        ],
        "Where the first value is more than the ratio by itself, you keep none, and the concept is gone. Keep one at "
        "least.": [_within(values, ratio) for values, ratio in cases],
        "You summed squares. The paper sums the singular values themselves.": [
            max(1, _within(values.square(), ratio)) for values, ratio in cases
        ],
        "You took a share of their number. The ratio is a share of their sum: large values count for more.": [
            max(1, int(len(values) * ratio)) for values, ratio in cases
        ],
        "You kept every value above a share of the largest. The ratio is a share of the sum.": [
            int((values >= ratio * values[0]).sum()) for values, ratio in cases
        ],
        "The sums were not divided by the sum of all, so the ratio was compared with the wrong number.": [
            max(1, int((values.cumsum(0) <= ratio).sum())) for values, ratio in cases
        ],
    }
    for message, wrong in known.items():
        if given == wrong:
            raise Mistake(message)
    k = next(k for k, (a, b) in enumerate(zip(given, right, strict=True)) if a != b)
    raise Mistake(
        f"Of {[round(v, 2) for v in cases[k][0].tolist()]} with ratio {cases[k][1]:g} you keep {given[k]}, and it "
        f"should be {right[k]}."
    )


def _within(values: torch.Tensor, ratio: float) -> int:
    return int((values.cumsum(0) / values.sum() <= ratio).sum())


def _whole(given) -> int:
    try:
        number = float(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mistake(f"Expected a whole number, got {type(given).__name__}.") from error
    if number != int(number):
        raise Mistake(f"Expected a whole number, got {number}.")
    return int(number)


@kept_rank.right
def _kept_rank_in_a_loop(values, ratio):
    total, kept = 0.0, 0
    for value in values.tolist():
        total += value
        if total > ratio * values.sum().item():
            break
        kept += 1
    return max(kept, 1)


@kept_rank.right
def _kept_rank_by_search(values, ratio):
    shares = values.cumsum(0) / values.sum()
    return max(1, torch.searchsorted(shares, torch.tensor(ratio), right=True).item())


@kept_rank.wrong("One too many")
def _kept_rank_passing(values, ratio):
    return int((values.cumsum(0) / values.sum() <= ratio).sum()) + 1


@kept_rank.wrong("concept is gone")
def _kept_rank_none(values, ratio):
    return int((values.cumsum(0) / values.sum() <= ratio).sum())


@kept_rank.wrong("You summed squares")
def _kept_rank_energy(values, ratio):
    energy = values.square()
    return max(1, int((energy.cumsum(0) / energy.sum() <= ratio).sum()))


@kept_rank.wrong("a share of their number")
def _kept_rank_count(values, ratio):
    return max(1, int(len(values) * ratio))


@kept_rank.wrong("above a share of the largest")
def _kept_rank_threshold(values, ratio):
    return int((values >= ratio * values.max()).sum())


@kept_rank.wrong("not divided by the sum of all")
def _kept_rank_absolute(values, ratio):
    return max(1, int((values.cumsum(0) <= ratio).sum()))
