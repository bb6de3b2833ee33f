"""`merge`: several Custom Diffusion concepts into one by the closed form, or trained weights into a plain pipeline."""

from __future__ import annotations

from pathlib import Path

CAPTIONS = 200  # of the pocket world, as many as the original repository takes
RIDGE = 1.0  # see `custom_diffusion.merge`: small for a hundred captions, and it keeps the change small


def add(commands) -> None:
    parser = commands.add_parser("merge", help="merge concepts, or write weights into a plain pipeline")
    parser.add_argument("--weights", nargs="+", metavar="PATH", help="several concepts, or whatever `train` wrote")
    parser.add_argument("--profile", help="the base model; default: that of the weights, else pocket")
    parser.add_argument("--captions", metavar="FILE", help="ordinary captions, one a line; the pocket model has some")
    parser.add_argument("--ridge", type=float, help=f"of the closed form; default: {RIDGE:g}")
    parser.add_config()
    parser.add_argument("--output", metavar="FOLDER")
    parser.add_argument("--force", action="store_true", help="set aside what is in the output")
    parser.set_defaults(parser=parser, run=run, needs=("weights", "output"))


def run(options) -> None:
    """Several concepts become one; anything else becomes part of a pipeline that plain diffusers loads."""
    import torch

    from tutorial_lib import models
    from tutorial_lib.cli import options as reading
    from tutorial_lib.cli import output, weights

    reading.check_needed(options)
    folder, paths = Path(options.output), [Path(path) for path in options.weights]
    kinds = [weights.kind(path) for path in paths]
    output.begin(folder, getattr(options, "force", False))
    profile = getattr(options, "profile", None) or weights.profile_of(paths)
    pipe = models.load(profile, dtype=torch.float32)
    if len(paths) > 1 and all(kind.endswith("concept") for kind in kinds):
        _merge_concepts(options, pipe, paths, folder, profile)
        return
    for path in paths:
        weights.merge_into(pipe, path)
    with output.whole(folder) as partial:
        pipe.save_pretrained(partial)
    print(f"{folder}: a whole pipeline, StableDiffusionPipeline.from_pretrained({str(folder)!r})")


def _merge_concepts(options, pipe, paths: list[Path], folder: Path, profile: str) -> None:
    from tutorial_lib import custom_diffusion
    from tutorial_lib.cli import options as reading
    from tutorial_lib.cli import output, weights

    deltas = [weights.read_concept(pipe, path) for path in paths]
    ridge = getattr(options, "ridge", RIDGE)
    merged, report = custom_diffusion.merge(pipe, deltas, _captions(options, pipe), ridge)
    with output.whole(folder) as partial:
        custom_diffusion.save(merged, partial / weights.CONCEPT)
        settings = {"weights": [str(path) for path in paths], "profile": profile, "ridge": ridge}
        reading.write(settings, partial / output.SETTINGS, "python -m tutorial_lib merge")
    print(f"{report}\n{folder / weights.CONCEPT}: {', '.join(merged.tokens)}")


def _captions(options, pipe) -> list[str]:
    """Ordinary captions, whose meaning shall stay."""
    import numpy as np

    from tutorial_lib.pocket import world
    from tutorial_lib.sampling import is_pocket

    if hasattr(options, "captions"):
        file = Path(options.captions)
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not is_pocket(pipe.tokenizer):
        raise ValueError("--captions is missing: a text file of some hundred ordinary captions, one a line")
    rng = np.random.default_rng(0)
    return [world.caption(world.sample_scene(rng), rng) for _ in range(CAPTIONS)]
