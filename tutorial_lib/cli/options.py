"""Options: from the command line, which wins, or from a TOML file. What is misspelt is named with what was meant."""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

ON_THE_COMMAND_LINE_ONLY = ("help", "config", "resume", "force")


class Parser(argparse.ArgumentParser):
    """What is not given is absent from the result; no abbreviations, which would change with new options."""

    def __init__(self, **settings):
        settings = {"argument_default": argparse.SUPPRESS, "allow_abbrev": False} | settings
        super().__init__(**settings)

    def add_config(self) -> None:
        self.add_argument("--config", metavar="FILE", help="a TOML file of these options; the command line wins")

    def keys(self) -> dict[str, str]:
        """The options that a file may give, as they are called there, and as they are called in the result."""
        named = {
            a.option_strings[-1 if a.nargs != 0 else 0].lstrip("-").replace("-", "_"): a.dest
            for a in self._actions
            if a.option_strings
        }
        return {key: dest for key, dest in named.items() if dest not in ON_THE_COMMAND_LINE_ONLY}


def parse(parser: Parser, arguments: list[str] | None) -> argparse.Namespace:
    """Everything that was given. Exits with code 2 and a sentence for what cannot be understood."""
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [name for a in options.parser._actions for name in a.option_strings]
        options.parser.error(f"unknown option {unknown[0]!r}{_near(unknown[0], known)}")
    return options


def complete(options: argparse.Namespace, file: Path) -> argparse.Namespace:
    """The options, and where one is absent, that of the file. Raises ValueError for a bad file."""
    return argparse.Namespace(**{**vars(_from_file(options.parser, file)), **vars(options)})


def check_needed(options: argparse.Namespace) -> None:
    """ValueError for the first option that must be given and is not."""
    for name in options.needs:
        if not hasattr(options, name):
            raise ValueError(f"{_flag(name)} is missing: give it here or in the file of --config")


def settings(options: argparse.Namespace, without: tuple[str, ...]) -> dict:
    """The options as a file would give them."""
    given = {key: dest for key, dest in options.parser.keys().items() if hasattr(options, dest)}
    return {key: getattr(options, dest) for key, dest in given.items() if key not in without}


def read(file: Path) -> dict:
    """A TOML file. Raises FileNotFoundError or ValueError in words."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}") from error


def write(values: dict, file: Path, comment: str) -> None:
    """Plain values as TOML: strings, numbers, true and false, lists of them."""
    lines = [f"# {comment}"]
    lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _from_file(parser: Parser, file: Path) -> argparse.Namespace:
    """What the file gives, read as if it had been written on the command line."""
    words = []
    for key, value in read(file).items():
        name = key.replace("-", "_")
        if name not in parser.keys():
            raise ValueError(f"{file}: unknown key {key!r}{_near(name, parser.keys())}")
        words += _words(file, key, value)
    reader = _Reader(parents=[parser], add_help=False)
    reader.file = file
    return reader.parse_args(words)


class _Reader(Parser):
    """The same options, whose mistakes are those of a file."""

    def error(self, message: str):
        raise ValueError(f"{self.file}: {message}")


def _words(file: Path, key: str, value) -> list[str]:
    if isinstance(value, bool):
        return [_flag(key) if value else _flag(f"no-{key}")]
    if isinstance(value, (str, int, float)):
        return [f"{_flag(key)}={value}"]
    if isinstance(value, list) and all(isinstance(v, (str, int, float)) for v in value):
        return [_flag(key), *map(str, value)]
    raise ValueError(f"{file}: {key!r} must be text, a number, true, false or a list of them, got {value!r}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, 3, 0.5)
    return f". Did you mean {' or '.join(map(repr, near))}?" if near else f": expected one of {', '.join(known)}"
