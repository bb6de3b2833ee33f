# %% title [markdown] prerequisites="lesson 05 or 06; a folder of pictures, or the one that comes with the course"
# # 10 · Your own pictures
#
# Everything so far was prepared: tidy folders, known recipes. Your folder is not tidy, nobody knows your recipe, and
# what you make should be of use in other programs, next year as well. This lesson goes the whole way once, from a
# folder of pictures to files that you can share, and it stays close to the command line, where long trainings live.
#
# After this lesson you can
#
# - say whose pictures you may train on, and what to ask first;
# - see before a training what will be used, what is cut away, and what is left out and why;
# - choose a method by what it costs and what it keeps, in a table of measurements;
# - make a recipe fit a GPU that is too small for it, without changing what is learned;
# - train with samples to watch, stop, and go on; draw a gallery, with a control on top;
# - prove that other programs load your files and draw the same.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("10", profile="pocket")

# %% consent text [markdown]
# ## Before the first picture
#
# A fine-tuned model draws its subject anywhere, doing anything. That is the point of it, and it is why four questions
# come first:
#
# 1. **Is a person in the pictures?** Train on somebody only if they know what it is for and agreed, freely, to just
#    that. Write down what they agreed to. If they change their mind, delete the weights, and the pictures made with
#    them. Being allowed to *see* a photo is not being allowed to train on it.
# 2. **Is it a child?** Then do not.
# 3. **Could somebody take the results for real?** Do not make pictures that show a real person in something that did
#    not happen, not even as a joke. Whatever you publish should say that it was generated.
# 4. **Whose work is it?** A style or a character belongs to whoever made it. Ask, or take pictures of your own things.
#
# In many countries parts of this are law. All of it is how you would want to be treated.
#
# ## The folder
#
# Five to twenty pictures are enough. They should differ in everything that is *not* the subject: place, light,
# distance. What all of them share, the model takes for the subject.
#
# The cell below makes a folder in the state that folders are in, from the heart mug of lesson 05: a photo held
# sideways, a wide one, a scan, a cut-out, a duplicate, a broken file and more. To use your own, set `FOLDER` to its
# place and leave out the line with `untidy`.

# %% folder
import os
from pathlib import Path

from tutorial_lib.lab import own_pictures

RUNS = Path(os.path.relpath(lesson.root / "runs" / "lesson_10"))
TOKEN, CLASS = "sks", "mug"
FOLDER = own_pictures.untidy(lesson.root / "data" / "subjects" / "heart-mug", RUNS / "photos")
print(*sorted(file.name for file in FOLDER.iterdir()), sep="\n")

# %% preflight text [markdown]
# ## Before the training: a report
#
# One unreadable file can end a training after an hour. So look first. `pictures.load_folder` opens every file, turns
# photos upright, puts transparent parts on white, makes all of them RGB squares of the model's size, and says of each
# file what it did, or why it was left out. Nothing in the folder is changed.
#
# Read the report from the bottom up: is something left out that you wanted?

# %% preflight
from tutorial_lib import control, models, pictures

pipe = models.load(lesson.profile)
SIZE = control.picture_side(pipe)
photos, report = pictures.load_folder(FOLDER, SIZE, caption=f"a photo of a {CLASS}")
print(report)

# %% crop text [markdown]
# ## What is cut away
#
# The model draws squares. Of a picture that is none, the largest square in the middle is used. If the subject stands at
# the side, half of it may be gone: then crop by hand.
#
# **Write `middle_square`**: for a width and a height in pixels the box (left, top, right, bottom). `top` is 0 at the
# upper edge; `right` and `bottom` are where the box ends.


# %% crop exercise exercise="middle_square" difficulty=1 minutes=5
from tutorial_lib.lab.checks import lesson_10 as check


def middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of the largest square in the middle."""
    # <solution>
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
    # </solution>


check.middle_square(middle_square)

# %% crop hint [markdown] hint="middle_square"
# The side is the shorter of the two. What is too much, `width - side`, goes away by halves. `//` divides and rounds
# down.

# %% crops
own_pictures.crops(report)

# %% captions text [markdown]
# ## Captions
#
# A caption says what is *not* special: the place, the light, what stands beside it. What the caption leaves out, the
# word for the subject has to carry. So each caption names the subject, "sks mug", and then what else is to be seen.
# They stand in `.txt` files of the pictures' names. Without a file, a template is used.
#
# **Write `with_word`**: put the subject's word before the first mention of its class. A caption that has the word
# already stays as it is. The class may also be a part of other words: there are catkins, and a mug is no smug face.
# Each caption has the subject's word or its class, with spaces around it or at its end.


# %% captions exercise exercise="with_word" difficulty=2 minutes=10
def with_word(caption: str, token: str, class_word: str) -> str:
    """ "a photo of a mug" becomes "a photo of a sks mug"."""
    # <solution>
    words = caption.split()
    if token not in words:
        words.insert(words.index(class_word), token)
    return " ".join(words)
    # </solution>


check.with_word(with_word)

# %% captions hint [markdown] hint="with_word"
# `caption.split()` gives the words. A list has `.index(word)`, which finds the first one, and `.insert(place, word)`.
# Ask first whether the token is among the words.

# %% captions
from tutorial_lib.cli import data
from tutorial_lib.lab import plots

captions = [data.named(caption, TOKEN, CLASS) for caption in report.captions]  # as the command line does below
plots.grid(
    photos,
    labels=captions,
    columns=5,
    alt="The five pictures as training sees them, upright squares of the model's size, each with its caption",
)

# %% method text [markdown]
# ## Which method?
#
# There is no best one. Lesson 05 measured five on six subjects with equal data and steps, each with its best learning
# rate. Here is what a choice needs of that table:
#
# - **likeness** to the subject (two real pictures have about 0.9);
# - **kept**: the share of other prompts that the model still follows;
# - **MB**: the file that you keep for each subject, in full precision;
# - **seconds** of a processor core a step, and how many numbers are trained.

# %% method table
import numpy as np

from tutorial_lib.lab import subject_runs

runs = subject_runs.complete(subject_runs.read(lesson.root / "results" / "subject_driven.csv"))
METHODS = []
for name in subject_runs.METHODS:
    own = [run for run in runs if run["method"] == name]
    METHODS.append(
        {
            "method": name,
            "likeness": subject_runs.average(runs, name, "subject_similarity").mean,
            "kept": subject_runs.average(runs, name, subject_runs.kept).mean,
            "MB": own[0]["parameters"] * 4 / 1e6,
            "seconds": float(np.median([run["seconds"] for run in own])),
            "numbers": own[0]["parameters"],
        }
    )
print(f"{'':15}{'likeness':>9}{'kept':>7}{'MB':>7}{'s a step':>10}{'numbers':>13}")
for row in METHODS:
    print(
        f"{row['method']:15}{row['likeness']:9.2f}{row['kept']:7.2f}{row['MB']:7.1f}{row['seconds']:10.2f}"
        f"{row['numbers']:13,.0f}"
    )

# %% method question [markdown]
# Choosing is: set limits, then take the best of what is left. **Write `choose`**: of the rows above, the name of the
# method with the highest likeness among those that keep at least `least_kept`, with a file of at most `most_mb`. If
# none is within the limits, return None.


# %% method exercise exercise="choose" difficulty=2 minutes=10
def choose(methods: list[dict], least_kept: float, most_mb: float) -> str | None:
    """The name of the method that is most like the subject within the limits; None if there is none."""
    # <solution>
    allowed = [row for row in methods if row["kept"] >= least_kept and row["MB"] <= most_mb]
    return max(allowed, key=lambda row: row["likeness"])["method"] if allowed else None
    # </solution>


check.choose(choose)

# %% method hint [markdown] hint="choose"
# First a list of the rows that are allowed. `max(rows, key=lambda row: row["likeness"])` is the best row of a list that
# is not empty; its name is one entry of it.

# %% limits text [markdown]
# Move the limits. The bars are the likeness of each method; pale ones are outside of your limits, and the dark one is
# chosen.

# %% limits
import ipywidgets

from tutorial_lib.lab import own_plots, widgets
from tutorial_lib.lab.own_pictures import choose as pick

wide = {"style": {"description_width": "120px"}, "layout": ipywidgets.Layout(width="480px")}
sizes = sorted({round(row["MB"], 1) for row in METHODS})
widgets.Panel(
    {
        "least_kept": ipywidgets.FloatSlider(value=0.9, min=0.5, max=1, step=0.01, description="keep at least", **wide),
        "most_mb": ipywidgets.SelectionSlider(
            options=[(f"{size:g} MB", size + 0.1) for size in sizes],
            value=sizes[-1] + 0.1,
            description="file at most",
            **wide,
        ),
    },
    lambda least_kept, most_mb: own_plots.choice(METHODS, pick(METHODS, least_kept, most_mb), least_kept, most_mb),
    lambda least_kept, most_mb: (
        f"Keeping at least {least_kept:.2f} with a file of at most {most_mb:.0f} MB: "
        f"{pick(METHODS, least_kept, most_mb) or 'no method'} of {', '.join(row['method'] for row in METHODS)}"
    ),
    width=640,
)

# %% fit text [markdown]
# ## Making a recipe fit
#
# A recipe says, for example: eight pictures a step. Your GPU holds three. A smaller batch would be another training.
# But a gradient is a mean over pictures, and a mean can be made in parts: four passes of two pictures, their gradients
# added, then one step. This is **gradient accumulation**. The result is the same, up to rounding; it takes longer.
#
# **Write `as_many_as_fit`**: for a batch and the most pictures that fit at once, the pair (pictures in a pass, passes).
# Their product must be the batch. Take as many at once as possible.


# %% fit exercise exercise="as_many_as_fit" difficulty=3 minutes=10
def as_many_as_fit(batch: int, most: int) -> tuple[int, int]:
    """Pictures in one forward pass, and how many passes make a step."""
    # <solution>
    size = max(size for size in range(1, most + 1) if batch % size == 0)
    return size, batch // size
    # </solution>


check.as_many_as_fit(as_many_as_fit)

# %% fit hint [markdown] hint="as_many_as_fit"
# `batch % size == 0` if size divides batch. Try all sizes from 1 to `most`, and keep the largest that divides.

# %% plans text [markdown]
# The library does this by itself, and when that is not enough it turns on **gradient checkpointing**: what lies between
# the layers is thrown away and computed again on the way back. That saves most of *this* memory, for about a third more
# time; weights and Adam's averages stay. All recipes are in one file, `tutorial_lib/profiles.py`, each number with its
# source. This is what it plans for Stable Diffusion 1.5 with pictures of the class beside yours, on three GPUs of
# Colab. The memory is an estimate. `2x4` would be 2 pictures in a pass and 4 passes for a step; pictures of the class
# come on top of these. `ckpt` is checkpointing.

# %% plans
from tutorial_lib import profiles

GPUS = {
    "T4": profiles.GPU(16, "fp16"),  # no bfloat16
    "L4": profiles.GPU(24, "bf16"),
    "A100": profiles.GPU(40, "bf16"),
}
print(f"{'':18}" + "".join(f"{name + ', ' + format(gpu.memory, '.0f') + ' GB':>26}" for name, gpu in GPUS.items()))
for method in ("lora", "oft", "custom", "dreambooth", "control"):
    cells = []
    for gpu in GPUS.values():
        plan = profiles.plan(profiles.STABLE_DIFFUSION, method, gpu, prior=method != "control")
        rows = plan.batch_size * (1 if method == "control" else 2)
        needed = profiles.memory_needed(method, rows, plan.gradient_checkpointing)
        fits = "" if needed <= profiles.SHARE * gpu.memory else " too much"
        cells.append(
            f"{plan.batch_size}x{plan.accumulation}{' ckpt' * plan.gradient_checkpointing} {needed:.0f} GB{fits}"
        )
    print(f"{method:18}" + "".join(f"{cell:>26}" for cell in cells))

# %% train text [markdown]
# ## Training, with samples to watch
#
# Long trainings live on the command line: it needs no open browser, and it writes everything down. The cell runs
#
# > `python -m tutorial_lib train lora --pictures PHOTOS --class mug --token sks --output WEIGHTS`
#
# as you would in a terminal, with a few more options that make it short, and shows the newest sample pictures as they
# come. The samples have the same prompts and the same noise each time, so what changes is the model. While it runs,
# decide what you would look for: when does the heart appear, and do the places stay?
#
# If the machine goes down, run the same command with `--resume`: it goes on at the last checkpoint, and ends in the
# same weights as if nothing had happened. On Colab give `--checkpoints` a folder on your Drive.

# %% train
WEIGHTS = RUNS / "heart-mug-lora"
COMMAND = ["train", "lora", "--pictures", FOLDER, "--class", CLASS, "--token", TOKEN, "--output", WEIGHTS, "--force"]
if profiles.of(pipe) is profiles.POCKET:
    COMMAND += ["--every", "25", "--sampling-steps", "12", "--prior", "24"]
else:
    COMMAND += ["--profile", lesson.profile]
samples = own_pictures.follow(COMMAND, WEIGHTS / "samples")

# %% samples
steps = [step for step, _ in samples]
alt = "the subject in four prompts"
frames = [plots.Shown(plots.png(plots.enlarged(sheet, 640)), f"{alt} after {step} steps") for step, sheet in samples]
strip = plots.grid(
    [sheet for _, sheet in samples],
    rows=[f"{step} steps" for step in steps],
    columns=1,
    size=samples[0][1].width,
    alt=f"{alt}, one row a look, after {', '.join(map(str, steps))} steps",
)
widgets.browse(frames, "steps", [str(step) for step in steps], strip, start=len(frames) - 1)

# %% gallery text [markdown]
# ## A gallery
#
# Now prompts that no photo showed: another light, another style, company. A gallery that shows only what worked is
# advertising. So decide on prompts and seeds **before** you look, and show them all.

# %% gallery
from tutorial_lib.sampling import generate

own = models.load(lesson.profile)
own.load_lora_weights(str(WEIGHTS))
PROMPTS = [
    f"a photo of a {TOKEN} {CLASS} at night",
    f"a watercolor of a {TOKEN} {CLASS} in a forest",
    f"pixel art of a {TOKEN} {CLASS} on a beach",
    f"a photo of a {TOKEN} {CLASS} and a red house in the snow",
    f"a photo of a {CLASS} on a table",
]
gallery = [generate(own, [prompt] * 4, seed=20, num_inference_steps=20, progress=False) for prompt in PROMPTS]
plots.grid(
    [picture for row in gallery for picture in row],
    rows=PROMPTS,
    columns=4,
    alt="Five prompts, four seeds each, none chosen: at night, as a watercolor, as pixel art, with a house, and last a "
    "mug without the word",
)

# %% gallery reading [markdown]
# The last row asks for a mug *without* the word. If hearts turn up there, the class has drifted: then fewer steps, or
# more pictures of the class. If the places do not follow the prompt, the captions of the folder said too little.

# %% control text [markdown]
# ## With a control on top
#
# Lesson 08 trains a ControlNet: a second network that reads an edge map and tells the UNet where things go. It was
# trained on the *base* model. Your weights change the UNet a little, and the features that the ControlNet adds still
# fit. So both can be used at once: the edges say where, your weights say what.
#
# The edges below are read from one of the photos by the Canny method. The same edges, four prompts.

# %% control
from tutorial_lib.pocket import conditions

branch = control.load(lesson.root / "data" / "pocket-control" / "edges")
photo = photos[report.captions.index(f"a photo of a {CLASS} on a table")]
edges = conditions.of_picture("edges", photo)
ASKED = [f"a photo of a {TOKEN} {CLASS} {place}" for place in ("on a table", "at night", "in the snow")]
ASKED.append(f"a watercolor of a {TOKEN} {CLASS} in a forest")
drawn = control.generate(own, branch, ASKED, [edges] * 4, seed=3, num_inference_steps=20, progress=False)
free = generate(own, ASKED, seed=3, num_inference_steps=20, progress=False)
plots.grid(
    [edges, *drawn, photo, *free],
    columns=5,
    rows=["with the edges", "without"],
    heads=["a photo's edges; the photo", *(prompt.replace("a photo of ", "") for prompt in ASKED)],
    alt="The edges of a mug, its photo, and four prompts drawn with the edges, where the mug is in place, and without",
)

# %% formats text [markdown]
# ## Files that others can load
#
# | trained | file | who reads it |
# |---|---|---|
# | LoRA | `pytorch_lora_weights.safetensors` | `pipe.load_lora_weights(folder)` of diffusers; most image programs |
# | OFT, COFT | a directory of peft | `PeftModel.from_pretrained(unet, folder).merge_and_unload()` |
# | Custom Diffusion | `concept.safetensors` | this library; `convert --to diffusers` or `--to original` for others |
# | a word (textual inversion) | `learned_embeds.safetensors` | `pipe.load_textual_inversion(folder)` |
# | ControlNet | a directory | `ControlNetModel.from_pretrained(folder)` |
# | everything, merged | a whole pipeline | `StableDiffusionPipeline.from_pretrained(folder)`: any program |
#
# All of them are safetensors: numbers and their names. Other formats, such as a `.bin` or `.ckpt`, can hold programs
# that run when the file is opened. Do not open a stranger's.
#
# "It was saved" proves nothing. **Load it in another program, and compare what both draw.** For that:
#
# **Write `largest_difference`** of two stacks of pictures, arrays of bytes (uint8) of the same shape: by how much do
# they differ where they differ most? Equal pictures have 0.


# %% formats exercise exercise="largest_difference" difficulty=3 minutes=10
def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    """The largest difference of two numbers at the same place, in either direction: 0 to 255."""
    # <solution>
    return int(np.abs(first.astype(int) - second.astype(int)).max())
    # </solution>


check.largest_difference(largest_difference)

# %% formats hint [markdown] hint="largest_difference"
# A byte holds 0 to 255. What is `np.uint8(5) - np.uint8(7)`? Try it. `.astype(int)` gives numbers that can be negative.

# %% reload text [markdown]
# Three programs draw the same prompts with the same noise: this library; plain `diffusers` with the LoRA file; and
# plain `diffusers` with a whole pipeline, into which `python -m tutorial_lib merge` has put the LoRA for good. Rounding
# may differ by a step or two of 255.

# %% reload
import torch
from diffusers import StableDiffusionPipeline

from tutorial_lib.cli.main import main as command

MERGED = RUNS / "heart-mug-merged"
command(["merge", "--weights", str(WEIGHTS), "--output", str(MERGED), "--force"])
SHAPE = (2, pipe.unet.config.in_channels, SIZE // pipe.vae_scale_factor, SIZE // pipe.vae_scale_factor)
latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))


def by_diffusers(folder, lora=None) -> np.ndarray:
    """Two pictures by plain diffusers, with nothing of this course: (2, h, w, 3) bytes."""
    plain = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    if lora is not None:
        plain.load_lora_weights(lora)
    made = plain(PROMPTS[:2], latents=latents, num_inference_steps=20, guidance_scale=4.0)
    return np.stack([np.asarray(picture) for picture in made.images])


ours = np.stack(
    [np.asarray(p) for p in generate(own, PROMPTS[:2], latents=latents, num_inference_steps=20, progress=False)]
)
BASE = lesson.root / "data" / "pocket-sd" if lesson.profile == "pocket" else lesson.profile
others = {"diffusers with the LoRA file": by_diffusers(BASE, str(WEIGHTS)), "the merged pipeline": by_diffusers(MERGED)}
for name, theirs in others.items():
    apart = np.abs(ours.astype(int) - theirs.astype(int)).max()
    print(f"this library and {name}: largest difference {apart} of 255")
    assert apart <= 3

# %% card text [markdown]
# ## The model card
#
# In a year nobody will know what this file was, not even you. A **model card** lies beside the weights and says it:
# what was trained, on what, how, with which seed; how to load it; and what to mind before it is shared. The command has
# written one, together with all its settings (`training.toml`), the loss of each step (`history.csv`) and the samples.
# Add by hand what no program can know: who agreed to what, and what the model should not be used for.

# %% card
from IPython.display import Markdown

card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
Markdown(card.split("---", 2)[2])  # without the header, which is for the hub

# %% again text [markdown]
# ## Other ways from here
#
# - **Another method**: the same command with `oft`, `coft`, `dreambooth`, `textual-inversion` or `custom`. `python -m
#   tutorial_lib train custom --help` lists what it can be told.
# - **Two subjects at once**: train `custom` twice, then `python -m tutorial_lib merge` (lesson 07).
# - **On Stable Diffusion**: the same command with `--profile sd15`, on a GPU. The cells with the control and with plain
#   diffusers above are for the pocket model only. The time and memory there are not measured yet.
#   This library loads Stable Diffusion without its safety checker: look at every picture before you publish it.
# - **Several GPUs**: `accelerate launch -m tutorial_lib train ...`; the batch is shared out, the result stays the same.
# - **A longer run**: give `--checkpoints` a folder that outlives the machine, and `--resume` after a disconnect.

# %% glossary [markdown]
# ## Glossary
#
# - **Preflight**: looking at everything that a run will read, before it begins.
# - **Caption**, **template**: the words for a picture; words for all pictures that have none.
# - **Recipe**: learning rate, pictures a step, steps, pictures of the class.
# - **Gradient accumulation**: one step from the gradients of several small batches.
# - **Gradient checkpointing**: computing again instead of keeping; less memory for more time.
# - **Merge**: writing an adapter's difference into the model's own weights.
# - **Model card**: what a reader has to know of a file of weights.
# - **safetensors**: a file of tensors that cannot run anything.
#
# ## Further reading
#
# - Mitchell and others: *Model Cards for Model Reporting*, FAccT 2019,
#   [arXiv:1810.03993](https://arxiv.org/abs/1810.03993).
# - Chen, Xu, Zhang, Guestrin: *Training Deep Nets with Sublinear Memory Cost*, 2016,
#   [arXiv:1604.06174](https://arxiv.org/abs/1604.06174). Gradient checkpointing.
# - The documentation of `diffusers` on loading adapters, and of `accelerate` on several GPUs.
