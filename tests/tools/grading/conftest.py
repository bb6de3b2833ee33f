"""A lesson with three exercises of three real lessons' checks, and notebooks that answer it."""

import inspect
import re
import textwrap

import nbformat
import pytest
from build_lessons import Course
from lesson_format import read
from lesson_notebooks import solved_notebook, student_notebook

from tutorial_lib.lab.checks import lesson_00, lesson_01, lesson_02

CHECKS = {"mean_colour": lesson_00, "directions": lesson_01, "slerp": lesson_02}
POINTS = {"mean_colour": 1, "directions": 2, "slerp": 3}
LESSON = '''\
# %% title [markdown] prerequisites="none"
# # 07 · A lesson for a class
# What it is about.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("07", profile="pocket")

# %% a long training
raise RuntimeError("grading runs the exercises only")

# %% colour exercise="mean_colour" difficulty=1 minutes=5
import numpy as np

from tutorial_lib.lab.checks import lesson_00 as check


def mean_colour(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean colour of the masked pixels."""
    # <solution>
    inside = picture[mask]
    return inside.mean(axis=0)
    # </solution>


check.mean_colour(mean_colour)

# %% colour hint [markdown] hint="mean_colour"
# Index with the **mask**.

# %% neurons exercise="directions" difficulty=2 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_01 as check


def directions(weight: torch.Tensor) -> torch.Tensor:
    """Each neuron as a row of length 1."""
    # <solution>
    rows = weight.flatten(1)
    return rows / rows.norm(dim=1, keepdim=True)
    # </solution>


check.directions(directions)

# %% neurons hint [markdown] hint="directions"
# A neuron is a row.

# %% arc exercise="slerp" difficulty=3 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_02 as check


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """The point at the share t of the arc from a to b."""
    # <solution>
    omega = torch.arccos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)
    # </solution>


check.slerp(slerp)

# %% arc hint [markdown] hint="slerp"
# The angle is an arccos.
'''
HELPERS = "\n\n".join(  # what the answers that are listed with the checks lean on: a cell of the student's own
    ["import math\n\nimport torch.nn.functional as F"]
    + [inspect.getsource(helper) for helper in (lesson_01._unit, lesson_02._angle, lesson_02._arc)]
)


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A course of this one lesson: its master, and its student's notebook."""
    course = Course(tmp_path_factory.mktemp("course"))
    (course.root / "lessons").mkdir()
    (course.root / "notebooks").mkdir()
    (course.root / "pyproject.toml").write_text('[tool.course]\nrepository = "someone/somewhere"\n')
    (course.root / "lessons" / "07_class.py").write_text(LESSON, encoding="utf-8")
    nbformat.write(blank_notebook(course), course.student("07_class"))
    return course


def blank_notebook(course):
    """The student's notebook as it is handed out."""
    lesson = read(course.masters()[0])
    solved = solved_notebook(lesson, "someone/somewhere", None)
    return student_notebook(lesson, "someone/somewhere", solved)


@pytest.fixture(scope="session")
def blank(course):
    return lambda: blank_notebook(course)


@pytest.fixture(scope="session")
def solve(blank):
    """Makes a notebook: solve(slerp="code") replaces that exercise's cell; exercises not named are solved."""

    def make(**codes):
        notebook = blank()
        for name, module in CHECKS.items():
            answer = getattr(module, name).right_answers[0]
            cell_of(notebook, name).source = codes.get(name) or answer_code(answer, name)
        notebook.cells.insert(2, nbformat.v4.new_code_cell(HELPERS))
        return notebook

    return make


def cell_of(notebook, exercise):
    return next(c for c in notebook.cells if c.metadata.get("course", {}).get("exercise") == exercise)


def answer_code(answer, name):
    """The cell of a student who writes this answer: its source under the exercise's name, and the check."""
    source = textwrap.dedent(inspect.getsource(answer))
    source = re.sub(r"\A(@.*\n)+", "", source).replace(f"def {answer.__name__}(", f"def {name}(", 1)
    module = CHECKS[name].__name__.rpartition(".")[2]
    return f"from tutorial_lib.lab.checks import {module} as check\n\n\n{source}\n\ncheck.{name}({name})"


@pytest.fixture(scope="session")
def code():
    """The cell for an answer: code(lesson_00.mean_colour.wrong_answers[0][0], "mean_colour")."""
    return answer_code
