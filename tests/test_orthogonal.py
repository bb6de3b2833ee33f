"""The Cayley map and its kin: laws for many sizes, gradients against numbers, and the series beside the exact map."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorial_lib import orthogonal
from tutorial_lib.orthogonal import cayley, cayley_neumann, orthogonality_error, project, skew_symmetric


def random_skew(blocks: int, size: int, norm: float, seed: int = 0, kind: str = "dense") -> torch.Tensor:
    """Skew blocks with ||Q||_2 = norm."""
    generator = torch.Generator().manual_seed(seed)
    U = torch.randn(blocks, size, size, generator=generator)
    if kind == "corners":  # all of Q is in the part that halving leaves to the Schur complement
        U[:, : size // 2, : size // 2] *= 0.01
        U[:, size // 2 :, size // 2 :] *= 0.01
    if kind == "sparse":
        U *= torch.rand(U.shape, generator=generator) < 0.1
        U[:, 0, 1] = 1.0
    Q = U - U.mT
    return Q / torch.linalg.matrix_norm(Q, ord=2)[:, None, None] * norm


# ------------------------------------------------------------------ vectors and skew matrices


def test_the_vector_fills_the_upper_triangle_row_by_row():
    Q = skew_symmetric(torch.tensor([[1.0, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]), 4)
    assert Q[0].tolist() == [[0, 1, 2, 3], [-1, 0, 4, 5], [-2, -4, 0, 6], [-3, -5, -6, 0]]
    assert Q[1, 0].tolist() == [0, 7, 8, 9]


@given(blocks=st.integers(1, 5), size=st.integers(2, 33), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_skew_symmetric_and_upper_triangle_are_inverse(blocks, size, seed):
    vector = torch.randn(blocks, size * (size - 1) // 2, generator=torch.Generator().manual_seed(seed))
    Q = skew_symmetric(vector, size)
    assert torch.equal(Q, -Q.mT)
    assert torch.equal(orthogonal.upper_triangle(Q), vector)


def test_a_vector_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"size 8 has 28 .* expected .*\(blocks, 28\), got \(3, 27\)"):
        skew_symmetric(torch.zeros(3, 27), 8)


# ------------------------------------------------------------------ the exact map


@pytest.mark.parametrize("size", [2, 3, 5, 8, 16, 17, 24, 32, 45, 64, 80, 128])
@pytest.mark.parametrize("norm", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("kind", ["dense", "corners", "sparse"])
def test_cayley_is_orthogonal_in_float32(size, norm, kind):
    Q = random_skew(6, size, norm, seed=size, kind=kind)
    R = cayley(Q)
    eye = torch.eye(size, dtype=torch.float64)
    exact = torch.linalg.solve(eye - Q.double(), eye + Q.double())
    assert R.dtype == torch.float32
    assert orthogonality_error(R) < 2e-5
    assert (R - exact).abs().max() < 1e-5
    assert torch.allclose(torch.linalg.det(R.double()), torch.ones(6, dtype=torch.float64), atol=1e-3)


def test_cayley_in_two_dimensions_is_a_turn_by_twice_the_arctangent():
    t = torch.tensor(0.3)
    angle = 2 * torch.atan(t)
    R = cayley(skew_symmetric(t.view(1, 1), 2))[0]
    expected = torch.stack([torch.cos(angle), torch.sin(angle), -torch.sin(angle), torch.cos(angle)]).view(2, 2)
    torch.testing.assert_close(R, expected)


@pytest.mark.parametrize("size", [4, 40])
def test_zero_is_the_identity_exactly_and_minus_is_the_inverse(size):
    assert torch.equal(cayley(torch.zeros(3, size, size)), torch.eye(size).expand(3, size, size))
    Q = random_skew(3, size, 2.0)
    torch.testing.assert_close(cayley(-Q), cayley(Q).mT, atol=2e-6, rtol=0)
    torch.testing.assert_close(orthogonal.inverse_cayley(cayley(Q.double())), Q.double())


def test_small_turns_are_the_identity_plus_two_q():
    Q = random_skew(3, 24, 1e-4).double()
    assert (cayley(Q) - torch.eye(24) - 2 * Q).abs().max() < 3e-8  # the next term is 2 Q^2


@pytest.mark.parametrize("size", [5, 20, 37])
@pytest.mark.parametrize("norm", [0.5, 6.0])
def test_the_gradient_of_cayley_is_that_of_its_definition(size, norm):
    Q = random_skew(2, size, norm).double().requires_grad_()
    weights = torch.randn(2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    eye = torch.eye(size, dtype=torch.float64)
    (ours,) = torch.autograd.grad((weights * cayley(Q)).sum(), Q)
    (defined,) = torch.autograd.grad((weights * ((eye + Q) @ torch.linalg.inv(eye - Q))).sum(), Q)
    # Off the skew matrices the two formulas differ, so only the skew parts have to agree.
    torch.testing.assert_close(ours - ours.mT, defined - defined.mT)


def test_first_and_second_derivatives_by_finite_differences():
    vector = torch.randn(2, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def R(v):
        return cayley(skew_symmetric(v, 5))

    assert torch.autograd.gradcheck(R, vector)
    assert torch.autograd.gradgradcheck(R, vector)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    Q = random_skew(3, 32, 3.0).to(dtype).requires_grad_()
    R = cayley(Q)
    assert R.dtype == torch.float32
    assert torch.equal(R, cayley(Q.float()))
    R.square().mul(torch.rand_like(R)).sum().backward()
    assert Q.grad.dtype == dtype and torch.isfinite(Q.grad).all()


def test_autocast_does_not_reach_into_cayley():
    Q = random_skew(3, 64, 3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        R, series = cayley(Q), cayley_neumann(Q, 5)
    assert torch.equal(R, cayley(Q)) and torch.equal(series, cayley_neumann(Q, 5))


def test_more_batch_dimensions_and_none():
    Q = random_skew(6, 18, 2.0)
    torch.testing.assert_close(cayley(Q.view(2, 3, 18, 18)).view(6, 18, 18), cayley(Q), atol=1e-6, rtol=0)
    torch.testing.assert_close(cayley(Q[0]), cayley(Q)[0], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="square"):
        cayley(torch.zeros(3, 4, 5))


# ------------------------------------------------------------------ the series


def test_the_series_term_by_term():
    Q = random_skew(2, 6, 0.4).double()
    eye = torch.eye(6, dtype=torch.float64)
    powers = [eye, Q, Q @ Q, Q @ Q @ Q, Q @ Q @ Q @ Q, Q @ Q @ Q @ Q @ Q]
    for terms, coefficients in {
        1: [1],
        2: [1, 2],
        3: [1, 2, 2, 1],
        4: [1, 2, 2, 1],
        5: [1, 2, 2, 2, 1],
        6: [1, 2, 2, 2, 2, 1],
    }.items():
        expected = sum(c * power for c, power in zip(coefficients, powers))
        torch.testing.assert_close(cayley_neumann(Q, terms), expected.expand_as(Q))
    with pytest.raises(ValueError, match="at least one term"):
        cayley_neumann(Q, 0)


def test_the_series_loses_orthogonality_where_cayley_does_not():
    errors = [orthogonality_error(cayley_neumann(random_skew(4, 32, norm), 5)).item() for norm in (0.1, 0.3, 1.0, 2.2)]
    assert all(later > 10 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[0] > 1e-4 and errors[-1] > 100
    assert orthogonality_error(cayley(random_skew(4, 32, 2.2))) < 2e-5


def test_three_terms_are_more_orthogonal_than_five_but_further_from_cayley():
    Q = random_skew(4, 32, 0.3).double()
    three, five, exact = cayley_neumann(Q, 3), cayley_neumann(Q, 5), cayley(Q)
    assert orthogonality_error(three) < orthogonality_error(five) / 5
    assert (three - exact).norm() > 2 * (five - exact).norm()


# ------------------------------------------------------------------ COFT's ball


@given(st.integers(2, 20), st.floats(1e-4, 1e3), st.floats(1e-6, 1e4), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_projection_is_the_nearest_point_of_the_ball(size, radius, scale, seed):
    vector = scale * torch.randn(3, size * (size - 1) // 2, generator=torch.Generator().manual_seed(seed))
    vector[0] = 0
    inside = project(vector, radius)
    norms = torch.linalg.matrix_norm(skew_symmetric(vector.double(), size))
    after = torch.linalg.matrix_norm(skew_symmetric(inside.double(), size))
    assert (after <= radius).all()
    assert torch.equal(project(inside, radius), inside)
    kept = norms <= radius * (1 - 1e-5)
    assert torch.equal(inside[kept], vector[kept])
    out = norms > radius * (1 + 1e-5)
    torch.testing.assert_close(
        inside[out].double(), vector[out].double() * (radius / norms[out])[:, None], rtol=1e-5, atol=0
    )


def test_projection_has_a_gradient_also_at_zero():
    vector = torch.tensor([[0.0, 0, 0], [3, 0, 4]], requires_grad=True)
    project(vector, 1.0).sum().backward()
    assert torch.isfinite(vector.grad).all()
    assert vector.grad[0].tolist() == [1, 1, 1]
    assert abs(vector.grad[1] @ torch.tensor([3.0, 0, 4])) < 1e-6  # nothing along the radius outside of the ball


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_a_radius_that_is_no_positive_number_is_refused(radius):
    with pytest.raises(ValueError, match="positive number"):
        project(torch.zeros(1, 3), radius)


def test_orthogonality_error_is_the_spectral_norm_of_the_worst_block():
    R = torch.eye(3).repeat(2, 1, 1)
    R[1, 0, 0] = 1.1
    assert orthogonality_error(R).item() == pytest.approx(0.21, abs=1e-6)
