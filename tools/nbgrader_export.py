"""Exports lessons as a course of nbgrader: exercises as autograded answers, their checks as locked tests with points.

    python tools/nbgrader_export.py course/            every lesson, each an assignment of its own
    python tools/nbgrader_export.py course/ 00 04      these only

Writes course/source/NN_slug/NN_slug.ipynb and course/nbgrader_config.py. Then, in course/, nbgrader's own commands:
`nbgrader generate_assignment NN_slug`, and so on to `autograde` and `generate_feedback`.

Each exercise becomes two cells. In the first the student writes; the marks for nbgrader stand around the solution, and
generate_assignment takes it out. The second is the check. In a student's notebook it says what is wrong and never
stops "Run All". Under `nbgrader validate` and `autograde` an answer that is not right raises there, which is how
nbgrader counts: all points of the exercise (its difficulty, as in grade.py), or none.

nbgrader runs a whole notebook from top to bottom. The lesson's own cells would train for minutes at each submission, so
they carry the tag "skip-execution", which nbgrader's runner obeys and Jupyter does not. One locked cell holds the
lesson's imports instead. What runs is that cell, the exercises, and cells that the student added.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from build_lessons import Course, text_of
from lesson_format import CLOSE, OPEN, Cell, Lesson, LessonError, imports, read
from nbformat.v4 import new_code_cell
from student_pack import PackError, pack

SCHEMA = 3  # of the metadata of a cell, nbgrader 0.6 and later
SKIP = "skip-execution"
IMPORTS = """\
# The imports that exercises may use. Grading runs this cell, the exercises and cells of your own, and no others: values
# that other cells compute are not there.
{imports}"""
# nbgrader takes any output on stderr for a failure, and a right answer may well cause a warning: hence the redirection.
# The hidden assertion does not rest on nbgrader's variable: were that not set, every answer would earn its points.
TEST = """\
# The check of {name}: all points if the answer is right, else none. Grading runs it as it was handed out.
import contextlib
import os
import sys

{import_check}

with contextlib.redirect_stderr(sys.stdout):
    verdict = {call}
### BEGIN HIDDEN TESTS
from_library = any(str(getattr(f, "__module__", "")).startswith("tutorial_lib") for f in ({answers},))
assert not from_library, "This function is the library's. Did the cell with your own stop before it was defined?"
assert verdict.state == "right", str(verdict)
### END HIDDEN TESTS
assert verdict.state == "right" or "NBGRADER_EXECUTION" not in os.environ, str(verdict)
display(verdict)"""
CONFIG = """\
# Settings of nbgrader for this course, as tools/nbgrader_export.py wrote them. Change what you like.
from nbgrader.preprocessors import NbGraderPreprocessor


class TestsRun(NbGraderPreprocessor):
    \"\"\"Takes away a test's tags: with "{skip}" it would not be run, and what does not fail earns its points.\"\"\"

    def preprocess_cell(self, cell, resources, index):
        if cell.metadata.get("nbgrader", {{}}).get("grade"):
            cell.metadata.pop("tags", None)
        return cell, resources


c = get_config()
c.CourseDirectory.course_id = {course!r}
c.ExecutePreprocessor.timeout = 120  # seconds for a cell; the first one imports torch and diffusers
c.ClearSolutions.code_stub = {{"python": "raise NotImplementedError"}}  # the checks call such an answer "to do"
c.OverwriteCells.add_missing_cells = True  # a test that a student deleted comes back
c.Autograde.sanitize_preprocessors.append(TestsRun)
"""


# ------------------------------------------------------------------ one notebook


def assignment(course: Course, lesson: Lesson) -> nbformat.NotebookNode:
    """The source notebook of an assignment: that of a student pack, with solutions in nbgrader's marks, and tests."""
    notebook = pack(course, lesson, None, variants=False)
    exercises = {cell.id: cell for cell in lesson.exercises}
    cells = []
    for cell in notebook.cells:
        if cell.id in exercises:
            cells += [_answer(cell, exercises[cell.id]), _test(lesson, exercises[cell.id])]
        elif cell.cell_type == "code":
            cells += [_skipped(cell), _imports(lesson)] if cell.id == "set-up" else [_skipped(cell)]
        else:
            cells.append(cell)
    notebook.cells = cells
    return notebook


def _skipped(cell):
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), SKIP]
    return cell


def _imports(lesson: Lesson):
    """A locked cell with every import of the lesson, each once."""
    lines = dict.fromkeys(imports(lesson).split("\n"))
    return _nbgrader_cell(IMPORTS.format(imports="\n".join(lines)), "imports", locked=True)


def _answer(cell, exercise: Cell):
    """The exercise's cell without its check, solved, the solution between nbgrader's marks."""
    heading = cell.source.partition("\n")[0]
    written, _ = _parts(exercise)
    marked = written.replace(OPEN, "### BEGIN SOLUTION").replace(CLOSE, "### END SOLUTION")
    cell.source = f"{heading}\n{marked}"
    cell.metadata["nbgrader"] = _metadata(exercise.exercise, solution=True)
    return cell


def _test(lesson: Lesson, exercise: Cell):
    """The locked cell that calls the check and, in grading, raises unless the answer is right."""
    _, call = _parts(exercise)
    arguments = ast.parse(call).body[0].value.args
    names = [node.id for argument in arguments for node in ast.walk(argument) if isinstance(node, ast.Name)]
    source = TEST.format(
        name=exercise.exercise, import_check=_import_of_check(lesson, exercise), call=call, answers=", ".join(names)
    )
    return _nbgrader_cell(
        source, f"{exercise.exercise}-test", f"{exercise.id[:59]}-test", grade=True, locked=True,
        points=exercise.options["difficulty"],
    )  # fmt: skip


def _parts(exercise: Cell) -> tuple[str, str]:
    """What stands before the check in an exercise's cell, and the call of the check: the last line, by the format."""
    lines = exercise.source.split("\n")
    first = ast.parse(exercise.source).body[-1].lineno - 1
    return "\n".join(lines[:first]).rstrip(), "\n".join(lines[first:]).strip()


def _import_of_check(lesson: Lesson, exercise: Cell) -> str:
    """The line that imports `check` for an exercise: its own, else the lesson's."""
    for statement in ast.parse(exercise.source + "\n" + imports(lesson)).body:
        if isinstance(statement, ast.ImportFrom) and any((a.asname or a.name) == "check" for a in statement.names):
            return ast.unparse(statement)
    raise LessonError(
        f"{lesson.name}.py, cell {exercise.title!r}: no import of check; add `... import lesson_NN as check`"
    )


def _nbgrader_cell(source: str, grade_id: str, name: str | None = None, **roles):
    metadata = {"nbgrader": _metadata(grade_id, **roles)}
    return new_code_cell(source, id=name or f"nbgrader-{grade_id}", metadata=metadata)


def _metadata(grade_id: str, *, grade=False, solution=False, locked=False, points: int | None = None) -> dict:
    """What nbgrader keeps in a cell; `grade_id` is the exercise's name, the same in every export."""
    roles = {"grade": grade, "solution": solution, "locked": locked, "task": False}
    shared = {"grade_id": grade_id, "schema_version": SCHEMA, "cell_type": "code"}
    return roles | shared | ({"points": points} if grade else {})


# ------------------------------------------------------------------ the course folder


def write(course: Course, out: Path, numbers: list[str]) -> list[str]:
    """Writes the course folder, all or nothing; the names of its assignments."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PackError(
            f"{out} is there already, and nothing is overwritten. Name a new folder; to add a lesson to a course, move "
            "its folder from the new source/ into the course's."
        )
    lessons = [read(master) for master in course.masters(numbers)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        new = Path(folder) / out.name
        _fill(new, course, lessons)
        if out.exists():
            out.rmdir()
        os.replace(new, out)
    return [lesson.name for lesson in lessons]


def _fill(folder: Path, course: Course, lessons: list[Lesson]) -> None:
    for lesson in lessons:
        text = text_of(assignment(course, lesson))
        place = folder / "source" / lesson.name
        place.mkdir(parents=True)
        (place / f"{lesson.name}.ipynb").write_text(text, encoding="utf-8")
    (folder / "nbgrader_config.py").write_text(CONFIG.format(course=folder.name, skip=SKIP), encoding="utf-8")


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder: the course of nbgrader")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="two-digit numbers of lessons; all if none is given")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    try:
        names = write(Course(root), out, options.numbers)
    except (PackError, LessonError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{out}: {', '.join(names)}\nNext, there: nbgrader generate_assignment {names[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
