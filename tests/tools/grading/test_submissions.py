import nbformat
import pytest
from grading.records import Records
from grading.submissions import Unreadable, lesson_of, packed_for, read, student_of


@pytest.mark.parametrize(
    ("file", "student"),
    [
        ("amara.ipynb", "amara"),
        ("amara_07_class.ipynb", "amara"),
        ("07_class-amara ng.ipynb", "amara ng"),
        ("amara_07_class (1).ipynb", "amara"),
        ("amara-Copy1.ipynb", "amara"),
        ("Amara Ng_123_assignsubmission_file/07_class.ipynb", "Amara Ng_123_assignsubmission_file"),
        ("07_class/amara.ipynb", "amara"),
        ("07_class.ipynb", "07_class.ipynb"),  # nobody's: the file name stands for the student
    ],
)
def test_whose_it_is(file, student):
    assert student_of(file, ["00_start_here", "07_class"]) == student


def _notebook(source="x = 1", **course):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata={"course": course})


def test_which_lesson_it_is():
    started = 'lesson = session.start("07", profile="pocket")'
    assert lesson_of(_notebook(started, lesson="01"), "01_x.ipynb", ["01", "07"]) == "07"
    assert lesson_of(_notebook(lesson="01"), "07_x.ipynb", ["01", "07"]) == "01"
    assert lesson_of(_notebook(), "ann_07_class.ipynb", ["01", "07"]) == "07"
    assert lesson_of(_notebook(), "2007_x.ipynb", ["01", "07"]) is None
    assert lesson_of(_notebook(started), "x.ipynb", ["01"]) is None


def test_odd_metadata_is_no_crash():
    notebook = nbformat.v4.new_notebook(metadata={"course": "none"})
    assert lesson_of(notebook, "x.ipynb", ["01"]) is None and packed_for(notebook) is None
    assert packed_for(_notebook(student=["a"])) is None and packed_for(_notebook(student="a")) == "a"


def test_older_notebook_formats_are_read(tmp_path):
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {},
        "worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []}]}],
    }
    path = tmp_path / "old.ipynb"
    path.write_text(nbformat.v4.nbjson.json.dumps(old))
    assert read(path).cells[0].source == "x = 1"


def test_a_notebook_without_code_is_named(tmp_path):
    path = tmp_path / "words.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words")]), path)
    with pytest.raises(Unreadable, match="no code cell"):
        read(path)


def test_records_keep_the_last_and_drop_what_was_cut_short(tmp_path):
    path = tmp_path / "records.jsonl"
    records = Records(path)
    records.add({"file": "a", "sha256": "1", "basis": "b", "n": 1})
    records.add({"file": "a", "sha256": "1", "basis": "b", "n": 2})
    path.write_bytes(path.read_bytes() + b'{"file": "c", "sha')
    again = Records(path)
    assert again.get("a", "1", "b")["n"] == 2
    assert again.get("a", "2", "b") is None and again.get("a", "1", "c") is None and again.get("c", "", "") is None
    again.add({"file": "d", "sha256": "1", "basis": "b"})
    assert Records(path).get("d", "1", "b") and path.read_bytes().count(b"\n") == 3
