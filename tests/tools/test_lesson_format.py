import jupytext
import pytest
from lesson_format import LessonError, imports, is_solution_with_lines_removed, read, solved, stub, written_part

EXERCISE = '''\
def f(x: int) -> int:
    """Doc."""
    y = x
    # <solution>
    y += 1
    # </solution>
    return y


class A:
    def g(self) -> int:
        # <solution>
        return 3
        # </solution>
'''


def test_cells_are_those_that_jupytext_reads(make_course, small):
    course = make_course()
    ours = read(course.masters()[0]).cells
    theirs = jupytext.reads(small, fmt="py:percent").cells
    assert [(cell.kind, cell.source) for cell in ours] == [(cell.cell_type, cell.source) for cell in theirs]


def test_ids_come_from_titles_and_options_are_read(make_course):
    lesson = read(make_course().masters()[0])
    assert [cell.id for cell in lesson.cells[:4]] == ["title", "set-up", "imports", "a-figure"]
    (exercise,) = lesson.exercises
    assert exercise.options == {"exercise": "mean_colour", "difficulty": 2, "minutes": 5}
    assert lesson.hints("mean_colour")[0].source == "Index with the **mask**."
    assert "from tutorial_lib.lab import plots" in imports(lesson)


def test_stub_is_the_solution_with_lines_removed():
    made, solution = stub(EXERCISE), solved(EXERCISE)
    assert "<solution>" not in made + solution
    assert "    y = x\n    raise NotImplementedError\n    return y" in made
    assert "        raise NotImplementedError" in made
    assert is_solution_with_lines_removed(made, solution)


def test_the_written_part_leaves_out_what_was_given():
    given = "import numpy as np\n\nN = 3\n"
    assert written_part(given + EXERCISE + "\ncheck.f(f)\n").split("\n\n\n") == solved(EXERCISE).strip().split("\n\n\n")


@pytest.mark.parametrize(
    "change",
    [
        ("return y", "return y + 1"),  # a line that the solution does not have
        ("    y = x\n", "    y = x\n    y = x\n"),  # one more of a line that it has
        ("    raise NotImplementedError\n    return y", "    y += 1\n    return y"),  # solution left in, one gap
        ("    y = x\n    raise NotImplementedError", "    raise NotImplementedError\n    y = x\n    x"),
    ],
)
def test_the_proof_can_fail(change):
    broken = stub(EXERCISE).replace(*change)
    assert broken != stub(EXERCISE)
    if "y += 1" in change[1]:
        broken = broken.replace("        raise NotImplementedError", "        return 3")
    assert not is_solution_with_lines_removed(broken, solved(EXERCISE))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# %% a figure", "# %% imports", "a second cell has the id 'imports'"),
        ("# %% a figure", "# %%", "has no title"),
        ("# %% a figure", "# %% a figure colour=red", "cannot read"),
        ("# %% a figure", "# %% a figure colour=3", "unknown options"),
        ("# # 07 · A small", "# # A small", "the first cell is Markdown and starts with"),
        (' prerequisites="none"', "", "prerequisites"),
        ('session.start("07"', 'session.start("08"', "first code cell is titled"),
        ("import numpy as np", "import numpy as", "line 1"),
        ("    # </solution>\n", "", "opened and closed in turn"),
        ("    # <solution>\n", "", "opened and closed in turn"),
        ("    inside = picture[mask]\n    return inside.mean(axis=0)\n", "", "region is empty"),
        ("difficulty=2", "difficulty=6", "difficulty=1..5"),
        ("check.mean_colour(mean_colour)", "check.mean_colours(mean_colour)", "ends with check.mean_colour"),
        ("mask: np.ndarray) -> np.ndarray", "mask) -> np.ndarray", "has a type for each argument"),
        ("-> np.ndarray", "", "has a type for each argument and for the result"),
        ('hint="mean_colour"', "", "has no hint"),
        ("inside = picture[mask]", "inside = picture[lesson.mask]", "uses \\['lesson'\\] of other cells"),
        ("claim(", "mean_colour\nclaim(", "uses \\['mean_colour'\\] of exercise"),
        ("seeds=[lesson.seed])", "seeds=[lesson.seed])\nprint()", "claim\\(...\\) is the last line"),
    ],
)
def test_each_rule_is_enforced_and_named(make_course, small, old, new, message):
    assert old in small
    course = make_course(small.replace(old, new, 1))
    with pytest.raises(LessonError, match=message) as error:
        read(course.masters()[0])
    assert "07_small.py" in str(error.value)


def test_a_solution_region_at_top_level_is_refused(make_course, small):
    text = small.replace("def mean_colour(", "# <solution>\nthree = 3\n# </solution>\ndef mean_colour(", 1)
    with pytest.raises(LessonError, match="inside a function"):
        read(make_course(text).masters()[0])
