"""How series look: apart from one another, and a method alike in all figures."""

from tutorial_lib.lab import subject_plots
from tutorial_lib.lab.looks import COLOURS, METHODS, looks

IN_ONE_LESSON = (
    ("full", "LoRA", "OFT"),
    ("before", "full", "LoRA", "OFT", "COFT", "re-scaled OFT"),
    ("before", "Custom Diffusion", "LoRA", "textual inversion", "DreamBooth"),
    ("ControlNet", "Gaussian", "ControlNet-lite", "OFT", "COFT", "LoRA"),
)


def test_methods_of_one_lesson_are_told_apart_by_colour_mark_and_line():
    for names in IN_ONE_LESSON:
        found = looks(names).values()
        for part in zip(*found, strict=True):
            few = 2 if part[0] in ("-", "--") else 0  # lines repeat; colours and marks never do
            assert len({str(value) for value in part}) >= len(names) - few, (names, part)


def test_a_method_keeps_its_look_whatever_stands_beside_it():
    for name, look in METHODS.items():
        assert looks(["something", name, "another"])[name] == look


def test_other_names_get_what_is_left_over_in_order():
    assert [look.colour for look in looks("abcdefg").values()] == list(COLOURS)
    beside = looks(["a", "OFT", "b"])
    assert METHODS["OFT"].colour == COLOURS[0]
    assert (beside["a"].colour, beside["b"].colour) == (COLOURS[1], COLOURS[2])


def test_more_names_than_colours_go_round():
    names = [f"series {k}" for k in range(9)]
    assert looks(names)[names[7]] == looks(names)[names[0]]


def test_every_method_of_lesson_05_has_a_look_of_its_own():
    assert set(subject_plots.LOOKS) <= set(METHODS)
