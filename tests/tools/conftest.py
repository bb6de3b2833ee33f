"""A small course with one lesson, to build and to break."""

import shutil
from pathlib import Path

import pytest

SMALL = '''\
# %% title [markdown] prerequisites="none"
# # 07 · A small lesson
# What it is about.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("07", profile="pocket")

# %% imports
import numpy as np

from tutorial_lib.lab import plots
from tutorial_lib.lab.checks import lesson_00 as check
from tutorial_lib.lab.claims import claim

# %% a figure
plots.grid([np.full((8, 8, 3), 90, dtype=np.uint8)], alt="one grey square of eight by eight")

# %% the claim
claim("grey", "Grey | is grey.", "Nobody 2020", "90", "reproduced", seeds=[lesson.seed])

# %% mean colour [markdown]
# Write it.

# %% mean colour exercise exercise="mean_colour" difficulty=2 minutes=5
def mean_colour(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean colour of the masked pixels."""
    # <solution>
    inside = picture[mask]
    return inside.mean(axis=0)
    # </solution>


check.mean_colour(mean_colour)

# %% mean colour hint [markdown] hint="mean_colour"
# Index with the **mask**.

# %% end [markdown]
# That is all.
'''


@pytest.fixture(scope="session")
def small():
    """The text of the small lesson's master."""
    return SMALL


@pytest.fixture
def make_course(tmp_path):
    """Makes a course of one lesson, 07_small, not built; SMALL unless another text is given."""
    return lambda text=SMALL: _make_course(tmp_path / "made", text)


def _make_course(root: Path, text: str):
    from build_lessons import Course

    (root / "lessons").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[tool.course]\nrepository = "someone/somewhere"\n')
    (root / "lessons" / "07_small.py").write_text(text, encoding="utf-8")
    return Course(root)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """The small course, built: only to be copied."""
    from build_lessons import main

    course = _make_course(tmp_path_factory.mktemp("course"), SMALL)
    assert main([], course.root) == 0
    return course


@pytest.fixture
def course(built_once, tmp_path):
    """A built course of one's own."""
    from build_lessons import Course

    shutil.copytree(built_once.root, tmp_path / "course")
    return Course(tmp_path / "course")
