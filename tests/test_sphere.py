"""sphere.py against a plain reference in float64, and the laws that energies, angles and arcs obey."""

import math
import subprocess
import sys

import pytest
import torch

from tutorial_lib import models, sphere
from tutorial_lib.sphere import hyperspherical_energy, lerp, pairwise_angles, slerp


def _random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _rotation(n, seed=0):
    return torch.linalg.qr(_random(n, n, seed=seed, dtype=torch.float64))[0]


def _reference(weight, s=1.0, antipodal=False, reduction="mean"):
    """Every pair by the difference of its directions, float64."""
    u = torch.nn.functional.normalize(weight.double().flatten(1))
    u = torch.cat([u, -u]) if antipodal else u
    i, j = torch.triu_indices(len(u), len(u), 1)
    distance = (u[i] - u[j]).norm(dim=1)
    each = -distance.log() if s == 0 else distance**-s
    return (each.mean() if reduction == "mean" else each.sum()).item()


def _with_twins(gap, dtype=torch.float32):
    """(60, 40): rows 50 .. 59 lie `gap` away in direction from rows 0 .. 9, rows 40 .. 44 from minus rows 10 .. 14."""
    weight = _random(60, 40, dtype=dtype)
    for first, other, sign in ((50, 0, 1), (40, 10, -1)):
        count = 10 if sign == 1 else 5
        rows = weight[other : other + count]
        shift = torch.nn.functional.normalize(_random(count, 40, seed=1, dtype=dtype))
        weight[first : first + count] = sign * 2.5 * (rows + gap * rows.norm(dim=1, keepdim=True) * shift)
    return weight


@pytest.fixture(scope="module")
def trained():
    """A convolution that training gave structure."""
    unet = models.load("pocket").unet
    return unet.get_parameter("down_blocks.0.resnets.0.conv2.weight").detach()


# ------------------------------------------------------------------ agreement with the reference

WEIGHTS = {
    "random": _random(70, 33),
    "convolution": _random(24, 5, 3, 3),
    "more neurons than inputs": _random(90, 3),
    "bfloat16": _random(70, 33, dtype=torch.bfloat16),
    "float16": _random(70, 33, dtype=torch.float16),
    "twins 1e-2": _with_twins(1e-2),
    "twins 1e-4": _with_twins(1e-4),
    "twins 1e-6": _with_twins(1e-6),
    "twins 1e-8, float64": _with_twins(1e-8, torch.float64),
    "tiny and huge rows": _random(20, 6, dtype=torch.float64)
    * torch.logspace(-200, 200, 20, dtype=torch.float64)[:, None],
}


@pytest.mark.parametrize("antipodal", [False, True])
@pytest.mark.parametrize("s", [0, 1, 2, 0.5])
@pytest.mark.parametrize("name", WEIGHTS)
def test_energy_agrees_with_the_reference(name, s, antipodal):
    weight = WEIGHTS[name]
    reference = weight / weight.abs().amax(1, keepdim=True) if "huge" in name else weight
    for reduction in ("mean", "sum"):
        value = hyperspherical_energy(weight, s, antipodal, reduction).item()
        expected = _reference(reference, s, antipodal, reduction)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-8 if reduction == "mean" else 1e-4)


def test_energy_of_a_trained_weight_agrees_with_the_reference(trained):
    for weight in (trained, trained.bfloat16()):
        assert hyperspherical_energy(weight).item() == pytest.approx(_reference(weight), rel=1e-6)


def test_float32_gram_would_have_failed_these_tests():
    u = torch.nn.functional.normalize(_with_twins(1e-4))
    i, j = torch.triu_indices(len(u), len(u), 1)
    naive = (2 - 2 * (u @ u.T)[i, j]).rsqrt().mean().item()
    assert not naive == pytest.approx(_reference(_with_twins(1e-4)), rel=1e-3)


def test_known_arrangements():
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)])
    assert hyperspherical_energy(octahedron, reduction="sum").item() == pytest.approx(12 / 2**0.5 + 3 / 2)
    assert hyperspherical_energy(5 * torch.eye(7)).item() == pytest.approx(2**-0.5)
    assert hyperspherical_energy(torch.eye(4), s=0).item() == pytest.approx(-math.log(2) / 2)
    assert hyperspherical_energy(torch.eye(4), s=2).item() == pytest.approx(0.5)
    assert hyperspherical_energy(torch.eye(3), antipodal=True).item() == pytest.approx((12 / 2**0.5 + 3 / 2) / 15)


@pytest.mark.parametrize("antipodal", [False, True])
def test_chunks_change_nothing(monkeypatch, antipodal):
    weight = _with_twins(1e-6, torch.float64).requires_grad_()
    results = []
    for chunk in (2**22, 500, 1):
        monkeypatch.setattr(sphere, "CHUNK", chunk)
        energy = hyperspherical_energy(weight, antipodal=antipodal)
        results.append((energy.detach(), *torch.autograd.grad(energy, weight), pairwise_angles(weight).detach()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * a.abs().max().item())


# ------------------------------------------------------------------ rotations


def test_turning_the_inputs_keeps_the_energy(trained):
    W = trained.double().flatten(1)
    for weight in (W, _with_twins(1e-2, torch.float64)):
        turned = hyperspherical_energy(weight @ _rotation(weight.shape[1]).T).item()
        assert turned == pytest.approx(hyperspherical_energy(weight).item(), rel=1e-9)


def test_turning_the_outputs_of_a_trained_weight_moves_the_energy(trained):
    W = trained.double().flatten(1)
    turned = hyperspherical_energy(_rotation(len(W)) @ W).item()
    assert abs(turned / hyperspherical_energy(W).item() - 1) > 1e-3


def test_lengths_of_the_rows_do_not_count():
    weight = _random(12, 7, dtype=torch.float64)
    scaled = weight * torch.logspace(-3, 3, 12, dtype=torch.float64)[:, None]
    assert hyperspherical_energy(scaled).item() == pytest.approx(hyperspherical_energy(weight).item(), rel=1e-12)


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("antipodal", [False, True])
@pytest.mark.parametrize("s", [0, 1, 2, 2.5])
def test_gradient(s, antipodal):
    weight = _random(6, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: hyperspherical_energy(w, s, antipodal), weight)


def test_gradient_of_near_twins():
    weight = _random(5, 4, dtype=torch.float64)
    weight[3] = 2 * weight[0] + 1e-3 * _random(4, seed=1, dtype=torch.float64)
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: 1e-9 * hyperspherical_energy(w), weight, eps=1e-8, atol=1e-9, rtol=1e-4)


def test_gradient_of_angles():
    weight = _random(5, 4, dtype=torch.float64)
    weight[3] = -weight[1] + 1e-3
    assert torch.autograd.gradcheck(pairwise_angles, weight.requires_grad_())


def test_descent_spreads_the_rows_and_float32_gradients_are_float32():
    weight = _random(4, 3).requires_grad_()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(hyperspherical_energy(weight), weight)
        assert gradient.dtype == torch.float32
        weight = (weight - 0.5 * gradient).detach().requires_grad_()
    tetrahedron = (3 / 8) ** 0.5  # four points at equal distances sqrt(8/3)
    assert hyperspherical_energy(weight).item() == pytest.approx(tetrahedron, abs=1e-5)


# ------------------------------------------------------------------ types, memory, errors


def test_float64_stays_and_all_else_gives_float32():
    for dtype, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        weight = _random(5, 4, dtype=dtype)
        assert hyperspherical_energy(weight).dtype == pairwise_angles(weight).dtype == expected
        assert hyperspherical_energy(weight).shape == ()


MEMORY = """
import torch
from tutorial_lib import sphere
from tutorial_lib.lab.session import peak_memory_mb
weight = torch.randn(4096, 64).requires_grad_()
sphere.hyperspherical_energy(weight[:2]).backward()
before = peak_memory_mb()
sphere.hyperspherical_energy(weight).backward()
print(peak_memory_mb() - before)
"""


def test_memory_is_bounded_forward_and_backward():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    whole_matrix = 4096**2 * 8 / 1e6  # MB, one of the several that an unchunked backward pass would hold
    assert 0 < float(run.stdout) < 1.5 * whole_matrix


@pytest.mark.parametrize("function", [hyperspherical_energy, pairwise_angles])
def test_rows_without_a_direction_are_named(function):
    weight = _random(9, 4)
    weight[6] = 0
    with pytest.raises(ValueError, match="row 6 of 9 is zero"):
        function(weight)
    weight[2, 1] = math.nan
    weight[4, 0] = math.inf
    with pytest.raises(ValueError, match=r"row 2 of 9 \(and 1 more\) holds NaN or infinity"):
        function(weight)


@pytest.mark.parametrize("shape", [(1, 5), (0, 5), (5,), (3, 0)])
def test_too_few_neurons_are_an_error_that_tells_the_shape(shape):
    with pytest.raises(
        ValueError, match=f"at least two neurons.*shape {tuple(shape)}".replace("(", r"\(").replace(")", r"\)")
    ):
        hyperspherical_energy(torch.ones(shape))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="floating-point"):
        hyperspherical_energy(torch.ones(3, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="got 'total'"):
        hyperspherical_energy(_random(3, 4), reduction="total")
    with pytest.raises(ValueError, match="got -1"):
        hyperspherical_energy(_random(3, 4), s=-1)


def test_equal_directions_give_infinity_and_an_error_in_training():
    weight = _random(8, 5)
    weight[2] = torch.tensor([1.0, -2.0, 3.0, 5.0, 7.0])
    weight[5] = 3 * weight[2]
    assert hyperspherical_energy(weight).item() == hyperspherical_energy(weight, s=0).item() == math.inf
    with pytest.raises(ValueError, match="rows 2 and 5 have one direction"):
        hyperspherical_energy(weight.requires_grad_()).backward()
    weight = _random(8, 5)
    weight[7] = -weight[1]
    assert math.isfinite(hyperspherical_energy(weight).item())
    with pytest.raises(ValueError, match="rows 1 and 7 have opposite directions"):
        hyperspherical_energy(weight.requires_grad_(), antipodal=True).backward()


# ------------------------------------------------------------------ angles


def test_angles_are_in_the_order_of_pdist():
    degrees = torch.tensor([0.0, 10.0, 130.0, 200.0])
    weight = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1) * torch.tensor([[1], [2], [3], [4]])
    torch.testing.assert_close(pairwise_angles(weight).rad2deg(), torch.tensor([10.0, 130, 160, 120, 170, 70]))


@pytest.mark.parametrize("angle", [1e-9, 1e-6, 1e-3, 0.0099, 0.0101, 1.0, math.pi / 2, 3.0])
def test_angles_are_exact_everywhere(angle):
    plane = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    weight = plane @ _rotation(6)[:2]  # in 6 dimensions
    assert pairwise_angles(weight).item() == pytest.approx(angle, rel=1e-6 if angle < 1e-8 else 1e-9)
    weight[1] *= -1
    assert math.pi - pairwise_angles(weight).item() == pytest.approx(angle, rel=1e-6, abs=1e-15)


# ------------------------------------------------------------------ slerp and lerp


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_both_start_at_a_and_end_at_b(dtype):
    a, b = _random(3, 4, 5, dtype=dtype), _random(3, 4, 5, seed=1, dtype=dtype)
    for way in (slerp, lerp):
        assert torch.equal(way(a, b, 0), a) and torch.equal(way(a, b, 1), b)
        assert way(a, b, 0.3).dtype == dtype and way(a, b, 0.3).shape == a.shape


def test_slerp_keeps_equal_norms_and_turns_evenly_where_lerp_does_not():
    a, b = _random(4, 8, 8), _random(4, 8, 8, seed=1)
    b = b * a.norm() / b.norm()
    walk = torch.stack([slerp(a, b, t) for t in (0, 0.25, 0.5, 0.75, 1)]).flatten(1)
    torch.testing.assert_close(walk.norm(dim=1), a.norm().expand(5))
    steps = torch.nn.functional.cosine_similarity(walk[1:], walk[:-1])
    torch.testing.assert_close(steps, steps[:1].expand(4))
    assert lerp(a, b, 0.5).norm() < 0.8 * a.norm()


def test_slerp_turns_from_x_to_y():
    x, y = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    torch.testing.assert_close(slerp(x, y, 1 / 3), torch.tensor([3.0**0.5, 1.0]))


def test_slerp_along_a_dimension_treats_each_vector_by_itself():
    a, b = _random(3, 5), _random(3, 5, seed=1)
    each = torch.stack([slerp(x, y, 0.4) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(slerp(a, b, 0.4, dim=1), each)
    torch.testing.assert_close(slerp(a, b, 0.4, dim=-1), each)
    assert not torch.allclose(slerp(a, b, 0.4), each, atol=1e-3)
    t = torch.tensor([[0.0], [0.4], [1.0]])
    torch.testing.assert_close(slerp(a, b, t, dim=1), torch.stack([a[0], each[1], b[2]]))
    torch.testing.assert_close(lerp(a, b, t), torch.stack([a[0], 0.6 * a[1] + 0.4 * b[1], b[2]]))


def test_slerp_of_parallel_vectors_is_lerp():
    a = _random(6)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)
    near = a + 1e-7
    torch.testing.assert_close(slerp(a, near, 0.5), (a + near) / 2)


def test_slerp_without_an_arc_is_an_error():
    a = _random(6)
    with pytest.raises(ValueError, match="opposite directions"):
        slerp(a, -2 * a, 0.5)
    with pytest.raises(ValueError, match="vector of b is zero"):
        slerp(a, 0 * a, 0.5)
    with pytest.raises(ValueError, match="of one shape"):
        lerp(a, a[:5], 0.5)


def test_slerp_is_differentiable():
    a, b = (_random(2, 3, seed=k, dtype=torch.float64).requires_grad_() for k in (0, 1))
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: slerp(*given, dim=1), (a, b, t))
