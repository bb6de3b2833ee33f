"""A pack with data of its own, from the pack to the points."""

import nbformat
import own_numbers
from grade import Grader
from grading.exercises import exercises_of
from grading.process import Limits
from lesson_format import read
from student_pack import pack


def _solved(course, student, numbers_of):
    """The pack of a student, with the numbers that are right for somebody's data written down."""
    lesson = read(course.masters()[0])
    notebook = pack(course, lesson, student, variants=True)
    for exercise in exercises_of(lesson):
        if exercise.name in own_numbers.DATA:
            cell = next(cell for cell in notebook.cells if cell.id == f"{exercise.cell.id}-own")
            numbers = own_numbers._solve(exercise, numbers_of).tolist()
            cell.source = cell.source.replace("= None", f"= {numbers}")
    return nbformat.from_dict(notebook)


def test_own_numbers_earn_points_and_a_neighbours_do_not(course):
    grader = Grader(course, Limits(seconds=60), variants=True)
    own, copied = (
        {result["exercise"]: result for result in grader.results("07", _solved(course, "Amara", numbers_of))}
        for numbers_of in ("Amara", "Bo")
    )
    rows = ["mean_colour, own numbers", "slerp, own numbers"]
    assert list(own) == ["mean_colour", "directions", "slerp", *rows]
    assert [(own[row]["state"], own[row]["points"], own[row]["of"]) for row in rows] == [("right", 1, 1)] * 2
    assert [(copied[row]["state"], copied[row]["points"]) for row in rows] == [("wrong", 0)] * 2
    assert own["slerp"]["state"] == "to do"


def test_without_variants_the_cells_are_ignored(course):
    results = Grader(course, Limits(seconds=60), variants=False).results("07", _solved(course, "Amara", "Amara"))
    assert [result["exercise"] for result in results] == ["mean_colour", "directions", "slerp"]
