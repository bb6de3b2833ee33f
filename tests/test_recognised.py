"""The benchmark behind lesson 07's threshold: subjects in their own halves, other pairs in none."""

import pytest
import recognised

from tutorial_lib.lab.several_concepts import BALL, PERSON, likenesses
from tutorial_lib.pocket import judge as pocket_judge


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(recognised, "DRAWN", 4)
    monkeypatch.setattr(recognised, "OTHERS", 4)


def test_a_subject_is_nearer_in_its_own_half_than_any_other_pair():
    judge = pocket_judge.load()
    pairs = recognised.other_pairs()
    for concept in (PERSON, BALL):
        own, others = recognised.own_halves(concept, judge), likenesses(pairs, concept, judge).amax(0)
        assert own.shape == others.shape == (4,)
        assert own.min() > others.mean() + 0.2
        assert recognised.own_halves(concept, judge).tolist() == own.tolist()


def test_the_report_has_two_lines_a_concept_with_a_share_for_each_level():
    head, *lines = recognised.report(pocket_judge.load())
    assert len(lines) == 2 * len(recognised.CONCEPTS) and str(recognised.RECOGNISED) in head
    assert all(0 <= float(word) <= 1 for line in lines for word in line.split()[-len(recognised.LEVELS) :])
