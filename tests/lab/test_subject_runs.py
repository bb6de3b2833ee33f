import csv

import numpy as np
import pytest

from tutorial_lib.lab import subject_runs
from tutorial_lib.lab.subject_runs import Estimate

# likeness of OFT and of full on three subjects, two seeds each: OFT is 0.1 better on every subject
LIKENESS = {"mug": (0.5, 0.7), "cat": (0.2, 0.2), "car": (0.9, 0.8)}


def a_run(method, subject="mug", seed=0, likeness=0.5, part="main", **changes):
    run = {"part": part, "method": method, "subject": subject, "seed": float(seed), "rate": 0.01}
    run |= {"subject_similarity": likeness, "others": 0.9, "class_fidelity": 0.7}
    return run | {"similarity_at": np.array([0.1, 0.3, 0.5, 0.9])} | changes


@pytest.fixture
def runs():
    oft = [a_run("OFT", s, seed, value) for s, values in LIKENESS.items() for seed, value in enumerate(values)]
    full = [run | {"method": "full", "subject_similarity": run["subject_similarity"] - 0.1} for run in oft]
    return oft + full


def test_reading_gives_numbers_and_arrays(tmp_path):
    names = ("part", "method", "seed", "subject_similarity", "orthogonality", "model", *subject_runs.LISTS)
    rows = [
        ("main", "OFT", "2", "0.25", "1e-06", "12e4", "0 20 40", "0.1 0.2 0.3", "1 1 0.5", "1 1 1"),
        ("main", "before", "2", "0.25", "nan", "12e4", "0", "0.1", "1", "0.9"),
    ]
    file = tmp_path / "subject_driven.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([names, *rows])
    first, second = subject_runs.read(file)
    assert (first["method"], first["seed"], first["orthogonality"], first["model"]) == ("OFT", 2, 1e-6, "12e4")
    assert first["similarity_at"].tolist() == [0.1, 0.2, 0.3] and second["looks"].tolist() == [0.0]
    with pytest.raises(FileNotFoundError, match="its benchmark makes it"):
        subject_runs.read(tmp_path / "none.csv")


def test_only_runs_that_every_method_has_are_compared(runs):
    extra = [a_run("OFT", "gate"), a_run("full", "gate", part="search"), a_run("LoRA", "mug")]
    found = subject_runs.complete(runs + extra, ("OFT", "full"))
    assert found == runs
    assert subject_runs.complete(runs + extra, ("OFT", "LoRA")) == [runs[0], extra[2]]


def test_a_difference_is_paired_by_subject(runs):
    found = subject_runs.difference(runs, "OFT", "full", "subject_similarity")
    assert found.mean == pytest.approx(0.1) and found.error == pytest.approx(0, abs=1e-12)
    assert subject_runs.difference(runs, "full", "OFT", "subject_similarity").mean == pytest.approx(-0.1)


def test_paired_values_meet_by_their_subjects_name():
    found = subject_runs.paired({"cat": 5.0, "mug": 9.0}, {"mug": 6.0, "cat": 4.0, "car": 99.0})  # 1 and 3
    assert (found.mean, found.error) == pytest.approx((2, 1))
    with pytest.raises(ValueError, match="two or more"):
        subject_runs.paired({"cat": 5.0}, {"cat": 4.0})


def test_the_error_is_that_of_subjects_and_not_of_runs(runs):
    found = subject_runs.average(runs, "OFT", "subject_similarity")
    means = np.array([0.85, 0.2, 0.6])
    assert found.mean == pytest.approx(means.mean()) and found.error == pytest.approx(means.std(ddof=1) / 3**0.5)
    assert np.isnan(subject_runs.average(runs[:2], "OFT", "subject_similarity").error)  # one subject


def test_figures_may_be_functions(runs):
    assert subject_runs.average(runs, "OFT", subject_runs.kept).mean == pytest.approx(0.8)
    assert subject_runs.early(runs[0]) == pytest.approx((0.3 + 0.5) / 2 - 0.1)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((0.3, 0.3), "reproduced"),
        ((0.3, 0.15), "not visible at this scale"),
        ((0.3, -0.15), "not visible at this scale"),
        ((0.3, -0.3), "contradicted"),
        ((-0.3, -0.3), "contradicted"),
    ],
)
def test_a_verdict_needs_two_errors(means, expected):
    assert subject_runs.verdict([Estimate(mean, 0.1) for mean in means]) == expected


def test_no_error_is_no_certainty():
    assert subject_runs.verdict([Estimate(0.9, float("nan"))]) == "not visible at this scale"


def test_spread_over_seeds_is_within_a_subject(runs):
    found = subject_runs.spread_over_seeds(runs, "OFT", "subject_similarity")
    assert found == pytest.approx({"mug": 0.2 / 2**0.5, "cat": 0.0, "car": 0.1 / 2**0.5})


def test_rates_are_those_of_the_main_part():
    runs = [a_run("OFT", part="search", rate=1.0), a_run("OFT", rate=0.5), a_run(subject_runs.BASE, rate=0.0)]
    assert subject_runs.chosen_rates(runs) == {"OFT": 0.5}
