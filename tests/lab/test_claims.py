import math

import numpy as np
import pytest

from tutorial_lib.lab.claims import VERDICTS, claim, difference, joint_verdict, verdict

FACTS = {"id": "energy", "text": "Rotations keep the energy.", "paper": "Qiu et al. 2023", "measured": "1e-12"}


def test_a_claim_is_shown_as_a_sentence_and_recorded_in_the_output():
    made = claim(**FACTS, verdict="reproduced", seeds=range(3))
    data, metadata = made._repr_mimebundle_()
    assert "Rotations keep the energy." in data["text/plain"] and "(seeds 0, 1, 2)" in data["text/plain"]
    assert metadata["course"]["claim"] == FACTS | {"verdict": "reproduced", "seeds": [0, 1, 2], "results": None}


@pytest.mark.parametrize(
    ("change", "message"), [({"verdict": "proved"}, "the verdict is one of"), ({"seeds": []}, "name the seeds")]
)
def test_a_claim_without_verdict_or_seeds_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        claim(**FACTS | {"verdict": "contradicted", "seeds": [0]} | change)


def test_a_difference_is_the_mean_over_pairs_and_two_standard_errors_of_it():
    mean, error = difference([3.0, 5.0, 10.0], [2.0, 3.0, 7.0])  # 1, 2, 3: standard deviation 1
    assert mean == pytest.approx(2) and error == pytest.approx(2 / math.sqrt(3))
    assert difference([2.0, 3.0, 7.0], [3.0, 5.0, 10.0]) == pytest.approx((-mean, error))


def test_what_both_of_a_pair_share_does_not_blur_their_difference():
    a, b, shared = np.random.default_rng(0).normal(size=(3, 7))
    assert difference(a + 100 * shared, b + 100 * shared) == pytest.approx(difference(a, b))


def test_whole_numbers_and_lists_are_values_too():
    assert difference([1, 0, 1, 1], np.array([0, 0, 1, 0])) == pytest.approx((0.5, 1 / math.sqrt(3)))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"paired values, got shapes \(2,\), \(3,\)"),
        ([1.0], [2.0], "two or more"),
        ([], [], "two or more"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "two lists"),
        ([1.0, math.nan, 2.0], [1.0, 1.0, math.nan], r"pairs \[1, 2\] have no value"),
    ],
)
def test_values_without_a_partner_are_an_error(a, b, message):
    with pytest.raises(ValueError, match=message):
        difference(a, b)


@pytest.mark.parametrize(
    ("mean", "error", "expected"),
    [(0.3, 0.2, 0), (0.1, 0.2, 1), (-0.1, 0.2, 1), (-0.3, 0.2, 2), (0.0, 0.0, 1), (0.2, 0.2, 1), (0.9, math.nan, 1)],
)
def test_a_difference_counts_beyond_its_two_errors(mean, error, expected):
    assert verdict(mean, error) == VERDICTS[expected]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], "reproduced"),
        ([(0.3, 0.2)], "reproduced"),
        ([(0.1, 0.2), (0.3, 0.2)], "not visible at this scale"),
        ([(0.1, 0.2), (-0.3, 0.2)], "contradicted"),
    ],
)
def test_a_joint_verdict_is_that_of_its_weakest_part(others, expected):
    assert joint_verdict((0.5, 0.1), *others) == joint_verdict(*others, (0.5, 0.1)) == expected


def test_a_joint_verdict_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="one or more differences"):
        joint_verdict()
