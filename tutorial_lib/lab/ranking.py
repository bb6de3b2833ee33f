"""Rankings by people: kept in CSV files that a class can merge, averaged, and tests of who can tell two apart.

    ranking.add(file, Ballot("ada", "scene 3, no prompt", ("ControlNet", "lite", "LoRA")))   # best first
    ranking.average(ranking.read("ada.csv", "ben.csv"))     # average human ranking
    ranking.told_apart(right=31, count=60)                  # better than a coin?

Files only grow: nothing that was written is changed. Who ranks an item twice is counted once, by the later ranking.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

STAND_IN = "the judge, no human"  # the name under which a computed ranking goes: it is never mixed with people's
BETTER = " > "  # between two methods in a file, the better one first
Z = 1.96  # of a normal distribution 95 % lie within so many standard deviations


# ------------------------------------------------------------------ what people said


@dataclass(frozen=True)
class Ballot:
    """One person's ranking of one item: the names of the methods, the best one first."""

    COLUMNS: ClassVar = ("voter", "item", "best first")
    voter: str
    item: str
    ranking: tuple[str, ...]

    def __post_init__(self):
        _check_words(self.voter, self.item)
        if len(self.ranking) < 2 or len(set(self.ranking)) < len(self.ranking):
            raise ValueError(f"a ranking names two methods or more, each once; got {list(self.ranking)}")
        if any(BETTER in method for method in self.ranking):
            raise ValueError(f"a method's name must not hold {BETTER!r}, which stands between methods in a file")

    def cells(self) -> list[str]:
        return [self.voter, self.item, BETTER.join(self.ranking)]

    @classmethod
    def of(cls, cells: list[str]) -> Ballot:
        return cls(cells[0], cells[1], tuple(cells[2].split(BETTER)))


@dataclass(frozen=True)
class Choice:
    """One person's answer to "which of the two is it?": right or not."""

    COLUMNS: ClassVar = ("voter", "item", "right")
    voter: str
    item: str
    right: bool

    def __post_init__(self):
        _check_words(self.voter, self.item)

    def cells(self) -> list[str]:
        return [self.voter, self.item, "yes" if self.right else "no"]

    @classmethod
    def of(cls, cells: list[str]) -> Choice:
        if cells[2] not in ("yes", "no"):
            raise ValueError(f"right is yes or no, got {cells[2]!r}")
        return cls(cells[0], cells[1], cells[2] == "yes")


def _check_words(voter: str, item: str) -> None:
    if not voter.strip() or not item.strip():
        raise ValueError(f"an answer needs a name and an item, got {voter!r} and {item!r}")


# ------------------------------------------------------------------ files


def add(file: Path | str, answer: Ballot | Choice) -> None:
    """Appends the answer to the file, and begins the file where there is none.

    ValueError for a file of something else: it stays as it is.
    """
    file = Path(file)
    if not file.exists() or not file.read_text(encoding="utf-8").strip():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = _line(answer.COLUMNS)
    else:
        _rows(file, type(answer))
        text = "" if file.read_bytes().endswith(b"\n") else "\n"
    with file.open("a", newline="", encoding="utf-8") as out:
        out.write(text + _line(answer.cells()))


def read(*files: Path | str, kind: type = Ballot) -> list:
    """The answers of all files; of answers by one voter on one item the last one."""
    found = {}
    for file in files:
        for answer in _rows(Path(file), kind):
            found[answer.voter, answer.item] = answer
    return list(found.values())


def _rows(file: Path, kind: type) -> list:
    """Every answer in the file; ValueError that names the line where one cannot be read."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: expected a file that the panel of this lesson wrote")
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        names = next(reader, [])
        if tuple(names) != kind.COLUMNS:
            raise ValueError(
                f"{file} holds something else: expected the columns {', '.join(kind.COLUMNS)}, got "
                f"{', '.join(names) or 'none'}. Choose another file."
            )
        return [_answer(kind, cells, file, reader.line_num) for cells in reader if cells]


def _answer(kind: type, cells: list[str], file: Path, number: int):
    try:
        if len(cells) != len(kind.COLUMNS):
            raise ValueError(f"expected {len(kind.COLUMNS)} cells, got {len(cells)}")
        return kind.of(cells)
    except ValueError as error:
        raise ValueError(f"{file}, line {number}: {error}") from error


def _line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


# ------------------------------------------------------------------ average human ranking


@dataclass(frozen=True)
class Average:
    """A method's average ranking: of n methods the best of an item gets n, the worst 1. `spread` is over voters."""

    mean: float
    spread: float  # standard deviation of the voters' own means; NaN for one voter
    voters: int
    items: int  # that were ranked, by all voters together


def average(ballots: Iterable[Ballot]) -> dict[str, Average]:
    """Average human ranking of each method, the best first: the mean of the voters' own means.

    Whoever ranked more items has no more say. ValueError where there is nothing, where rankings are not of the same
    methods, and where the stand-in's are mixed with people's.
    """
    ballots = list(ballots)
    _check_alike(ballots)
    points: dict[str, dict[str, list[int]]] = {method: {} for method in ballots[0].ranking}
    for ballot in ballots:
        for place, method in enumerate(ballot.ranking):
            points[method].setdefault(ballot.voter, []).append(len(ballot.ranking) - place)
    found = {method: _average(own) for method, own in points.items()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].mean))


def _average(own: Mapping[str, list[int]]) -> Average:
    means = [statistics.mean(points) for points in own.values()]
    spread = statistics.stdev(means) if len(means) > 1 else math.nan
    return Average(statistics.mean(means), spread, len(means), sum(map(len, own.values())))


def _check_alike(ballots: list[Ballot]) -> None:
    if not ballots:
        raise ValueError("there is no ranking to average: rank at least one item first")
    if {ballot.voter for ballot in ballots} > {STAND_IN}:
        raise ValueError(f"{STAND_IN!r} is not a person: average its rankings on their own")
    sets = {frozenset(ballot.ranking) for ballot in ballots}
    if len(sets) > 1:
        shown = " and ".join(", ".join(sorted(methods)) for methods in sorted(sets, key=sorted))
        raise ValueError(f"the rankings are not of the same methods: {shown}. Average them apart.")


def stand_in(item: str, scores: Mapping[str, float], rng: np.random.Generator) -> Ballot:
    """A ranking that no human made, by computed scores, the highest first; chance decides between equal ones."""
    names = [list(scores)[k] for k in rng.permutation(len(scores))]
    return Ballot(STAND_IN, item, tuple(sorted(names, key=scores.get, reverse=True)))


# ------------------------------------------------------------------ telling two apart


@dataclass(frozen=True)
class ToldApart:
    """A share of right answers, where chance has 0.5, its interval of 95 %, and how likely chance goes so far."""

    share: float
    low: float
    high: float
    p: float  # that a fair coin is as far from half, or further: the exact binomial test, two-sided
    count: int


def told_apart(right: int, count: int) -> ToldApart:
    """Of `count` answers `right` were right: more than chance? The interval is Wilson's (1927)."""
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"expected 0 <= right <= count and at least one answer, got {right} of {count}")
    share, n = right / count, count
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return ToldApart(share, middle - half, middle + half, _chance(right, count), count)


def _chance(right: int, count: int) -> float:
    """How likely a fair coin is as far from half of `count` as `right` is, or further."""
    ways, far = 1, 0  # in which k answers can be right, each from the one before: fast for thousands of answers
    for k in range(count + 1):
        far += ways if abs(2 * k - count) >= abs(2 * right - count) else 0
        ways = ways * (count - k) // (k + 1)
    return far / 2**count


def by_voter(choices: Iterable[Choice]) -> dict[str, float]:
    """Each voter's share of right answers: the paper reports their mean and spread, 0.52 ± 0.17."""
    found: dict[str, list[bool]] = {}
    for choice in choices:
        found.setdefault(choice.voter, []).append(choice.right)
    return {voter: statistics.mean(answers) for voter, answers in found.items()}
