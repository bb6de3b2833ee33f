"""`convert`: from one program's format to another's; by `formats.py` and `formats_custom_diffusion.py`."""

from __future__ import annotations

from pathlib import Path

FORMATS = ("ours", "peft", "diffusers", "original")
# For each kind of weights, the formats it can be written in.
POSSIBLE = {
    "oft": ("ours", "peft"),
    "original-oft": ("ours", "peft"),
    "concept": ("ours", "diffusers", "original"),
    "diffusers-concept": ("ours", "diffusers", "original"),
    "original-concept": ("ours", "diffusers", "original"),
}
REASONS = {
    "lora": "a LoRA of this library is already in the format of diffusers",
    "words": "new words of this library are already in the format of diffusers",
    "control": "a control branch of this library is already in the format of diffusers",
    "oft-control": "no other program knows OFT with a hint encoder",
    "pipeline": "a whole pipeline is already in the format of diffusers",
}


def add(commands) -> None:
    parser = commands.add_parser("convert", help="weights from one format to another")
    parser.add_argument("--weights", metavar="PATH", help="OFT or Custom Diffusion, of any format")
    parser.add_argument("--to", choices=FORMATS, help="ours and peft are one format for OFT")
    parser.add_argument("--profile", help="the base model; default: that of the weights, else pocket")
    parser.add_argument("--class", dest="class_word", metavar="WORD", help="of a concept whose file does not say it")
    parser.add_config()
    parser.add_argument("--output", metavar="FOLDER")
    parser.add_argument("--force", action="store_true", help="set aside what is in the output")
    parser.set_defaults(parser=parser, run=run, needs=("weights", "to", "output"))


def run(options) -> None:
    import torch

    from tutorial_lib import models
    from tutorial_lib.cli import options as reading
    from tutorial_lib.cli import output, weights

    reading.check_needed(options)
    path, folder = Path(options.weights), Path(options.output)
    found = weights.kind(path)
    if options.to not in POSSIBLE.get(found, ()):
        formats = ", ".join(POSSIBLE.get(found, ())) or REASONS[found]
        raise ValueError(f"{path} ({found}) cannot be converted to {options.to!r}: {formats}")
    output.begin(folder, getattr(options, "force", False))
    profile = getattr(options, "profile", None) or weights.profile_of([path])
    pipe = models.load(profile, dtype=torch.float32)
    with output.whole(folder) as partial:
        if found in ("oft", "original-oft"):
            _write_oft(pipe, path, partial)
        else:
            _write_concept(pipe, path, partial, options.to, getattr(options, "class_word", None))
    print(f"{folder}: {found} as {options.to}")


def _write_oft(pipe, path: Path, folder: Path) -> None:
    """Read and written again: signs, squares and series are then those of peft's exact branch."""
    from tutorial_lib import oft

    oft.load(pipe.unet, path)
    oft.save(pipe.unet, folder)


def _write_concept(pipe, path: Path, folder: Path, to: str, class_word: str | None) -> None:
    from dataclasses import replace

    from tutorial_lib import custom_diffusion, formats_custom_diffusion
    from tutorial_lib.cli import weights

    delta = weights.read_concept(pipe, path)
    if class_word:
        delta = replace(delta, class_words={token: word or class_word for token, word in delta.class_words.items()})
    if to == "ours":
        custom_diffusion.save(delta, folder / weights.CONCEPT)
    elif to == "diffusers":
        formats_custom_diffusion.write_diffusers(delta, folder, pipe)
    else:
        formats_custom_diffusion.write_original(delta, folder / "delta.bin", pipe)
