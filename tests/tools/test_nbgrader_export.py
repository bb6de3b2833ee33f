"""The export to nbgrader. The last part drives nbgrader itself, where it is installed (`pip install nbgrader`)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from build_lessons import Course
from lesson_format import imports, read, solved, stub
from lesson_notebooks import solved_notebook, student_notebook
from nbgrader_export import SKIP, assignment, main
from student_pack import pack

from tutorial_lib.lab.checks import lesson_00

COURSE = Course(Path(__file__).parents[2])
BUILT = [master for master in COURSE.masters() if COURSE.student(master.stem).exists()]
LESSONS = [read(master) for master in BUILT]
NEWLINE = "\n"  # an f-string of Python 3.11 holds no backslash
HEADER = "import numpy as np\n\n\ndef mean_colour(picture, mask):\n"
RIGHT, WRONG = "    return picture[mask].mean(axis=0)\n", "    return picture.mean(axis=(0, 1))\n"


def _with_id(notebook, grade_id):
    return next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def _released(source):
    """What nbgrader hands out of a cell: hidden tests gone, each solution a stub."""
    source = re.sub(r"(?ms)^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS\n", "", source)
    return re.sub(r"(?ms)^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$", r"\1raise NotImplementedError", source)


# ------------------------------------------------------------------ the notebook


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
class TestEveryLesson:
    def test_each_exercise_is_an_answer_and_a_test_with_its_points(self, lesson):
        notebook = assignment(COURSE, lesson)
        graded = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
        points = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points for cell in graded}
        assert points == {f"{e.exercise}-test": e.options["difficulty"] for e in lesson.exercises}
        for exercise in lesson.exercises:
            answer, test = (_with_id(notebook, name) for name in (exercise.exercise, f"{exercise.exercise}-test"))
            assert notebook.cells.index(test) == notebook.cells.index(answer) + 1
            assert f"verdict = {exercise.source.strip().split(NEWLINE)[-1]}\n" in test.source

    def test_what_nbgrader_hands_out_is_the_stub_and_what_it_keeps_the_solution(self, lesson):
        notebook, handed_out = assignment(COURSE, lesson), pack(COURSE, lesson, None, variants=False)
        stubs = {cell.id: cell.source for cell in handed_out.cells}
        for exercise in lesson.exercises:
            source = _with_id(notebook, exercise.exercise).source
            check = f"\n\n\n{exercise.source.strip().split(NEWLINE)[-1]}"
            heading = stubs[exercise.id].partition("\n")[0]
            assert _released(source) + check == stubs[exercise.id] == f"{heading}\n{stub(exercise.source)}"
            kept = "\n".join(line for line in source.split("\n") if "### " not in line)
            assert kept + check == f"{heading}\n{solved(exercise.source)}"

    def test_no_solution_is_left_after_nbgrader_cleared_it(self, lesson):
        notebook = assignment(COURSE, lesson)
        told = "\n".join(_released(cell.source) for cell in notebook.cells)
        for exercise in lesson.exercises:
            shown = "\n".join(cell.source for cell in lesson.cells if cell is not exercise) + stub(exercise.source)
            written = {line.strip() for line in solved(exercise.source).split("\n") if line not in shown}
            assert not [line for line in written if len(line) > 25 and line in told]

    def test_only_imports_answers_and_tests_run_in_grading(self, lesson):
        cells = [cell for cell in assignment(COURSE, lesson).cells if cell.cell_type == "code"]
        run = [cell for cell in cells if SKIP not in cell.metadata.get("tags", [])]
        assert all("nbgrader" in cell.metadata for cell in run) and len(run) == 1 + 2 * len(lesson.exercises)
        assert run[0].metadata.nbgrader.grade_id == "imports" and set(imports(lesson).split("\n")) <= set(
            run[0].source.split("\n")
        )

    def test_the_metadata_are_those_of_nbgraders_third_schema(self, lesson):
        notebook = assignment(COURSE, lesson)
        nbformat.validate(notebook)
        found = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
        names = [data.grade_id for data in found]
        assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]+", name) for name in names)
        for data in found:
            assert data.schema_version == 3 and data.cell_type == "code" and not data.task
            answer, test, only_read = (False, True, False), (True, False, True), (False, False, True)
            assert (data.grade, data.solution, data.locked) in (answer, test, only_read)
            assert ("points" in data) == data.grade
        again = assignment(COURSE, lesson)
        assert [c.metadata.get("nbgrader") for c in again.cells] == [c.metadata.get("nbgrader") for c in notebook.cells]


# ------------------------------------------------------------------ what a test does


@pytest.fixture
def run(monkeypatch):
    """run(source of the answer, released=..., execution=...): runs lesson 00's test upon it; what it displayed."""
    source = _with_id(assignment(COURSE, LESSONS[0]), "mean_colour-test").source
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.delenv("TUTORIAL_STRICT", raising=False)

    def go(answer, released=False, execution=None):
        if execution:
            monkeypatch.setenv("NBGRADER_EXECUTION", execution)
        shown = []
        names = {"__name__": "__main__", "display": shown.append}
        exec(answer, names)
        exec(_released(source) if released else source, names)
        return shown

    return go


def test_in_a_students_notebook_a_wrong_answer_is_told_and_stops_nothing(run):
    assert [str(verdict)[:10] for verdict in run(HEADER + WRONG, released=True)] == ["✗ Not yet."]
    assert run(HEADER + "    raise NotImplementedError\n", released=True)[0].state == "to do"
    assert run(HEADER + RIGHT, released=True)[0].state == "right"


def test_validating_and_grading_fail_for_a_wrong_answer_with_its_diagnosis(run):
    for released, execution in ((True, "validate"), (False, "autograde"), (False, None)):
        with pytest.raises(AssertionError, match="the mask was not used"):
            run(HEADER + WRONG, released, execution)
        assert run(HEADER + RIGHT, released, execution)[0].state == "right"


@pytest.mark.parametrize("wrong", lesson_00.mean_colour.wrong_answers, ids=lambda wrong: wrong[1])
def test_each_known_mistake_earns_nothing(run, wrong, monkeypatch):
    monkeypatch.setattr(lesson_00, "handed_in", wrong[0], raising=False)
    with pytest.raises(AssertionError, match=re.escape(wrong[1])):
        run(
            "from tutorial_lib.lab.checks import lesson_00\n\n\n"
            "def mean_colour(picture, mask):\n    return lesson_00.handed_in(picture, mask)"
        )


def test_the_library_under_the_answers_name_earns_nothing(run):
    given = "from tutorial_lib.lab.checks.lesson_00 import _by_division as mean_colour"
    assert run(given, released=True)[0].state == "right"
    with pytest.raises(AssertionError, match="is the library's"):
        run(given)


def test_a_right_answer_with_a_warning_is_right_and_writes_nothing_to_stderr(run, capsys):
    noisy = "    import sys\n    print('careful', file=sys.stderr)\n"
    assert run(HEADER + noisy + RIGHT)[0].state == "right"
    assert capsys.readouterr() == ("careful\n", "")


def test_a_check_of_the_students_own_is_not_asked(run):
    own = "\n\nclass check:\n    mean_colour = staticmethod(lambda answer: 1)\n"
    with pytest.raises(AssertionError, match="the mask was not used"):
        run(HEADER + WRONG + own)


# ------------------------------------------------------------------ the folder


def test_a_course_folder_with_an_assignment_for_each_lesson(tmp_path, capsys):
    assert main([str(tmp_path / "my 'course'"), "00", "04"], COURSE.root) == 0
    files = [f.relative_to(tmp_path).as_posix() for f in sorted(tmp_path.rglob("*.*")) if f.is_file()]
    names = ("00_start_here", "04_orthogonal_fine_tuning")
    assert files == ["my 'course'/nbgrader_config.py", *(f"my 'course'/source/{n}/{n}.ipynb" for n in names)]
    compile((tmp_path / "my 'course'" / "nbgrader_config.py").read_text(), "config", "exec")
    assert "nbgrader generate_assignment 00_start_here" in capsys.readouterr().out


def test_nothing_is_overwritten_and_nothing_half_done_remains(tmp_path, capsys):
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "gradebook.db").write_text("points")
    (tmp_path / "file").write_text("mine")
    for out, numbers, words in (
        ("course", ["00"], "nothing is overwritten"),
        ("file", ["00"], "nothing is overwritten"),
        ("new", ["00", "77"], "no lesson 77"),
    ):
        assert main([str(tmp_path / out), *numbers], COURSE.root) == 1
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["course", "file", "gradebook.db"]


def test_a_lesson_that_is_not_built_is_said_and_leaves_nothing(tmp_path, make_course, capsys):
    course = make_course()
    assert main([str(tmp_path / "course")], course.root) == 1
    assert "is not built yet. Run: python tools/build_lessons.py 07" in capsys.readouterr().err
    assert not list(tmp_path.glob("course*"))


def test_an_exercise_may_use_the_lessons_own_import_of_the_checks(make_course):
    course = make_course()
    lesson = read(course.masters()[0])
    solution = solved_notebook(lesson, "someone/somewhere", None)
    course.student(lesson.name).parent.mkdir()
    nbformat.write(student_notebook(lesson, "someone/somewhere", solution), course.student(lesson.name))
    test = _with_id(assignment(course, lesson), "mean_colour-test")
    assert "\nfrom tutorial_lib.lab.checks import lesson_00 as check\n" in test.source
    assert (test.id, test.metadata.nbgrader.points) == ("mean-colour-exercise-test", 2)


# ------------------------------------------------------------------ nbgrader itself


@pytest.fixture
def nbgrader(tmp_path):
    """Runs a command of nbgrader in a course that was exported with lesson 00."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: pip install nbgrader, to run it on an export")
    course = tmp_path / "course"
    assert main([str(course), "00"], COURSE.root) == 0

    def command(*words):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic by its name
        variables = os.environ | {"TUTORIAL_STRICT": "", "PATH": path}
        command = [sys.executable, "-m", "nbgrader", *words, "00_start_here"]
        done = subprocess.run(command, cwd=course, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    command.course = course
    return command


def test_nbgrader_hands_out_and_counts_as_grade_py_does(nbgrader):
    from nbgrader.api import Gradebook

    nbgrader("generate_assignment")
    file = Path("00_start_here") / "00_start_here.ipynb"
    released = nbformat.read(nbgrader.course / "release" / file, as_version=4)
    assert _with_id(released, "mean_colour").source.count("raise NotImplementedError") == 1
    assert "HIDDEN" not in str(released) and "picture[mask]  # (pixels, 3)" not in str(released)
    answers = {"empty": None, "right": HEADER + RIGHT, "wrong": HEADER + WRONG, "skipping": HEADER + WRONG}
    for student, source in answers.items():
        notebook = nbformat.from_dict(released)
        _with_id(notebook, "mean_colour").source = source or _with_id(released, "mean_colour").source
        if student == "skipping":
            _with_id(notebook, "mean_colour-test").metadata["tags"] = [SKIP]
        place = nbgrader.course / "submitted" / student / file
        place.parent.mkdir(parents=True)
        nbformat.write(notebook, place)
    nbgrader("autograde")
    with Gradebook(f"sqlite:///{nbgrader.course / 'gradebook.db'}") as book:
        found = {s.student.id: s.score for s in book.find_assignment("00_start_here").submissions}
    assert found == {"empty": 0, "right": 1, "wrong": 0, "skipping": 0}
    nbgrader("generate_feedback")
    page = (nbgrader.course / "feedback" / "wrong" / file.with_suffix(".html")).read_text(encoding="utf-8")
    assert "the mask was not used" in page
