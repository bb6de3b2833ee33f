"""Checks of exercises: what is right, what is wrong and why, what is still to do.

A lesson's checks are one module, `lesson_NN.py`. In a notebook an exercise ends with `check.name(answer)`.
A check is written, and proved, like this:

    @check
    def double(answer):
        "Doubles a number."                    # shown when all is right
        if answer(3) == 9:
            raise Mistake("You squared it: 3 became 9. Doubling adds a number to itself.")
        ...

    @double.right                              # another right answer
    def by_adding(x): return x + x

    @double.wrong("squared")                   # an answer that students give, and words of its diagnosis
    def square(x): return x * x

The answers below each check are tested: every wrong one must get its own diagnosis, every right one must pass.
"""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib.lab.notes import BAD, GOOD, PLAIN, note
from tutorial_lib.lab.session import strict

TITLES = {"right": "✓ Right.", "wrong": "✗ Not yet.", "to do": "… To do."}
COLOURS = {"right": GOOD, "wrong": BAD, "to do": PLAIN}


class Mistake(Exception):  # noqa: N818 - it is what a student made, not an error of the program
    """Raised by a check: the answer is wrong, and this is why."""


@dataclass(frozen=True)
class Verdict:
    """What a check says: `state` is "right", "wrong" or "to do"."""

    check: str
    state: str
    message: str

    def __str__(self) -> str:
        return f"{TITLES[self.state]} {self.message}"

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = note(TITLES[self.state], self.message, COLOURS[self.state])
        return data, {"course": {"check": self.check, "state": self.state}}


class Check:
    """A check of one exercise, called with the student's answer: a function or a class."""

    def __init__(self, examine: Callable):
        self.examine = examine
        self.name = examine.__name__
        self.__doc__ = examine.__doc__
        self.right_answers: list[Callable] = []
        self.wrong_answers: list[tuple[Callable, str]] = []

    def __call__(self, answer: Callable) -> Verdict:
        """Says what is right or wrong with the answer. Raises only while the course is being built."""
        verdict = Verdict(self.name, *self._judge(answer))
        if strict() and verdict.state != "right":
            raise AssertionError(str(verdict))
        return verdict

    def right(self, answer: Callable) -> Callable:
        """Registers another right answer."""
        self.right_answers.append(answer)
        return answer

    def wrong(self, phrase: str) -> Callable:
        """Registers a wrong answer whose diagnosis holds `phrase`."""
        return lambda answer: self.wrong_answers.append((answer, phrase)) or answer

    def _judge(self, answer: Callable) -> tuple[str, str]:
        if not callable(answer):
            return (
                "wrong",
                f"Give the check the function itself, as in check.{self.name}(my_function), without calling it.",
            )
        try:
            self.examine(on_copies(answer) if inspect.isfunction(answer) else answer)
        except Mistake as mistake:
            return "wrong", str(mistake)
        except Exception as error:
            return _crash(error, answer)
        return "right", inspect.getdoc(self)


def check(examine: Callable) -> Check:
    """Makes a check of a function that raises Mistake; its docstring is what a right answer is told."""
    return Check(examine)


def on_copies(answer: Callable) -> Callable:
    """The answer, called on copies of tensors, arrays, lists and dicts; Mistake if it wrote into one of them.

    So no check compares with numbers that the answer has changed, and none has to look for that itself.
    """

    def called(*given, **named):
        handed, more = _copied(given), _copied(named)
        result = answer(*handed, **more)
        before, after = (*given, *named.values()), (*handed, *more.values())
        for name, old, new in zip(_names(answer, given, named), before, after):
            if not _same(old, new):
                raise Mistake(
                    f"Your function changed its input {name} in place (as *=, [...] = and .sort() do). Whoever called "
                    f"it still needs {name}: keep the result under a new name, or work on a copy."
                )
        return result

    return called


def _names(answer: Callable, given: tuple, named: dict) -> list[str]:
    """What the answer calls its inputs."""
    own = [p.name for p in inspect.signature(answer).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    return [*own[: len(given)], *(f"number {k + 1}" for k in range(len(own), len(given))), *named]


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return type(value)(_copied(one) for one in value) if type(value) in (list, tuple) else value


def _same(before, after) -> bool:
    if isinstance(before, torch.Tensor):
        return before.shape == after.shape and torch.allclose(before, after, rtol=0, atol=0, equal_nan=True)
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, dict):
        return list(before) == list(after) and all(_same(before[key], after[key]) for key in before)
    if type(before) in (list, tuple):
        return len(before) == len(after) and all(_same(a, b) for a, b in zip(before, after))
    return not isinstance(before, str | int | float) or before is after or before == after  # all else: as it is


def _crash(error: Exception, answer: Callable) -> tuple[str, str]:
    """What to say of an error other than Mistake: still to do, the student's error, or an unusable result."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = _frames_of(answer, frames)
    if isinstance(error, NotImplementedError) and own and frames[-1] == own[-1]:
        return "to do", "Write the part that raises NotImplementedError, then run this cell again."
    what = f"{type(error).__name__}: {error}"
    if not own:
        return "wrong", f"The check could not work with what your code returned: {what}"
    frame, number = own[-1]
    line = linecache.getline(frame.f_code.co_filename, number).strip()
    return "wrong", f"Your code stopped with {what}\nin line {number}: {line}"


def _frames_of(answer: Callable, frames: list) -> list:
    """The frames of the student's own code: from the first call into the answer on, those of its file."""
    functions = [answer, *vars(answer).values()] if inspect.isclass(answer) else [answer]
    codes = {function.__code__ for function in functions if inspect.isfunction(function)}
    entry = next((i for i, (frame, _) in enumerate(frames) if frame.f_code in codes), None)
    if entry is None:
        return []
    file = frames[entry][0].f_code.co_filename
    return [(frame, number) for frame, number in frames[entry:] if frame.f_code.co_filename == file]
