from lesson_facts import main, table


def test_the_table_says_what_the_notebook_says(course):
    row = table(course).split("\n")[-1]
    assert row.startswith("| 07_small | ") and row.endswith(" | 1 | 5 | 2 |")
    assert " s on " in row and " MB |" in row


def test_a_lesson_that_is_not_built_is_said_to_be(make_course):
    assert "not built" in table(make_course())


def test_the_known_mistakes_are_the_checks_own_words(make_course, capsys, monkeypatch):
    monkeypatch.setenv("TUTORIAL_STRICT", "1")
    assert main(["07"], make_course().root) == 0
    printed = capsys.readouterr().out
    assert "## mean_colour · 2 points · about 5 minutes" in printed
    assert "- This is the mean of the whole picture: the mask was not used.\n" in printed


def test_an_unknown_lesson_is_named(make_course, capsys):
    assert main(["33"], make_course().root) == 1
    assert "no lesson 33" in capsys.readouterr().err
