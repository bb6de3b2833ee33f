"""What lies in a folder of submissions: whose notebooks, and everything else, named. Nothing is written there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

LIMIT_MB = 20
COPY_MARK = re.compile(r"( ?\(\d+\)|-Copy\d+)$")  # what browsers and Jupyter add to a second copy


class Unreadable(ValueError):  # noqa: N818 - it is a verdict on a file
    """A file that is no notebook; the message is for the student and says what to hand in instead."""


@dataclass(frozen=True)
class Submission:
    """A file that was handed in: its place in the folder, whose it is, and the SHA-256 of its bytes."""

    path: Path
    file: str
    student: str
    sha256: str


def collect(folder: Path, lessons: list[str]) -> tuple[list[Submission], list[tuple[str, str]]]:
    """The notebooks below a folder, and what was skipped as (file, reason). `lessons`: names like 00_start_here."""
    found, skipped = [], []
    for path in sorted(folder.rglob("*")):
        file = path.relative_to(folder).as_posix()
        if reason := _foreign(path, file):
            skipped.append((file, reason))
        elif path.is_file():
            found.append(Submission(path, file, student_of(file, lessons), digest(path)))
    return found, [(file, reason) for file, reason in skipped if reason != "a folder"]


def _foreign(path: Path, file: str) -> str | None:
    """Why a path is not a submission; None if it is one."""
    if path.is_symlink():
        return "a link; hand in the file itself"
    if path.is_dir():
        return "a folder"
    if any(part.startswith((".", "__MACOSX")) for part in file.split("/")):
        return "a hidden file or a checkpoint of Jupyter"
    if not path.is_file():
        return "not a plain file"
    return None if path.suffix == ".ipynb" else "not a notebook (.ipynb)"


def student_of(file: str, lessons: list[str]) -> str:
    """Whose file it is: the first folder that is no lesson's, else the file name without the lesson's."""
    *folders, name = file.split("/")
    folders = [folder for folder in folders if folder not in lessons]
    if folders:
        return folders[0]
    stem = COPY_MARK.sub("", name.removesuffix(".ipynb"))
    for lesson in lessons:
        stem = stem.replace(lesson, "")
    return stem.strip(" _-.") or name


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; "" if it is gone."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook of a file, in nbformat 4. Unreadable says what is wrong with the file."""
    size = path.stat().st_size / 1e6
    if size > LIMIT_MB:
        raise Unreadable(f"The file has {size:.0f} MB, more than {LIMIT_MB}. Clear all outputs, save, hand in again.")
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        raise Unreadable("The file is empty. Save the notebook before handing it in.")
    try:
        notebook = nbformat.reads(text, as_version=4)
        codes = code_cells(notebook)
    except Exception as error:  # whatever a broken file does to nbformat, RecursionError included
        raise Unreadable(f"This is not a notebook ({type(error).__name__}). Hand in the .ipynb file itself.") from None
    if not codes:
        raise Unreadable("The notebook has no code cell. Was another file handed in?")
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells; TypeError if one has no text."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not all(isinstance(cell.source, str) for cell in cells):
        raise TypeError("a cell's source is text")
    return cells


def lesson_of(notebook: nbformat.NotebookNode, file: str, numbers: list[str]) -> str | None:
    """The number of the lesson: from the set-up cell, else the metadata, else the file name; None if it is unknown."""
    started = re.findall(r"session\.start\(\s*[\"'](\d\d)[\"']", "\n".join(c.source for c in code_cells(notebook)))
    in_name = re.findall(r"(?<!\d)(\d\d)_", file.rpartition("/")[2])
    guesses = [*started, str(_course(notebook).get("lesson")), *in_name]
    return next((guess for guess in guesses if guess in numbers), None)


def packed_for(notebook: nbformat.NotebookNode) -> str | None:
    """The student for whom tools/student_pack.py made the notebook; None for the course's own."""
    student = _course(notebook).get("student")
    return student if isinstance(student, str) else None


def _course(notebook: nbformat.NotebookNode) -> dict:
    course = notebook.metadata.get("course", {})
    return course if isinstance(course, dict) else {}
