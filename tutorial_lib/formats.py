"""OFT files of others, both ways: peft's directories, and the checkpoints of the paper's own repository (read only).

All of them come and go as `Adapter`: vectors in the convention of `orthogonal.py`, by the path of their layer. Who
turns which way, for S = U - U^T of the stored numbers:

    peft, exact                         (I - S)(I + S)^{-1}   the inverse of ours: the vector is negated
    peft, Cayley-Neumann (its default)  a series of (I + S)(I - S)^{-1}: ours, but not orthogonal
    original, oft-db                    (I + S)(I - S)^{-1}   ours
    original, oft-t2i                   (I - S)(I + S)^{-1}   negated
    original, oft-control               (I - S)(I + S)^{-1}   negated; with shared blocks (I + S)(I - S)^{-1}, ours

Nothing here runs code from a file: safetensors, or torch's reader that allows tensors only. Whatever is damaged,
incomplete or of another kind raises a ValueError (FileNotFoundError if it is not there) that says what was expected.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tutorial_lib.orthogonal import (
    cayley_neumann,
    inverse_cayley,
    orthogonality_error,
    project,
    skew_symmetric,
    upper_triangle,
)

CONFIG, WEIGHTS, MAGNITUDES = "adapter_config.json", "adapter_model.safetensors", "magnitudes.safetensors"
PEFT_VERSION = "0.21.2"  # whose format this is
OURS = "tutorial_lib"  # the entry of the safetensors header that holds what peft has no field for
PREFIX, SUFFIX = "base_model.model.", ".oft_R.weight"
# A Neumann file is converted if its R is orthogonal up to this: the change is then below what half precision rounds.
NEUMANN_TOLERANCE = 1e-3


@dataclass
class Adapter:
    """One OFT adapter as plain tensors."""

    vectors: dict[str, torch.Tensor]  # path -> (r, b(b-1)/2), float32; r = 1 for shared blocks
    block_share: bool = False
    eps: float | None = None  # COFT's bound, as `oft.attach` takes it
    strength: float = 1.0
    name: str = "default"
    active: bool = True
    magnitudes: dict[str, torch.Tensor] = field(default_factory=dict)  # path -> (neurons,)
    source: str = "tutorial_lib"  # or "peft" or "original": who wrote it


def block_size(vector: torch.Tensor) -> int:
    """b of a vector with b(b-1)/2 columns."""
    columns = vector.shape[1]
    size = (1 + math.isqrt(1 + 8 * columns)) // 2
    if columns == 0 or size * (size - 1) // 2 != columns:
        raise ValueError(f"{columns} numbers a block are no triangle b(b-1)/2 of any block size b")
    return size


# ------------------------------------------------------------------ peft's directories


def write_peft(adapter: Adapter, folder: str | Path, inputs: dict[str, int]) -> None:
    """An adapter as a directory that `peft.PeftModel.from_pretrained` reads. inputs: the row length of each layer.

    Each file is written whole or not at all. A folder that holds another method's adapter is left alone. Warns of what
    peft cannot know: a strength other than 1 and magnitudes (both come back in `read_peft`).
    """
    folder = Path(folder)
    _refuse_other_method(folder)
    config = _peft_config(adapter, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    extras = {"name": adapter.name, "active": adapter.active, "strength": adapter.strength, "eps": adapter.eps}
    tensors = {f"{PREFIX}{path}{SUFFIX}": -vector for path, vector in adapter.vectors.items()}
    _write_tensors(tensors, folder / WEIGHTS, extras)
    if adapter.magnitudes:
        _write_tensors(adapter.magnitudes, folder / MAGNITUDES, {})
    else:
        (folder / MAGNITUDES).unlink(missing_ok=True)  # left by an earlier save of this adapter
    _replace(folder / CONFIG, json.dumps(config, indent=2).encode())
    if adapter.strength != 1 or adapter.magnitudes:
        warnings.warn(
            f"peft knows neither strength nor magnitudes: it will apply {folder} at strength 1 and without magnitudes. "
            "Merge and save the model instead if peft has to show the same.",
            stacklevel=3,
        )


def _peft_config(adapter: Adapter, inputs: dict[str, int]) -> dict:
    sizes = {block_size(vector) for vector in adapter.vectors.values()}
    counts = {inputs[path] // block_size(vector) for path, vector in adapter.vectors.items()}
    if len(sizes) > 1 and len(counts) > 1:
        raise ValueError(
            f"peft's format has one block size or one number of blocks for all layers; this adapter has the sizes "
            f"{sorted(sizes)} and the numbers {sorted(counts)}. Merge it and save the model instead."
        )
    return {
        "peft_type": "OFT",
        "peft_version": PEFT_VERSION,
        "task_type": None,
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": list(adapter.vectors),
        "r": counts.pop() if len(sizes) > 1 else 0,  # exactly one of the two may be non-zero
        "oft_block_size": 0 if len(sizes) > 1 else sizes.pop(),
        "block_share": adapter.block_share,
        "use_cayley_neumann": False,
        "coft": False,  # what is saved lies in the ball; peft's own eps means another ball
        "module_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_weights": True,
    }


def _refuse_other_method(folder: Path) -> None:
    if (folder / CONFIG).exists() and (method := _read_json(folder / CONFIG).get("peft_type")) != "OFT":
        raise FileExistsError(f"{folder} holds a {method} adapter, which would be lost: choose another folder")


def read_peft(folder: str | Path) -> Adapter:
    """The adapter in a peft OFT directory, peft's own or one of `write_peft`.

    Cayley-Neumann files are not rotations. One that is orthogonal up to 1e-3 is replaced by its nearest rotations, with
    a warning; beyond that it is refused, because no rotation gives its outputs. A peft COFT file is projected as peft
    would on loading, and comes without bound (peft's eps is another one in every layer).
    """
    folder = Path(folder)
    config = _peft_config_of(folder)
    tensors, extras = _read_tensors(folder / WEIGHTS)
    if foreign := [key for key in tensors if not key.endswith(SUFFIX)]:
        raise ValueError(f"{folder / WEIGHTS} holds more than rotations, which would be lost: {_some(foreign)}")
    if not tensors:
        raise ValueError(f"{folder / WEIGHTS} holds no rotations: expected keys that end in {SUFFIX}")
    stored = {key.removeprefix(PREFIX).removesuffix(SUFFIX): _vector(key, tensors[key]) for key in tensors}
    vectors = _from_peft(stored, config)
    magnitudes = _read_tensors(folder / MAGNITUDES)[0] if (folder / MAGNITUDES).exists() else {}
    known = {key: extras[key] for key in ("name", "active", "strength", "eps") if key in extras}
    source = OURS if extras else "peft"
    return Adapter(vectors, bool(config.get("block_share", False)), magnitudes=magnitudes, source=source, **known)


def read_peft_all(folder: str | Path) -> list[Adapter]:
    """The adapter of the folder itself, and those that `write_peft` put below it under their own names."""
    folder = Path(folder)
    below = [file.parent for file in sorted(folder.glob(f"*/{CONFIG}")) if _is_named_adapter(file.parent)]
    here = [folder] if (folder / CONFIG).exists() or not below else []
    return [read_peft(place) for place in here + below]


def _is_named_adapter(folder: Path) -> bool:
    """Written by `write_peft` for a model with several adapters; not a checkpoint of a training by peft."""
    if _read_json(folder / CONFIG).get("peft_type") != "OFT" or not (folder / WEIGHTS).exists():
        return False
    return _read_tensors(folder / WEIGHTS)[1].get("name") == folder.name


def _peft_config_of(folder: Path) -> dict:
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(f"{folder} is no adapter directory: it has no {CONFIG}")
    config = _read_json(folder / CONFIG)
    if config.get("peft_type") != "OFT":
        raise ValueError(f"{folder / CONFIG} is a {config.get('peft_type')} adapter: expected peft_type OFT")
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}; other formats, such as .bin, are not read")
    return config


def _from_peft(stored: dict[str, torch.Tensor], config: dict) -> dict[str, torch.Tensor]:
    """peft's stored vectors in our convention."""
    if config.get("coft", False):
        eps = config.get("eps", 6e-5)
        stored = {path: project(vector, eps / len(vector) ** 0.5) for path, vector in stored.items()}
    if not config.get("use_cayley_neumann", True):  # the default of peft's reader, too
        return {path: -vector for path, vector in stored.items()}
    terms = config.get("num_cayley_neumann_terms", 5)
    series = {
        path: cayley_neumann(skew_symmetric(vector.double(), block_size(vector)), terms)
        for path, vector in stored.items()
    }
    errors = {path: orthogonality_error(matrix).item() for path, matrix in series.items()}
    worst = max(errors, key=errors.get)
    if not errors[worst] <= NEUMANN_TOLERANCE:
        raise ValueError(
            f"this adapter was trained with peft's Cayley-Neumann series and has left the rotations: ||R R^T - I|| is "
            f"{errors[worst]:.1e} in {worst}, and no rotation gives its outputs. Merge it with peft (merge_and_unload) "
            "and save the model."
        )
    warnings.warn(
        "peft's Cayley-Neumann matrices are no rotations; each is replaced by the nearest one "
        f"(||R R^T - I|| is at most {errors[worst]:.1e})",
        stacklevel=4,
    )
    return {path: upper_triangle(inverse_cayley(_nearest_rotation(R))).float() for path, R in series.items()}


def _nearest_rotation(matrix: torch.Tensor) -> torch.Tensor:
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


# ------------------------------------------------------------------ the paper's repository

DREAMBOOTH = re.compile(r"(?P<path>.+)\.processor\.to_(?P<which>q|k|v|out)_oft\.R")
CONTROL = re.compile(r"model\.diffusion_model\.(?P<path>.+)\.R")


def read_original(file: str | Path) -> Adapter:
    """The rotations in a checkpoint of the paper's repository: oft-db, oft-t2i (diffusers) or oft-control (LDM).

    Full squares become vectors, keys become diffusers' paths, and the sign follows from the branch (see above). From an
    oft-control checkpoint only rotations and magnitudes are taken, not the base model or the hint encoder.
    """
    tensors = _read_checkpoint(Path(file))
    squares, signs = {}, {}
    for key, tensor in tensors.items():
        if match := DREAMBOOTH.fullmatch(key):
            path = f"{match['path']}.to_{match['which']}" + (".0" if match["which"] == "out" else "")
            signs[path] = -1 if key.removesuffix("R") + "oft_is_coft" in tensors else 1  # only oft-t2i has it
        elif (match := CONTROL.fullmatch(key)) and key.removesuffix("R") + "OFT.weight" in tensors:
            path = _diffusers_path(match["path"])
            signs[path] = 1 if tensor.ndim == 2 else -1
        else:
            continue
        squares[path] = _square(key, tensor)
    if not squares:
        raise ValueError(
            f"{file} has no rotations of the original OFT repository: expected keys such as "
            f"'....attn1.processor.to_q_oft.R' or 'model.diffusion_model.....attn1.to_q.R', got {_some(tensors)}"
        )
    shared = {tensor.ndim == 2 for tensor in squares.values()}
    if len(shared) > 1:
        raise ValueError(f"{file} mixes layers with shared blocks and layers without")
    vectors = {path: signs[path] * _vector_of_square(square) for path, square in squares.items()}
    return Adapter(vectors, shared.pop(), magnitudes=_original_magnitudes(tensors), source="original")


def _original_magnitudes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """s_i of the re-scaled variant: keys end in .scaling_factors, shape (out, 1)."""
    end = "scaling_factors"
    keys = {key: CONTROL.fullmatch(key.removesuffix(end) + "R") for key in tensors if key.endswith(f".{end}")}
    return {_diffusers_path(match["path"]): tensors[key].flatten().float() for key, match in keys.items() if match}


def _vector_of_square(square: torch.Tensor) -> torch.Tensor:
    """The upper triangle of S = (P - P^T)/2 for a stored full square P: (r, b, b), or (b, b) for shared blocks."""
    P = square.float().view(-1, *square.shape[-2:])
    return upper_triangle((P - P.mT) / 2)


def _diffusers_path(ldm: str) -> str:
    """A layer's path in an LDM U-Net of Stable Diffusion 1.x, as diffusers calls it."""
    match = re.fullmatch(r"(input_blocks\.\d+|middle_block|output_blocks\.\d+)\.1\.(.+)", ldm)
    if not match:
        raise ValueError(
            f"{ldm} is no layer of an attention block: the rotations of oft-control's convolutions mix axes that do "
            "not belong together, and are not read"
        )
    block, rest = match.groups()
    if block == "middle_block":
        return f"mid_block.attentions.0.{rest}"
    side, number = block.split(".")
    if side == "input_blocks":  # the first is conv_in; then two layers and a downsampler a level
        return f"down_blocks.{(int(number) - 1) // 3}.attentions.{(int(number) - 1) % 3}.{rest}"
    return f"up_blocks.{int(number) // 3}.attentions.{int(number) % 3}.{rest}"


def _square(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim not in (2, 3) or tensor.shape[-1] != tensor.shape[-2] or tensor.shape[-1] < 2:
        raise ValueError(f"{key}: expected full squares, (r, b, b) or (b, b), got the shape {tuple(tensor.shape)}")
    return _finite(key, tensor)


def _read_checkpoint(file: Path) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    if file.suffix == ".safetensors":
        return _read_tensors(file)[0]
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or a forbidden file
        raise ValueError(
            f"{file} cannot be read as plain tensors: it is damaged, cut off, or holds objects that would run code "
            f"({type(error).__name__}). Ask for a .safetensors file."
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


# ------------------------------------------------------------------ files


def _write_tensors(tensors: dict[str, torch.Tensor], file: Path, extras: dict) -> None:
    from safetensors.torch import save

    plain = {key: tensor.detach().to("cpu", torch.float32).contiguous() for key, tensor in tensors.items()}
    _replace(file, save(plain, {"format": "pt", OURS: json.dumps(extras)}))


def _replace(file: Path, content: bytes) -> None:
    """The whole file at once: a run that is killed leaves the old one."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of a safetensors file, and what we wrote into its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            extras = (opened.metadata() or {}).get(OURS, "{}")
            return {key: opened.get_tensor(key) for key in opened.keys()}, json.loads(extras)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file} is damaged or cut off ({error}): fetch or save it again") from error


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged or cut off ({error}): fetch or save it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no adapter's configuration: expected an object, got {type(content).__name__}")
    return content


def _vector(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim != 2:
        raise ValueError(f"{key}: expected the shape (blocks, b(b-1)/2), got {tuple(tensor.shape)}")
    block_size(tensor)
    return _finite(key, tensor)


def _finite(key: str, tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{key} holds numbers that are not finite: the training that wrote it had diverged")
    return tensor


def _some(keys) -> str:
    keys = list(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
