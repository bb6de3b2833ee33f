"""Checkpoints that are whole or not there at all, and that say what they belong to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

MOST = 6  # differences named in full; a run of another method differs in hundreds


def write(file: Path, state: dict) -> None:
    """Writes the state beside the file and then puts it in its place, so that a kill at any moment harms neither."""
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def read(file: Path) -> dict:
    """The state in the file, on the CPU; no code in it is run. Raises ValueError if the file is damaged."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch has a dozen for a broken file, one of which advises to trust it
        raise ValueError(
            f"{file} is damaged, or is no checkpoint: delete it to begin anew, or choose another folder"
        ) from error


def compare(file: Path, then: dict, now: dict) -> None:
    """Raises ValueError with all that differs, unless the checkpoint in `file` is of the run that now asks for it."""
    differ = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if not differ:
        return
    lines = [f"  {name}: {_shown(then, name)} there, {_shown(now, name)} now" for name in differ[:MOST]]
    if len(differ) > MOST:
        lines.append(f"  and {len(differ) - MOST} more")
    raise ValueError(
        "\n".join([f"{file} is the checkpoint of another run:", *lines])
        + "\nGive this run another folder, or the settings of that one to go on with it."
    )


def fingerprint(*values) -> str:
    """16 hex digits that change with any bit, type or shape of these tensors, arrays and plain values."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def _shown(values: dict, name: str) -> str:
    return repr(values[name]) if name in values else "nothing"
