"""The folder that a command fills: nothing in it is overwritten, and what is written is whole or not there.

Of a training:
    weights, README.md (the model card), training.toml, history.csv      at the end
    samples/step_000100.png                                              while it runs
    checkpoints/training.toml, checkpoint.pt, prior/                     from the start; or in a folder of your choice
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutorial_lib.cli import options

SETTINGS, CHECKPOINT, SAMPLES, PRIOR = "training.toml", "checkpoint.pt", "samples", "prior"
PARTIAL = ".partial"


def begin_run(folder: Path, checkpoints: Path, resume: bool, force: bool) -> None:
    """Makes sure that a run may begin here, or go on. Raises FileExistsError or FileNotFoundError in words."""
    begun = (checkpoints / SETTINGS).exists() or (checkpoints / CHECKPOINT).exists()
    if resume:
        if not begun:
            raise FileNotFoundError(f"there is nothing to go on with: {checkpoints / SETTINGS} is missing")
        return
    kept = checkpoints / PRIOR  # drawn by a run that then did not begin
    occupied = [place for place in dict.fromkeys((checkpoints, folder)) if _holds_anything(place, kept)]
    if occupied and not force:
        hint = "--resume goes on with it, --force sets it aside and begins anew" if begun else _ASIDE
        raise FileExistsError(f"{occupied[-1]} is not empty. {hint}, or choose another folder")
    for place in sorted(occupied, key=lambda p: len(p.parts)):
        if place.exists():  # it may have gone with the folder around it
            _set_aside(place)


def begin(folder: Path, force: bool) -> None:
    """Makes sure that pictures or weights may be written here. Raises FileExistsError in words."""
    if _holds_anything(folder):
        if not force:
            raise FileExistsError(f"{folder} is not empty. {_ASIDE}, or choose another folder")
        _set_aside(folder)


_ASIDE = "--force sets what is there aside, under another name"


def _holds_anything(folder: Path, but: Path | None = None) -> bool:
    """Whether there are files in the folder, beside those in `but`."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"expected a folder for what is written, {folder} is a file: choose another name")
    return any(file.is_file() and but not in file.parents for file in folder.rglob("*"))


def _set_aside(folder: Path) -> None:
    number = next(k for k in range(1, 10_000) if not folder.with_name(f"{folder.name}.{k}").exists())
    aside = folder.with_name(f"{folder.name}.{number}")
    folder.rename(aside)
    print(f"what was in {folder} is now in {aside}")


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write into; once all of it is written, its contents move into `folder`, over an earlier end."""
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _without_paths(partial)
        for made in sorted(partial.iterdir()):
            target = folder / made.name
            if target.is_dir() and made.is_dir():
                shutil.rmtree(target)
            made.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _without_paths(folder: Path) -> None:
    """diffusers notes from which folder a model was loaded: nobody's business once it is shared."""
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_history(history, file: Path) -> None:
    """One row a step: loss, seconds."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["step", "loss", "seconds"])
        table.writerows(
            [k, f"{loss:.6g}", f"{s:.4g}"] for k, loss, s in zip(history.steps, history.loss, history.seconds)
        )


def settings_beside(weights: Path) -> dict:
    """The training.toml in a folder of weights; empty where there is none."""
    file = weights / SETTINGS
    return options.read(file) if file.is_file() else {}
