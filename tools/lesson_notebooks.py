"""From a lesson to its two notebooks: the solved one, and the student's with its folded help."""

from __future__ import annotations

from dataclasses import dataclass

import nbformat
from lesson_format import Cell, Lesson, LessonError, solved, stub, written_part
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

COLAB = "https://colab.research.google.com/github"
COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB_SET_UP = """\
# On Colab this fetches the course, about half a minute. Anywhere else there is nothing to do.
import os
import sys

if "google.colab" in sys.modules:
    os.system("test -d course || git clone -q --depth 1 https://github.com/{repository} course")
    os.system("pip install -q --no-deps torchmetrics lightning-utilities")  # torch, numpy: as they are
    sys.path.insert(0, "course")

"""


@dataclass(frozen=True)
class Measured:
    """What the last solution build took: seconds from kernel start to last cell, peak memory in MB, cores."""

    seconds: float
    peak_mb: float
    cores: int


# ------------------------------------------------------------------ the solved notebook


def solved_notebook(lesson: Lesson, repository: str, measured: Measured | None) -> nbformat.NotebookNode:
    """The notebook with all solutions in place, not executed."""
    cells = [_title_cell(lesson, f"notebooks/solutions/{lesson.name}.ipynb", repository, measured)]
    for cell in lesson.cells[1:]:
        if "hint" not in cell.options:
            cells.append(_solved_cell(cell, repository))
    return _notebook(cells, lesson, measured)


def _notebook(cells: list, lesson: Lesson, measured: Measured | None) -> nbformat.NotebookNode:
    course = {"lesson": lesson.number} | ({"measured": vars(measured)} if measured else {})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "course": course}
    return new_notebook(cells=cells, metadata=metadata)


def measured_of(notebook: nbformat.NotebookNode) -> Measured | None:
    """The measurement that a notebook of ours carries, None if it was never executed."""
    numbers = notebook.metadata.get("course", {}).get("measured")
    return Measured(**numbers) if numbers else None


def _title_cell(lesson: Lesson, path: str, repository: str, measured: Measured | None):
    title, _, rest = lesson.cells[0].source.partition("\n")
    badge = f"[![Open in Colab]({COLAB_BADGE})]({COLAB}/{repository}/blob/main/{path})"
    facts = [f"**You need first:** {lesson.cells[0].options['prerequisites']}."]
    if measured:
        facts.append(f"**Measured:** {_measured_words(measured)}.")
    facts.append(_exercise_words(lesson))
    source = "\n\n".join([title, badge, "  \n".join(filter(None, facts)), rest.strip("\n")])
    return new_markdown_cell(source, id=lesson.cells[0].id)


def _measured_words(measured: Measured) -> str:
    time = f"{measured.seconds:.0f} s" if measured.seconds < 120 else f"{measured.seconds / 60:.1f} minutes"
    return f"{time} from top to bottom on {measured.cores} processor cores, {measured.peak_mb / 1000:.1f} GB of memory"


def _exercise_words(lesson: Lesson) -> str:
    minutes = sum(cell.options["minutes"] for cell in lesson.exercises)
    count = len(lesson.exercises)
    return f"**Exercises:** {count}, about {minutes} minutes in all." if count else ""


def _solved_cell(cell: Cell, repository: str):
    if cell.kind == "markdown":
        return new_markdown_cell(cell.source, id=cell.id)
    if cell.exercise:
        return _exercise_cell(cell, solved(cell.source))
    first = COLAB_SET_UP.format(repository=repository) if cell.id == "set-up" else ""
    return new_code_cell(first + cell.source, id=cell.id)


def _exercise_cell(cell: Cell, source: str):
    difficulty, minutes = cell.options["difficulty"], cell.options["minutes"]
    line = f"# Exercise {cell.exercise} · difficulty {difficulty} of 5 · about {minutes} minutes\n"
    course = {"exercise": cell.exercise, "difficulty": difficulty, "minutes": minutes}
    return new_code_cell(line + source, id=cell.id, metadata={"tags": ["exercise"], "course": course})


# ------------------------------------------------------------------ the student's notebook


def student_notebook(lesson: Lesson, repository: str, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook to work in: stubs, help folded below them. `executed` is the solved one, with outputs."""
    outputs = {cell.id: cell.get("outputs", []) for cell in executed.cells}
    measured = measured_of(executed)
    cells = [_title_cell(lesson, f"notebooks/{lesson.name}.ipynb", repository, measured)]
    for cell in lesson.cells[1:]:
        if cell.exercise:
            cells += [_exercise_cell(cell, stub(cell.source)), _help_cell(lesson, cell, outputs.get(cell.id, []))]
        elif "hint" not in cell.options:
            cells.append(_solved_cell(cell, repository))
    return _notebook(cells, lesson, measured)


def _help_cell(lesson: Lesson, cell: Cell, outputs: list):
    """One Markdown cell with three folds: the hints, what the solution showed, the solution."""
    expected, attachments = _expected(outputs, cell.id)
    hints = enumerate(lesson.hints(cell.exercise), start=1)
    folds = [_fold("Hint" if number == 1 else f"Hint {number}", hint.source) for number, hint in hints]
    folds.append(_fold("Expected output", expected))
    folds.append(_fold("Solution", f"```python\n{written_part(cell.source)}\n```"))
    help_cell = new_markdown_cell("\n\n".join(folds), id=f"{cell.id[:59]}-help")
    if attachments:
        help_cell["attachments"] = attachments
    return help_cell


def _fold(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _expected(outputs: list, name: str) -> tuple[str, dict]:
    """The outputs of the solved cell as Markdown, its pictures as attachments."""
    parts, attachments = [], {}
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            file = f"{name}-{len(attachments)}.png"
            attachments[file] = {"image/png": data["image/png"].strip()}
            parts.append(f"![{data.get('text/plain', 'expected picture')}](attachment:{file})")
        elif text := output.get("text") or data.get("text/plain"):
            parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts), attachments


# ------------------------------------------------------------------ what may be committed


def clean(notebook: nbformat.NotebookNode) -> None:
    """Removes in place what must not be committed: live widgets, their state, progress bars, time stamps."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_clean_output, cell.outputs) if output]


def _clean_output(output):
    """The output without its live widget; None when nothing that a reader could see is left."""
    if output.output_type == "stream" and output.name == "stderr":
        output.text = "".join(line for line in output.text.splitlines(keepends=True) if "%|" not in line)
        return output if output.text.strip() else None
    data = output.get("data", {})
    had_widget = data.pop("application/vnd.jupyter.widget-view+json", None) is not None
    return None if had_widget and set(data) <= {"text/plain"} else output


def check_outputs(notebook: nbformat.NotebookNode, forbidden: list[str], limit_mb: float = 2.0) -> None:
    """Raises LessonError for a picture without alt text, a path of this machine, or a notebook that is too large."""
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if "image/png" in output.get("data", {}) and len(alt) < 15:
                raise LessonError(
                    f"cell {cell.id!r}: a picture without alt text; show it through tutorial_lib.lab.plots"
                )
            words = str({k: v for k, v in output.items() if k != "data"}) + str(_texts(output))
            if found := [path for path in forbidden if path in words]:
                start = max(0, words.index(found[0]) - 100)
                raise LessonError(
                    f"cell {cell.id!r}: the output holds a path of this machine: {words[start : start + 500]}"
                )
    size = len(nbformat.writes(notebook).encode()) / 1e6
    if size > limit_mb:
        raise LessonError(f"the notebook has {size:.1f} MB, more than {limit_mb}; show fewer or smaller pictures")


def _texts(output) -> list:
    return [value for key, value in output.get("data", {}).items() if not key.startswith("image/")]
