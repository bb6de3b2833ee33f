"""What there is to learn: a folder of pictures with captions, pictures of the class, pairs of picture and hint."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tutorial_lib import control, custom_diffusion, pictures, training
from tutorial_lib.cli import options as reading
from tutorial_lib.cli import output
from tutorial_lib.pocket import conditions, world

DRAWN = "drawn.toml"


def check_folder(folder: str) -> None:
    """Before a model is fetched for it. FileNotFoundError for a folder that is not there."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: make it and put pictures into it, or correct its name")


# ------------------------------------------------------------------ a subject


def subject(options, pipe) -> tuple[list, list[str]]:
    """Pictures, and captions that name the subject: its word stands before that of its class.

    Raises ValueError for a caption where it cannot.
    """
    size = control.picture_side(pipe)
    found, report = pictures.load_folder(options.pictures, size, _template(options))
    print(report)
    return found, [named(c, options.token, getattr(options, "class_word", None)) for c in report.captions]


def _template(options) -> str:
    if hasattr(options, "template"):
        return options.template
    return f"a photo of a {' '.join(filter(None, (options.token, getattr(options, 'class_word', None))))}"


def named(caption: str, token: str, class_word: str | None) -> str:
    """ "a photo of a cat" with the subject's word: "a photo of a sks cat"."""
    if token in caption.split():
        return caption
    place = class_word and re.search(rf"\b{re.escape(class_word)}\b", caption)
    if not place:
        hint = f"nor the word {class_word!r} to put it before" if class_word else "and --class is not given"
        raise ValueError(f"the caption {caption!r} has no {token!r} in it, {hint}: correct the caption")
    return f"{caption[: place.start()]}{token} {caption[place.start() :]}"


def prior(options, pipe, size: int):
    """Pictures of the class, encoded: the user's, or such as the model draws before it learns; None for none."""
    if hasattr(options, "prior_pictures"):
        caption = custom_diffusion.regularisation.CLASS_CAPTION.format(options.class_word)
        found, report = pictures.load_folder(options.prior_pictures, size, caption)
        print(report)
        return training.encode(pipe, found, report.captions)
    if not options.prior:
        return None
    folder = Path(options.checkpoints) / output.PRIOR
    if not folder.exists():
        _draw_prior(options, pipe, folder)
    if (there := reading.read(folder / DRAWN)) != _of_prior(options):
        raise ValueError(f"{folder} holds pictures that were drawn otherwise, {there}: delete it, or take its settings")
    files = sorted(folder.glob("*.png"))
    caption = custom_diffusion.regularisation.CLASS_CAPTION.format(options.class_word)
    return training.encode(pipe, [Image.open(file).convert("RGB") for file in files], [caption] * len(files))


def _of_prior(options) -> dict:
    """What the class's pictures depend on."""
    names = ("profile", "class_word", "prior", "seed", "sampling_steps")
    return {name: getattr(options, name) for name in names}


def _draw_prior(options, pipe, folder: Path) -> None:
    """Kept, so that a run that goes on elsewhere learns from the very same pictures."""
    print(f"drawing {options.prior} pictures of the class {options.class_word!r} into {folder}")
    drawn, _ = custom_diffusion.generated(
        pipe, options.class_word, options.prior, options.seed, num_inference_steps=options.sampling_steps
    )
    with output.whole(folder.parent) as partial:
        reading.write(_of_prior(options), partial / output.PRIOR / DRAWN, "how these pictures were drawn")
        for k, picture in enumerate(drawn):
            picture.save(partial / output.PRIOR / f"{k:04d}.png")


# ------------------------------------------------------------------ a control


def pairs(options, pipe) -> tuple[control.Pairs, list, list[str]]:
    """Pairs to train a control on; and the first few control pictures with their captions, to watch."""
    if hasattr(options, "pictures"):
        made, controls, captions = _pairs_of_folder(options, pipe)
    else:
        made, controls, captions = _pairs_of_scenes(options, pipe)
    return made, controls[: options.watched], captions[: options.watched]


def _pairs_of_folder(options, pipe):
    """Pictures with their Canny edges, or with the control pictures of the same names in another folder."""
    size = control.picture_side(pipe)
    found, report = pictures.load_folder(options.pictures, size, getattr(options, "template", "a photo"))
    print(f"{len(found)} pictures from {report.folder}, {len(report.skipped)} not used")
    if hasattr(options, "controls"):
        folder = Path(options.controls)
        controls = [_control_picture(folder, row.file, size) for row in report.used]
    elif options.kind == "edges":
        controls = [conditions.of_picture("edges", picture) for picture in found]
    else:
        raise ValueError(f"--kind {options.kind} of photos cannot be read here: give control pictures with --controls")
    return control.encode_pairs(pipe, found, controls, report.captions), controls, report.captions


def _control_picture(folder: Path, name: str, size: int) -> Image.Image:
    stem = Path(name).stem
    files = [file for file in sorted(folder.glob(f"{stem}.*")) if file.suffix.lower() in pictures.SUFFIXES]
    if len(files) != 1:
        raise ValueError(f"expected one control picture for {name} in {folder}, found {len(files)}")
    return ImageOps.fit(pictures.read(files[0])[0], (size, size), Image.Resampling.BOX)


def _pairs_of_scenes(options, pipe):
    """Scenes of the pocket world."""
    if (side := control.picture_side(pipe)) != world.SIDE:
        raise ValueError(f"the pocket world's scenes are for the pocket model, and this one draws {side}x{side}: "
                         "give --pictures FOLDER")  # fmt: skip
    scenes, rng = [], np.random.default_rng(options.seed)
    while len(scenes) < options.scenes:
        scene = world.sample_scene(rng)
        if options.kind != "landmarks" or world.landmarks(scene) is not None:
            scenes.append(scene)
    print(f"{len(scenes)} scenes of the pocket world, {options.kind}")
    watched = scenes[: options.watched]
    controls = [conditions.of_scene(options.kind, scene) for scene in watched]
    return control.scene_pairs(pipe, options.kind, scenes), controls, [world.caption(scene) for scene in watched]
