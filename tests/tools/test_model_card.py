"""The model card says what results/ and the training records say."""

import model_card
import pytest


def test_the_card_is_up_to_date():
    assert model_card.main(["--check"]) == 0


def test_a_card_that_says_something_else_is_noticed(tmp_path, monkeypatch, capsys):
    other = tmp_path / "README.md"
    other.write_text(model_card.card().replace("(500)", "(5000)", 1) + "\nNever wrong.\n", encoding="utf-8")
    monkeypatch.setattr(model_card, "CARD", other)
    assert model_card.main(["--check"]) == 1
    assert "tools/model_card.py" in capsys.readouterr().out


@pytest.mark.parametrize("reached", ["True", "False", ""])
def test_a_missed_floor_is_bold(reached):
    row = {"value": "0.5", "count": "40", "reached": reached}
    assert model_card._cell(row) == ("**0.500 (40)**" if reached == "False" else "0.500 (40)")
