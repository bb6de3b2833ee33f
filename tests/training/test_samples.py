import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorial_lib.training import Sample, sample_at


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 30), st.integers(0, 5))
def test_each_pass_has_every_sample_once(seed, length, visit):
    found = [sample_at(seed, length, visit * length + k) for k in range(length)]
    assert sorted(s.index for s in found) == list(range(length))
    assert {(s.seed, s.visit) for s in found} == {(seed, visit)}


def test_passes_and_seeds_differ_in_their_order():
    def order(seed, visit):
        return tuple(sample_at(seed, 50, 50 * visit + k).index for k in range(50))

    assert len({order(seed, visit) for seed in range(3) for visit in range(3)}) == 9


def test_draws_depend_on_seed_index_visit_and_purpose_and_on_nothing_else():
    keys = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b")]
    draws = [Sample(*key[:3]).normal((2, 3), key[3]) for key in keys]
    numbers = [Sample(*key[:3]).rng(key[3]).random() for key in keys]
    torch.manual_seed(3)
    np.random.seed(3)
    assert all(torch.equal(Sample(*key[:3]).normal((2, 3), key[3]), draw) for key, draw in zip(keys, draws))
    assert len({draw.sum().item() for draw in draws}) == len(set(numbers)) == 5


def test_noise_is_standard_normal_across_samples():
    noise = torch.stack([Sample(7, index, 3).normal((8,), "noise") for index in range(2000)])
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    correlation = torch.corrcoef(noise.T) - torch.eye(8)
    assert correlation.abs().max() < 0.12
    assert abs(torch.corrcoef(torch.stack([noise[:-1, 0], noise[1:, 0]]))[0, 1]) < 0.1  # neighbours are independent
