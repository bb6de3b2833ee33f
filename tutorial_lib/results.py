"""Tables of long experiments: a benchmark writes them row by row into results/, the lessons read them.

    table = results.Table(file, Row, key=("method", "seed"), model=results.model_hash())
    if not table.has("LoRA", 0):
        table.add(Row(...))                  # in the file at once: a killed command goes on where it stopped

A row is a dataclass of strings, numbers and truths with a field `model`: the weights that it was measured on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import statistics
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

FOLDER = Path(__file__).parents[1] / "results"
SHIPPED = Path(__file__).parents[1] / "data" / "pocket-sd"
DIGITS = 6  # of a float in a table
WORDS = ("model", "command")  # never numbers, although a hash may look like one


class Table:
    """A CSV that grows by whole rows. Several commands may fill one file, if they make different rows."""

    def __init__(self, file: Path, row: type, key: tuple[str, ...], model: str):
        self.file, self.row, self.key, self.model = Path(file), row, key, model
        _drop_cut_row(self.file)
        if other := [row for row in self.rows() if row.model != model]:
            raise SystemExit(
                f"{file} holds {len(other)} rows of another model ({other[0].model}, now {model}): move it away, or "
                "give another --out"
            )

    def rows(self) -> list:
        """All rows that are in the file now."""
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as lines:
            return [parsed(self.row, line) for line in csv.DictReader(lines)]

    def has(self, *key) -> bool:
        """Whether there is a row whose key fields have these values."""
        return any(tuple(getattr(row, name) for name in self.key) == key for row in self.rows())

    def add(self, row) -> None:
        """Appends the row by one write, so that other commands' rows stay whole."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.file.open("x", newline="", encoding="utf-8") as out:
                out.write(_line([field.name for field in fields(self.row)]))
        except FileExistsError:
            pass  # the names of the columns are there already
        with self.file.open("a", newline="", encoding="utf-8") as out:
            out.write(_line([_text(getattr(row, field.name)) for field in fields(self.row)]))


def read(file: Path) -> list[dict]:
    """The rows of a table as dicts, numbers as floats. FileNotFoundError, with what to do, where it is not made."""
    if not Path(file).exists():
        raise FileNotFoundError(f"{file} is not there: its benchmark makes it, see benchmarks/README.md")
    with Path(file).open(newline="", encoding="utf-8") as lines:
        return [{k: text if k in WORDS else _value(text) for k, text in row.items()} for row in csv.DictReader(lines)]


def parsed(row: type, line: dict[str, str]):
    """A row of the dataclass from a line's strings."""
    kinds = {name: _truth if kind is bool else kind for name, kind in get_type_hints(row).items()}
    return row(**{name: kind(line[name]) for name, kind in kinds.items()})


def mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation, without NaN; NaN where there are no values, spread 0 of one alone."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return math.nan, math.nan
    return statistics.mean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0


def model_hash(folder: Path = SHIPPED) -> str:
    """The first 12 hex digits of a SHA-256 over the model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _drop_cut_row(file: Path) -> None:
    """Cuts off a row that was being written when its command was killed."""
    if file.exists() and not (text := file.read_bytes()).endswith(b"\n"):
        file.write_bytes(text[: text.rfind(b"\n") + 1])


def _line(values: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _text(value) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _truth(text: str) -> bool:
    return {"True": True, "False": False}[text]


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
