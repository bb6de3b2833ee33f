"""Two things that a verdict must not rest on: functions that the answer replaced, and the library's own solution.

Both look at what happens while the answer runs, so that renaming and hiding do not matter. Code that sets out to
deceive the interpreter itself (frames, the garbage collector, ctypes) can still deceive them.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Iterable
from pathlib import Path

import tutorial_lib

LIBRARY = str(Path(tutorial_lib.__file__).parent) + "/"
CHECKS = LIBRARY + "lab/checks/"
WATCHED = ("builtins", "math", "numpy", "torch", "tutorial_lib")


class Seal:
    """The functions and classes that checks stand on, as they are now; `broken` names those that were replaced.

    Watched are the modules of WATCHED that are imported: their functions and classes, and of tutorial_lib every name,
    the code of its functions and the methods of its classes.
    """

    def __init__(self):
        self._modules = {name: module for name, module in sys.modules.items() if _watched(name)}
        self._kept = [(name, vars(module), _worth_keeping(module)) for name, module in self._modules.items()]
        classes = {value for _, _, kept in self._kept for value in kept.values() if _is_watched_class(value)}
        self._classes = [(f"{owner.__module__}.{owner.__name__}", owner, dict(vars(owner))) for owner in classes]
        functions = {f for _, names in self._tables() for f in names.values() if _is_ours(f)}
        self._codes = [(f"{f.__module__}.{f.__qualname__}", f, f.__code__, f.__defaults__) for f in functions]

    def _tables(self) -> Iterable[tuple[str, dict]]:
        return [(name, kept) for name, _, kept in self._kept] + [(name, kept) for name, _, kept in self._classes]

    def broken(self) -> list[str]:
        """The names that are no longer what they were, as "numpy.allclose"; empty if all is well."""
        found = [name for name, module in self._modules.items() if sys.modules.get(name) is not module]
        for name, now, kept in self._kept:
            found += [f"{name}.{key}" for key, value in kept.items() if now.get(key) is not value]
            if name.startswith("tutorial_lib"):
                found += [f"{name}.{key}" for key in now.keys() - kept.keys() if not inspect.ismodule(now[key])]
        for name, owner, kept in self._classes:
            now = dict(vars(owner))
            found += [f"{name}.{key}" for key in now.keys() | kept.keys() if now.get(key) is not kept.get(key)]
        found += [name for name, f, code, given in self._codes if (f.__code__, f.__defaults__) != (code, given)]
        return sorted(found)


def _watched(name: str) -> bool:
    return name.partition(".")[0] in WATCHED


def _worth_keeping(module: types.ModuleType) -> dict:
    """Of the library every name; of other modules functions and classes, since their caches and flags may change."""
    if module.__name__.startswith("tutorial_lib"):
        return dict(vars(module))
    return {key: value for key, value in vars(module).items() if callable(value)}


def _is_watched_class(value) -> bool:
    return isinstance(value, type) and (
        value.__module__.startswith("tutorial_lib") or value.__qualname__ in ("Tensor", "Module", "Generator")
    )


def _is_ours(value) -> bool:
    return isinstance(value, types.FunctionType) and value.__module__.startswith("tutorial_lib")


class LibraryUse:
    """While active, notes in `used` which functions of tutorial_lib the code of `files` leads to.

    A function counts when the next of our or of the student's frames above it is the student's. Not counted are methods
    and inner functions of the checks: these belong to things that a check hands to the answer.
    """

    def __init__(self, files: set[str]):
        self.files = files
        self.used: set[str] = set()

    def __enter__(self) -> LibraryUse:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *error) -> None:
        sys.setprofile(None)

    def _see(self, frame: types.FrameType, event: str, _) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(LIBRARY) and _counts(code) and self._is_theirs(frame.f_back):
            self.used.add(_name(code))

    def _is_theirs(self, frame: types.FrameType | None) -> bool:
        while frame and not frame.f_code.co_filename.startswith(LIBRARY):
            if frame.f_code.co_filename in self.files:
                return True
            frame = frame.f_back
        return False


def _counts(code: types.CodeType) -> bool:
    inner = "." in code.co_qualname and code.co_filename.startswith(CHECKS)
    return not inner and code.co_name != "<module>"  # an import runs a module, which is no answer


def _name(code: types.CodeType) -> str:
    file = code.co_filename.removeprefix(LIBRARY).removesuffix(".py").removesuffix("/__init__")
    return f"{file.replace('/', '.')}.{code.co_qualname}"


def taken_from_library(answer) -> set[str]:
    """The names of library functions or classes that an answer itself is, or inherits from."""
    if isinstance(answer, type):
        ours = [parent for parent in answer.__mro__ if parent.__module__.startswith("tutorial_lib")]
        return {f"{parent.__module__.removeprefix('tutorial_lib.')}.{parent.__qualname__}" for parent in ours}
    while isinstance(answer, functools.partial):
        answer = answer.func
    code = getattr(inspect.unwrap(answer), "__code__", None) if callable(answer) else None
    return {_name(code)} if code and code.co_filename.startswith(LIBRARY) else set()
