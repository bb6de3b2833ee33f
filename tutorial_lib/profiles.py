"""Which settings go with which model and which GPU: all of them on this page, each number with its source.

    profile = profiles.of(pipe)                          # POCKET, or STABLE_DIFFUSION for any other model
    plan = profiles.plan(profile, "oft", gpu=profiles.gpu())
    training.fit(task, plan.steps, plan.lr, plan.batch_size, accumulation=plan.accumulation, ...)

Not on this page: the resolution, which each model's own configuration says (64 for the pocket model, 512 for Stable
Diffusion 1.5), and where its files are (`models.py`). Latents are cached for all models (`training.encode`), which
saves a third of a ControlNet's step on Stable Diffusion and two fifths of an adapter's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tutorial_lib import models

METHODS = ("oft", "coft", "lora", "dreambooth", "textual-inversion", "custom", "control")
WHOLE_PRECISION = ("dreambooth", "textual-inversion", "custom")  # what they train is among the model's own weights


@dataclass(frozen=True)
class Recipe:
    """How a method is trained: learning rate, pictures a step, steps, pictures of the class that the model draws."""

    lr: float
    batch: int
    steps: int
    prior: int = 0


@dataclass(frozen=True)
class Profile:
    """A family of models. layers: those that LoRA and OFT adapt, by the ends of their names. eps: of COFT."""

    name: str
    recipes: dict[str, Recipe]
    layers: tuple[str, ...]
    rank: int
    block_size: int
    eps: float
    ema: float  # of the running mean of the weights that is kept; 0 for none
    hint_encoder: str  # of a control branch, see `control.from_unet`
    noisier: float  # of a control's time steps, see `control.ControlTask`
    guidance: float
    sampling_steps: int


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
PROJECTIONS = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv", "conv_out")

# Chosen by the searches of benchmarks/subject_driven.py (oft, coft, lora, dreambooth) and custom_diffusion.py (custom),
# with pictures of the class beside the subject's and a running mean of the weights, on one subject each; not tuned for
# yours. The rates are ten to a hundred times those of Stable Diffusion, for runs of a tenth of the length. The prior
# holds what a laptop draws in under a minute.
POCKET = Profile(
    name="pocket",
    recipes={
        "oft": Recipe(lr=2e-3, batch=3, steps=100, prior=24),
        "coft": Recipe(lr=2e-3, batch=3, steps=100, prior=24),
        "lora": Recipe(lr=4e-3, batch=3, steps=100, prior=24),
        "dreambooth": Recipe(lr=2e-4, batch=3, steps=100, prior=24),
        "textual-inversion": Recipe(lr=5e-3, batch=4, steps=100),  # hardly learns, at any rate that was tried
        "custom": Recipe(lr=6e-4, batch=4, steps=120, prior=24),
        # Lesson 08's, `control.EDGES`: over three seeds in benchmarks/control.py.
        "control": Recipe(lr=1e-3, batch=8, steps=500),
    },
    # Nearly all: it has attention at 8x8 and 4x4 places only, too coarse for a pattern on a subject.
    layers=ATTENTION + PROJECTIONS + CONVOLUTIONS,
    rank=8,
    block_size=32,  # divides all widths of the UNet (64, 128, 256) and of the text (192)
    eps=0.05,  # six degrees, see `oft.attach`; the search for coft's rate had 0.02
    ema=0.95,  # a mean over some twenty steps: at these rates single ones throw the weights about
    hint_encoder="gaussian",  # with the official code's weights nearly nothing of the hint arrives at first: lesson 08
    noisier=1.0,  # where the latents are noise, the hint has most to say: lesson 08
    guidance=4.0,  # as the model card's pictures
    sampling_steps=25,
)

STABLE_DIFFUSION = Profile(
    name="Stable Diffusion",
    recipes={
        # Qiu et al. 2023, their code for subjects: batch 1, 200 pictures of the class, 600 to 1400 steps, 6e-5 with
        # blocks of 80 to 320. A step of Adam turns a block of b by about lr sqrt(b): 6e-5 sqrt(80 / 32) = 1e-4.
        "oft": Recipe(lr=1e-4, batch=1, steps=1000, prior=200),
        "coft": Recipe(lr=1e-4, batch=1, steps=1000, prior=200),
        # diffusers' example for LoRA on a subject (examples/dreambooth).
        "lora": Recipe(lr=1e-4, batch=1, steps=500, prior=200),
        # Ruiz et al. 2023 for Stable Diffusion, and diffusers' example with prior preservation.
        "dreambooth": Recipe(lr=5e-6, batch=1, steps=800, prior=200),
        # diffusers' example: 5e-4, scaled by a batch of 1 and 4 accumulated steps.
        "textual-inversion": Recipe(lr=2e-3, batch=4, steps=3000),
        # Kumari et al. 2023: 1e-5, scaled by a batch of 2 and by 2 for the prior; 250 steps, 200 pictures.
        "custom": Recipe(lr=4e-5, batch=2, steps=250, prior=200),
        # Zhang et al. 2023, their tutorial: 1e-5, batch 4; sudden convergence at 3000 to 7000 steps.
        "control": Recipe(lr=1e-5, batch=4, steps=10_000),
    },
    layers=ATTENTION,
    rank=8,  # 1.6 M numbers on all attentions; diffusers' example takes 4
    block_size=32,  # peft's default; 1.5 M numbers on all attentions; divides 320, 640, 768 and 1280
    eps=0.02,  # the 6e-5 of Qiu et al.'s code in our terms, see `oft.attach`
    ema=0.0,  # as the papers' programs for subjects
    hint_encoder="code",  # Zhang et al.'s released program
    noisier=0.0,  # time steps evenly: Zhang et al. 2023, section 3.3
    guidance=7.5,  # diffusers' default
    sampling_steps=25,
)


def of(pipe) -> Profile:
    """The profile of a loaded pipeline; a pocket model that was trained further is a pocket model still."""
    from tutorial_lib.sampling import is_pocket

    return POCKET if is_pocket(pipe.tokenizer) else STABLE_DIFFUSION


# ------------------------------------------------------------------ the GPU


@dataclass(frozen=True)
class GPU:
    """Memory in GB (1e9 bytes), and the half precision in which it computes: a T4 has no bf16."""

    memory: float
    half: str


def gpu(device=None) -> GPU | None:
    """The CUDA GPU that would be used, or None where there is none."""
    import torch

    if not torch.cuda.is_available() or torch.device(device or "cuda").type != "cuda":
        return None
    memory = torch.cuda.get_device_properties(torch.device(device or "cuda")).total_memory / 1e9
    return GPU(memory, "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")


# SD 1.5 in millions of parameters, counted.
UNET, REST, BRANCH = 859.5, 206.7, 361.3  # REST: text encoder 123.1 and VAE 83.7
TRAINED = {"dreambooth": UNET, "control": BRANCH, "custom": 19.2, "oft": 1.5, "coft": 1.5, "lora": 1.6}
TRAINING_BYTES = 16  # of a trained parameter: weight, gradient and AdamW's two moments, all in float32
# GB a picture at 512x512 with and without gradient checkpointing, from the published table of ShivamShrirao's fork of
# diffusers (a T4, fp16): 10.40 - 9.92 and 13.67 - 11.17. A ControlNet adds its share of the UNet's parameters.
CHECKPOINTED, WHOLE = 0.5, 2.5
OVERHEAD = 1.5  # GB: CUDA's own, and what lies between the blocks in use
SHARE = 0.92  # of the memory that may be planned for


def memory_needed(method: str, rows: int, gradient_checkpointing: bool) -> float:
    """GB that a step on Stable Diffusion 1.5 takes, an estimate; rows: pictures in one forward pass.

    For full fine-tuning of one picture with checkpointing it gives 16.6. The table above has 15.8 there, without the
    text encoder and the VAE, which are 0.8 here.
    """
    frozen_bytes = 4 if method in WHOLE_PRECISION else 2
    frozen = REST + (0 if method == "dreambooth" else UNET)
    fixed = (frozen * frozen_bytes + TRAINED.get(method, 0) * TRAINING_BYTES) / 1000
    share = 1 + (BRANCH / UNET if method == "control" else 0)
    return fixed + OVERHEAD + rows * share * (CHECKPOINTED if gradient_checkpointing else WHOLE)


# ------------------------------------------------------------------ plans


@dataclass(frozen=True)
class Plan:
    """What `training.fit` is called with. Batch size times accumulation times processes is what the recipe says."""

    method: str
    lr: float
    steps: int
    batch_size: int
    accumulation: int
    precision: str
    gradient_checkpointing: bool = False


def plan(profile: Profile, method: str, gpu: GPU | None = None, prior: bool = False, processes: int = 1) -> Plan:
    """The recipe, made to fit the GPU: first smaller forward passes, then gradient checkpointing.

    prior: whether each picture comes with one of its class. Raises ValueError for an unknown method.
    """
    if method not in profile.recipes:
        raise ValueError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    recipe = profile.recipes[method]
    batch = max(1, recipe.batch // processes)
    half = gpu is not None and profile is not POCKET  # the pocket model is small enough for float32
    first = Plan(method, recipe.lr, recipe.steps, batch, 1, gpu.half if half else "no")
    if not half:
        return first
    room = SHARE * gpu.memory
    rows = 2 if prior else 1
    fitting = (p for p in ladder(first) if memory_needed(method, rows * p.batch_size, p.gradient_checkpointing) <= room)
    return next(fitting, ladder(first)[-1])


def ladder(plan: Plan) -> list[Plan]:
    """The plan and all that need less memory and come to the same result, the largest first."""
    total = plan.batch_size * plan.accumulation
    halved = [plan.batch_size >> k for k in range(plan.batch_size.bit_length())]
    sizes = [size for size in halved if total % size == 0]
    rungs = [
        replace(plan, batch_size=size, accumulation=total // size, gradient_checkpointing=checkpointing)
        for checkpointing in (False, True)
        for size in sizes
    ]
    return rungs[rungs.index(plan) :]


def when_out_of_memory(plan: Plan) -> str:
    """What to say when the memory is full: the next smaller setting, in the words of the command line."""
    rest = ladder(plan)[1:]
    if not rest:
        lighter = "" if plan.method in ("lora", "oft", "coft") else ", or train with `lora` or `oft`, which need least"
        return (
            "out of memory, and this is the smallest setting of this method: end what else uses the memory, take a "
            f"model of a lower resolution{lighter}."
        )
    after = rest[0]
    options = f"--batch-size {after.batch_size} --accumulation {after.accumulation}"
    if after.gradient_checkpointing:
        options += " --gradient-checkpointing"
    return f"out of memory. The next smaller setting comes to the same result: {options}"


# ------------------------------------------------------------------ what can be had here


def obstacle(profile: str) -> str | None:
    """Why a profile cannot be used here, in a sentence, or None if it can: no GPU, or no way to its files.

    Raises ValueError for a profile that is none.
    """
    import torch

    place, revision = models.source(profile)
    if profile == "pocket" or Path(place).is_dir():
        return None
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        return f"the profile {profile!r} needs a GPU, and this machine has none"
    if not _reachable(place, revision):
        return f"the files of {profile!r} are not here, and their hub cannot be reached"
    return None


def usable(profile: str) -> str:
    """The profile itself; or "pocket", with a printed sentence that says why."""
    if (why := obstacle(profile)) is None:
        return profile
    print(f"{why[0].upper()}{why[1:]}: staying on the pocket model.")
    return "pocket"


def _reachable(place: str, revision: str | None) -> bool:
    """Asks for a small file of the model: from the cache, or from the hub."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(place, "model_index.json", revision=revision)
    except (OSError, ValueError):  # all of the hub's errors are one of them
        return False
    return True


def weights_dtype(method: str, profile: str, device, precision: str | None = None):
    """The precision in which to load the model: float32 where its own weights are trained, and off the GPU.

    None lets `models.load` choose.
    """
    import torch

    if torch.device(device).type != "cuda" or method in WHOLE_PRECISION or precision == "no":
        return torch.float32
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision) if profile != "pocket" else torch.float32
