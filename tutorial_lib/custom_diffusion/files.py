"""Concepts as files of our own: safetensors, with the base model's hash and the classes' words beside the tensors."""

from __future__ import annotations

import json
from pathlib import Path

from tutorial_lib.custom_diffusion.concepts import ConceptDelta, LowRank

FORMAT = "tutorial_lib.custom_diffusion"


def save(delta: ConceptDelta, file: Path | str, overwrite: bool = False) -> None:
    """Writes the delta. FileExistsError if there is such a file already, unless it may be overwritten."""
    from safetensors.torch import save_file

    file = Path(file)
    check_free(file, overwrite)
    tensors = {f"token.{token}": row for token, row in delta.tokens.items()}
    for path, entry in delta.matrices.items():
        if isinstance(entry, LowRank):
            tensors |= {f"unet.{path}.left": entry.left, f"unet.{path}.right": entry.right}
        else:
            tensors[f"unet.{path}.weight"] = entry
    metadata = {"format": FORMAT, "base": json.dumps(delta.base), "class_words": json.dumps(delta.class_words)}
    write_whole(file, lambda part: save_file({k: t.contiguous() for k, t in tensors.items()}, part, metadata))


def check_free(file: Path, overwrite: bool) -> None:
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} exists already: choose another name, or say overwrite=True")


def write_whole(file: Path, write) -> None:
    """The file is there whole or not at all: `write` makes a neighbour, which then takes its place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".partial")
    try:
        write(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def load(file: Path | str) -> ConceptDelta:
    """What `save` wrote. ValueError for any other file, or a damaged one."""
    from safetensors import SafetensorError, safe_open

    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: expected a concept file that custom_diffusion.save wrote")
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged, or no safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{file} is not a concept file of this library: for files of diffusers and of the original Custom "
            "Diffusion use tutorial_lib.formats_custom_diffusion"
        )
    words = json.loads(metadata["class_words"])
    tokens = {token: tensors[f"token.{token}"] for token in words}
    return ConceptDelta(_matrices(tensors), tokens, words, json.loads(metadata["base"]))


def _matrices(tensors: dict) -> dict:
    """Whole matrices and pairs of factors by the layer's path."""
    found = {}
    for key in sorted(key for key in tensors if key.startswith("unet.")):
        path, kind = key.removeprefix("unet.").rsplit(".", 1)
        if kind == "weight":
            found[path] = tensors[key]
        elif kind == "left":
            found[path] = LowRank(tensors[key], tensors[f"unet.{path}.right"])
    return found
