"""The teacher's side of grading: each exercise of a lesson with its check, from the teacher's own checkout."""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from lesson_format import Cell, Lesson, imports, solved, stub

from tutorial_lib.lab import checks


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    `names`: what its cell may rely on, the imports of the lesson and its own. `arguments`: what the last line hands to
    the check, as expressions. `allowed`: functions of the library that the course's solution itself calls.
    """

    cell: Cell
    check: checks.Check
    arguments: tuple[ast.expr, ...]
    names: dict
    allowed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.cell.exercise

    @property
    def points(self) -> int:
        """A right answer earns the exercise's difficulty."""
        return self.cell.options["difficulty"]

    @property
    def answer_names(self) -> set[str]:
        """The names that an answer must define."""
        return {n.id for argument in self.arguments for n in ast.walk(argument) if isinstance(n, ast.Name)}

    @property
    def solution(self) -> str:
        return solved(self.cell.source)

    @property
    def stub(self) -> str:
        return stub(self.cell.source)

    def allowing(self, names: frozenset[str]) -> Exercise:
        return replace(self, allowed=names)


def exercises_of(lesson: Lesson) -> list[Exercise]:
    """The exercises of a lesson; imports everything that the lesson imports."""
    shared = {}
    exec(compile(imports(lesson), lesson.name, "exec"), shared)
    return [_exercise(cell, dict(shared)) for cell in lesson.exercises]


def _exercise(cell: Cell, names: dict) -> Exercise:
    tree = ast.parse(cell.source)
    own = [statement for statement in tree.body if isinstance(statement, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(own, []), cell.title, "exec"), names)
    call = tree.body[-1].value  # check.name(answer): the format's rule
    check = eval(compile(ast.Expression(call.func), cell.title, "eval"), names)
    return Exercise(cell, check, tuple(call.args), names)


def fingerprint(master: Path) -> str:
    """A hash of what a verdict rests on: the master, its checks, the grader. Another one means: grade again."""
    folder, text = Path(checks.__file__).parent, master.read_text(encoding="utf-8")
    named = sorted(set(re.findall(r"from tutorial_lib\.lab\.checks import (\w+)", text)))
    modules = ["__init__", "answers", *named]
    files = [folder / f"{name}.py" for name in modules] + sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in [master, *files])).hexdigest()
