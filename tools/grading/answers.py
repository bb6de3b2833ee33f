"""Which code of a notebook is the answer to an exercise: its cell, and the definitions elsewhere that it needs.

An exercise stands on imports alone (lesson_format.py sees to it), so nothing else of the notebook has to run. A helper
function that the student wrote in another cell is taken along; a value that another cell computes is not.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from grading.exercises import Exercise
from grading.submissions import code_cells

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Answer:
    """Code of one answer: the exercise's cell, and before it the definitions from other cells."""

    cell: str
    helpers: tuple[str, ...] = ()


def find(exercise: Exercise, notebook) -> Answer | None:
    """The answer in a notebook; None if no cell has the exercise's id or defines what it asks for."""
    cells = [(cell.get("id"), plain(cell.source)) for cell in code_cells(notebook)]
    chosen = _choose(exercise, cells)
    if chosen is None:
        return None
    others = [source for i, (_, source) in enumerate(cells) if i != chosen]
    return Answer(cells[chosen][1], tuple(_helpers(cells[chosen][1], others, exercise.names)))


def _choose(exercise: Exercise, cells: list[tuple[str, str]]) -> int | None:
    """The index of the exercise's cell.

    It is the one that defines the answer's names, whatever its id says. Where several do (a copy of the cell), those
    that the student touched go first, then the one with the exercise's id, then the last.
    """
    own = [i for i, (name, _) in enumerate(cells) if name == exercise.cell.id]
    broken = [i for i in own if parsed(cells[i][1]) is None]
    defining = [i for i, (_, source) in enumerate(cells) if exercise.answer_names <= bound_names(source)]
    touched = [i for i in defining if exercise.stub.strip() not in cells[i][1]]
    candidates = touched or broken or defining or own
    return next((i for i in candidates if i in own), candidates[-1] if candidates else None)


def plain(source: str) -> str:
    """The cell as pure Python: IPython's magics become calls, which grading leaves out; cell magics go."""
    from IPython.core.inputtransformer2 import TransformerManager

    if source.lstrip().startswith("%%"):
        source = source.lstrip().partition("\n")[2]
    try:
        return TransformerManager().transform_cell(source)
    except (SyntaxError, ValueError, RecursionError):
        return source


def parsed(source: str) -> ast.Module | None:
    """The syntax tree; None if the text is not Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def bound_names(source: str) -> set[str]:
    """The names that the top level of a cell defines; none if it is not Python."""
    tree = parsed(source)
    return set().union(*map(_binds, tree.body)) if tree else set()


def _binds(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return {n.id for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)}


def _helpers(source: str, others: list[str], given: dict) -> list[str]:
    """Definitions of other cells that the source needs, and that these need, in their order in the notebook."""
    statements = [s for tree in map(parsed, others) if tree for s in tree.body if _is_definition(s)]
    by_name = {name: i for i, s in enumerate(statements) for name in _binds(s) if not _is_given(s, name, given)}
    missing, taken = _loads(parsed(source)) - bound_names(source), set()
    while missing:
        name = missing.pop()
        if name in by_name and by_name[name] not in taken:
            taken.add(by_name[name])
            missing |= _loads(statements[by_name[name]])
    return [ast.unparse(statements[i]) for i in sorted(taken)]


def _is_definition(statement: ast.stmt) -> bool:
    """True for functions, classes, imports, and names set to a literal."""
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value:
        try:
            ast.literal_eval(statement.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return False
        return True
    return isinstance(statement, DEFINITIONS)


def _is_given(statement: ast.stmt, name: str, given: dict) -> bool:
    return isinstance(statement, (ast.Import, ast.ImportFrom)) and name in given


def _loads(tree: ast.AST | None) -> set[str]:
    nodes = ast.walk(tree) if tree else ()
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
