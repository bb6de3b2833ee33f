"""Makes the notebooks to hand out: exercises as stubs, hints and expected outputs, no solutions.

    python tools/student_pack.py packs/                        every lesson, one folder for all
    python tools/student_pack.py packs/ 01 02                  these only
    python tools/student_pack.py packs/ --class names.txt      a folder for each name in the file, one a line
    python tools/student_pack.py packs/ --class names.txt --variants    with data of their own (own_numbers.py)

A pack is notebooks and a README that says how to get the course, which holds the library and the pocket model. It holds
no library of its own: the checks compute right answers, and so does tutorial_lib, so that whoever reads the course's
source finds them. A pack takes the solutions out of the way, and grade.py sees an answer that only calls the library.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import own_numbers
from build_lessons import Course, text_of
from lesson_format import Lesson, LessonError, read

SOLUTION_FOLD = re.compile(r"\n*<details>\n<summary>Solution</summary>.*?\n</details>", re.DOTALL)
README = """\
# Your notebooks{whose}

1. Get the course and set it up, once: `git clone https://github.com/{repository} course`, then `make setup` there.
2. Put this folder into the course's folder and open it: `.venv/bin/jupyter-lab {folder}`.
3. Work the exercises. Each cell checks your answer at once. *Run All* always goes through.
4. Hand in the notebooks as they are, under their names, in a folder with your name.

Write the answers yourself: one that only calls `tutorial_lib` is seen, and earns no points. Your helper functions may
stand in cells of their own. Values that other cells compute are not there when your exercise is graded; hand what a
function needs to the function.
"""


class PackError(ValueError):
    """A pack that cannot be made; the message says why and what to do."""


def pack(course: Course, lesson: Lesson, student: str | None, variants: bool) -> nbformat.NotebookNode:
    """The notebook of a lesson to hand out: the course's student notebook without solutions and without its badge."""
    path = course.student(lesson.name)
    if not path.exists():
        raise PackError(f"{path} is not built yet. Run: python tools/build_lessons.py {lesson.number}")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = re.sub(r"\[!\[Open in Colab\].*\n+", "", notebook.cells[0].source)  # shows solutions
    if student:
        notebook.metadata.course["student"] = student
    notebook.cells = [new for cell in notebook.cells for new in _packed(cell, lesson, student, variants)]
    return notebook


def _packed(cell, lesson: Lesson, student: str | None, variants: bool) -> list:
    """The cell without the solution; after an exercise's help its own numbers, where it has them."""
    exercise = next((e for e in lesson.exercises if cell.id == f"{e.id[:59]}-help"), None)
    if exercise is None:
        return [cell]
    cell.source = SOLUTION_FOLD.sub("", cell.source)
    if not (variants and exercise.exercise in own_numbers.DATA):
        return [cell]
    source = own_numbers.cell_source(exercise.exercise, student)
    return [cell, nbformat.v4.new_code_cell(source, id=f"{exercise.id[:60]}-own", metadata={"tags": ["own numbers"]})]


def write(course: Course, out: Path, numbers: list[str], students: list[str], variants: bool) -> list[Path]:
    """Writes the packs, all or none; the folders that were made."""
    if out.exists() and any(out.iterdir()):
        raise PackError(f"{out} is not empty, and nothing there is overwritten. Name a new folder.")
    lessons = [read(master) for master in course.masters(numbers)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        new = Path(scratch) / out.name
        for student in students or [None]:
            _write_one(course, new / student if student else new, lessons, student, variants)
        if out.exists():
            out.rmdir()
        os.replace(new, out)
    return [out / student for student in students] or [out]


def _write_one(course: Course, folder: Path, lessons: list[Lesson], student: str | None, variants: bool) -> None:
    """One pack in a new folder: the notebooks and the README."""
    folder.mkdir(parents=True)
    for lesson in lessons:
        text = text_of(pack(course, lesson, student, variants))
        (folder / f"{lesson.name}.ipynb").write_text(text, encoding="utf-8")
    whose = f", {student}" if student else ""
    readme = README.format(whose=whose, repository=course.repository, folder=folder.name)
    (folder / "README.md").write_text(readme, encoding="utf-8")


def names_in(path: Path) -> list[str]:
    """The names of a class file, one a line; PackError where one cannot name a folder or stands twice."""
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for name in names:
        if re.search(r'[/\\:*?"<>|\x00-\x1f]', name) or name.startswith("."):
            raise PackError(f"{path}: {name!r} cannot be the name of a folder. Leave out signs such as / and :")
    if twice := {name for name in names if [other.casefold() for other in names].count(name.casefold()) > 1}:
        raise PackError(f"{path}: {sorted(twice)} stand there twice. Give each student a name of their own.")
    if not names:
        raise PackError(f"{path} holds no name. Write one a line.")
    return names


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="two-digit numbers of lessons; all if none is given")
    parser.add_argument("--class", type=Path, dest="students", metavar="FILE", help="names, one a line")
    parser.add_argument("--variants", action="store_true", help="data of their own; needs --class")
    options = parser.parse_args(arguments)
    try:
        if options.variants and not options.students:
            raise PackError("Data of their own are drawn from the students' names: give them with --class.")
        students = names_in(options.students) if options.students else []
        made = write(Course(root), options.out.resolve(), options.numbers, students, options.variants)
    except (PackError, LessonError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(map(str, made)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
