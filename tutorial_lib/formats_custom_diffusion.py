"""Custom Diffusion files of other programs, both ways.

diffusers: a folder with `pytorch_custom_diffusion_weights.bin` or `.safetensors` (whole matrices) and one file a
token, `<new1>.bin`. The original: one `delta.bin`, {"unet": matrices, "modifier_token": rows}, where a matrix is
either whole or, compressed, a difference {"u", "v"}. Neither says which base model it belongs to or what class a
token is of. Whatever was pickled is read as tensors alone (weights_only), so that no stranger's code is run.

To use such a file, read it into a delta and `custom_diffusion.load_into` the pipeline: diffusers' own
`load_attn_procs` (0.42.1) reads these files and then leaves the UNet as it was, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tutorial_lib.custom_diffusion.concepts import ConceptDelta, LowRank, check_base, concepts_of
from tutorial_lib.custom_diffusion.files import check_free, write_whole

DIFFUSERS_NAME = "pytorch_custom_diffusion_weights"
PROCESSOR = ".processor.{}_custom_diffusion.weight"  # of diffusers, where our path says ".to_k"


# ------------------------------------------------------------------ diffusers


def read_diffusers(folder: Path | str, pipe, class_words: Mapping[str, str] | None = None) -> ConceptDelta:
    """The folder's concepts as differences to the pipeline's W0, which must be the model they were trained on.

    class_words: the word of each token's class, which the files do not tell; merging uses it.
    """
    folder = Path(folder)
    weights = [f for end in ("safetensors", "bin") if (f := folder / f"{DIFFUSERS_NAME}.{end}").is_file()]
    if not weights:
        raise FileNotFoundError(f"{folder} holds no {DIFFUSERS_NAME}.safetensors and no {DIFFUSERS_NAME}.bin")
    if len(weights) > 1:
        raise ValueError(f"{folder} holds {weights[0].name} and {weights[1].name}: leave the one that is meant")
    [weights] = weights
    whole = {}
    for key, tensor in _read(weights).items():
        path, _, kind = key.rpartition(".processor.")
        if isinstance(tensor, Tensor):  # the others stand for processors without weights
            whole[f"{path}.{kind.removesuffix('_custom_diffusion.weight')}"] = tensor
    return _delta(weights, whole, _read_tokens(folder), pipe, class_words)


def _read_tokens(folder: Path) -> dict[str, Tensor]:
    """All the token files beside the weights. Some are safetensors under the name .bin."""
    rows = {}
    for file in sorted(folder.glob("<*>.*")):
        if file.suffix in (".bin", ".safetensors"):
            rows.update({token: row.flatten() for token, row in _read(file).items()})
    return rows


def write_diffusers(
    delta: ConceptDelta, folder: Path | str, pipe, safetensors: bool = False, overwrite: bool = False
) -> None:
    """Writes the delta as diffusers' training script does, `pipe` being the model that it belongs to.

    Of the two, diffusers can make processors of the .bin file only. The tokens load with `load_textual_inversion`.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    weights = folder / f"{DIFFUSERS_NAME}.{'safetensors' if safetensors else 'bin'}"
    files = [weights, *(folder / f"{token}.bin" for token in delta.tokens)]
    for file in files:
        check_free(file, overwrite)
    for file in sorted({*folder.glob(f"{DIFFUSERS_NAME}.*"), *folder.glob("<*>.*")} - set(files)):
        raise FileExistsError(f"{file} is of another concept and would be read with this one: choose another folder")
    named = {}
    for path, matrix in _whole(delta, pipe).items():
        attention, kind = path.rsplit(".", 1)
        named[attention + PROCESSOR.format(kind)] = matrix
    if safetensors:
        write_whole(weights, lambda part: save_file(named, part))
    else:
        # diffusers wants to hear of every processor, also of those that were not trained.
        silent = {name: {} for name in pipe.unet.attn_processors if ".attn2." not in name}
        write_whole(weights, lambda part: torch.save({**named, **silent}, part))
    for token, row in delta.tokens.items():
        write_whole(folder / f"{token}.bin", lambda part, t=token, r=row: torch.save({t: r.clone()}, part))


# ------------------------------------------------------------------ the original


def read_original(file: Path | str, pipe, class_words: Mapping[str, str] | None = None) -> ConceptDelta:
    """A delta.bin, plain or compressed, as differences to the pipeline's W0."""
    file = Path(file)
    content = _read(file)
    if not isinstance(content.get("unet"), Mapping):
        raise ValueError(f'{file} is no delta.bin: expected "unet" and "modifier_token", got {sorted(content)[:4]}')
    found = {key.removesuffix(".weight"): value for key, value in content["unet"].items()}
    rows = {token: row.flatten() for token, row in content.get("modifier_token", {}).items()}
    return _delta(file, found, rows, pipe, class_words)


def write_original(delta: ConceptDelta, file: Path | str, pipe, overwrite: bool = False) -> None:
    """Writes a delta.bin: whole matrices, or {"u", "v"} where the delta is compressed."""
    file = Path(file)
    check_free(file, overwrite)
    check_base(delta.base, concepts_of(pipe).hashes, "the delta and the pipeline")
    whole = _whole(delta, pipe)
    matrices = {}
    for path, entry in delta.matrices.items():
        factors = {"u": entry.left, "v": entry.right} if isinstance(entry, LowRank) else None
        matrices[f"{path}.weight"] = factors or whole[path]
    content = {"unet": matrices, "modifier_token": {token: row.clone() for token, row in delta.tokens.items()}}
    write_whole(file, lambda part: torch.save(content, part))


# ------------------------------------------------------------------ both


def _whole(delta: ConceptDelta, pipe) -> dict[str, Tensor]:
    """W = W0 + delta, by path."""
    concepts = concepts_of(pipe)
    check_base(delta.base, concepts.hashes, "the delta and the pipeline")
    return {path: (w0.cpu() + delta.matrix(path)).contiguous() for path, w0 in concepts.base.items()}


def _delta(file: Path, found: dict, rows: dict[str, Tensor], pipe, class_words) -> ConceptDelta:
    """A delta of matrices that are whole, or differences {"u", "v"}."""
    concepts = concepts_of(pipe)
    if set(found) != set(concepts.base):
        odd = sorted(set(found) ^ set(concepts.base))[0]
        raise ValueError(
            f"{file} does not fit the pipeline: {odd} is in one of them alone. Only keys and values of the "
            "cross-attention are read here, of the very model that the file was trained on"
        )
    matrices = {}
    for path, w0 in concepts.base.items():
        entry = found[path]
        factors = isinstance(entry, Mapping)
        shape = (entry["u"].shape[0], entry["v"].shape[1]) if factors else tuple(entry.shape)
        if shape != tuple(w0.shape):
            raise ValueError(f"{file} does not fit the pipeline: {path} is {shape} there and {tuple(w0.shape)} here")
        matrices[path] = LowRank(entry["u"], entry["v"]) if factors else entry - w0.cpu()
    words = {token: (class_words or {}).get(token) for token in rows}
    return ConceptDelta(matrices, rows, words, dict(concepts.hashes))


def _read(file: Path) -> dict:
    """The tensors of a safetensors or a torch file, whatever its name says. No code in it is run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    try:
        return load_file(file)
    except SafetensorError:
        pass  # then it is one of torch's
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names a broken or a forbidden file in a dozen ways
        raise ValueError(f"{file} is damaged, or holds more than tensors, and is not read ({error})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds a {type(content).__name__}: expected tensors by name")
    return dict(content)
