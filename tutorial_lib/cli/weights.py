"""What a folder or file of weights is, and how it gets into a pipeline."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from tutorial_lib import control, custom_diffusion, formats_custom_diffusion, models, oft
from tutorial_lib.cli import output

CONCEPT, WORDS = "concept.safetensors", "learned_embeds.safetensors"
LORA, PEFT, PIPELINE = "pytorch_lora_weights.safetensors", "adapter_config.json", "model_index.json"
HINTS, CONTROL = "hint_encoder", "config.json"
SIGNS = {  # what a folder of each kind holds; the first that is there counts
    PIPELINE: "pipeline",
    HINTS: "oft-control",
    PEFT: "oft",
    LORA: "lora",
    CONCEPT: "concept",
    WORDS: "words",
    CONTROL: "control",
    f"{formats_custom_diffusion.DIFFUSERS_NAME}.bin": "diffusers-concept",
    f"{formats_custom_diffusion.DIFFUSERS_NAME}.safetensors": "diffusers-concept",
}
EXPECTED = (
    f"expected what `train` writes ({PEFT}, {LORA}, {CONCEPT}, {WORDS}, a control branch, a whole pipeline), or a "
    "Custom Diffusion folder of diffusers, a delta.bin or a checkpoint of the OFT repository"
)


def kind(path: Path | str) -> str:
    """pipeline, oft, lora, concept, diffusers-concept, original-concept, words, control, oft-control or original-oft.

    FileNotFoundError where there is nothing, ValueError for anything else.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there are no weights {path}: {EXPECTED}")
    found = _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)
    if found is None:
        raise ValueError(f"{path} holds no weights that are known here: {EXPECTED}")
    return found


def _kind_of_folder(folder: Path) -> str | None:
    return next((found for sign, found in SIGNS.items() if (folder / sign).exists()), None)


def _kind_of_file(file: Path) -> str | None:
    if file.name in (CONCEPT, LORA, WORDS):
        return SIGNS[file.name]
    if file.suffix == ".safetensors":
        return _kind_of_safetensors(file)
    return {".bin": "original-concept", ".pt": "original-oft", ".ckpt": "original-oft"}.get(file.suffix)


def _kind_of_safetensors(file: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            if (opened.metadata() or {}).get("format") == custom_diffusion.files.FORMAT:
                return "concept"
            return "lora" if any(".lora" in key for key in opened.keys()) else "original-oft"
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged, or no safetensors file ({error})") from error


def profile_of(paths: list[Path]) -> str:
    """The profile that weights were trained on, as it stands beside them; the pocket model where nothing is said."""
    said = (output.settings_beside(path if path.is_dir() else path.parent).get("profile") for path in paths)
    return next(filter(None, said), "pocket")


def put(pipe, path: Path | str):
    """Puts weights into the pipeline. A control is returned, as `control.generate` takes it; otherwise None.

    Raises ValueError, and leaves the pipeline as it was, for weights of another architecture.
    """
    path, found = Path(path), kind(path)
    if found == "pipeline":
        raise ValueError(f"{path} is a whole pipeline, not something to put into one: name it with --profile")
    if found in ("oft", "original-oft"):
        oft.load(pipe.unet, path)
    elif found == "lora":
        _put_lora(pipe, path)
    elif found == "words":
        _put_words(pipe, path)
    elif found.endswith("concept"):
        custom_diffusion.load_into(pipe, read_concept(pipe, path))
    else:
        return _put_control(pipe, path, found)
    return None


def read_concept(pipe, path: Path | str, class_words: dict | None = None) -> custom_diffusion.ConceptDelta:
    """A Custom Diffusion concept of any of the three formats."""
    path, found = Path(path), kind(path)
    if found == "concept":
        return custom_diffusion.load(path / CONCEPT if path.is_dir() else path)
    if found == "diffusers-concept":
        return formats_custom_diffusion.read_diffusers(path, pipe, class_words)
    if found == "original-concept":
        return formats_custom_diffusion.read_original(path, pipe, class_words)
    raise ValueError(f"{path} is no concept of Custom Diffusion: it holds {found}")


def merge_into(pipe, path: Path | str) -> None:
    """As `put`, for good: the pipeline is a plain one afterwards, and saves as one."""
    if put(pipe, path) is not None:
        raise ValueError(f"{path} is a control, which stands beside a pipeline and is not merged into it")
    if hasattr(pipe.unet, "_oft"):
        oft.merge(pipe.unet)
    if getattr(pipe.unet, "peft_config", None):
        pipe.fuse_lora()
        pipe.unload_lora_weights()


# ------------------------------------------------------------------ LoRA, words, controls


def _put_lora(pipe, path: Path) -> None:
    from safetensors.torch import load_file

    file = path / LORA if path.is_dir() else path
    _check_lora(pipe.unet, file, load_file(file))
    with models.quiet():
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)


def _check_lora(unet, file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """diffusers would leave out what does not fit, or fail half way."""
    for key, tensor in tensors.items():
        path, _, side = key.removeprefix("unet.").partition(".lora")
        if not side or not key.startswith("unet."):
            continue
        try:
            width = unet.get_submodule(path).weight.shape[0 if side.startswith(("_B", ".up")) else 1]
        except AttributeError:
            raise ValueError(f"{file} belongs to another model: there is no {path} here") from None
        own = tensor.shape[0 if side.startswith(("_B", ".up")) else 1]
        if own != width:
            raise ValueError(f"{file} belongs to another model: {path} is {own} wide there and {width} here")


def save_words(pipe, folder: Path) -> None:
    """The embedding rows of the pipeline's new words, as `pipe.load_textual_inversion(folder)` reads them."""
    from safetensors.torch import save_file

    table = pipe.text_encoder.get_input_embeddings().weight.detach()
    words = custom_diffusion.concepts.concepts_of(pipe).class_words
    rows = {word: table[pipe.tokenizer.convert_tokens_to_ids(word)].cpu().clone() for word in words}
    save_file(rows, folder / WORDS)


def _put_words(pipe, path: Path) -> None:
    from safetensors.torch import load_file

    file = path / WORDS if path.is_dir() else path
    rows, width = load_file(file), pipe.text_encoder.get_input_embeddings().weight.shape[1]
    for word, row in rows.items():
        if row.numel() != width:
            raise ValueError(f"{file} belongs to another model: {word} has {row.numel()} numbers there, {width} here")
    for word, row in rows.items():
        pipe.load_textual_inversion({word: row.flatten()}, token=word)


def save_control(pipe, model, folder: Path, half: bool = False) -> None:
    """A branch as diffusers does, if wanted in half precision; a hint encoder with the UNet's adapter beside it."""
    if not isinstance(model, control.HintEncoder):
        (copy.deepcopy(model).half() if half else model).save_pretrained(folder)
        return
    model.save_pretrained(folder / HINTS)
    oft.save(pipe.unet, folder)


def _put_control(pipe, path: Path, found: str):
    if found == "control":
        model = control.load(path)
        control.check_fit(pipe, model)
    else:
        model = control.load(path / HINTS)
        control.check_fit(pipe, model)
        oft.load(pipe.unet, path)
    return model.to(pipe.device)
