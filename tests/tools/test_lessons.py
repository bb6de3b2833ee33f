"""The course's own lessons: masters keep the rules, notebooks are theirs, exercises and checks fit together."""

import ast
from pathlib import Path

import nbformat
import pytest
from build_lessons import Course, drift
from lesson_format import imports, is_solution_with_lines_removed, read, solved, stub
from lesson_notebooks import measured_of

COURSE = Course(Path(__file__).parents[2])
LESSONS = [read(master) for master in COURSE.masters()]
EXERCISES = [
    pytest.param(lesson, cell, id=f"{lesson.number}-{cell.exercise}") for lesson in LESSONS for cell in lesson.exercises
]


def _verdict(lesson, source):
    """What the check at the end of an exercise cell says; the cell gets the lesson's imports and nothing else."""
    names = {}
    exec(compile(imports(lesson), lesson.name, "exec"), names)
    tree = ast.parse(source)
    exec(compile(ast.Module(tree.body[:-1], []), "exercise", "exec"), names)
    return eval(compile(ast.Expression(tree.body[-1].value), "exercise", "eval"), names)


@pytest.fixture(autouse=True)
def lenient(monkeypatch):
    monkeypatch.delenv("TUTORIAL_STRICT", raising=False)


def test_notebooks_and_masters_agree():
    assert drift(COURSE) == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_a_lesson_has_15_to_45_cells(lesson):
    assert 15 <= len([cell for cell in lesson.cells if "hint" not in cell.options]) <= 45


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_a_lesson_fits_a_small_laptops_memory(lesson):
    """As its last build measured it, on the machine that its header names."""
    assert measured_of(nbformat.read(COURSE.solved(lesson.name), as_version=4)).peak_mb < 2000


@pytest.mark.parametrize(("lesson", "cell"), EXERCISES)
def test_the_solution_passes_its_check_and_the_stub_is_to_do(lesson, cell):
    right = _verdict(lesson, solved(cell.source))
    assert right.state == "right", right.message
    assert _verdict(lesson, stub(cell.source)).state == "to do"


@pytest.mark.parametrize(("lesson", "cell"), EXERCISES)
def test_the_stub_in_the_notebook_is_the_solution_in_the_notebook_with_lines_removed(lesson, cell):
    sources = [
        next(c.source for c in nbformat.read(path(lesson.name), as_version=4).cells if c.id == cell.id)
        for path in (COURSE.student, COURSE.solved)
    ]
    assert is_solution_with_lines_removed(*sources)
