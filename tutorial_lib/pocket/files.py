"""Where the pocket model lies, and how its files are read: checked, and with the cure named if damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

POCKET = Path(__file__).parents[2] / "data" / "pocket-sd"
HASHES = "hashes.json"  # {path inside the model: sha256} of all other files, written when the model is made
CURE = "get the file again (`git checkout -- data/pocket-sd`), or make the model anew (`make pretrain`)"


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weight_files(folder: Path) -> list[str]:
    """Paths of the weight files inside the model's folder."""
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*.safetensors"))


def model_files(folder: Path) -> list[str]:
    """Paths of all files that loading the model reads: weights, configurations, the tokenizer's words."""
    kinds = (".safetensors", ".json", ".txt")
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.suffix in kinds and f.name != HASHES)


def write_hashes(folder: Path = POCKET) -> None:
    hashes = {name: sha256(folder / name) for name in model_files(folder)}
    (folder / HASHES).write_text(json.dumps(hashes, indent=2) + "\n")


def check(folder: Path | None = None) -> None:
    """Raises if a file of the model is missing or is not, byte for byte, the one that it was made with."""
    folder = folder or POCKET
    for name, expected in _hashes(folder / HASHES).items():
        file = folder / name
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing: {CURE}")
        if sha256(file) != expected:
            raise ValueError(f"{file} is damaged or changed (sha256 is not {expected[:12]}…): {CURE}")


def _hashes(file: Path) -> dict[str, str]:
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: {CURE}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): {CURE}") from error


def load_weights(file: Path) -> dict:
    """The tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: {CURE}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): {CURE}") from error
