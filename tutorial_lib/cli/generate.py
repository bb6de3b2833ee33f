"""`generate`: pictures from a base model and any weights of this library, and a sheet of them all."""

from __future__ import annotations

import csv
from pathlib import Path

from tutorial_lib import profiles


def add(commands) -> None:
    parser = commands.add_parser("generate", help="draw pictures with a model and trained weights")
    parser.add_argument("--prompts", nargs="+", metavar="PROMPT")
    parser.add_argument("--weights", nargs="+", metavar="PATH", help="what `train` wrote, one or several")
    parser.add_argument("--profile", help="the base model; default: that of the weights, else pocket")
    parser.add_argument("--count", type=int, help="pictures a prompt; default: 4")
    parser.add_argument("--seed", type=int, help="of the first picture of each prompt; default: 0")
    parser.add_argument("--sampling-steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--control", metavar="PICTURE", help="a control picture: edges, a map, landmarks")
    parser.add_argument("--edges-of", metavar="PICTURE", help="a photo whose edges are the control picture")
    parser.add_config()
    parser.add_argument("--output", metavar="FOLDER", help="for the pictures, a sheet of them, and a table")
    parser.add_argument("--force", action="store_true", help="set aside what is in the output")
    parser.set_defaults(parser=parser, run=run, needs=("prompts", "output"))


def run(options) -> None:
    from tutorial_lib import models
    from tutorial_lib.cli import options as reading
    from tutorial_lib.cli import output, weights

    reading.check_needed(options)
    folder, paths = Path(options.output), [Path(path) for path in getattr(options, "weights", [])]
    kinds = [weights.kind(path) for path in paths]
    output.begin(folder, getattr(options, "force", False))
    base = getattr(options, "profile", None) or _base(paths, kinds)
    pipe = models.load(base)
    models_of = [weights.put(pipe, path) for path, kind in zip(paths, kinds) if kind != "pipeline"]
    branch = next((model for model in models_of if model is not None), None)
    options = _with_defaults(options, pipe)
    prompts = [prompt for prompt in options.prompts for _ in range(options.count)]
    seeds = [options.seed + k for _ in options.prompts for k in range(options.count)]
    picture = _control_picture(options, pipe, branch)
    drawn = draw(pipe, branch, prompts, [picture] * len(prompts) if picture else [], options, seeds)
    _write(drawn, prompts, seeds, folder, options.count)


def _base(paths: list[Path], kinds: list[str]) -> str:
    """The base model where none is named: a whole pipeline among the weights, or what they were trained on."""
    from tutorial_lib.cli import weights

    pipelines = [str(path) for path, kind in zip(paths, kinds) if kind == "pipeline"]
    return pipelines[0] if pipelines else weights.profile_of(paths)


def _with_defaults(options, pipe):
    profile = profiles.of(pipe)
    defaults = {"count": 4, "seed": 0, "sampling_steps": profile.sampling_steps, "guidance": profile.guidance}
    for name, value in defaults.items():
        if not hasattr(options, name):
            setattr(options, name, value)
    if options.count < 1:
        raise ValueError(f"--count: expected a number of pictures, 1 or more, got {options.count}")
    return options


def _control_picture(options, pipe, branch):
    """The control picture, square and of the model's size; None where no control is asked for."""
    from PIL import Image, ImageOps

    from tutorial_lib import control, pictures
    from tutorial_lib.pocket import conditions

    given = getattr(options, "control", getattr(options, "edges_of", None))
    if (given is None) != (branch is None):
        raise ValueError("a control needs both: its weights, and a picture with --control or --edges-of")
    if given is None:
        return None
    if not Path(given).is_file():
        raise FileNotFoundError(f"there is no picture {given}")
    side = control.picture_side(pipe)
    if hasattr(options, "control"):
        return ImageOps.fit(pictures.read(Path(given))[0], (side, side), Image.Resampling.BOX)
    photo = ImageOps.fit(pictures.read(Path(given))[0], (side, side), Image.Resampling.LANCZOS)
    return conditions.of_picture("edges", photo)


def draw(pipe, branch, prompts: list[str], controls: list, options, seeds=None) -> list:
    """The pictures, with a control or without; the same noise for the same seeds."""
    from tutorial_lib import control, sampling

    settings = {
        "seed": options.seed if seeds is None else seeds,
        "num_inference_steps": options.sampling_steps,
        "guidance_scale": options.guidance,
        "progress": seeds is not None,
    }
    if branch is None:
        return sampling.generate(pipe, prompts, **settings)
    return control.generate(pipe, branch, prompts, controls, **settings)


def write_sheet(pictures: list, file: Path, columns: int, rows: list[str] | None = None) -> None:
    from tutorial_lib.lab import plots

    file.write_bytes(plots.grid(pictures, alt="", columns=columns, rows=rows or [], size=pictures[0].width).png)


def _write(drawn: list, prompts: list[str], seeds: list[int], folder: Path, columns: int) -> None:
    """Each picture, the sheet with a row a prompt, and a table of what is what."""
    from tutorial_lib.cli import output

    with output.whole(folder) as partial:
        with (partial / "pictures.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["file", "prompt", "seed"])
            for k, (picture, prompt, seed) in enumerate(zip(drawn, prompts, seeds)):
                picture.save(partial / f"{k:04d}.png")
                table.writerow([f"{k:04d}.png", prompt, seed])
        write_sheet(drawn, partial / "sheet.png", columns, prompts[::columns])
    print(f"{folder}: {len(drawn)} pictures, sheet.png, pictures.csv")
