"""Tables of results: whole rows, one model, several writers."""

import math
from dataclasses import dataclass

import pytest

from tutorial_lib import results


@dataclass(frozen=True)
class Row:
    method: str
    seed: int
    score: float
    model: str


def table(file, model="abc"):
    return results.Table(file, Row, ("method", "seed"), model)


def test_rows_come_back_with_their_types_and_are_found_by_their_key(tmp_path):
    one = table(tmp_path / "runs" / "a.csv")
    rows = [Row("LoRA, small", 0, 0.123456789, "abc"), Row("full", 1, math.nan, "abc")]
    assert not one.has("full", 1)
    for row in rows:
        one.add(row)
    assert one.has("full", 1) and not one.has("full", 0) and not one.has("LoRA", 0)
    first, second = one.rows()
    assert (first.method, first.seed, second.seed) == ("LoRA, small", 0, 1)
    assert first.score == pytest.approx(0.123457, abs=1e-9) and math.isnan(second.score)


def test_truths_come_back_as_truths(tmp_path):
    @dataclass(frozen=True)
    class Judged:
        seed: int
        kept: bool
        model: str

    one = results.Table(tmp_path / "a.csv", Judged, ("seed",), "abc")
    one.add(Judged(0, True, "abc")), one.add(Judged(1, False, "abc"))
    assert [row.kept for row in one.rows()] == [True, False]


def test_two_commands_fill_one_file(tmp_path):
    file = tmp_path / "a.csv"
    one, two = table(file), table(file)
    one.add(Row("full", 0, 1.0, "abc")), two.add(Row("full", 1, 2.0, "abc")), one.add(Row("full", 2, 3.0, "abc"))
    assert [row.score for row in two.rows()] == [1.0, 2.0, 3.0]
    assert file.read_text().count("method") == 1 and one.has("full", 1)


def test_a_row_that_was_cut_short_is_dropped_and_can_be_made_again(tmp_path):
    file = tmp_path / "a.csv"
    table(file).add(Row("full", 0, 1.0, "abc"))
    whole = file.read_bytes()
    file.write_bytes(whole + b"full,1,2.")
    again = table(file)
    assert file.read_bytes() == whole and not again.has("full", 1)


def test_rows_of_another_model_are_neither_mixed_in_nor_lost(tmp_path):
    file = tmp_path / "a.csv"
    table(file).add(Row("full", 0, 1.0, "abc"))
    before = file.read_bytes()
    with pytest.raises(SystemExit, match="1 rows of another model"):
        table(file, "def")
    assert file.read_bytes() == before


def test_reading_gives_numbers_and_a_missing_table_says_what_to_do(tmp_path):
    file = tmp_path / "a.csv"
    table(file, "12e4").add(Row("full", 3, 0.5, "12e4"))
    assert results.read(file) == [{"method": "full", "seed": 3.0, "score": 0.5, "model": "12e4"}]
    with pytest.raises(FileNotFoundError, match="benchmark"):
        results.read(tmp_path / "b.csv")


def test_mean_and_spread_leave_out_what_was_not_measured():
    assert results.mean_and_spread([1.0, math.nan, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert results.mean_and_spread([4.0]) == (4.0, 0.0)
    assert all(math.isnan(value) for value in results.mean_and_spread([math.nan]))


def test_the_hash_changes_with_the_weights_alone(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"12")
    before = results.model_hash(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert results.model_hash(tmp_path) == before and len(before) == 12
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"13")
    assert results.model_hash(tmp_path) != before
