"""The verdict on one answer: its code is run, handed to the teacher's check, and watched meanwhile.

What the notebook shows, what it says its points are, and which check it calls are of no account: of the exercise's cell
the definitions are run, calls that stand alone (prints, checks, magics) are not, and the check is the teacher's.

An answer that lets tutorial_lib do the work is found by watching which of its functions are called, not by reading the
answer: no name need be known, and `from ... import x as y` or getattr hide nothing. Functions that the course's own
solution calls too are allowed.
"""

from __future__ import annotations

import ast
import linecache
import os

from grading.answers import Answer, parsed
from grading.exercises import Exercise
from grading.integrity import LibraryUse, Seal, taken_from_library
from tutorial_lib.lab.session import STRICT

STATES = ("right", "wrong", "to do", "missing", "library", "tampered", "stopped", "crashed")
MESSAGE_LIMIT = 1500  # characters; a diagnosis may quote what the answer returned


def judge(exercise: Exercise, answer: Answer, seal: Seal) -> dict:
    """{"state", "message", "used"} for one answer. Meant for a process of its own: the code may change anything."""
    os.environ.pop(STRICT, None)
    verdict = _verdict(exercise, answer, seal)
    return verdict | {"message": verdict["message"][:MESSAGE_LIMIT]}


def _verdict(exercise: Exercise, answer: Answer, seal: Seal) -> dict:
    names, check = dict(exercise.names), exercise.check
    files, problems = _define(exercise, answer, names)
    if broken := seal.broken():
        return _tampered(broken)
    try:
        arguments = [eval(compile(ast.Expression(a), "answer", "eval"), names) for a in exercise.arguments]
    except Exception as error:
        return _told("crashed", problems[0] if problems else f"{type(error).__name__}: {error}")
    with LibraryUse(files) as use:
        verdict = check(*arguments)
    if broken := seal.broken():
        return _tampered(broken)
    used = use.used.union(*map(taken_from_library, arguments))
    if verdict.state == "right" and used - exercise.allowed:
        return _by_library(used - exercise.allowed)
    message = verdict.message if verdict.state == "right" else "\n".join([verdict.message, *problems])
    return _told(verdict.state, message, used)


def _told(state: str, message: str, used=()) -> dict:
    return {"state": state, "message": message, "used": sorted(used)}


def _tampered(broken: list[str]) -> dict:
    named = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
    return _told("tampered", f"The code replaces {named}, which the check stands on. Give your helper another name.")


def _by_library(used: set[str]) -> dict:
    named = ", ".join(sorted(used))
    return _told(
        "library",
        f"The result is right, and it comes from the course's library ({named}). Knowing where to find it is worth "
        "something; the points are for writing it yourself.",
        used,
    )


# ------------------------------------------------------------------ running the cell


def _define(exercise: Exercise, answer: Answer, names: dict) -> tuple[set[str], list[str]]:
    """Runs the definitions of an answer in `names`; the names of its files and what stopped on the way."""
    files, problems = set(), []
    for i, source in enumerate([*answer.helpers, answer.cell]):
        file = f"<{exercise.name} {i}>"
        files.add(file)
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for the check's messages
        problems += _run(source, file, names)
    return files, problems


def _run(source: str, file: str, names: dict) -> list[str]:
    """Runs each statement but calls that stand alone; one that stops does not keep the others from running."""
    tree = parsed(source)
    if tree is None:
        return [_syntax(source, file)]
    problems = []
    for statement in tree.body:
        if isinstance(statement, ast.Expr):
            continue
        try:
            exec(compile(ast.Module([statement], []), file, "exec"), names)
        except Exception as error:
            problems.append(f"Line {statement.lineno} of the cell stopped with {type(error).__name__}: {error}")
    return problems


def _syntax(source: str, file: str) -> str:
    try:
        compile(source, file, "exec")
    except SyntaxError as error:
        return f"Line {error.lineno} of the cell is not Python: {error.msg}"
    except Exception as error:
        return f"The cell is not Python: {type(error).__name__}"
    return "The cell is not Python."
