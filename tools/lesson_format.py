"""The format of a lesson's master file, lessons/NN_slug.py, and the rules that it keeps.

A master is plain Python in jupytext's py:percent form. A line `# %% title [markdown] key="value"` opens a cell;
the title gives the cell its id, so an id stays the same while the text changes. The options:

    prerequisites="..."                                on the first cell, which starts with `# # NN · Title`
    exercise="name" difficulty=1 minutes=5             on a code cell whose last line is check.name(answer)
    hint="name"                                        on a Markdown cell after the exercise

In an exercise the lines between `# <solution>` and `# </solution>` are what the student writes.
"""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass, field
from pathlib import Path

HEADER = re.compile(
    r"^# %%(?P<title>[^\[\n=]*?)(?P<markdown>\[markdown\])?"
    r"(?P<options>(?:\s+\w+=(?:\"[^\"]*\"|\d+))*)\s*$"
)
OPTION = re.compile(r"(\w+)=(?:\"([^\"]*)\"|(\d+))")
FILE_NAME = re.compile(r"(?P<number>\d\d)_(?P<slug>[a-z0-9_]+)")
OPEN, CLOSE = "# <solution>", "# </solution>"
OPTIONS = {"prerequisites", "exercise", "difficulty", "minutes", "hint"}


class LessonError(ValueError):
    """A master that breaks the format; the message names the file, the cell and the cure."""


@dataclass(frozen=True)
class Cell:
    """One cell of a master: `markdown` or `code`, its text without comment marks, its options."""

    title: str
    kind: str
    source: str
    options: dict = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The title in lower case, words joined by hyphens, at most the 64 characters that nbformat allows."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:64]

    @property
    def exercise(self) -> str | None:
        return self.options.get("exercise")


@dataclass(frozen=True)
class Lesson:
    """A whole master: file name without the ending ("00_start_here") and cells."""

    name: str
    cells: tuple[Cell, ...]

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def exercises(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.exercise]

    def hints(self, exercise: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.options.get("hint") == exercise]


def read(path: Path) -> Lesson:
    """The lesson of a master file; LessonError where it breaks the format."""
    if not FILE_NAME.fullmatch(path.stem):
        raise LessonError(f"{path.name}: a master is named like 00_start_here.py")
    lesson = Lesson(path.stem, tuple(_cells(path.read_text(encoding="utf-8"), path.name)))
    check_rules(lesson)
    return lesson


def _cells(text: str, file_name: str):
    """Yields the cells of a master's text."""
    before, *parts = re.split(r"(?m)^(?=# %%)", text)
    if before.strip():
        raise LessonError(f"{file_name}: text before the first cell; open it with '# %% title [markdown]'")
    for part in parts:
        first, _, body = part.partition("\n")
        match = HEADER.match(first)
        if not match:
            raise LessonError(f"{file_name}: cannot read {first!r}; write '# %% title [markdown] key=\"value\"'")
        options = {key: words or int(number or 0) for key, words, number in OPTION.findall(match["options"])}
        kind = "markdown" if match["markdown"] else "code"
        source = _uncomment(body) if kind == "markdown" else body.strip("\n")
        yield Cell(match["title"].strip(), kind, source, options)


def _uncomment(body: str) -> str:
    return "\n".join(re.sub(r"^# ?", "", line) for line in body.strip("\n").split("\n"))


# ------------------------------------------------------------------ exercises: solution and stub


def solved(source: str) -> str:
    """An exercise's code with its solution, without the marks."""
    return "\n".join(line for line in source.split("\n") if line.strip() not in (OPEN, CLOSE))


def stub(source: str) -> str:
    """What the student gets: each marked region becomes one `raise NotImplementedError`."""
    lines, inside = [], False
    for line in source.split("\n"):
        if line.strip() == OPEN:
            lines.append(line[: line.index(OPEN)] + "raise NotImplementedError")
        inside = (inside or line.strip() == OPEN) and line.strip() != CLOSE
        if not inside and line.strip() != CLOSE:
            lines.append(line)
    return "\n".join(lines)


def is_solution_with_lines_removed(stub_source: str, solution: str) -> bool:
    """True if the stub is the solution less some lines, with a `raise NotImplementedError` at each gap only.

    Needs nothing but the two texts, so that it can be asked about finished notebooks.
    """
    gap = "raise NotImplementedError"
    lines = stub_source.split("\n")
    left = iter(solution.split("\n"))
    kept = [line for line in lines if line.strip() != gap]
    in_order = all(any(line == other for other in left) for line in kept)
    gaps = len(lines) - len(kept)
    return in_order and 0 < gaps <= len(solution.split("\n")) - len(kept)


def written_part(source: str) -> str:
    """Of an exercise's solution the functions and classes that the student completes, in full."""
    solution, given = solved(source), stub(source)
    parts = [ast.get_source_segment(solution, node) for node in ast.parse(solution).body]
    return "\n\n\n".join(part for part in parts if part not in given)


# ------------------------------------------------------------------ rules


def check_rules(lesson: Lesson) -> None:
    """Raises LessonError at the first rule that the lesson breaks."""
    _check_ids(lesson)
    _check_opening(lesson)
    _check_python(lesson)
    for cell in lesson.exercises:
        _check_exercise(lesson, cell)
    _check_nothing_leans_on_exercises(lesson)


def _fail(lesson: Lesson, cell: Cell, message: str):
    raise LessonError(f"{lesson.name}.py, cell {cell.title!r}: {message}")


def _check_ids(lesson: Lesson) -> None:
    seen = set()
    for cell in lesson.cells:
        if not cell.id:
            _fail(lesson, cell, f"has no title; write '# %% some title' above {cell.source[:40]!r}")
        if cell.id in seen:
            _fail(lesson, cell, f"a second cell has the id {cell.id!r}; give it another title")
        if unknown := set(cell.options) - OPTIONS:
            _fail(lesson, cell, f"unknown options {sorted(unknown)}; there are {sorted(OPTIONS)}")
        seen.add(cell.id)


def _check_opening(lesson: Lesson) -> None:
    first = lesson.cells[0]
    if first.kind != "markdown" or not first.source.startswith(f"# {lesson.number} · "):
        _fail(lesson, first, f"the first cell is Markdown and starts with '# # {lesson.number} · Title'")
    if "prerequisites" not in first.options:
        _fail(lesson, first, 'the first cell says prerequisites="..." (or "none")')
    code = next((cell for cell in lesson.cells if cell.kind == "code"), None)
    if code is None or code.id != "set-up" or f'session.start("{lesson.number}"' not in code.source:
        raise LessonError(
            f'{lesson.name}.py: the first code cell is titled "set-up" and calls session.start("{lesson.number}", ...)'
        )


def _check_python(lesson: Lesson) -> None:
    for cell in (cell for cell in lesson.cells if cell.kind == "code"):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            _fail(lesson, cell, f"line {error.lineno}: {error.msg}")
        for statement in tree.body[:-1]:
            if isinstance(statement, ast.Expr) and _called(statement.value) == "claim":
                _fail(lesson, cell, "claim(...) is the last line of its cell, so that it is shown and recorded")


def _check_exercise(lesson: Lesson, cell: Cell) -> None:
    if not {"difficulty", "minutes"} <= set(cell.options) or cell.options["difficulty"] not in range(1, 6):
        _fail(lesson, cell, "an exercise says difficulty=1..5 and minutes=N")
    marks = [line.strip() for line in cell.source.split("\n") if line.strip() in (OPEN, CLOSE)]
    if not marks or marks != [OPEN, CLOSE] * (len(marks) // 2):
        _fail(lesson, cell, f"the solution stands between {OPEN!r} and {CLOSE!r}, opened and closed in turn")
    last = ast.parse(cell.source).body[-1]
    if not (isinstance(last, ast.Expr) and _called(last.value) == f"check.{cell.exercise}"):
        _fail(lesson, cell, f"an exercise ends with check.{cell.exercise}(answer)")
    if not lesson.hints(cell.exercise):
        _fail(lesson, cell, f'has no hint; add a Markdown cell with hint="{cell.exercise}"')
    _check_stub(lesson, cell)
    if missing := _free_names(cell.source) - _imported_names(lesson):
        _fail(lesson, cell, f"uses {sorted(missing)} of other cells; an exercise needs imports and its own names only")


def _check_stub(lesson: Lesson, cell: Cell) -> None:
    """The stub must be valid, typed Python whose gaps lie inside functions."""
    try:
        tree = ast.parse(stub(cell.source))
    except SyntaxError as error:
        _fail(lesson, cell, f"the stub is not valid Python, line {error.lineno}: {error.msg}")
    if not is_solution_with_lines_removed(stub(cell.source), solved(cell.source)):
        _fail(lesson, cell, "the solution region is empty")
    if any(isinstance(node, ast.Raise) for node in tree.body):
        _fail(lesson, cell, "the solution region must lie inside a function or method")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(isinstance(child, ast.Raise) for child in node.body):
            arguments = [a for a in [*node.args.args, *node.args.kwonlyargs] if a.arg not in ("self", "cls")]
            if node.returns is None or any(a.annotation is None for a in arguments):
                _fail(lesson, cell, f"the stub of {node.name} has a type for each argument and for the result")


def _check_nothing_leans_on_exercises(lesson: Lesson) -> None:
    """Run All must go through with nothing solved: no other cell may read what an exercise defines."""
    others = [cell for cell in lesson.cells if cell.kind == "code" and not cell.exercise]
    own = set().union(*(_bound_names(ast.parse(cell.source)) for cell in others))
    for exercise in lesson.exercises:
        fragile = _bound_names(ast.parse(exercise.source)) - own
        for cell in others:
            if used := fragile & _free_names(cell.source):
                _fail(lesson, cell, f"uses {sorted(used)} of exercise {exercise.exercise!r}; use the library's version")


# ------------------------------------------------------------------ names in code


def _called(node: ast.AST) -> str | None:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else None


def _bound_names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def _free_names(source: str) -> set[str]:
    tree = ast.parse(source)
    loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return loaded - _bound_names(tree) - set(dir(builtins))


def imports(lesson: Lesson) -> str:
    """All imports that stand at the top level of the lesson's cells, as code: what an exercise may rely on."""
    statements = [s for cell in lesson.cells if cell.kind == "code" for s in ast.parse(cell.source).body]
    return "\n".join(ast.unparse(s) for s in statements if isinstance(s, (ast.Import, ast.ImportFrom)))


def _imported_names(lesson: Lesson) -> set[str]:
    return _bound_names(ast.parse(imports(lesson)))
