"""Runs the lessons in other environments than the locked one and prints a table, lesson by environment.

    python tools/environments.py                    every lesson, here and with Colab's versions
    python tools/environments.py colab              with Colab's versions only
    python tools/environments.py colab -l 00 04     these lessons

"locked" is the environment that runs this command. Each other one is a file environments/NAME.txt and becomes a virtual
environment in .environments/NAME, made once and again whenever the file changes. Nothing is written to the notebooks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build_lessons import Course, execute
from lesson_format import LessonError, read
from lesson_notebooks import Measured, solved_notebook

ROOT = Path(__file__).parents[1]
LOCKED = "locked"
LESS = {"torch"}  # taken from the lock: other versions bring gigabytes for a GPU
SHOWN = ("torch", "diffusers", "transformers", "peft", "numpy", "ipywidgets")


@dataclass(frozen=True)
class Environment:
    """Package versions, and where they are installed."""

    name: str
    wanted: Path | None = None  # None: where this command runs
    folder: Path | None = None

    @property
    def python(self) -> str:
        return sys.executable if self.folder is None else str(self.folder / "bin" / "python")

    @property
    def kernels(self) -> dict[str, str]:
        """The variable that makes Jupyter find this environment's kernel before any other."""
        return {} if self.folder is None else {"JUPYTER_PATH": str(self.folder / "share" / "jupyter")}


def environments(root: Path = ROOT) -> dict[str, Environment]:
    """The locked environment, then one for each file in environments/."""
    others = [Environment(f.stem, f, root / ".environments" / f.stem) for f in sorted(root.glob("environments/*.txt"))]
    return {e.name: e for e in (Environment(LOCKED), *others)}


# ------------------------------------------------------------------ setting up


def requirements(wanted: str, lock: str) -> list[str]:
    """What pip is to install: the lines of an environment's file, with the lock's own line where that is taken."""
    locked = {_name(line): line for line in _lines(lock)}
    return [locked[_name(line)] if _name(line) in LESS else line for line in _lines(wanted)]


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line := line.partition("#")[0].strip():
            yield line


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def python_for(wanted: str) -> str:
    """The interpreter that the first comment of an environment's file asks for ("on Python 3.13"), else this one."""
    asked = re.search(r"Python (3\.\d+)", wanted)
    found = asked and shutil.which(f"python{asked.group(1)}")
    if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
        return found
    print(
        f"{asked.group(0) if asked else 'the Python it wants'} is not found here: this command's own is taken instead"
    )
    return sys.executable


def set_up(environment: Environment, root: Path = ROOT) -> None:
    """Makes the virtual environment, unless it is there and its file has not changed."""
    if environment.folder is None:
        return
    text = environment.wanted.read_text(encoding="utf-8")
    stamp, packages = environment.folder / "installed.txt", requirements(text, (root / "requirements.lock").read_text())
    if stamp.exists() and stamp.read_text(encoding="utf-8") == "\n".join(packages):
        return
    print(f"{environment.name}: installing {len(packages)} packages and what they need ...", flush=True)
    shutil.rmtree(environment.folder, ignore_errors=True)
    subprocess.run([python_for(text), "-m", "venv", environment.folder], check=True)
    pip = [environment.python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "setuptools>=77", *packages], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", root], check=True)
    kernel = [environment.python, "-m", "ipykernel", "install", "--prefix", environment.folder, "--name", "python3"]
    subprocess.run(kernel, check=True, capture_output=True)
    stamp.write_text("\n".join(packages), encoding="utf-8")


def versions(environment: Environment) -> str:
    """One line: Python and the packages that matter."""
    code = (
        "import sys; from importlib.metadata import version\n"
        f"print('Python', sys.version.split()[0], *[f'{{n}} {{version(n)}}' for n in {SHOWN}], sep=', ')"
    )
    done = subprocess.run([environment.python, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip().replace("Python, ", "Python ")


# ------------------------------------------------------------------ running


def run(environment: Environment, master: Path, root: Path = ROOT) -> Measured | str:
    """Executes a lesson's solutions, strictly; what it took, or the last line of its error."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    before = {name: os.environ.get(name) for name in environment.kernels}
    os.environ.update(environment.kernels)
    try:
        return execute(solved_notebook(read(master), Course(root).repository, None), root)[1]
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
        return lines[-1]
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def table(found: dict[str, dict[str, Measured | str]]) -> str:
    """{lesson: {environment: what it took}} as text, one lesson a line; the errors come below."""
    names = list(next(iter(found.values())))
    lines = [f"{'lesson':34}" + "".join(f"{name:>18}" for name in names)]
    for lesson, row in found.items():
        cells = [
            f"{m.seconds:.0f} s, {m.peak_mb / 1000:.1f} GB" if isinstance(m, Measured) else "FAILED"
            for m in row.values()
        ]
        lines.append(f"{lesson:34}" + "".join(f"{cell:>18}" for cell in cells))
    errors = [
        f"{lesson} in {name}: {m}" for lesson, row in found.items() for name, m in row.items() if isinstance(m, str)
    ]
    return "\n".join(lines + errors)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 1 if a lesson failed anywhere."""
    known = environments()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"environments: {', '.join(known)}; all by default")
    parser.add_argument(
        "-l", "--lessons", nargs="+", default=(), metavar="NN", help="two-digit numbers; all by default"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(known):
        parser.error(f"no environment {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [known[name] for name in options.names or known]
    try:
        masters = Course(ROOT).masters(options.lessons)
    except LessonError as error:
        parser.error(str(error))
    for environment in chosen:
        set_up(environment)
        print(f"{environment.name}: {versions(environment)}", flush=True)
    found: dict[str, dict] = {master.stem: {} for master in masters}
    for master in masters:
        for environment in chosen:
            found[master.stem][environment.name] = run(environment, master)
        print(table({master.stem: found[master.stem]}).partition("\n")[2], flush=True)
    print("", table(found), sep="\n")
    return int(any(isinstance(m, str) for row in found.values() for m in row.values()))


if __name__ == "__main__":
    sys.exit(main())
