import claims
import nbformat
import pytest
from build_lessons import build, drift, main
from lesson_format import LessonError, is_solution_with_lines_removed, read
from lesson_notebooks import check_outputs, clean, measured_of


def _notebooks(course):
    return [nbformat.read(path("07_small"), as_version=4) for path in (course.student, course.solved)]


def _cell(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def _edit(course, old, new):
    master = course.masters()[0]
    text = master.read_text(encoding="utf-8")
    assert old in text
    master.write_text(text.replace(old, new, 1), encoding="utf-8")


# ------------------------------------------------------------------ what is built


def test_student_equals_solution_outside_exercises(course):
    student, solved = _notebooks(course)
    ordinary = [cell for cell in student.cells if not cell.id.endswith("-help")]
    assert [cell.id for cell in ordinary] == [cell.id for cell in solved.cells]
    for ours, theirs in zip(ordinary[1:], solved.cells[1:], strict=True):
        assert (ours.source == theirs.source) != ("exercise" in ours.metadata.get("tags", []))


def test_student_has_stub_and_folded_help_and_no_outputs(course):
    student, solved = _notebooks(course)
    exercise, solution = _cell(student, "mean-colour-exercise"), _cell(solved, "mean-colour-exercise")
    assert is_solution_with_lines_removed(exercise.source, solution.source)
    assert exercise.source.startswith("# Exercise mean_colour · difficulty 2 of 5 · about 5 minutes\n")
    folds = _cell(student, "mean-colour-exercise-help").source
    assert folds.count("<details>") == folds.count("</details>") == 3
    assert "Index with the **mask**." in folds and "return inside.mean(axis=0)" in folds and "✓ Right" in folds
    assert not any(cell.get("outputs") for cell in student.cells)


def test_solution_is_executed_measured_and_clean(course):
    student, solved = _notebooks(course)
    measured = measured_of(solved)
    assert 0.5 < measured.seconds < 120 and 50 < measured.peak_mb < 3000
    for notebook in (student, solved):
        assert f"{measured.seconds:.0f} s from top to bottom" in notebook.cells[0].source
        assert "widgets" not in notebook.metadata
    assert all(cell.execution_count for cell in solved.cells if cell.cell_type == "code")
    assert not any("execution" in cell.metadata for cell in solved.cells)


def test_header_and_set_up_hold_the_repository(course):
    student, solved = _notebooks(course)
    assert "github/someone/somewhere/blob/main/notebooks/07_small.ipynb" in student.cells[0].source
    assert "github/someone/somewhere/blob/main/notebooks/solutions/07_small.ipynb" in solved.cells[0].source
    first = next(cell for cell in student.cells if cell.cell_type == "code")
    assert first.id == "set-up" and "https://github.com/someone/somewhere" in first.source


# ------------------------------------------------------------------ prose alone


def test_new_prose_keeps_what_was_executed(course):
    before = _notebooks(course)[1]
    _edit(course, "What it is about.", "What it is really about.")
    assert drift(course)
    assert main(["--prose", "07"], course.root) == 0
    student, solved = _notebooks(course)
    assert (
        "What it is really about." in student.cells[0].source and "What it is really about." in solved.cells[0].source
    )
    assert [cell.get("outputs") for cell in solved.cells] == [cell.get("outputs") for cell in before.cells]
    assert measured_of(solved) == measured_of(before) and drift(course) == []


def test_new_code_must_be_executed(course, capsys):
    before = _notebooks(course)
    _edit(course, "import numpy as np", "import numpy as np  # arrays")
    assert main(["--prose", "07"], course.root) == 1
    assert "the code of ['imports'] changed; build it without --prose" in capsys.readouterr().err
    assert _notebooks(course) == before


# ------------------------------------------------------------------ drift


def test_no_drift_after_a_build(course):
    assert drift(course) == []
    assert main(["--check"], course.root) == 0


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("What it is about.", "What it is really about.", "'title'"),
        ("import numpy as np", "import numpy as np  # arrays", "'imports'"),
        ("inside.mean(axis=0)", "inside.mean(0)", "'mean-colour-exercise'"),
        ("Index with the **mask**.", "Use the mask.", "'mean-colour-exercise-help'"),
        ("minutes=5", "minutes=6", "'title'"),
        ("# %% end [markdown]\n# That is all.\n", "", "other cells"),
    ],
)
def test_a_change_of_the_master_is_drift(course, old, new, named):
    _edit(course, old, new)
    assert any(named in line for line in drift(course)), drift(course)
    assert main(["--check"], course.root) == 1


@pytest.mark.parametrize("which", ["student", "solved"])
def test_a_change_of_a_notebook_is_drift(course, which):
    path = getattr(course, which)("07_small")
    notebook = nbformat.read(path, as_version=4)
    _cell(notebook, "end").source += " Or not."
    nbformat.write(notebook, path)
    assert any("'end'" in line for line in drift(course))


def test_outputs_are_not_compared_but_must_be_there(course):
    path = course.solved("07_small")
    notebook = nbformat.read(path, as_version=4)
    _cell(notebook, "set-up").outputs[0].text = "another machine"
    nbformat.write(notebook, path)
    assert drift(course) == []
    _cell(notebook, "set-up").execution_count = None
    nbformat.write(notebook, path)
    assert any("'set-up': never executed" in line for line in drift(course))


def test_missing_and_orphaned_notebooks_are_drift(course):
    course.solved("07_small").rename(course.solved("08_gone"))
    assert drift(course)[:2] == [
        "08_gone.ipynb: no master of that name",
        "notebooks/solutions/07_small.ipynb: not built yet",
    ]


def test_a_stale_page_of_claims_is_drift(course):
    (course.root / "CLAIMS.md").write_text("old")
    assert drift(course) == ["CLAIMS.md: not what the notebooks say"]


# ------------------------------------------------------------------ ids and failures


def test_ids_stay_when_the_text_changes(course):
    before = [cell.id for notebook in _notebooks(course) for cell in notebook.cells]
    _edit(course, "What it is about.", "Something else.")
    _edit(course, "alt=", "size=24, alt=")
    build(course, course.masters()[0])
    assert [cell.id for notebook in _notebooks(course) for cell in notebook.cells] == before
    assert "size=24" in _cell(_notebooks(course)[0], "a-figure").source
    assert drift(course) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inside.mean(axis=0)", "inside.mean()", "one number"),  # a check that is not passed stops the build
        ('alt="one grey square of eight by eight"', 'alt="grey"', "without alt text"),
        ("import numpy as np", "import numpy as np\nprint(np.__file__)", "a path of this machine"),
        ("That is all.", "That is all.\n\n# %% broken\n1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_failing_build_leaves_the_notebooks_untouched(course, capsys, old, new, message):
    files = [course.student("07_small"), course.solved("07_small")]
    before = [file.read_bytes() for file in files]
    _edit(course, old, new)
    assert main(["07"], course.root) == 1
    printed = capsys.readouterr().err
    assert message in printed and "Nothing of this lesson was written." in printed
    assert [file.read_bytes() for file in files] == before
    assert sorted(path.name for path in (course.root / "notebooks").iterdir()) == ["07_small.ipynb", "solutions"]


def test_a_page_of_claims_that_cannot_be_made_does_not_hide_that_the_notebooks_were(course, capsys, monkeypatch):
    def missing(root):
        raise claims.ClaimError("results/gone.csv does not exist")

    monkeypatch.setattr(claims, "write", missing)
    _edit(course, "That is all.", "That is all, so far.")
    assert main(["07"], course.root) == 1
    printed = capsys.readouterr().err
    assert "results/gone.csv" in printed and "The notebooks are written, CLAIMS.md is not." in printed
    assert any("so far" in cell.source for cell in _notebooks(course)[1].cells)


def test_an_unknown_lesson_is_named(course, capsys):
    assert main(["33"], course.root) == 1
    assert "no lesson 33; there are 07" in capsys.readouterr().err


# ------------------------------------------------------------------ cleaning


def _notebook_with(*outputs):
    cell = nbformat.v4.new_code_cell("x", outputs=list(outputs), id="x", metadata={"execution": {"started": "now"}})
    return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})


def test_clean_keeps_the_still_picture_of_a_widget_and_drops_bare_widgets_and_progress_bars():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    output = nbformat.v4.new_output
    notebook = _notebook_with(
        output("display_data", data=view | {"text/plain": "HBox(...)"}),
        output("display_data", data=view | {"image/png": "AAAA", "text/plain": "words"}),
        output("stream", name="stderr", text="100%|████| 25/25 [00:01<00:00]\n"),
        output("stream", name="stderr", text="50%|██\nA warning.\n"),
    )
    clean(notebook)
    assert [list(o.get("data", {"text": 0})) for o in notebook.cells[0].outputs] == [
        ["image/png", "text/plain"],
        ["text"],
    ]
    assert notebook.cells[0].outputs[1].text == "A warning.\n"
    assert notebook.metadata == {} and notebook.cells[0].metadata == {}


def test_a_large_notebook_is_refused():
    big = nbformat.v4.new_output("stream", name="stdout", text="x" * 2_100_000)
    with pytest.raises(LessonError, match="more than 2"):
        check_outputs(_notebook_with(big), forbidden=[])


def test_lesson_of_the_fixture_keeps_the_rules(course):
    assert read(course.masters()[0]).number == "07"
