"""The closed form against a general solver of the same problem, on random numbers; dependent and contradictory rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorial_lib.custom_diffusion.least_squares import LeastChange, triangle


def problem(seed: int, o: int, d: int, s: int, n: int):
    """W0 (o, d), C_reg (n, d), C (s, d), V (s, o), all float64."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((o, d), (n, d), (s, d), (s, o)))


def lagrange(W0, C_reg, C, V, ridge: float):
    """W of the same problem by the whole system of Lagrange's equations in numpy: no shortcut, no shared code."""
    W0, C_reg, C, V = (x.numpy() for x in (W0, C_reg, C, V))
    d, s = C.shape[1], C.shape[0]
    system = np.zeros((d + s, d + s))
    system[:d, :d] = 2 * (C_reg.T @ C_reg + ridge * np.eye(d))
    system[:d, d:], system[d:, :d] = C.T, C
    right = np.concatenate([system[:d, :d] @ W0.T, V])
    return torch.from_numpy(np.linalg.lstsq(system, right, rcond=1e-13)[0][:d].T)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    o=st.integers(1, 9),
    d=st.integers(4, 12),
    s=st.integers(1, 4),
    extra=st.integers(0, 30),
    ridge=st.sampled_from([0.0, 0.1, 10.0]),
)
def test_it_is_the_general_solvers_solution(seed, o, d, s, extra, ridge):
    W0, C_reg, C, V = problem(seed, o, d, s, d + extra)
    solver = LeastChange(triangle([C_reg]), C, ridge)
    wanted = V.T - W0 @ C.T
    change = solver.solve(wanted)
    expected = lagrange(W0, C_reg, C, V, ridge) - W0
    torch.testing.assert_close(change, expected, atol=1e-7 * max(1, expected.abs().max().item()), rtol=1e-7)
    assert solver.constraint_error(change, wanted) < 1e-8
    assert solver.stationarity_error(wanted) < 1e-8


def test_it_is_what_a_numeric_optimiser_finds():
    from scipy.optimize import minimize

    W0, C_reg, C, V = problem(3, 2, 4, 1, 20)
    change = LeastChange(triangle([C_reg]), C).solve(V.T - W0 @ C.T)

    def objective(flat):
        return float((C_reg.numpy() @ (flat.reshape(2, 4) - W0.numpy()).T).__pow__(2).sum())

    def constraint(flat):
        return (flat.reshape(2, 4) @ C.numpy().T - V.numpy().T).ravel()

    found = minimize(objective, W0.numpy().ravel(), method="SLSQP", constraints={"type": "eq", "fun": constraint},
                     options={"ftol": 1e-14, "maxiter": 500})  # fmt: skip
    np.testing.assert_allclose(W0.numpy() + change.numpy(), found.x.reshape(2, 4), atol=1e-5)


def test_the_stationarity_error_is_that_of_the_change_itself():
    """(W - W0) G has no part outside the constraints' rows."""
    W0, C_reg, C, V = problem(6, 4, 8, 3, 25)
    solver = LeastChange(triangle([C_reg]), C, ridge=0.3)
    wanted = V.T - W0 @ C.T
    G = C_reg.T @ C_reg + 0.3 * torch.eye(8, dtype=torch.float64)
    gradient = solver.solve(wanted) @ G
    rows = torch.linalg.svd(C, full_matrices=False).Vh
    assert (gradient - gradient @ rows.T @ rows).norm() < 1e-10 * gradient.norm()
    torch.testing.assert_close(wanted @ solver.gradient, gradient)
    solver.gradient[0, 0] += 1e-3
    assert solver.stationarity_error(wanted) > 1e-6


def test_any_other_solution_of_the_constraints_changes_more():
    W0, C_reg, C, V = problem(5, 4, 8, 3, 25)
    change = LeastChange(triangle([C_reg]), C).solve(V.T - W0 @ C.T)
    free = torch.linalg.svd(C).Vh[3:]  # directions that the constraints do not see
    least = (change @ C_reg.T).norm()
    for seed in range(5):
        step = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ free
        assert ((change + 1e-3 * step) @ C_reg.T).norm() > least


def test_one_operator_serves_matrices_of_any_height():
    _, C_reg, C, _ = problem(7, 2, 9, 3, 40)
    solver = LeastChange(triangle([C_reg]), C)
    for o in (1, 5, 17):
        W0, _, _, V = problem(o, o, 9, 3, 1)
        expected = lagrange(W0, C_reg, C, V, 0.0) - W0
        torch.testing.assert_close(solver.solve(V.T - W0 @ C.T), expected, atol=1e-9, rtol=1e-9)


def test_chunks_give_the_gram_matrix_of_all_rows():
    _, C_reg, _, _ = problem(8, 1, 6, 1, 50)
    R = triangle(C_reg.split(7))
    torch.testing.assert_close(R.T @ R, C_reg.T @ C_reg)
    assert R.shape == (6, 6) and R.tril(-1).count_nonzero() == 0


def test_rows_said_twice_count_once():
    W0, C_reg, C, V = problem(9, 4, 10, 3, 40)
    plain = LeastChange(triangle([C_reg]), C)
    twice = LeastChange(triangle([C_reg]), torch.cat([C, C[1:], 2 * C[:1]]))
    wanted = V.T - W0 @ C.T
    repeated = torch.cat([wanted, wanted[:, 1:], 2 * wanted[:, :1]], 1)
    torch.testing.assert_close(twice.solve(repeated), plain.solve(wanted))
    assert (plain.rank, twice.rank, len(twice.C)) == (3, 3, 6)
    assert twice.constraint_error(twice.solve(repeated), repeated) < 1e-8
    assert twice.stationarity_error(repeated) < 1e-8


def test_one_row_with_two_values_is_a_contradiction():
    W0, C_reg, C, V = problem(10, 4, 10, 2, 40)
    solver = LeastChange(triangle([C_reg]), torch.cat([C, C[:1]]))
    with pytest.raises(ValueError, match="contradict one another"):
        solver.solve(torch.cat([V.T - W0 @ C.T, W0 @ C[:1].T + 1], 1))


def test_more_constraints_than_directions_are_a_contradiction():
    W0, C_reg, C, V = problem(11, 4, 6, 9, 40)
    with pytest.raises(ValueError, match="contradict one another"):
        LeastChange(triangle([C_reg]), C).solve(V.T - W0 @ C.T)


def test_too_few_captions_are_an_error_that_a_ridge_cures():
    W0, C_reg, C, V = problem(12, 4, 10, 2, 6)
    R = triangle([C_reg])
    with pytest.raises(ValueError, match=r"span only 6 of 10 directions.*ridge=\S+"):
        LeastChange(R, C)
    solver = LeastChange(R, C, ridge=0.5)
    wanted = V.T - W0 @ C.T
    torch.testing.assert_close(solver.solve(wanted), lagrange(W0, C_reg, C, V, 0.5) - W0, atol=1e-8, rtol=1e-7)
    assert solver.constraint_error(solver.solve(wanted), wanted) < 1e-8


def test_rounding_is_not_taken_for_directions():
    """Features of float32 that span 6 directions have noise in the other 4."""
    _, C_reg, C, _ = problem(13, 1, 10, 2, 60)
    flat = (C_reg[:, :6] @ torch.randn(6, 10, dtype=torch.float64)).float()
    LeastChange(triangle([flat]), C, noise=1e-12)  # a limit below the noise lets it through
    with pytest.raises(ValueError, match="span only 6 of 10"):
        LeastChange(triangle([flat]), C, noise=1e-6)


def test_a_large_ridge_gives_the_smallest_change_of_the_matrix_itself():
    W0, C_reg, C, V = problem(14, 4, 10, 2, 40)
    wanted = V.T - W0 @ C.T
    change = LeastChange(triangle([C_reg]), C, ridge=1e9).solve(wanted)
    torch.testing.assert_close(change, wanted @ torch.linalg.pinv(C.T), atol=1e-6, rtol=1e-6)


def test_bad_input():
    R = torch.eye(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="ridge: expected"):
        LeastChange(R, torch.ones(1, 4), ridge=-1)
    with pytest.raises(ValueError, match=r"shape \(rows, 4\), got \(1, 3\)"):
        LeastChange(R, torch.ones(1, 3))
    with pytest.raises(ValueError, match="no features"):
        triangle([])
