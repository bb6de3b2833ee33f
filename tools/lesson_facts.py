"""What a teacher wants to know of the lessons, from the notebooks and the checks themselves.

python tools/lesson_facts.py          a table: measured time and memory, exercises, minutes, points
python tools/lesson_facts.py 01       the exercises of a lesson and each mistake that their checks know, as they say it
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import nbformat
from build_lessons import Course
from grading.exercises import exercises_of
from lesson_format import Lesson, LessonError, read
from lesson_notebooks import measured_of

from tutorial_lib.lab.session import STRICT


def table(course: Course) -> str:
    """One row a lesson, as Markdown."""
    head = ["| lesson | top to bottom | memory | exercises | minutes for them | points |", "|---|---|---|---|---|---|"]
    return "\n".join(head + [_row(course, read(master)) for master in course.masters()])


def _row(course: Course, lesson: Lesson) -> str:
    path = course.solved(lesson.name)
    measured = measured_of(nbformat.read(path, as_version=4)) if path.exists() else None
    cost = f"{measured.seconds:.0f} s on {measured.cores} cores | {measured.peak_mb} MB" if measured else "not built | "
    minutes, points = (sum(cell.options[key] for cell in lesson.exercises) for key in ("minutes", "difficulty"))
    return f"| {lesson.name} | {cost} | {len(lesson.exercises)} | {minutes} | {points} |"


def mistakes(lesson: Lesson) -> str:
    """The exercises of a lesson, each with what its check says to the wrong answers that it knows; as Markdown."""
    parts = []
    for exercise in exercises_of(lesson):
        options = exercise.cell.options
        parts.append(f"## {exercise.name} · {exercise.points} points · about {options['minutes']} minutes\n")
        told = [exercise.check(answer).message for answer, _ in exercise.check.wrong_answers]
        parts += [f"- {message}" for message in dict.fromkeys(message.replace("\n", " ") for message in told)] + [""]
    return "\n".join(parts)


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="two-digit numbers of lessons")
    numbers = parser.parse_args(arguments).numbers
    course = Course(root)
    os.environ.pop(STRICT, None)  # wrong answers are what this is about
    try:
        print("\n".join(mistakes(read(path)) for path in course.masters(numbers)) if numbers else table(course))
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
