"""What each method trains, how its weights are saved, and how other programs load them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tutorial_lib import baselines, control, custom_diffusion, oft, profiles, training
from tutorial_lib.cli import data, weights

COPIES = ("full", "gaussian")  # branches with a copy of the UNet's blocks
PLACES = ("{}", "{} on a beach", "{} in the snow", "a watercolor of a {}")


@dataclass
class Prepared:
    """A method ready to train.

    learned: words for the card on what there was to learn. save: writes the weights into a folder. loading: Python
    that loads them elsewhere. prompts, controls: to draw while it trains. model: of a control.
    """

    task: training.Task
    learned: str
    save: Callable[[Path], None]
    loading: str
    prompts: list[str]
    controls: list = field(default_factory=list)
    model: object = None


def prepare(options, pipe) -> Prepared:
    """Puts the method's parts together: pictures read and encoded, everything frozen but what it trains."""
    if options.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    return PREPARE[options.method](options, pipe)


# ------------------------------------------------------------------ a subject


def _dreambooth(options, pipe) -> Prepared:
    encoded, about = _subject(options, pipe)
    task = baselines.dreambooth(pipe, encoded, **_prior(options, pipe, about))
    return Prepared(task, about["learned"], pipe.save_pretrained, PIPELINE, about["prompts"])


def _lora(options, pipe) -> Prepared:
    encoded, about = _subject(options, pipe)
    layers, prior = profiles.of(pipe).layers, _prior(options, pipe, about)
    task = baselines.lora(pipe, encoded, options.rank, targets=layers, seed=options.seed, **prior)
    return Prepared(task, about["learned"], lambda folder: baselines.save_lora(pipe, folder), LORA, about["prompts"])


def _oft(options, pipe) -> Prepared:
    encoded, about = _subject(options, pipe)
    prior = _prior(options, pipe, about)  # drawn before anything is attached
    eps = options.eps if options.method == "coft" else None
    oft.attach(pipe.unet, list(profiles.of(pipe).layers), options.block_size, eps)
    rotations = {name: p for name, p in pipe.unet.named_parameters() if p.requires_grad}
    task = training.DenoisingTask(pipe, encoded, rotations, name=options.method.upper(), **prior)
    return Prepared(task, about["learned"], lambda folder: oft.save(pipe.unet, folder), OFT, about["prompts"])


def _subject(options, pipe) -> tuple[training.Encoded, dict]:
    found, captions = data.subject(options, pipe)
    return training.encode(pipe, found, captions), _about(options, found, captions)


def _about(options, found: list, captions: list[str]) -> dict:
    thing = " ".join(filter(None, (options.token, getattr(options, "class_word", None))))
    names = ", ".join(f'"{c}"' for c in dict.fromkeys(captions[:3]))
    prompts = [p.format(f"a photo of a {thing}" if k < 3 else thing) for k, p in enumerate(PLACES)]
    return {"learned": f"{len(found)} pictures of one subject, with captions such as {names}", "prompts": prompts}


def _prior(options, pipe, about: dict) -> dict:
    """What the task takes of the class's pictures, if there are any."""
    prior = data.prior(options, pipe, control.picture_side(pipe))
    if prior is None:
        return {}
    about["learned"] += f"; beside them {len(prior)} pictures of its class"
    return {"prior": prior, "prior_weight": options.prior_weight}


# ------------------------------------------------------------------ a new word


def _custom(options, pipe) -> Prepared:
    about, found, captions, prior = _new_word(options, pipe)
    if options.augment:
        encoded, masks = custom_diffusion.augmented(pipe, found, captions, seed=options.seed)
    else:
        encoded, masks = training.encode(pipe, found, captions), None
    task = custom_diffusion.CustomDiffusionTask(pipe, encoded, masks, **prior)

    def save(folder: Path) -> None:
        custom_diffusion.save(custom_diffusion.delta(pipe), folder / weights.CONCEPT)

    return Prepared(task, about["learned"], save, CUSTOM, about["prompts"])


def _textual_inversion(options, pipe) -> Prepared:
    about, found, captions, prior = _new_word(options, pipe)
    task = baselines.textual_inversion(pipe, training.encode(pipe, found, captions), **prior)
    return Prepared(task, about["learned"], lambda folder: weights.save_words(pipe, folder), WORDS, about["prompts"])


def _new_word(options, pipe) -> tuple[dict, list, list[str], dict]:
    """What to say of the subject, its pictures and captions, and what the task takes of its class's pictures."""
    found, captions = data.subject(options, pipe)
    about = _about(options, found, captions)
    prior = _prior(options, pipe, about)  # drawn before the word is known
    class_word = getattr(options, "class_word", None)
    custom_diffusion.add_concept(pipe, options.token, options.init, class_word)
    return about, found, captions, prior


# ------------------------------------------------------------------ a control


def _control(options, pipe) -> Prepared:
    if options.half and options.branch == "oft":
        raise ValueError("--half is for a branch beside the model: rounded rotations would not be orthogonal")
    made, controls, captions = data.pairs(options, pipe)
    if options.branch == "oft":
        model = control.with_oft(pipe, options.block_size, seed=options.seed)
    else:
        factor = control.vae_factor(pipe.vae)
        model = control.from_unet(pipe.unet, options.branch, factor, options.hint_encoder, options.seed)
        if options.gradient_checkpointing and options.branch in COPIES:  # convolutions alone have nothing to save
            model.enable_gradient_checkpointing()
    task = control.ControlTask(pipe, model, made, drop_prompt=options.drop_prompt, noisier=options.noisier)
    task.name = f"control {options.branch}"
    learned = f"{len(made)} pairs of a picture and its control ({options.kind})"
    loading = CONTROL if options.branch in COPIES else OURS_ALONE
    return Prepared(task, learned, lambda folder: weights.save_control(pipe, model, folder, options.half), loading,
                    captions, controls, model)  # fmt: skip


PREPARE = {
    "oft": _oft,
    "coft": _oft,
    "lora": _lora,
    "dreambooth": _dreambooth,
    "textual-inversion": _textual_inversion,
    "custom": _custom,
    "control": _control,
}

# ------------------------------------------------------------------ loading elsewhere, for the card

BASE = """from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({base})
"""
PIPELINE = """from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({folder})
"""
LORA = BASE + "pipe.load_lora_weights({folder})\n"
OFT = (
    "from peft import PeftModel\n"
    + BASE
    + "pipe.unet = PeftModel.from_pretrained(pipe.unet, {folder}).merge_and_unload()\n"
)
WORDS = BASE + "pipe.load_textual_inversion({folder})\n"
CUSTOM = """from tutorial_lib import custom_diffusion, models

pipe = models.load({profile})
custom_diffusion.load_into(pipe, custom_diffusion.load({folder} + "/concept.safetensors"))
"""
CONTROL = """from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

branch = ControlNetModel.from_pretrained({folder})
pipe = StableDiffusionControlNetPipeline.from_pretrained({base}, controlnet=branch)
"""
OURS_ALONE = """# only this library knows this kind of control
#   python -m tutorial_lib generate --weights {folder} --control PICTURE --prompts "..." --output pictures
"""
