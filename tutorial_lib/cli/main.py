"""All commands. What the user can mend is said in a sentence, with exit code 2; any other error is a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

from tutorial_lib.cli import convert, generate, merge, options, pretrain, train

# What the library raises for bad input: its messages say what was expected, what was got, and what to do.
IN_WORDS = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the exit code."""
    given = options.parse(_parser(), arguments)
    try:
        if hasattr(given, "config"):
            given = options.complete(given, Path(given.config))
        given.run(given)
    except IN_WORDS as error:
        print(f"{given.parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> options.Parser:
    parser = options.Parser(prog="python -m tutorial_lib", description="The course's methods, for long runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, generate, merge, convert, pretrain):
        command.add(commands)
    return parser
