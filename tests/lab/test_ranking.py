"""Rankings: files that only grow, averages, and who can tell two apart."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from tutorial_lib.lab import ranking
from tutorial_lib.lab.ranking import STAND_IN, Ballot, Choice

ADA = Ballot("ada", "scene 1, no prompt", ("full", "lite", "OFT"))
BEN = Ballot("ben", "scene 1, no prompt", ("full", "OFT", "lite"))


# ------------------------------------------------------------------ files


def test_answers_come_back_as_they_were_written(tmp_path):
    odd = Ballot("Zoë, of 7b", 'scene "2"', ("ControlNet", "T2I > adapter".replace(" > ", ">"), "LoRA"))
    for ballot in (ADA, BEN, odd):
        ranking.add(tmp_path / "new" / "all.csv", ballot)
    assert ranking.read(tmp_path / "new" / "all.csv") == [ADA, BEN, odd]
    choices = [Choice("ada", "1", True), Choice("ada", "2", False)]
    for choice in choices:
        ranking.add(tmp_path / "pairs.csv", choice)
    assert ranking.read(tmp_path / "pairs.csv", kind=Choice) == choices


def test_files_merge_and_the_last_answer_counts(tmp_path):
    second = Ballot("ada", ADA.item, ("OFT", "lite", "full"))
    ranking.add(tmp_path / "a.csv", ADA)
    before = (tmp_path / "a.csv").read_bytes()
    ranking.add(tmp_path / "a.csv", second)
    assert (tmp_path / "a.csv").read_bytes().startswith(before), "nothing that was written is changed"
    ranking.add(tmp_path / "b.csv", BEN)
    assert ranking.read(tmp_path / "a.csv", tmp_path / "b.csv") == [second, BEN]


def test_a_file_without_its_last_line_break_is_gone_on_with(tmp_path):
    file = tmp_path / "a.csv"
    ranking.add(file, ADA)
    file.write_bytes(file.read_bytes().rstrip())
    ranking.add(file, BEN)
    assert ranking.read(file) == [ADA, BEN]


def test_a_file_of_something_else_is_refused_and_stays(tmp_path):
    file = tmp_path / "marks.csv"
    file.write_text("name,mark\nada,1\n")
    with pytest.raises(ValueError, match="marks.csv holds something else: expected the columns voter, item"):
        ranking.add(file, ADA)
    assert file.read_text() == "name,mark\nada,1\n"
    ranking.add(tmp_path / "pairs.csv", Choice("ada", "1", True))
    with pytest.raises(ValueError, match="holds something else"):
        ranking.add(tmp_path / "pairs.csv", ADA)


def test_a_damaged_line_is_named(tmp_path):
    file = tmp_path / "a.csv"
    ranking.add(file, ADA)
    for line, why in (("ben,scene 1\n", "expected 3 cells, got 2"), ("ben,scene 1,full\n", "two methods or more")):
        damaged = tmp_path / "damaged.csv"
        damaged.write_text(file.read_text() + line)
        with pytest.raises(ValueError, match=f"damaged.csv, line 3: .*{why}"):
            ranking.read(damaged)
    with pytest.raises(FileNotFoundError, match="that the panel of this lesson wrote"):
        ranking.read(tmp_path / "none.csv")


@pytest.mark.parametrize("wrong", [("", "s", ("a", "b")), ("v", " ", ("a", "b")), ("v", "s", ("a",)), ("v", "s", "aa")])
def test_ballots_that_say_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="needs a name|two methods or more"):
        Ballot(*wrong)


# ------------------------------------------------------------------ averages


def test_the_best_of_n_gets_n_and_the_worst_one():
    found = ranking.average([ADA, BEN])
    assert list(found) == ["full", "lite", "OFT"] or list(found) == ["full", "OFT", "lite"]
    assert found["full"].mean == 3 and found["lite"].mean == found["OFT"].mean == 1.5
    assert found["full"].spread == 0 and found["lite"].spread == pytest.approx(math.sqrt(0.5))
    assert (found["lite"].voters, found["lite"].items) == (2, 2)


def test_who_ranks_more_has_no_more_say():
    many = [Ballot("ada", f"scene {k}", ("full", "lite")) for k in range(9)]
    found = ranking.average([*many, Ballot("ben", "scene 0", ("lite", "full"))])
    assert found["full"].mean == found["lite"].mean == 1.5
    assert found["full"].items == 10 and math.isnan(ranking.average(many)["full"].spread)


def test_points_of_all_methods_sum_to_the_same_whatever_is_ranked():
    rng, methods = np.random.default_rng(0), ("a", "b", "c", "d", "e")
    ballots = [Ballot(f"v{k % 4}", f"s{k}", tuple(rng.permutation(methods).tolist())) for k in range(20)]
    assert sum(average.mean for average in ranking.average(ballots).values()) == pytest.approx(15)


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="no ranking"):
        ranking.average([])
    with pytest.raises(ValueError, match="not of the same methods: OFT, full, lite and full, lite"):
        ranking.average([ADA, Ballot("ben", "scene 1", ("full", "lite"))])
    judge = Ballot(STAND_IN, ADA.item, ADA.ranking)
    with pytest.raises(ValueError, match="not a person"):
        ranking.average([ADA, judge])
    assert ranking.average([judge])["full"].mean == 3


def test_the_stand_in_ranks_by_scores_and_lets_chance_decide_ties():
    ballot = ranking.stand_in("scene 1", {"a": 0.1, "b": 0.9, "c": 0.5}, np.random.default_rng(0))
    assert ballot == Ballot(STAND_IN, "scene 1", ("b", "c", "a"))
    rng = np.random.default_rng(0)
    first = Counter(ranking.stand_in("s", {"a": 0.5, "b": 0.5}, rng).ranking[0] for _ in range(200))
    assert min(first["a"], first["b"]) > 60


# ------------------------------------------------------------------ telling two apart


@pytest.mark.parametrize(("right", "count"), [(0, 4), (31, 60), (60, 60), (45, 60), (1, 1), (5200, 10_000)])
def test_interval_and_chance_are_those_of_scipy(right, count):
    told, exact = ranking.told_apart(right, count), stats.binomtest(right, count)
    interval = exact.proportion_ci(method="wilson")
    assert told.p == pytest.approx(exact.pvalue)
    assert (told.low, told.high) == pytest.approx((interval.low, interval.high), abs=1e-4)


def test_impossible_counts_are_refused():
    for right, count in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="at least one answer"):
            ranking.told_apart(right, count)


def test_shares_by_voter():
    choices = [Choice("ada", "1", True), Choice("ada", "2", False), Choice("ben", "1", True)]
    assert ranking.by_voter(choices) == {"ada": 0.5, "ben": 1}
