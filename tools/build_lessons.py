"""Builds the course's notebooks from their masters in lessons/, or tells where the two have drifted apart.

    python tools/build_lessons.py            every lesson: solved and executed, then the student's notebook
    python tools/build_lessons.py 00 04      these only
    python tools/build_lessons.py --prose 04    nothing is executed: new text around the same code, outputs stay
    python tools/build_lessons.py --check    nothing is executed or written; fails when a notebook is not its master's

Every check runs strictly during a build. A build that fails leaves the notebook as it was. After a build CLAIMS.md is
made anew.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import claims
import nbformat
from lesson_format import Lesson, LessonError, read
from lesson_notebooks import Measured, check_outputs, clean, measured_of, solved_notebook, student_notebook

CELL_TIMEOUT = 900  # seconds
PROBE = "from tutorial_lib.lab import session\nprint(session.peak_memory_mb(), session.cores())"


@dataclass(frozen=True)
class Course:
    """Where the masters and notebooks of a repository are."""

    root: Path

    @property
    def repository(self) -> str:
        """The course's "owner/name" on GitHub, from pyproject.toml: the one place that says it."""
        return tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]["repository"]

    def masters(self, numbers=()) -> list[Path]:
        """The master files of the lessons with these two-digit numbers, all when none is given."""
        found = sorted((self.root / "lessons").glob("[0-9][0-9]_*.py"))
        known = [path.name[:2] for path in found]
        if unknown := set(numbers) - set(known):
            raise LessonError(f"no lesson {', '.join(sorted(unknown))}; there are {', '.join(known) or 'none'}")
        return [path for path in found if not numbers or path.name[:2] in numbers]

    def student(self, name: str) -> Path:
        return self.root / "notebooks" / f"{name}.ipynb"

    def solved(self, name: str) -> Path:
        return self.root / "notebooks" / "solutions" / f"{name}.ipynb"


# ------------------------------------------------------------------ building


def build(course: Course, master: Path) -> Measured:
    """Executes a lesson and writes both of its notebooks, or raises and writes nothing."""
    lesson = read(master)
    executed, measured = execute(solved_notebook(lesson, course.repository, None), course.root)
    _finish(course, lesson, executed, measured)
    return measured


def reword(course: Course, master: Path) -> None:
    """Writes both notebooks with the master's prose around the outputs that are there; LessonError if code changed."""
    lesson, solved = read(master), course.solved(master.stem)
    if not solved.exists():
        raise LessonError(f"{master.name}: not built yet; build it without --prose")
    executed = nbformat.read(solved, as_version=4)
    wanted = solved_notebook(lesson, course.repository, None)
    ours, theirs = ([(cell.id, cell.source) for cell in _code_cells(book)] for book in (wanted, executed))
    if ours != theirs:
        changed = dict(ours).keys() ^ dict(theirs).keys() or {a[0] for a, b in zip(ours, theirs) if a != b}
        raise LessonError(f"{master.name}: the code of {sorted(changed)} changed; build it without --prose")
    _finish(course, lesson, executed, measured_of(executed))


def _finish(course: Course, lesson: Lesson, executed: nbformat.NotebookNode, measured: Measured) -> None:
    """Writes both notebooks of a lesson, with the outputs of one that was executed."""
    finished = solved_notebook(lesson, course.repository, measured)
    for cell, done in zip(_code_cells(finished), _code_cells(executed), strict=True):
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
    check_outputs(finished, forbidden=[str(course.root), str(Path.home()) + os.sep, sys.prefix])
    _check_claims(lesson, finished)
    student = student_notebook(lesson, course.repository, finished)
    _write_together({course.solved(lesson.name): finished, course.student(lesson.name): student})


def _code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: nbformat.NotebookNode, root: Path) -> tuple[nbformat.NotebookNode, Measured]:
    """The notebook with outputs, run by a fresh kernel in strict mode, and what that took."""
    from nbclient import NotebookClient

    notebook = nbformat.from_dict(notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE, id="probe"))
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(root / "notebooks")}},
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
    )
    (root / "notebooks").mkdir(exist_ok=True)
    start = time.perf_counter()
    client.execute(env=os.environ | {"TUTORIAL_STRICT": "1"})
    seconds = time.perf_counter() - start
    peak, cores = notebook.cells.pop().outputs[0].text.split()
    clean(notebook)
    return notebook, Measured(round(seconds, 1), round(float(peak)), int(cores))


def _check_claims(lesson: Lesson, notebook: nbformat.NotebookNode) -> None:
    """A claim that is called and not shown would silently miss CLAIMS.md."""
    for cell in _code_cells(notebook):
        shown = [output for output in cell.outputs if "claim" in output.get("metadata", {}).get("course", {})]
        if ("\nclaim(" in "\n" + cell.source) != bool(shown):
            raise LessonError(f"{lesson.name}.py, cell {cell.id!r}: claim(...) is not the value that the cell shows")


def _write_together(notebooks: dict[Path, nbformat.NotebookNode]) -> None:
    """Writes all files beside their places first, then moves them there."""
    for path, notebook in notebooks.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(text_of(notebook), encoding="utf-8")
    for path in notebooks:
        os.replace(path.with_suffix(".new"), path)


def text_of(notebook: nbformat.NotebookNode) -> str:
    """The notebook as the text of its file, checked against the notebook format."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


# ------------------------------------------------------------------ drift


def drift(course: Course) -> list[str]:
    """What differs between masters and notebooks, one line a difference; outputs and measurements are not compared."""
    masters = course.masters()
    names = {path.stem for path in masters}
    found = [f"{path.name}: no master of that name" for path in _notebooks(course) if path.stem not in names]
    for master in masters:
        found += _lesson_drift(course, read(master))
    return found + ([] if claims.is_current(course.root) else ["CLAIMS.md: not what the notebooks say"])


def _notebooks(course: Course) -> list[Path]:
    folder = course.root / "notebooks"
    return sorted(folder.glob("*.ipynb")) + sorted((folder / "solutions").glob("*.ipynb"))


def _lesson_drift(course: Course, lesson: Lesson) -> list[str]:
    missing = [path for path in (course.solved(lesson.name), course.student(lesson.name)) if not path.exists()]
    if missing:
        return [f"{path.relative_to(course.root)}: not built yet" for path in missing]
    solved = nbformat.read(course.solved(lesson.name), as_version=4)
    student = nbformat.read(course.student(lesson.name), as_version=4)
    wanted = solved_notebook(lesson, course.repository, measured_of(solved))
    found = _differences(wanted, _without_outputs(solved), f"solutions/{lesson.name}")
    found += _differences(student_notebook(lesson, course.repository, solved), student, lesson.name)
    idle = [cell.id for cell in solved.cells if cell.cell_type == "code" and cell.execution_count is None]
    return found + [f"solutions/{lesson.name}, cell {name!r}: never executed" for name in idle]


def _without_outputs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    bare = nbformat.from_dict(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def _differences(wanted: nbformat.NotebookNode, found: nbformat.NotebookNode, name: str) -> list[str]:
    if [cell.id for cell in wanted.cells] != [cell.id for cell in found.cells]:
        odd = {cell.id for cell in wanted.cells} ^ {cell.id for cell in found.cells}
        return [f"{name}: other cells than in the master, or in another order {sorted(odd)}"]
    pairs = zip(wanted.cells, found.cells, strict=True)
    differing = [f"{name}, cell {ours.id!r}: differs from the master" for ours, theirs in pairs if ours != theirs]
    return differing + ([f"{name}: other metadata"] if wanted.metadata != found.metadata else [])


# ------------------------------------------------------------------ command line


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """The command; returns its exit status."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="two-digit numbers of lessons; all when none is given")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare only")
    what.add_argument("--prose", action="store_true", help="change the text only, and keep the outputs")
    options = parser.parse_args(arguments)
    course = Course(root)
    try:
        if options.check:
            return _check(course)
        return _reword_all(course, options.numbers) if options.prose else _build_all(course, options.numbers)
    except (LessonError, claims.ClaimError, CellExecutionError, CellTimeoutError) as error:
        print(f"{error}\nNothing of this lesson was written.", file=sys.stderr)
        return 1


def _check(course: Course) -> int:
    found = drift(course)
    print("\n".join([*found, "Run: python tools/build_lessons.py"]) if found else "Notebooks and masters agree.")
    return 1 if found else 0


def _build_all(course: Course, numbers: list[str]) -> int:
    for master in course.masters(numbers):
        print(f"{master.stem} ...", flush=True)
        measured = build(course, master)
        print(f"{master.stem}: {measured.seconds:.0f} s, {measured.peak_mb:.0f} MB")
    try:
        claims.write(course.root)
    except claims.ClaimError as error:
        print(f"{error}\nThe notebooks are written, CLAIMS.md is not.", file=sys.stderr)
        return 1
    return 0


def _reword_all(course: Course, numbers: list[str]) -> int:
    for master in course.masters(numbers):
        reword(course, master)
        print(f"{master.stem}: the master's prose around the outputs that were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
