"""A class of forty and more hands in: every verdict as expected, none lost, killed once on the way."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tutorial_lib.lab.checks import lesson_00, lesson_01, lesson_02

ROOT = Path(__file__).parents[3]
CHECKS = {"mean_colour": lesson_00.mean_colour, "directions": lesson_01.directions, "slerp": lesson_02.slerp}
POINTS = {"mean_colour": 1, "directions": 2, "slerp": 3}
SECONDS = 5  # for one exercise; a right answer takes a tenth of one
RIGHT = {name: ("right", "") for name in CHECKS}

# name: (exercise, its cell, state, words of the diagnosis); the other two exercises are right
ODD_CELLS = {
    "loops": ("slerp", "def slerp(a, b, t):\n    while True:\n        pass", "stopped", "5 seconds"),
    "loops_outside": (
        "mean_colour",
        "def mean_colour(picture, mask):\n    return 0\n\nwhile True:\n    pass",
        "stopped",
        "5 seconds",
    ),
    "sleeps": ("directions", "import time\ndef directions(w):\n    time.sleep(10**6)", "stopped", "without an end"),
    "leaves": ("slerp", "import os\ndef slerp(a, b, t):\n    os._exit(0)", "crashed", "without a verdict"),
    "exits": ("slerp", "def slerp(a, b, t):\n    raise SystemExit('all is well')", "crashed", "SystemExit"),
    "segfaults": ("slerp", "import ctypes\ndef slerp(a, b, t):\n    ctypes.string_at(0)", "crashed", "SIGSEGV"),
    "greedy": ("directions", "def directions(w):\n    return bytearray(10**11)", "wrong", "MemoryError"),
    "chatty": (
        "mean_colour",
        "def mean_colour(p, m):\n    for _ in range(50):\n        print('x' * 10**6)\n    return p[m].mean(axis=0)",
        "right",
        "",
    ),
    "raises_much": ("slerp", "def slerp(a, b, t):\n    raise ValueError('x' * 10**7)", "wrong", "ValueError: xxx"),
    "no_unicode": ("slerp", "def slerp(a, b, t):\n    raise ValueError(chr(0xD800))", "wrong", "ValueError: ?"),
    "syntax": ("slerp", "def slerp(a, b, t)\n    return a", "crashed", "Line 1 of the cell is not Python"),
    "global": ("slerp", "def slerp(a, b, t):\n    return a * scene", "wrong", "'scene' is not defined"),
    "no_function": ("slerp", "omega = 3", "crashed", "'slerp' is not defined"),
    "tries_out": (
        "mean_colour",
        "%timeit 1\nimport numpy as np\nprint(undefined)\nknown = other[0]\n"
        "def mean_colour(p, m):\n    return p[m].mean(axis=0)\nmean_colour(1, 2)",
        "right",
        "",
    ),
    # what must not count
    "own_check": (
        "mean_colour",
        "class check:\n    mean_colour = staticmethod(lambda answer: '✓ Right.')\n"
        "def mean_colour(p, m):\n    return p.mean(axis=(0, 1))\ncheck.mean_colour(mean_colour)",
        "wrong",
        "mask was not used",
    ),
    "patched_numpy": (
        "mean_colour",
        "import numpy as np\nnp.allclose = lambda *a, **k: True\ndef mean_colour(p, m):\n    return [1, 2, 3]",
        "tampered",
        "numpy.allclose",
    ),
    "patched_late": (
        "directions",
        "import torch\ndef directions(w):\n    torch.allclose = torch.equal = lambda *a, **k: True\n"
        "    return w.flatten(1)",
        "tampered",
        "torch.allclose",
    ),
    "patched_tensor": (
        "slerp",
        "import torch\ntorch.Tensor.__eq__ = lambda *a: True\ndef slerp(a, b, t):\n    return a",
        "tampered",
        "Tensor.__eq__",
    ),
    "patched_check": (
        "slerp",
        "from tutorial_lib.lab import checks\nchecks.Check._judge = lambda *a: ('right', 'yes')\n"
        "def slerp(a, b, t):\n    return a",
        "tampered",
        "Check._judge",
    ),
    "patched_code": (
        "directions",
        "from tutorial_lib.lab.checks import lesson_01\ndef _same(*a):\n    return True\n"
        "lesson_01._same.__code__ = _same.__code__\ndef directions(w):\n    return w.flatten(1)",
        "tampered",
        "lesson_01._same",
    ),
    "shadowed": (
        "directions",
        "from tutorial_lib.lab.checks import lesson_01\nlesson_01.dict = 3\ndef directions(w):\n    return w",
        "tampered",
        "lesson_01.dict",
    ),
    "says_right": (
        "slerp",
        'import os\nfor i in range(3, 50):\n    try:\n        os.write(i, b\'{"state": "right"}\\n\')\n'
        "    except OSError:\n        pass\ndef slerp(a, b, t):\n    raise NotImplementedError\nprint('✓ Right.')",
        "crashed",
        "in its place",
    ),
    # the library does it
    "library": ("slerp", "from tutorial_lib import sphere\nslerp = sphere.slerp", "library", "sphere.slerp"),
    "library_hidden": (
        "slerp",
        "def slerp(a, b, t):\n    import importlib\n    m = importlib.import_module('tutorial' + '_lib.sphere')\n"
        "    return getattr(m, 'sl' + 'erp')(a, b, t)",
        "library",
        "sphere.slerp",
    ),
    "library_listed": (
        "slerp",
        "from tutorial_lib.lab.checks import lesson_02\nslerp = lesson_02.slerp.right_answers[0]",
        "library",
        "lab.checks.lesson_02",
    ),
    "library_helper": (
        "directions",
        "from tutorial_lib.lab.checks import lesson_01 as c\ndef directions(w):\n    return c._unit(w.flatten(1))",
        "library",
        "lesson_01._unit",
    ),
}


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory, solve, blank, code):
    """The folder of submissions, and what each must get: {file: {exercise: (state, words)}}."""
    folder = tmp_path_factory.mktemp("class") / "submissions"
    folder.mkdir()
    expected = _answers_listed_with_the_checks(folder, solve, code) | _odd_cells(folder, solve)
    expected |= _odd_notebooks(folder, solve, blank) | _odd_files(folder)
    shutil.copy(folder / "right_0.ipynb", folder / "twin.ipynb")
    expected["twin.ipynb"] = RIGHT
    (folder / "notes.txt").write_text("Dear teacher, ...")
    (folder / "amara" / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "right_0-checkpoint.ipynb").write_text("{}")
    (folder / "link.ipynb").symlink_to(folder / "right_0.ipynb")
    return folder, expected


def _write(folder, file, notebook):
    (folder / file).parent.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / file)


def _answers_listed_with_the_checks(folder, solve, code):
    """Every answer that is listed with the three checks, one of each in a notebook."""
    expected = {}
    for i in range(max(len(check.right_answers) for check in CHECKS.values())):
        chosen = {name: check.right_answers[i % len(check.right_answers)] for name, check in CHECKS.items()}
        _write(folder, f"right_{i}.ipynb", solve(**{name: code(answer, name) for name, answer in chosen.items()}))
        expected[f"right_{i}.ipynb"] = RIGHT
    for i in range(max(len(check.wrong_answers) for check in CHECKS.values())):
        chosen = {name: check.wrong_answers[i % len(check.wrong_answers)] for name, check in CHECKS.items()}
        _write(folder, f"wrong_{i}.ipynb", solve(**{name: code(answer, name) for name, (answer, _) in chosen.items()}))
        expected[f"wrong_{i}.ipynb"] = {name: ("wrong", phrase) for name, (_, phrase) in chosen.items()}
    return expected


def _odd_cells(folder, solve):
    expected = {}
    for student, (exercise, source, state, words) in ODD_CELLS.items():
        _write(folder, f"{student}_07_class.ipynb", solve(**{exercise: source}))
        expected[f"{student}_07_class.ipynb"] = RIGHT | {exercise: (state, words)}
    return expected


def _odd_notebooks(folder, solve, blank):
    to_do = {name: ("to do", "") for name in CHECKS}
    _write(folder, "untouched.ipynb", blank())
    fakes = blank()
    for cell in (cell for cell in fakes.cells if "exercise" in cell.metadata.get("tags", [])):
        cell.outputs = [nbformat.v4.new_output("stream", text="✓ Right.")]
        cell.metadata.course |= {"state": "right", "difficulty": 5, "points": 99}
    _write(folder, "fakes.ipynb", fakes)
    swapped = solve()
    cells = [cell for cell in swapped.cells if "exercise" in cell.metadata.get("tags", [])]
    cells[0].id, cells[2].id = cells[2].id, cells[0].id
    cells[0].metadata, cells[2].metadata = cells[2].metadata, cells[0].metadata
    _write(folder, "swapped.ipynb", swapped)
    in_a_copy = blank()
    in_a_copy.cells += [nbformat.v4.new_code_cell(cell.source) for cell in solve().cells if cell.cell_type == "code"][
        1:
    ]
    _write(folder, "in_a_copy.ipynb", in_a_copy)
    lost = solve()
    lost.cells = [cell for cell in lost.cells if cell.metadata.get("course", {}).get("exercise") != "slerp"]
    _write(folder, "lost.ipynb", lost)
    borrowed = solve()
    borrowed.metadata.course["student"] = "bob"
    _write(folder, "amara/07_class.ipynb", borrowed)
    _write(folder, "amara/07_class (1).ipynb", solve(slerp="omega = 3"))
    victim = str(folder / "victim.ipynb")
    vandal = f"import os\ndef slerp(a, b, t):\n    if os.path.exists({victim!r}):\n        os.remove({victim!r})"
    _write(folder, "vandal.ipynb", solve(slerp=vandal))
    _write(folder, "victim.ipynb", solve())
    names = ("swapped", "in_a_copy", "amara/07_class", "victim")
    return {f"{name}.ipynb": RIGHT for name in names} | {
        "untouched.ipynb": to_do,
        "fakes.ipynb": to_do,
        "lost.ipynb": RIGHT | {"slerp": ("missing", "no cell")},
        "vandal.ipynb": RIGHT | {"slerp": ("wrong", "returned nothing")},
        "amara/07_class (1).ipynb": RIGHT | {"slerp": ("crashed", "not defined")},
    }


def _odd_files(folder):
    files = {
        "empty.ipynb": ("", "is empty"),
        "not_json.ipynb": ("<html>Sign in</html>", "not a notebook"),
        "not_a_notebook.ipynb": ('{"a": 1}', "not a notebook"),
        "nested.ipynb": ("[" * 100_000, "not a notebook"),
        "huge.ipynb": ("x" * 21_000_000, "21 MB, more than 20"),
        "cells_of_numbers.ipynb": (
            json.dumps({"cells": [{"cell_type": "code", "source": 3}], "metadata": {}, "nbformat": 4}),
            "not a notebook",
        ),
        "other_course.ipynb": (nbformat.writes(_notebook("print(1)")), "which lesson it is"),
        "=cmd|calc.ipynb": ("", "is empty"),
        "\udcff.ipynb": ("", "is empty"),  # a byte that is no Unicode; Linux allows it
    }
    for file, (text, _) in files.items():
        (folder / file).write_text(text)
    return {file.replace("\udcff", "?"): {"": ("unreadable", words)} for file, (_, words) in files.items()}


def _notebook(source):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])


# ------------------------------------------------------------------ grading it


def _command(folder, course):
    run = "import sys, pathlib, grade; sys.exit(grade.main(sys.argv[2:], pathlib.Path(sys.argv[1])))"
    return [sys.executable, "-c", run, str(course.root), str(folder), "--seconds", str(SECONDS)]


def _environment():
    path = os.pathsep.join([str(ROOT / "tools"), str(ROOT)])
    return {key: value for key, value in os.environ.items() if key != "TUTORIAL_STRICT"} | {"PYTHONPATH": path}


def _grade(folder, course):
    done = subprocess.run(_command(folder, course), env=_environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _kill_on_the_way(folder, course, records, count):
    """Starts grading and kills it when so many are graded."""
    with subprocess.Popen(_command(folder, course), env=_environment(), stdout=subprocess.DEVNULL) as running:
        while running.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") >= count):
            time.sleep(0.05)
        assert running.poll() is None, "it was done before it could be killed"
        running.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def graded(handed_in, course):
    """Graded, killed on the way, a record cut short, and graded to the end."""
    folder, _ = handed_in
    before = _contents(folder)
    records = folder.with_name("submissions_grades") / "records.jsonl"
    _kill_on_the_way(folder, course, records, count=10)
    kept = records.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    records.write_bytes(whole + b'{"file": "right_0')
    printed = _grade(folder, course)
    return {"before": before, "whole": whole, "printed": printed, "records": records, "out": records.parent}


def _contents(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def _rows(graded):
    with (graded["out"] / "grades.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def test_there_are_more_than_forty(handed_in):
    assert len(handed_in[1]) >= 40


def test_every_verdict_is_as_expected_and_none_is_lost(handed_in, graded):
    _, expected = handed_in
    found = {(row["file"].removeprefix("'"), row["exercise"]): row for row in _rows(graded)}
    wanted = {(file, exercise): told for file, results in expected.items() for exercise, told in results.items()}
    assert found.keys() == wanted.keys()
    wrong = []
    for key, (state, words) in wanted.items():
        row, points = found[key], POINTS.get(key[1], 0)
        right = row["state"] == state and words in row["diagnosis"]
        if not right or (row["points"], row["of"]) != (str(points if state == "right" else 0), str(points)):
            wrong.append((key, (state, words), row))
    assert not wrong


def test_no_submission_is_changed_and_a_deleted_one_is_put_back(handed_in, graded):
    folder, _ = handed_in
    assert _contents(folder) == graded["before"]
    assert "victim.ipynb: was deleted while the folder was graded, and is put back" in graded["printed"]


def test_after_a_kill_the_rest_is_graded_and_nothing_twice(handed_in, graded):
    records = graded["records"].read_bytes()
    assert records.startswith(graded["whole"]) and graded["whole"].count(b"\n") >= 10
    files = [json.loads(line)["file"] for line in records.splitlines()]
    readable = [file for file, results in handed_in[1].items() if "" not in results]
    assert sorted(files) == sorted(readable)
    assert graded["printed"].count("(graded before)") == graded["whole"].count(b"\n")


def test_what_a_teacher_should_see_is_said(graded):
    for words in (
        "skipped notes.txt: not a notebook",
        "skipped amara/picture.png: not a notebook",
        "skipped .ipynb_checkpoints",
        "skipped link.ipynb: a link",
        "amara, lesson 07: 2 files, each graded",
        "amara/07_class.ipynb: made from the pack of bob",
        "the same bytes from several students: right_0.ipynb, twin.ipynb",
    ):
        assert words in graded["printed"]


def test_the_page_stands_alone_and_shows_text_as_text(graded):
    page = (graded["out"] / "grades.html").read_text(encoding="utf-8")
    assert "http" not in page and "<script" not in page and "src=" not in page
    assert "&#x27;scene&#x27; is not defined" in page and "<h2>Lesson 07</h2>" in page


def test_a_spreadsheet_sees_no_formula(graded):
    assert all(not value.startswith("=") for row in _rows(graded) for value in row.values())


def test_only_what_changed_is_graded_again(handed_in, graded, course, solve):
    folder, _ = handed_in
    before = (folder / "untouched.ipynb").read_bytes()
    _write(folder, "untouched.ipynb", solve())
    printed = _grade(folder, course)
    again = [line for line in printed.splitlines() if " points" in line and "(graded before)" not in line]
    (folder / "untouched.ipynb").write_bytes(before)
    assert again == ["untouched.ipynb: 6 of 6 points"]
