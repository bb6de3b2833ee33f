"""The blind panels, driven without a browser: pressing a button is clicking on it."""

import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import ranking, widgets
from tutorial_lib.lab.ranking import STAND_IN, Ballot, Choice
from tutorial_lib.lab.ranking_panel import Item, PairPanel, RankingPanel

METHODS = {"full": (200, 0, 0), "lite": (0, 200, 0), "OFT": (0, 0, 200)}


def square(colour):
    return Image.new("RGB", (64, 64), colour)


def items(count=3, methods=METHODS):
    return [
        Item(f"scene {k}", square((9, 9, 9)), "nothing", {name: square(colour) for name, colour in methods.items()})
        for k in range(count)
    ]


def click(panel, *names):
    for name in names:
        panel.buttons[name].click()


def colour_at(panel, place):
    """Of the picture under the hint (0) or a letter (1 ...), as it is shown."""
    sheet = np.asarray(Image.open(io.BytesIO(panel.picture.value)).convert("RGB"))
    return tuple(int(value) for value in sheet[60, 6 + place * 132 + 64])


def letter_of(panel, method):
    return next(letter for letter, name in panel.dealt.items() if name == method)


def test_presses_from_best_to_worst_save_a_ranking_and_show_the_next(tmp_path):
    panel = RankingPanel(items(), tmp_path / "mine.csv")
    panel.voter.value = "ada"
    order = ["OFT", "full", "lite"]
    click(panel, *(letter_of(panel, method) for method in order))
    assert ranking.read(tmp_path / "mine.csv") == [Ballot("ada", "scene 0", tuple(order))]
    assert panel.item.name == "scene 1" and "2 of 3" in panel.title.value


def test_letters_are_those_of_the_pictures_above_them(tmp_path):
    panel = RankingPanel(items(), tmp_path / "mine.csv")
    for voter in ("ada", "ben", "cleo"):
        panel.voter.value = voter
        assert colour_at(panel, 0) == (9, 9, 9)
        assert [colour_at(panel, 1 + k) for k in range(3)] == [METHODS[name] for name in panel.dealt.values()]


def test_the_order_is_blind_and_differs_between_items_and_people():
    many = items(40)
    first = [item.dealt("ada")["A"] for item in many]
    assert min(first.count(method) for method in METHODS) > 4
    assert first == [item.dealt("ada")["A"] for item in many] != [item.dealt("ben")["A"] for item in many]


def test_a_wrong_press_can_be_taken_back_and_a_letter_counts_once(tmp_path):
    panel = RankingPanel(items(), tmp_path / "mine.csv")
    panel.voter.value = "ada"
    click(panel, "A", "A", "B")
    assert panel.message.value == "A &gt; B" and not (tmp_path / "mine.csv").exists()
    click(panel, panel.AGAIN, "C", "B", "A")
    assert ranking.read(tmp_path / "mine.csv")[0].ranking == tuple(items()[0].dealt("ada")[name] for name in "CBA")


@pytest.mark.parametrize("name", ["", "  ", STAND_IN])
def test_without_a_persons_name_nothing_is_saved(tmp_path, name):
    panel = RankingPanel(items(), tmp_path / "mine.csv")
    panel.voter.value = name
    click(panel, "A", "B", "C")
    assert "your name" in panel.message.value and not (tmp_path / "mine.csv").exists()
    assert panel.item.name == "scene 0"


def test_who_comes_back_goes_on_where_they_stopped(tmp_path):
    file = tmp_path / "mine.csv"
    for voter, item in (("ada", "scene 0"), ("ben", "scene 1")):
        ranking.add(file, Ballot(voter, item, tuple(METHODS)))
    panel = RankingPanel(items(), file)
    panel.voter.value = "ada"
    assert panel.item.name == "scene 1"
    panel.voter.value = "ben"
    assert panel.item.name == "scene 0"
    click(panel, "A", "B", "C")
    assert panel.item.name == "scene 2"


def test_after_the_last_item_it_says_thank_you_and_the_averages(tmp_path):
    panel = RankingPanel(items(1), tmp_path / "mine.csv")
    panel.voter.value = "ada"
    click(panel, *(letter_of(panel, method) for method in METHODS))
    assert panel.item is None and "full 3.00, lite 2.00, OFT 1.00" in panel.title.value
    click(panel, "A")
    assert len(ranking.read(tmp_path / "mine.csv")) == 1
    assert "full 3.00" in panel._repr_mimebundle_()[0]["text/plain"]


def test_a_file_of_something_else_is_not_touched(tmp_path):
    file = tmp_path / "mine.csv"
    panel = RankingPanel(items(), file)
    panel.voter.value = "ada"
    file.write_text("name,mark\n")
    click(panel, "A", "B", "C")
    assert "not saved" in panel.message.value and file.read_text() == "name,mark\n"
    panel.voter.value = "ben"
    assert "holds something else" in panel.message.value and panel.item.name == "scene 0"


def test_answers_about_other_methods_in_the_file_are_told(tmp_path):
    ranking.add(tmp_path / "mine.csv", Ballot("ben", "scene 9", ("mixed", "full")))
    panel = RankingPanel(items(1), tmp_path / "mine.csv")
    panel.voter.value = "ada"
    click(panel, "A", "B", "C")
    assert panel.item is None and "not of the same methods" in panel.title.value


def test_a_page_without_a_kernel_shows_the_first_item(tmp_path):
    data, _ = RankingPanel(items(), tmp_path / "mine.csv")._repr_mimebundle_()
    assert widgets.VIEW in data and "named A, B, C" in data["text/plain"] and data["image/png"]
    assert not any(method in data["text/plain"] for method in METHODS), "blind"


def test_which_of_two_is_the_real_one(tmp_path):
    two = {"the true picture": (250, 0, 0), "ControlNet": (0, 250, 0)}
    panel = PairPanel(items(3, two), tmp_path / "pairs.csv", "the true picture")
    panel.voter.value = "ada"
    click(panel, letter_of(panel, "the true picture"))
    click(panel, letter_of(panel, "ControlNet"))
    click(panel, letter_of(panel, "the true picture"))
    found = ranking.read(tmp_path / "pairs.csv", kind=Choice)
    assert [choice.right for choice in found] == [True, False, True]
    assert "67% of 3 answers" in panel.title.value
    click(panel, "A")
    assert len(ranking.read(tmp_path / "pairs.csv", kind=Choice)) == 3


def test_items_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a name of its own"):
        RankingPanel(items(1) * 2, tmp_path / "mine.csv")
    with pytest.raises(ValueError, match="one item or more"):
        RankingPanel([], tmp_path / "mine.csv")
    fewer = items(1, {"full": (0, 0, 0), "lite": (0, 0, 0)})[0]
    with pytest.raises(ValueError, match="same methods"):
        RankingPanel([items(2)[1], fewer], tmp_path / "mine.csv")
    with pytest.raises(ValueError, match="one of them 'real': not so in scene 0"):
        PairPanel([fewer], tmp_path / "mine.csv", "real")
    with pytest.raises(ValueError, match="expected 2 to 8 pictures, got 1"):
        Item("scene", square((0, 0, 0)), "nothing", {"full": square((0, 0, 0))})
