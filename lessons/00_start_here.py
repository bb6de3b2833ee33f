# %% title [markdown] prerequisites="a little Python; nothing about diffusion models"
# # 00 · Start here
#
# This course takes four papers about Stable Diffusion apart, builds their methods again step by step, and measures
# what the papers claim. Everything runs on a laptop, without a GPU and without the internet, because the course
# brings its own small Stable Diffusion: **Pocket-SD**, 64 × 64 pixels, trained from nothing for this purpose.
#
# After this page you can
#
# - draw pictures from prompts, and say what *seed*, *steps* and *guidance* do to them;
# - say what Pocket-SD is made of, how it was trained, and what it can and cannot draw;
# - work an exercise with its instant check, and make a prediction before an experiment.
#
# Run a cell with **Shift + Enter**, from the top to the bottom. Or choose *Run → Run All Cells* and read while it
# works: no cell needs an answer from you.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("00", profile="pocket")

# %% first picture text [markdown]
# ## Your first pictures
#
# Load the model, write down what you want to see, draw. This is all that it takes:

# %% first picture
from tutorial_lib import models
from tutorial_lib.lab import plots
from tutorial_lib.sampling import generate

pipe = models.load(lesson.profile)
prompts = [
    "a photo of a red mug on a beach",
    "a watercolor of a person with long brown hair and a smile in a forest",
    "pixel art of a white cat with glasses at night",
    "a photo of a yellow fish and a blue ball on a table",
]
pictures = generate(pipe, prompts, seed=[1, 2, 3, 4])
plots.grid(
    pictures,
    labels=prompts,
    columns=4,
    size=192,
    alt="Four pictures that the model drew, each from the prompt below it",
)

# %% first picture meaning [markdown]
# Nobody drew these pictures, and no stored picture was looked up. The model started from **pure noise** and removed a
# little of it 25 times. At each step it was told, as numbers made from your prompt, what the picture should become.
#
# ## Try it
#
# Change the prompt (then press Enter) or move a slider. A picture takes a second or so.
#
# - Keep everything and change only the **seed**: which parts of the picture stay, which change?
# - Go down to one **step**, then up again. When does the picture stop changing?
# - Set the **guidance** to 1, then to 12.
# - Ask for a thing that nobody has seen, such as a green moon in the snow.

# %% prompt box
from tutorial_lib.lab import widgets

widgets.prompt_box(pipe, "a photo of an orange cat with a hat in the snow")

# %% seed text [markdown]
# ## The seed: where the noise comes from
#
# The noise at the start decides everything that the prompt leaves open: where the mug stands, which way it turns,
# where the clouds are. It comes from a random number generator, and the seed sets that generator. So the **same seed
# gives the same picture** (the first and the last below), and another seed gives another picture of the same prompt.

# %% seeds
import numpy as np

prompt = "a photo of a green teapot in a city"
seeds = [0, 1, 2, 3, 0]
by_seed = generate(pipe, [prompt] * 5, seed=seeds)
assert np.allclose(by_seed[0], by_seed[4], atol=1), "the same seed must give the same picture"
plots.grid(
    by_seed,
    labels=[f"seed {seed}" for seed in seeds],
    columns=5,
    alt="A green teapot in a city from five seeds; the first and the last picture are equal",
)

# %% steps text [markdown]
# ## The steps: how carefully the noise is removed
#
# With one step the model must guess the whole picture at once, and answers with the blurred mean of all pictures that
# it holds possible. With more steps it decides one thing after the other. After some 25 steps little changes any more;
# you pay for each step with time.

# %% steps
import time

counts = [1, 2, 4, 8, 25, 50]
by_steps, labels = [], []
for count in counts:
    start = time.perf_counter()
    by_steps += generate(pipe, [prompt], seed=2, num_inference_steps=count, progress=False)
    labels.append(f"steps: {count}, {time.perf_counter() - start:.1f} s")
plots.grid(
    by_steps,
    labels=labels,
    columns=6,
    alt="The same teapot drawn with 1, 2, 4, 8, 25 and 50 steps: a blur at first, then ever sharper",
)

# %% guidance text [markdown]
# ## The guidance: how much the prompt counts
#
# At each step the model estimates the noise $\epsilon$ twice: once with your prompt $c$, once with an empty prompt
# $\varnothing$. The difference of the two is what the prompt asks for. **Classifier-free guidance** (Ho and Salimans,
# 2022) goes further in that direction, by a factor $g$:
#
# $$\hat\epsilon = \epsilon(\varnothing) + g \, \bigl(\epsilon(c) - \epsilon(\varnothing)\bigr)$$
#
# With $g = 1$ this is $\epsilon(c)$, the model's plain answer. What happens to the pictures when $g$ goes from 1 to 8?
# Before each experiment in this course you can **make a guess**. It costs nothing, nobody records it, and people who
# guess first remember the answer better.

# %% guidance prediction
OPTIONS = {
    (True, True): "They follow the prompt better, and differ less from one another",
    (True, False): "They follow the prompt better, and differ more from one another",
    (False, True): "They follow the prompt no better, and differ less from one another",
    (False, False): "They follow the prompt no better, and differ more from one another",
}
prediction = widgets.predict(
    "What happens to the pictures when the guidance goes from 1 to 8?", options=list(OPTIONS.values())
)
prediction

# %% guidance experiment text [markdown]
# The experiment: four prompts, four seeds each, at both values. The left half of each row shows guidance 1, the right
# half guidance 8, with the same seeds in the same order.

# %% guidance experiment
from tutorial_lib.pocket import world

SEEDS = (0, 1, 2, 3)
scenes = [
    world.Scene("photo", "night", (world.Thing("house", "pink"),)),
    world.Scene("watercolor", "snow", (world.Thing("cat", "black", worn=("hat",)),)),
    world.Scene("photo", "city", (world.Thing("mug", "green"), world.Thing("flower", "red"))),
    world.Scene("pixel art", "beach", (world.Thing("car", "purple"),)),
]
asked = [scene for scene in scenes for _ in SEEDS]
captions = [world.caption(scene) for scene in asked]
pocket = pipe if lesson.profile == "pocket" else models.load("pocket")
seeds = SEEDS * len(scenes)
made = {g: generate(pocket, captions, seed=seeds, guidance_scale=g) for g in (1.0, 8.0)}
rows = [slice(i, i + len(SEEDS)) for i in range(0, len(asked), len(SEEDS))]
plots.grid(
    [picture for row in rows for g in made for picture in made[g][row]],
    rows=[world.caption(scene) for scene in scenes],
    heads=[f"g = {g:g}, seed {seed}" for g in made for seed in SEEDS],
    size=64,
    columns=8,
    alt="One row a prompt: four pictures with guidance 1, then the same seeds with guidance 8",
)

# %% guidance measured text [markdown]
# Looking is a good start, and a poor end: we see what we expect. So this course **measures**. Pocket-SD has a *judge*,
# a small network that reads a picture and says which style, background, things and colours it sees. *Agreement* is the
# share of what the prompt asked for that the judge finds. *Variety* is how far apart the pictures of one prompt lie,
# as the judge sees them.

# %% guidance measured
from tutorial_lib import metrics
from tutorial_lib.pocket import judge

reader = judge.load()


def agreement(pictures):
    """The share of everything asked for that the judge reads in the pictures."""
    shares = metrics.prompt_fidelity(pictures, asked, reader).values()
    return sum(share.right for share in shares) / sum(share.count for share in shares)


def variety(pictures):
    """How far the pictures of one prompt lie apart, averaged over the prompts."""
    return np.mean([metrics.diversity(pictures[row], reader) for row in rows])


low, high = ({"agreement": agreement(made[g]), "variety": variety(made[g])} for g in made)
better, narrower = high["agreement"] > low["agreement"], high["variety"] < low["variety"]
numbers = (
    f"from guidance 1 to 8 agreement went from {low['agreement']:.2f} to {high['agreement']:.2f}, "
    f"variety from {low['variety']:.3f} to {high['variety']:.3f}"
)
prediction.outcome(OPTIONS[better, narrower], numbers)

# %% guidance claim text [markdown]
# A paper's claim that we test ends in a record like the next one. All records together, from all lessons, make the page
# `CLAIMS.md`: what was reproduced, what cannot be seen at this scale, and what was contradicted. The
# verdict is computed from the numbers, and the seeds are named, so that you can repeat it.

# %% guidance claim
from tutorial_lib.lab.claims import claim

VERDICTS = {
    (True, True): "reproduced",
    (True, False): "not visible at this scale",
    (False, True): "not visible at this scale",
    (False, False): "contradicted",
}
claim(
    "guidance-trade-off",
    "Guidance buys agreement with the prompt at the price of variety.",
    paper="Ho and Salimans 2022, classifier-free guidance",
    measured=f"16 pictures at each value: {numbers}",
    verdict=VERDICTS[better, narrower],
    seeds=SEEDS,
)

# %% world text [markdown]
# ## The pocket world
#
# A model learns what its training pictures show. Those of Stable Diffusion are photographs from the web; those of
# Pocket-SD are drawn by a program, the **pocket world**. It has four styles, six places, eleven things in ten colours,
# and people. That is little enough to learn on a laptop, and enough to show everything that the four papers are about:
# style and content, subjects, several concepts in one picture, edges and segmentation maps.

# %% world sheet
kinds = [*world.OBJECTS, "person"]
places, rng = list(world.BACKGROUNDS), np.random.default_rng(lesson.seed)


def example(row: int, column: int):
    """The scene of one place of the sheet; places, colours and looks go round."""
    if kinds[column] == "person":
        looks = {"skin": world.SKINS[row % 3], "hair_colour": world.HAIR_COLOURS[row]}
        thing = world.Person(**looks, extras=("smile",), shirt=world.COLOURS[2 * row])
    else:
        thing = world.Thing(kinds[column], world.COLOURS[(3 * column + 2 * row) % 10])
    background = places[(row + column) % len(places)]
    things = (world.place(thing, rng),)
    return world.Scene(world.STYLES[row], background, things, seed=12 * row + column)


sheet = [example(row, column) for row in range(4) for column in range(len(kinds))]
plots.grid(
    [world.draw(scene) for scene in sheet],
    columns=len(kinds),
    rows=world.STYLES,
    heads=kinds,
    size=64,
    alt="All eleven things and a person, one a column, in the four styles, one a row",
)

# %% truth text [markdown]
# A picture of this world begins as plain data, a `Scene`. From the scene the program draws not only the picture but
# also its **ground truth**: the caption, which pixels belong to the thing, what each pixel shows, where the contours
# run. Nobody had to label anything by hand, and when we measure something later, we know what is right.

# %% truth
cat = world.Thing("cat", "orange", x=0.27, size=0.45, worn=("hat",))
car = world.Thing("car", "blue", x=0.73, size=0.44)
scene = world.Scene(style="photo", background="beach", things=(cat, car), seed=3)
print(world.caption(scene))
plots.grid(
    [
        world.draw(scene),
        plots.tinted(world.segmentation(scene)),
        255 * world.mask(scene).astype(np.uint8),
        255 - 255 * world.edges(scene).astype(np.uint8),
    ],
    labels=["the picture", "segmentation map", "mask of the first thing", "edges"],
    columns=4,
    size=192,
    alt="An orange cat with a hat beside a blue car; the segmentation map, the cat's mask, the edges",
)

# %% exercise text [markdown]
# ## An exercise, to see how exercises work
#
# A mask tells which pixels belong to a thing. With it you can ask what colour the thing has: the mean of its pixels.
#
# **Write `mean_colour`.** `picture` is an array of shape (64, 64, 3), with red, green and blue from 0 to 255. `mask` is
# an array of shape (64, 64) that is `True` where the thing is. Return three numbers: the mean red, green and blue of
# the pixels where the mask is `True`.
#
# In your notebook the part to write is a line `raise NotImplementedError`. Put your code in its place and run the cell.
# The last line checks your answer and says what is right, or what is wrong and why. It never stops the notebook, and
# no later cell depends on your answer, so you may leave an exercise for later. Below it are a hint, the expected
# output and a solution: open them when you need them. Try it wrong on purpose, too, to see what the check says.

# %% exercise exercise="mean_colour" difficulty=1 minutes=5
import numpy as np

from tutorial_lib.lab.checks import lesson_00 as check


def mean_colour(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean red, green and blue of the pixels where the mask is True: shape (3,)."""
    # <solution>
    inside = picture[mask]  # (pixels, 3)
    return inside.mean(axis=0)
    # </solution>


check.mean_colour(mean_colour)

# %% hint [markdown] hint="mean_colour"
# An array can be indexed with an array of `True` and `False`: `picture[mask]` keeps the pixels where the mask is `True`
# and has the shape (number of pixels, 3). Which of its two axes should the mean run over?

# %% asked and drawn text [markdown]
# The same question, put to the model: it was asked for a ball in each of the ten colours. What colour did it draw? For
# a generated picture no scene exists, so the judge finds the ball's pixels. (From here on a library does the averaging,
# Pillow's `ImageStat`, so that this cell works before yours does.)

# %% asked and drawn
from PIL import Image, ImageStat

wanted = [world.Scene("photo", "table", (world.Thing("ball", name),)) for name in world.COLOURS]
balls = generate(pocket, [world.caption(scene) for scene in wanted], seed=0)
masks = np.asarray(reader.segment(balls)) == world.CLASSES.index("ball")
swatches = []
for ball, mask in zip(balls, masks, strict=True):
    mean = [128, 128, 128]  # grey: no ball was found
    if mask.any():
        mean = ImageStat.Stat(ball, Image.fromarray(mask)).mean
    swatches.append(Image.new("RGB", ball.size, tuple(round(value) for value in mean)))
plots.grid(
    balls + swatches,
    columns=10,
    rows=["drawn", "its mean colour"],
    heads=world.COLOURS,
    size=64,
    alt="Ten balls, asked for in ten colours, and below each the mean colour of its pixels",
)

# %% parts text [markdown]
# ## What Pocket-SD is made of
#
# The same parts as Stable Diffusion, with the same classes of the `diffusers` library, only smaller:
#
# - The **tokenizer** cuts the prompt into words and numbers them.
# - The **text encoder** turns these numbers into vectors, one a word, that carry the words' meaning in this sentence.
# - The **VAE** packs a picture into 16 × 16 × 4 numbers, its *latents*, and unpacks them again. The model draws in
#   latents.
# - The **UNet** looks at noisy latents and at the prompt's vectors and estimates the noise.
# - The **scheduler** knows how much of that noise to remove at each step. It has nothing to learn.

# %% parts
print(f"tokenizer     {len(pocket.tokenizer):>10,} words and signs")
for name in ("text_encoder", "vae", "unet"):
    part = getattr(pocket, name)
    count = sum(parameter.numel() for parameter in part.parameters())
    print(f"{name:<13} {count:>10,} parameters, {type(part).__name__}")
levels = len(pocket.scheduler.alphas_cumprod)
print(f"scheduler     {levels:>10,} noise levels, {type(pocket.scheduler).__name__}")

# %% training text [markdown]
# ## How it was made
#
# Four trainings, each with pictures and captions that the pocket world drew:
#
# - **CLIP**: which caption belongs to which picture? Its text half becomes the text encoder.
# - The **VAE**: pack a picture into latents, unpack them, compare.
# - The **judge**: read style, place, things and colours.
# - The **UNet**: add noise to latents, estimate it.
#
# Every two minutes each was measured. Here are these records; `make pretrain` trains all parts anew. CLIP must find
# each picture's caption among 256. PSNR says how near a picture comes back from the VAE: each 10 dB more mean a tenth
# of the squared error.
#
# The curves of the judge (at 28 minutes) and of the UNet (at 50) have a kink. There the training went on with **harder
# pictures**: more animals that wear things, more pairs of things, and for the judge also things in colours and places
# that no other part ever sees. From there on they are measured on harder pictures too. The VAE's second half, which
# unpacks latents, was trained for another hour afterwards, on its own; its record is in the same folder.

# %% training curves
TRAINING = lesson.root / "data" / "pocket-sd" / "training"


MEASURED = {
    "clip": ("right", "captions found"),
    "vae": ("psnr", "PSNR, dB"),
    "judge": ("first_kind", "kind of thing read right"),
    "unet": ("mse", "squared error of the noise"),
}


def training_record(part: str, folder=TRAINING):
    """The record of one training: an array with the columns step, minutes and what was measured."""
    return np.genfromtxt(folder / f"{part}_measured.csv", delimiter=",", names=True)


figure, axes = plots.subplots(2, 2, width=9, height=5.6)
for place, (part, (column, meaning)) in zip(axes.flat, MEASURED.items(), strict=True):
    record = training_record(part)
    plots.draw_curves(place, {part: (record["minutes"], record[column])}, "minutes", meaning)
    place.set_title(f"{part}: {record['minutes'][-1]:.0f} minutes, {record['step'][-1]:,.0f} steps")
plots.finish(figure, alt="Four curves over the minutes: captions found, PSNR and kinds read rise, the error falls")

# %% sheets text [markdown]
# Such numbers say little about pictures. While the UNet trained, it drew the same prompts from the same noise again and
# again. Here are the first sheet, one from the middle and the last. Which shapes became right only in the second half?

# %% sheets
sheets = sorted(TRAINING.glob("unet_*.png"))
chosen = [sheets[i] for i in np.unique(np.linspace(0, len(sheets) - 1, 3).round().astype(int))]
plots.grid(
    [Image.open(file) for file in chosen],
    rows=[f"after {int(file.stem.removeprefix('unet_')):,} steps" for file in chosen],
    columns=1,
    size=800,
    alt="The UNet's pictures of twelve prompts, early in training, half way and at the end",
)

# %% limits [markdown]
# ## What it cannot do
#
# - It knows the pocket world and **nothing else**. A word that it never saw is drawn all the same, with a warning.
# - 64 × 64 pixels are few. Look at faces closely: a whole smile is a few pixels wide.
# - With two things in a picture the colours sometimes go to the wrong one. So they do in Stable Diffusion.
# - Its measured quality, figure by figure, is in its model card, `data/pocket-sd/README.md`.
#
# ## What is different on Stable Diffusion
#
# | | Pocket-SD | Stable Diffusion 1.5 |
# |---|---|---|
# | pictures | 64 × 64 | 512 × 512 |
# | latents | 16 × 16 × 4 (a fourth of the side) | 64 × 64 × 4 (an eighth) |
# | parameters of the UNet | counted above | 860 million |
# | trained on | pictures drawn by a program, hours on one machine | photographs from the web, 150,000 GPU hours |
# | a picture takes | about a second on two processor cores | a few seconds on a GPU, minutes without |
# | ground truth, judge | yes | no: CLIP and other networks stand in |
#
# To work on Stable Diffusion in this lesson and in lessons 01 to 04, write `profile="sd15"` in the set-up cell, on a
# machine with a GPU and the internet. The measurements of this page stay on Pocket-SD, because only there do we know
# what is right. For trainings on Stable Diffusion there is the command line (lesson 10).

# %% glossary [markdown]
# ## Glossary
#
# - **Prompt**: the words that say what to draw. **Caption**: the words that say what a given picture shows.
# - **Latents**: the small array of numbers in which the VAE stores a picture, and in which the model draws.
# - **Seed**: the number that sets the random generator, and so the noise at the start.
# - **Step**: one round of estimating noise and removing a part of it.
# - **Guidance scale** $g$: how far to go in the direction that the prompt asks for; 1 is the model's plain answer.
# - **Profile**: the model that a lesson works on, `pocket` or `sd15`; set once, in the set-up cell.
# - **Judge**: a small network that reads the pictures of the pocket world, for measuring.
# - **Mask**: an array that is `True` where a thing is.

# %% where next [markdown]
# ## Where to go from here
#
# Lesson 01 looks at the weights of this model as points on a sphere, and lesson 02 takes the pipeline apart and puts it
# together again. You can read every lesson on its own; each says what you need first.
#
# **References**
#
# - Rombach, Blattmann, Lorenz, Esser, Ommer: *High-Resolution Image Synthesis with Latent Diffusion Models*, CVPR 2022,
#   [arXiv:2112.10752](https://arxiv.org/abs/2112.10752). This is Stable Diffusion.
# - Ho, Salimans: *Classifier-Free Diffusion Guidance*, 2022, [arXiv:2207.12598](https://arxiv.org/abs/2207.12598).
# - Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, ICLR 2021,
#   [arXiv:2010.02502](https://arxiv.org/abs/2010.02502). How 25 steps can be enough.
