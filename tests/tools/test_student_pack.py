import re
from pathlib import Path

import nbformat
import own_numbers
import pytest
import student_pack
from build_lessons import Course
from grading.exercises import exercises_of
from lesson_format import read, solved, stub
from student_pack import PackError, main, names_in, pack

COURSE = Course(Path(__file__).parents[2])
LESSONS = [read(master) for master in COURSE.masters()]


def _all_text(folder):
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*")) if file.is_file())


@pytest.fixture
def names(tmp_path):
    file = tmp_path / "class.txt"
    file.write_text("Amara Ng\n\nBo\n")
    return file


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_a_pack_has_stubs_hints_and_no_solution(lesson):
    notebook = pack(COURSE, lesson, "Amara", variants=False)
    by_id = {cell.id: cell for cell in notebook.cells}
    for exercise in lesson.exercises:
        cell, help_cell = by_id[exercise.id], by_id[f"{exercise.id[:59]}-help"]
        assert cell.source.endswith(stub(exercise.source))
        assert (
            "Solution" not in help_cell.source
            and help_cell.source.count("<details>") == len(lesson.hints(exercise.exercise)) + 1
        )
        written = set(solved(exercise.source).split("\n")) - set(stub(exercise.source).split("\n"))
        told = cell.source + help_cell.source + str(cell.metadata) + str(help_cell.metadata)
        assert not [line for line in written if len(line.strip()) > 12 and line.strip() in told]
    assert "Open in Colab" not in notebook.cells[0].source and lesson.cells[0].source.partition("\n")[0] in (
        notebook.cells[0].source
    )


def test_apart_from_that_it_is_the_students_notebook():
    lesson = LESSONS[0]
    theirs = nbformat.read(COURSE.student(lesson.name), as_version=4)
    ours = pack(COURSE, lesson, None, variants=False)
    assert [cell.id for cell in ours.cells] == [cell.id for cell in theirs.cells]
    differing = [a.id for a, b in zip(ours.cells, theirs.cells, strict=True) if a.source != b.source]
    assert differing == ["title", *(f"{exercise.id}-help" for exercise in lesson.exercises)]
    assert "student" not in ours.metadata.course


def test_a_folder_for_each_student(tmp_path, names):
    assert main([str(tmp_path / "packs"), "00", "--class", str(names)], COURSE.root) == 0
    files = sorted(file.relative_to(tmp_path / "packs").as_posix() for file in (tmp_path / "packs").rglob("*.*"))
    assert files == ["Amara Ng/00_start_here.ipynb", "Amara Ng/README.md", "Bo/00_start_here.ipynb", "Bo/README.md"]
    notebook = nbformat.read(tmp_path / "packs" / "Bo" / "00_start_here.ipynb", as_version=4)
    assert notebook.metadata.course.student == "Bo"
    assert "return inside.mean(axis=0)" not in _all_text(tmp_path / "packs")


def test_nothing_is_overwritten_and_nothing_half_done_remains(tmp_path, capsys):
    out = tmp_path / "packs"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main([str(out), "00"], COURSE.root) == 1
    assert "is not empty, and nothing there is overwritten" in capsys.readouterr().err
    assert main([str(tmp_path / "other"), "00", "77"], COURSE.root) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "packs"]


def test_what_stands_beside_a_pack_stays_as_it_is(tmp_path):
    beside = tmp_path / "packs.new"
    beside.mkdir()
    (beside / "mine.txt").write_text("mine")
    assert main([str(tmp_path / "packs"), "00"], COURSE.root) == 0
    assert (beside / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packs", "packs.new"]
    assert (tmp_path / "packs").stat().st_mode == beside.stat().st_mode  # no more private than other new folders


def test_a_pack_that_cannot_be_made_leaves_nothing(tmp_path, names, monkeypatch, capsys):
    def fails_for_bo(course, lesson, student, variants):
        if student == "Bo":
            raise PackError("no notebook for Bo")
        return pack(course, lesson, student, variants)

    monkeypatch.setattr(student_pack, "pack", fails_for_bo)
    (tmp_path / "packs").mkdir()
    assert main([str(tmp_path / "packs"), "00", "--class", str(names)], COURSE.root) == 1
    assert "no notebook for Bo" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["class.txt", "packs"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("a/b\n", "cannot be the name"), ("..\n", "cannot be the name"), ("Bo\nbo\n", "twice"), ("\n", "holds no name")],
)
def test_names_that_cannot_be_folders(tmp_path, text, words):
    (tmp_path / "class.txt").write_text(text)
    with pytest.raises(PackError, match=words):
        names_in(tmp_path / "class.txt")


def test_variants_need_names(tmp_path, capsys):
    assert main([str(tmp_path / "packs"), "--variants"], COURSE.root) == 1
    assert "--class" in capsys.readouterr().err


# ------------------------------------------------------------------ numbers of one's own


@pytest.fixture(scope="module")
def having():
    """The exercises that have numbers of one's own, by name."""
    with_data = [lesson for lesson in LESSONS if any(e.exercise in own_numbers.DATA for e in lesson.exercises)]
    found = [exercise for lesson in with_data for exercise in exercises_of(lesson)]
    return {exercise.name: exercise for exercise in found if exercise.name in own_numbers.DATA}


def test_every_entry_is_an_exercise_of_the_course(having):
    assert having.keys() == own_numbers.DATA.keys()


@pytest.mark.parametrize("name", own_numbers.DATA)
def test_students_get_data_of_their_own_and_the_right_numbers_are_right(having, name):
    exercise, written = having[name], {}
    for student in ("Amara", "Bo"):
        source = own_numbers.cell_source(name, student)
        right = _round(own_numbers._solve(exercise, student))
        written[student] = source.replace(f"own_{name} = None", f"own_{name} = {right}")
        exec(source, {})  # Run All goes through with nothing solved
        assert own_numbers.judge(exercise, [source], student)["state"] == "to do"
        assert own_numbers.judge(exercise, [written[student]], student)["state"] == "right"
    assert own_numbers.judge(exercise, [written["Amara"]], "Bo")["state"] == "wrong"
    assert own_numbers.judge(exercise, [written["Amara"]], None)["state"] == "missing"


def _round(value):
    """As a student would copy it from the screen, three or four digits."""
    import numpy as np

    return np.vectorize(lambda x: float(f"{x:.3g}"))(np.asarray(value)).tolist()


@pytest.mark.parametrize("text", ["'many'", "print(3)", "[1, [2, 3]]", "[1.0, 2.0]", "nan", "{}"])
def test_what_is_no_number_is_wrong_and_no_crash(having, text):
    verdict = own_numbers.judge(having["mean_energy"], ["%magic", f"own_mean_energy = {text}"], "Amara")
    assert verdict["state"] == "wrong"


def test_own_numbers_stand_after_their_exercise():
    lesson = LESSONS[0]
    notebook = pack(COURSE, lesson, "Amara", variants=True)
    places = [cell.id for cell in notebook.cells]
    place = places.index("exercise-own")
    assert places[place - 2 : place] == ["exercise", "exercise-help"]
    assert "Your own numbers · mean_colour" in notebook.cells[place].source


def test_the_teachers_guide_names_the_exercises_that_have_them():
    guide = (COURSE.root / "docs" / "teaching.md").read_text(encoding="utf-8")
    sentence = guide.partition("exists for ")[2].partition("no others")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(own_numbers.DATA)
