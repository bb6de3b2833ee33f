import nbformat
import pytest
from grading.answers import find, plain
from grading.exercises import exercises_of, fingerprint
from lesson_format import read


@pytest.fixture(scope="module")
def slerp(course):
    """The third exercise of the lesson."""
    return exercises_of(read(course.masters()[0]))[2]


def _notebook(*sources, own=None):
    """A notebook of code cells; the one at the index `own` has the exercise's id."""
    cells = [nbformat.v4.new_code_cell(s, id="arc" if i == own else f"c{i}") for i, s in enumerate(sources)]
    return nbformat.v4.new_notebook(cells=cells)


def test_the_exercise_knows_its_check_its_points_and_its_answer(slerp):
    assert (slerp.name, slerp.points, slerp.check.name, slerp.answer_names) == ("slerp", 3, "slerp", {"slerp"})
    assert "torch" in slerp.names and "slerp" not in slerp.names


@pytest.mark.parametrize(
    ("sources", "own", "chosen"),
    [
        (["def slerp(): return 1", "x = 2"], 1, 0),  # the id is on another cell
        (["def slerp(): return 1", "def slerp(): return 2"], 0, 0),  # both define it: the id decides
        (["def slerp(): return 1", "def slerp(): return 2"], None, 1),  # no id: the last one
        (["def slerp(:", "def other(): pass"], 0, 0),  # not Python, and it is the exercise's cell
        (["slerp = lambda: 1", "y = 1"], None, 0),
        (["x = 1", "y = 1"], 1, 1),  # nothing defines it: its cell is judged
    ],
)
def test_which_cell_is_the_answer(slerp, sources, own, chosen):
    assert find(slerp, _notebook(*sources, own=own)).cell.strip() == sources[chosen]


def test_an_untouched_stub_gives_way_to_a_solved_copy(slerp):
    notebook = _notebook(slerp.stub, "def slerp(a, b, t):\n    return a", own=0)
    assert "return a" in find(slerp, notebook).cell
    assert "NotImplementedError" in find(slerp, _notebook(slerp.stub, "x = 1", own=0)).cell


def test_no_cell_at_all(slerp):
    assert find(slerp, _notebook("x = 1")) is None


def test_helpers_are_the_definitions_that_are_needed_and_no_computed_values(slerp):
    notebook = _notebook(
        "import math\nimport torch as t2\nHALF = 0.5\nmodel = train()\ndef unused(): pass",
        "def slerp(a, b, t):\n    return angle(a, model) * HALF",
        "def angle(a, b):\n    return math.acos(deeper(a))",
        "def deeper(a):\n    return a\nprint('never')",
    )
    assert [helper.split("\n")[0] for helper in find(slerp, notebook).helpers] == [
        "import math",
        "HALF = 0.5",
        "def angle(a, b):",
        "def deeper(a):",
    ]


def test_magics_are_no_obstacle():
    assert "run_line_magic" in plain("%timeit f()\nx = 1") and "x = 1" in plain("%timeit f()\nx = 1")
    assert plain("%%time\nx = 1").strip() == "x = 1"
    assert plain("y = (5\n     % 3)").strip() == "y = (5\n     % 3)"


def test_the_fingerprint_follows_the_master(course, tmp_path):
    master = tmp_path / "07_class.py"
    master.write_text(course.masters()[0].read_text())
    before = fingerprint(master)
    assert fingerprint(master) == before
    master.write_text(master.read_text() + "\n")
    assert fingerprint(master) != before
