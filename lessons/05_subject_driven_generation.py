# %% title [markdown] prerequisites="lessons 00 and 04; a training step of diffusion (lesson 02, part 2)"
# # 05 · Subject-driven generation
#
# Five pictures of one particular mug. Can the model learn *this* mug, and draw it in the snow, at night, as a
# watercolor? And does it still know all that it knew before? This task is called **subject-driven generation**. Its
# best-known method is DreamBooth. Orthogonal fine-tuning (OFT) claims to do it better: more like the subject, sooner,
# and without falling apart when training goes on too long. In this lesson the claim is put to the test.
#
# After this page you can
#
# - choose a word for a new subject, and say why it must be rare;
# - derive prior preservation, and say what it protects and what it does not;
# - train one subject by full fine-tuning, by LoRA and by OFT, on equal terms, and watch the weights while they learn;
# - measure likeness, fidelity, variety and forgetting, and read the frontier between winning and losing;
# - say which of the paper's claims hold here, with the spread over subjects and seeds.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("05")

# %% task text [markdown]
# ## The task
#
# The pocket world has *subjects*: particular things with a pattern, a build or freckles that no training picture ever
# showed. Each has five pictures in five places, as in a folder of your photos. None is at night, and all are photos,
# so that night, watercolor and pixel art are left to test with.
#
# Everything that is measured on this page needs the judge, and the judge knows only the pocket world. So this lesson
# always works on the pocket model. Lesson 10 does the same with your pictures on Stable Diffusion.

# %% subjects
import torch

from tutorial_lib import models, pictures
from tutorial_lib.lab import plots
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.subjects import SUBJECTS

FOLDER = lesson.root / "data" / "subjects"
pipe, reader = models.load("pocket", device="cpu"), pocket_judge.load()
photos = {slug: pictures.load_folder(FOLDER / slug, 64)[0] for slug in SUBJECTS}
plots.grid(
    [picture for slug in SUBJECTS for picture in photos[slug]],
    rows=[SUBJECTS[slug].name for slug in SUBJECTS],
    columns=5,
    size=64,
    alt="Seven subjects, one a row, each in five places: a cat in two colours, a dotted teapot, a mug with a heart, "
    "a striped car, a round gate, a person with freckles, a ball with a star",
)

# %% words text [markdown]
# ## A word for it
#
# We want to *ask* for the subject, so it needs a name. DreamBooth (Ruiz et al. 2023) writes every caption as
#
# > a photo of a **sks mug**
#
# The second word is the class. It lends the subject all that the model knows of mugs: that they stand on tables, that
# they have a handle, how they look as a watercolor. The first word is to mean "this one". It should be
#
# - **one token**, so that it has a vector of its own. A word that the tokenizer does not know falls into pieces, and
#   these pieces have other uses;
# - **rare**, so that no meaning stands in the way. If you call your mug a "red mug", the model has to forget what red
#   means before it learns your mug. Even the word "unique" means something.
#
# **Write `rare_words`.** `tokenize(word)` gives the list of a word's pieces. Keep the candidates that are one piece and
# that are a word of no caption, in their order.

# %% rare words exercise exercise="rare_words" difficulty=1 minutes=5
from collections.abc import Callable

from tutorial_lib.lab.checks import lesson_05 as check


def rare_words(candidates: list[str], tokenize: Callable[[str], list[str]], captions: list[str]) -> list[str]:
    """The candidates that are one token, and a word of no caption."""
    # <solution>
    said = {word for caption in captions for word in caption.split()}
    return [word for word in candidates if len(tokenize(word)) == 1 and word not in said]
    # </solution>


check.rare_words(rare_words)

# %% rare words hint [markdown] hint="rare_words"
# `caption.split()` cuts a caption into its words. Collect the words of all captions in a set first. `"ed" in "red"` is
# true in Python, since it compares letters: that is not the question here.

# %% before text [markdown]
# The pocket tokenizer has four such words in reserve: sks, ktn, pll and ucd. What does the untouched model make of
# "sks"? Nothing was ever said with it, so its vector is what chance made it. In the pictures below, compare the rows:
# the model draws mugs, and the strange word may push their colour somewhere, but no heart appears.

# %% before
from tutorial_lib.pocket import scene
from tutorial_lib.sampling import generate

TOKEN, SLUG = "sks", "heart-mug"
WORD = SUBJECTS[SLUG].class_word
candidates = [*scene.RARE_WORDS, "mug", "unique", "xkqz"]
for word in candidates:
    pieces = pipe.tokenizer.tokenize(word)
    known = "in captions" if word in scene.caption_words() else "in no caption"
    print(f"{word:7} {len(pieces)} token{'s' * (len(pieces) > 1):1}  {known}")
PLACES = ["on a beach", "at night", "in the snow", "in a city"]
asked = {"without the word": f"a photo of a {WORD}", "with the word": f"a photo of a {TOKEN} {WORD}"}
untouched = [
    picture
    for phrase in asked.values()
    for picture in generate(pipe, [f"{phrase} {p}" for p in PLACES], seed=7, num_inference_steps=10, progress=False)
]
assert len(pipe.tokenizer.tokenize(TOKEN)) == 1 and TOKEN not in scene.caption_words()
plots.grid(
    untouched,
    rows=list(asked),
    heads=PLACES,
    columns=4,
    alt="Mugs in four places by the untouched model, asked for without the rare word and with it: no heart on any",
)

# %% prior text [markdown]
# ## Learning one, keeping the rest
#
# Training on the five pictures $x$ with their caption $c$ means to make this small, over noise $\epsilon$ and time $t$:
#
# $$L_\text{subject} = \mathbb{E}_{x, \epsilon, t}\; \lVert \epsilon - \epsilon_\theta(x_t, t, c) \rVert^2 .$$
#
# Nothing in it asks the model to stay as it was. Two things go wrong. The class drifts: soon *every* mug has a heart,
# with or without "sks" (**language drift**). And the five pictures are learned by heart, with places and poses.
#
# DreamBooth's answer is simple. Before training, let the model draw pictures $x^\text{pr}$ of the class, with the
# caption $c^\text{pr}$ = "a photo of a mug", and train on those *too*:
#
# $$L = \underbrace{\mathbb{E}\, \lVert \epsilon - \epsilon_\theta(x_t, t, c) \rVert^2}_{\text{the subject}}
# \;+\; \lambda\, \underbrace{\mathbb{E}\, \lVert \epsilon' - \epsilon_\theta(x^\text{pr}_{t'}, t', c^\text{pr})
# \rVert^2}_{\text{its class, prior preservation}} \qquad \text{(Ruiz et al. 2023, equation 2)}$$
#
# **Why does that preserve anything?** For fixed data the smallest squared error is reached by the conditional mean,
# $\mathbb{E}[\epsilon' \mid x^\text{pr}_{t'}, c^\text{pr}]$. The data are the old model's own pictures. As far as its
# sampler is exact, that mean is what the old model answers already. So the second term is smallest *at the old model*:
# it pulls back whatever the first term drags along, but only where it looks, at this one caption. It says nothing of
# teapots, and nothing of "a mug in the snow". Whether that is enough we measure below, as *forgetting*.
#
# **Write the loss** for one batch. The first `n_subject` rows are the subject, the others the class. The two parts may
# have different sizes.


# %% prior exercise exercise="prior_preservation_loss" difficulty=2 minutes=10
def prior_preservation_loss(
    predicted: torch.Tensor, noise: torch.Tensor, n_subject: int, prior_weight: float
) -> torch.Tensor:
    """The loss of equation 2 for one batch: predicted and noise have the shape (n, channels, height, width)."""
    # <solution>
    squares = (predicted - noise).square()
    return squares[:n_subject].mean() + prior_weight * squares[n_subject:].mean()
    # </solution>


check.prior_preservation_loss(prior_preservation_loss)

# %% prior hint [markdown] hint="prior_preservation_loss"
# A tensor of squares, cut at row `n_subject`. Each part has a `.mean()` of its own. Which of the two gets the weight?

# %% library text [markdown]
# The library's `DenoisingTask` makes the same loss from weights, one for each row of the batch: $1/n$ for each picture
# of the subject, $\lambda/n$ for each of the class. The next cell prepares the data once for all methods, and compares.
# (It compares with $\lambda = 0.5$, so that a forgotten weight shows. All trainings below have $\lambda = 1$.) Pictures
# go through the VAE and captions through the text encoder only once. That costs memory and saves a third of the time
# of each step.

# %% library
import copy
import math

from tutorial_lib import baselines, custom_diffusion, oft, profiles, training

data = training.encode(pipe, photos[SLUG], [f"a photo of a {TOKEN} {WORD}"] * 5)
class_pictures, class_captions = custom_diffusion.generated(pipe, WORD, 12, num_inference_steps=10, progress=False)
prior = training.encode(pipe, class_pictures, class_captions)


def own_copy():
    """A pipeline with a UNet of its own, so that `pipe` stays what it is."""
    new = copy.copy(pipe)
    new.unet = copy.deepcopy(pipe.unet)
    return new


task = training.DenoisingTask(own_copy(), data, [], prior=prior, prior_weight=0.5)
batch = task.batch([training.sample_at(lesson.seed, len(task), k) for k in range(3)])
with torch.no_grad():
    noisy = task.scheduler.add_noise(batch["latents"], batch["noise"], batch["timesteps"])
    predicted = task.predict(noisy, task.context(batch["captions"]), batch)
    squares = (predicted - batch["noise"]).square()
    by_hand, by_library = squares[:3].mean() + 0.5 * squares[3:].mean(), task.loss(batch)
print("captions of a batch:", *dict.fromkeys(batch["captions"]), sep="\n  ")
print(f"equation 2 by hand {by_hand:.6f}, by the library {by_library:.6f}")
assert torch.isclose(by_hand, by_library, rtol=1e-4)
plots.grid(
    class_pictures,
    columns=6,
    size=64,
    alt="Twelve mugs of many colours in many places, drawn by the model before it learned anything: the prior",
)

# %% methods text [markdown]
# ## Five ways to change the weights
#
# The loss says *what* to learn. It leaves open *how the weights may move*. Here is one layer, $W$, with a neuron in
# each row, under the five methods of this page:
#
# | method | the layer becomes | what is trained |
# |---|---|---|
# | **full** fine-tuning (DreamBooth) | $W + \Delta W$ | all weights of the UNet |
# | **LoRA** | $W + BA$ | $A$ and $B$ of rank 8, in many layers |
# | **OFT** | $W R^\top$ | blocks of a rotation $R$, in the same layers |
# | **COFT** | $W R^\top$ | the same, but each block turns only a little: $\lVert Q \rVert_F \le \varepsilon \sqrt b$ |
# | **re-scaled OFT** | $\operatorname{diag}(s)\, W R^\top$ | first $R$, then one factor $s_i$ for each neuron |
#
# OFT turns all neurons of a layer together, so the angles between them stay, and with them the hyperspherical energy of
# lesson 01. The paper's hope is: what the model knows lies in those angles, so a rotation can teach it something new
# and lose less of the old.
#
# **The layers.** On Stable Diffusion OFT and LoRA adapt the attention layers. Pocket-SD has attention at 8 × 8 and
# 4 × 4 places only, too coarse for a heart or for dots. So here both also adapt the projections around attention and
# the convolutions: nearly every layer of the UNet.
#
# **Equal terms?** Ask how many numbers each one trains. Let a layer have the shape (neurons, inputs), or
# (neurons, channels, height, width) for a convolution, whose inputs are channels × height × width.
#
# **Write `trained_numbers`.** For a list of such shapes return two numbers: LoRA's at this rank, and OFT's with blocks
# of this size. Remember lesson 04: $Q$ is skew-symmetric, and only what lies above its diagonal is free.


# %% count exercise exercise="trained_numbers" difficulty=3 minutes=10
def trained_numbers(shapes: list[tuple[int, ...]], rank: int, block_size: int) -> tuple[int, int]:
    """How many numbers LoRA and OFT train in layers of these shapes."""
    # <solution>
    lora = oft_numbers = 0
    for shape in shapes:
        neurons, inputs = shape[0], math.prod(shape[1:])
        lora += rank * (inputs + neurons)  # A: (rank, inputs), B: (neurons, rank)
        oft_numbers += inputs // block_size * (block_size * (block_size - 1) // 2)
    return lora, oft_numbers
    # </solution>


check.trained_numbers(trained_numbers)

# %% count hint [markdown] hint="trained_numbers"
# $A$ has the shape (rank, inputs), $B$ the shape (neurons, rank). $R$ turns the *inputs*: there are inputs /
# block_size blocks. How many numbers lie above the diagonal of a $b \times b$ square? `math.prod` multiplies a list.

# %% live setup
TARGETS = list(profiles.POCKET.layers)
RANK, BLOCK = 8, 32


def begin(method: str, pipe, **options):
    """The task that trains this pipeline by one of the methods."""
    if method == "full":
        return baselines.dreambooth(pipe, data, prior=prior, **options)
    if method == "LoRA":
        return baselines.lora(pipe, data, RANK, targets=TARGETS, prior=prior, **options)
    oft.attach(pipe.unet, TARGETS, BLOCK)
    return training.DenoisingTask(pipe, data, oft.parameters(pipe.unet), prior=prior, **options)


live = {method: own_copy() for method in ("full", "LoRA", "OFT")}
tasks = {method: begin(method, own) for method, own in live.items()}
numbers = {method: sum(p.numel() for p in task.parameters().values()) for method, task in tasks.items()}
shapes = [layer.weight.shape for path, layer in pipe.unet.named_modules() if path.endswith(tuple(TARGETS))]
inputs = [math.prod(shape[1:]) for shape in shapes]
assert numbers["LoRA"] == sum(RANK * (n + shape[0]) for n, shape in zip(inputs, shapes, strict=True))
assert numbers["OFT"] == sum(n * (BLOCK - 1) // 2 for n in inputs)
for method, count in numbers.items():
    print(f"{method:5} trains {count:10,} numbers, {count / numbers['full']:.1%} of the UNet")

# %% live prediction [markdown]
# ## One subject, three methods, live
#
# Now we train the mug three times: the same five pictures, the same noise, the same order, the same number of steps.
# Only the method differs, and its learning rate, which is the best of a small search (you will see it below).
#
# Make your guess first. The answer comes from the long experiment further down, with six subjects and three seeds.

# %% prediction
from tutorial_lib.lab import subject_runs, widgets

RESULTS = lesson.root / "results" / "subject_driven.csv"
runs = subject_runs.read(RESULTS)
main_runs = subject_runs.complete(runs)
rates = subject_runs.chosen_rates(runs)
subjects, seeds = (sorted({run[name] for run in main_runs}) for name in ("subject", "seed"))
print(f"{RESULTS.name}: {len(runs)} runs; subjects {', '.join(subjects)}; seeds {', '.join(f'{s:g}' for s in seeds)}")

GUESSES = ["full fine-tuning", "LoRA", "OFT", "no clear winner"]
winner_prediction = widgets.predict("After equally many steps, whose pictures are most like the subject?", GUESSES)
winner_prediction

# %% live training text [markdown]
# While it trains we watch the target layers. Two figures: how far the weights have **moved**,
# $\lVert W_\text{eff} - W \rVert / \lVert W \rVert$, the mean over the layers; and the largest relative change of a
# layer's **energy**. And we draw, always with the same noise: three prompts of the subject, one of another thing.
#
# At such learning rates single steps throw the weights about. So what we look at, and keep, is a **running mean** of
# them over the last twenty steps or so (`ema`). It costs nothing, and it helps all methods alike.

# %% live training
import numpy as np

from tutorial_lib import sphere

STEPS, LOOKS = 100, (20, 60, 100)
PROMPTS = [f"a photo of a {TOKEN} {WORD} {place}" for place in ("at night", "in the snow")]
PROMPTS += [f"a watercolor of a {TOKEN} {WORD} on a table", "a photo of a green teapot in a city"]


@torch.no_grad()
def target_weights(unet):
    """What each target layer multiplies with, the adapter included, in float64: {path: weight}."""
    if hasattr(unet, "_oft"):
        return {path: weight.double() for path, weight in oft.effective_weights(unet).items()}
    found = {}
    for path, layer in unet.named_modules():
        if path.endswith(tuple(TARGETS)):
            adapted = hasattr(layer, "base_layer")
            weight = layer.base_layer.weight + layer.get_delta_weight("lora") if adapted else layer.weight
            found[path] = weight.double()
    return found


before = target_weights(pipe.unet)
energy_before = {path: sphere.hyperspherical_energy(weight) for path, weight in before.items()}


def change(unet) -> dict[str, float]:
    """How far the weights moved, and how much their energy changed."""
    now = target_weights(unet)
    moved = [((now[path] - weight).norm() / weight.norm()).item() for path, weight in before.items()]
    energy = [abs(sphere.hyperspherical_energy(now[path]) / e - 1).item() for path, e in energy_before.items()]
    return {"moved": np.mean(moved).item(), "energy change": max(energy)}


def drawn(pipe):
    return generate(pipe, PROMPTS, seed=3, num_inference_steps=10, progress=False)


frames = {(method, 0): first for first in [drawn(pipe)] for method in live}
histories = {}
for method, task in tasks.items():

    def look(step, history, method=method):
        if step in LOOKS:
            frames[method, step] = drawn(live[method])

    task.watched = lambda method=method: change(live[method].unet)
    histories[method] = training.fit(
        task, STEPS, rates[method], 3, seed=lesson.seed, ema=0.95, every=10, callback=look, progress=False
    )
    seconds = np.median(histories[method].seconds)
    print(f"{method:5} {seconds:.2f} s a step, loss {np.mean(histories[method].loss[-15:]):.3f} at the end")

# %% live browser text [markdown]
# Move the slider through the training. Look at three things: when the heart appears, whether the place stays as asked,
# and what becomes of the teapot in the last column.

# %% live browser
MOMENTS = [0, *LOOKS]


def sheet(moments, size):
    """The pictures of every method at these steps."""
    rows = [(method, moment) for method in live for moment in moments]
    return plots.grid(
        [picture for row in rows for picture in frames[row]],
        rows=[f"{method}, step {moment}" for method, moment in rows],
        columns=4,
        size=size,
        alt=f"Each method after {', '.join(map(str, moments))} steps: the mug at night, in the snow, as a "
        "watercolor, and a green teapot, which was never trained on",
    )


strips = [sheet([moment], 128) for moment in MOMENTS]
widgets.browse(strips, "steps", [str(m) for m in MOMENTS], still=sheet(MOMENTS, 64), start=len(MOMENTS) - 1)

# %% live weights
from tutorial_lib.lab import subject_plots

last = {method: history.watched["energy change"][-1] for method, history in histories.items()}
assert last["OFT"] < 1e-5 and 10 * last["OFT"] < min(last["full"], last["LoRA"])
assert all(history.watched["moved"][-1] > 0.001 for history in histories.values())
print(", ".join(f"{method}: energy changed by {value:.1e}" for method, value in last.items()))
subject_plots.weights_while_training(
    {m: (h.watched_at, h.watched["moved"], h.watched["energy change"]) for m, h in histories.items()}
)

# %% live weights text [markdown]
# Left: all three move the weights. Right, on a logarithmic scale: LoRA and full fine-tuning change the energy, and
# OFT's line lies at what rounding in float32 leaves. The energy is a fact of geometry, so it holds at every step and
# for every subject. Whether it *helps* is another question. For that we need numbers of the pictures.
#
# ## Measuring likeness
#
# DreamBooth and OFT compare pictures by the embeddings of two networks. With DINO, which was trained to tell pictures
# apart, two mugs are far from one another. With CLIP, trained on captions, they are near, as both are "a mug". Here the
# judge's embedding stands for DINO, and the pocket CLIP for CLIP:
#
# - **likeness**: the mean cosine between made and real pictures in the judge's embedding (the paper: DINO);
# - **CLIP-I**: the same in CLIP's embedding;
# - **CLIP-T**: the cosine between a picture and its prompt without "sks";
# - **variety**: how much two pictures of one prompt differ, in the judge's inner features (the paper: LPIPS);
# - **context**: the share of style, place and kind of thing that are as the subject's prompt asks;
# - **other things**, **class**: the share of all that prompts *without* the subject ask, for other things, and for the
#   class in other colours. What is lost there is **forgotten**.
#
# A cosine needs something to compare it with. No method can do better than *another real picture* of the subject. To
# see how alike two real pictures are, compare each with the **others**: leave itself out, for with itself it has 1.
#
# **Write `leave_one_out`**: from embeddings (n, width), rows of any length, the mean cosine over all pairs of two
# different rows.


# %% leave one out exercise exercise="leave_one_out" difficulty=2 minutes=10
def leave_one_out(embeddings: torch.Tensor) -> torch.Tensor:
    """The mean cosine of each row with the other rows."""
    # <solution>
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T  # (n, n), ones on the diagonal
    n = len(unit)
    return (cosines.sum() - cosines.trace()) / (n * (n - 1))
    # </solution>


check.leave_one_out(leave_one_out)

# %% leave one out hint [markdown] hint="leave_one_out"
# Divide each row by its length; then `unit @ unit.T` has all cosines. On its diagonal stands each row with itself. How
# many entries are left without it?

# %% real baseline
from tutorial_lib import metrics


def alike(images) -> float:
    """The mean cosine of two different pictures, in the judge's embedding."""
    return 1 - metrics.diversity(images, reader)


real = np.mean([alike(photos[slug]) for slug in subjects])
print(f"{'subject':18} two real pictures   the model before   another subject")
for slug in subjects:
    start = subject_runs.by_subject(main_runs, subject_runs.BASE, "subject_similarity")[slug]
    others = [metrics.subject_similarity(photos[other], photos[slug], reader) for other in subjects if other != slug]
    print(f"{slug:18} {alike(photos[slug]):12.2f} {start:18.2f} {np.mean(others):17.2f}")
assert real > 0.7

# %% experiment text [markdown]
# ## The experiment
#
# One subject proves nothing. `python benchmarks/subject_driven.py` trains each subject with each seed by all five
# methods, on the same data, batches, noise and number of steps, and judges them by the same prompts. It takes
# an hour or more on one core, and writes one row a run to `results/subject_driven.csv`. Everything below is computed
# from those rows.
#
# **Learning rates.** A method with a bad learning rate looks like a bad method. So each had three tries, on the heart
# mug with a seed that is used nowhere else. The score is likeness × context × other things: alike, where prompts are
# still obeyed. For re-scaled OFT the rate is that of the factors $s_i$; its rotations learn as OFT's do. Look at how
# wide each method's range of good rates is, and whether the best of three lies at an edge: then an even better one may
# lie beyond, and the comparison is that much less fair.

# %% search
print("the rates that were chosen: " + ", ".join(f"{method} {rate:g}" for method, rate in rates.items()))
for method in subject_runs.METHODS:
    tried = {
        run["rate"]: subject_plots.score(run) for run in runs if (run["part"], run["method"]) == ("search", method)
    }
    best = max(tried, key=tried.get)
    assert best == rates[method], "the long experiment used the rate that the search found best"
    edge = "" if min(tried) < best < max(tried) else "  (at the edge of what was tried)"
    print(f"{method:14}" + "  ".join(f"{rate:g}: {value:.3f}" for rate, value in sorted(tried.items())) + edge)
subject_plots.search(runs)

# %% table text [markdown]
# ## The table
#
# Means over subjects, ± the standard error over subjects. "Before" is the model as it was. The paper's own numbers, on
# Stable Diffusion 1.5 with 30 subjects and 25 prompts each (its caption has the two numbers exchanged), were:
#
# | | DINO | CLIP-I | CLIP-T | LPIPS |
# |---|---|---|---|---|
# | real pictures | .703 | .864 | | .695 |
# | DreamBooth | .614 | .778 | .239 | .737 |
# | LoRA | .613 | .765 | .237 | .744 |
# | COFT | .630 | .783 | .235 | .744 |
# | OFT | .632 | .785 | .237 | .746 |
#
# Note how small these differences are: 0.02 in DINO. The paper gives no spread.

# %% table
COLUMNS = {
    **{"subject_similarity": "likeness", "clip_image": "CLIP-I", "clip_text": "CLIP-T", "diversity": "variety"},
    **{"context": "context", "others": "other things", "class_fidelity": "class", "class_likeness": "class like it"},
}
print(" " * 15 + "".join(f"{head:>17}" for head in COLUMNS.values()))
for method in (subject_runs.BASE, *subject_runs.METHODS):
    cells = [subject_runs.average(main_runs, method, name) for name in COLUMNS]
    print(f"{method:15}" + "".join(f"{str(cell):>17}" for cell in cells))
print(
    f"\n{'':15}{'numbers trained':>17}{'seconds a step':>17}{'energy change':>17}{'largest |RR^T-I|':>18}{'moved':>9}"
)
for method in subject_runs.METHODS:
    own = [run for run in main_runs if run["method"] == method]
    seconds, moved = (np.median([run[name] for run in own]) for name in ("seconds", "moved"))
    energy, error = (max(run[name] for run in own) for name in ("energy_change", "orthogonality"))
    print(f"{method:15}{own[0]['parameters']:17,.0f}{seconds:17.2f}{energy:17.1e}{error:18.1e}{moved:9.3f}")

# %% quality claim text [markdown]
# "Class like it" is how alike the class *without* the word has become to the subject: language drift, which prior
# preservation is to prevent. Compare it with the row "before".
#
# Is one method better than another? Subjects differ far more from one another than methods do. So we compare **in
# pairs**: on each subject the mean over seeds of OFT less that of the other method, and then mean and standard error
# over the subjects. A difference counts if it is larger than two standard errors; behind its ± stand these two.

# %% quality claim
from IPython.display import display

from tutorial_lib.lab.claims import claim

RIVALS = ("full", "LoRA")
LABELS = {"full": "full fine-tuning", "LoRA": "LoRA", "OFT": "OFT"}


def against_rivals(figure, better=subject_runs.difference):
    """How much higher OFT's figure is than each rival's, with words for it."""
    found = {rival: better(main_runs, "OFT", rival, figure) for rival in RIVALS}
    told = [f"OFT less {LABELS[rival]}: {less.mean:+.3f} ± {2 * less.error:.3f}" for rival, less in found.items()]
    return list(found.values()), "; ".join(told)


likeness, likeness_words = against_rivals("subject_similarity")
averages = {m: subject_runs.average(main_runs, m, "subject_similarity").mean for m in LABELS}
leader = max(averages, key=averages.get)
leads = [subject_runs.difference(main_runs, leader, m, "subject_similarity") for m in LABELS if m != leader]
winner = LABELS[leader] if subject_runs.verdict(leads) == "reproduced" else GUESSES[-1]
display(winner_prediction.outcome(winner, f"likeness: {likeness_words}"))
claim(
    "oft-subject-quality",
    "OFT learns a subject better than full fine-tuning and LoRA.",
    paper="Qiu et al. 2023, OFT, section 5.1",
    measured=f"likeness in {len(main_runs)} runs, paired by subject: {likeness_words}",
    verdict=subject_runs.verdict(likeness),
    seeds=[int(seed) for seed in seeds],
    results="results/subject_driven.csv",
)

# %% energy claim
energies = {m: [run["energy_change"] for run in main_runs if run["method"] == m] for m in subject_runs.METHODS}
turned = max(max(energies[m]) for m in ("OFT", "COFT", "re-scaled OFT"))
added = min(min(energies[m]) for m in RIVALS)
assert turned < 1e-5
claim(
    "oft-keeps-energy",
    "OFT keeps the hyperspherical energy of the layers that it fine-tunes; full fine-tuning and LoRA do not.",
    paper="Qiu et al. 2023, OFT, section 3",
    measured=f"largest relative change of a layer: at most {turned:.0e} in any run of OFT, COFT or re-scaled OFT, "
    f"at least {added:.0e} in every run of the others",
    verdict="reproduced" if added > 10 * turned else "not visible at this scale",
    seeds=[int(seed) for seed in seeds],
    results="results/subject_driven.csv",
)

# %% curves text [markdown]
# ## Who learns fastest?
#
# The paper says that OFT converges faster and more stably. Below are the means over all runs, after the start and at
# each look. The bands are one standard error over subjects wide. Look at two things in the left panel: who rises
# first, and whether a line turns down again before the end. In the other panels a falling line means forgetting.
#
# *Fast* we measure as the likeness that is won early: the mean over the looks on the way, before the last, less that of
# the start. *Stable* can mean two things. One is luck: how much the end depends on the seed. The other is what happens
# when training goes on for too long.

# %% curves
subject_plots.curves(main_runs, real)

# %% speed claim
early, early_words = against_rivals(subject_runs.early)
claim(
    "oft-converges-faster",
    "OFT converges faster than full fine-tuning and LoRA.",
    paper="Qiu et al. 2023, OFT, section 5.1",
    measured=f"likeness won on the way, paired by subject: {early_words}",
    verdict=subject_runs.verdict(early),
    seeds=[int(seed) for seed in seeds],
    results="results/subject_driven.csv",
)

# %% seeds claim
luck = {m: subject_runs.spread_over_seeds(main_runs, m, "subject_similarity") for m in LABELS}
steadier = [subject_runs.paired(luck[rival], luck["OFT"]) for rival in RIVALS]
claim(
    "oft-depends-less-on-seeds",
    "OFT's outcome depends less on the seed than that of full fine-tuning and of LoRA.",
    paper="Qiu et al. 2023, OFT, section 5.1",
    measured="standard deviation of likeness over seeds, mean over subjects: "
    + ", ".join(f"{LABELS[m]} {np.mean(list(values.values())):.3f}" for m, values in luck.items()),
    verdict=subject_runs.verdict(steadier),
    seeds=[int(seed) for seed in seeds],
    results="results/subject_driven.csv",
)

# %% long text [markdown]
# ## Too long
#
# Practice has no judge, and nobody knows the right moment to stop. So it matters what a method does **after** that
# moment. In the paper's figures DreamBooth and LoRA fall apart with many steps, and OFT stays. Here are runs on one
# subject, the heart mug, that went on three times as long. It is one subject with one seed: look at the shape, and do
# not trust small differences.

# %% long claim
long_runs = {run["method"]: run for run in runs if run["part"] == "long"}
steps = {f"{run['looks'][-1]:g}" for run in long_runs.values()}


def lost(run):
    """How far the run's last look is below its best, in likeness times other things."""
    worth = run["similarity_at"] * run["others_at"]
    return worth.max() - worth[-1]


display(subject_plots.long_runs(runs))
losses = {m: lost(run) for m, run in long_runs.items()}
margins = [losses[rival] - losses["OFT"] for rival in RIVALS]
stays = "reproduced" if min(margins) > 0.05 else "contradicted" if min(margins) < -0.05 else "not visible at this scale"
claim(
    "oft-survives-over-training",
    "OFT does not collapse when training goes on for too long; full fine-tuning and LoRA do.",
    paper="Qiu et al. 2023, OFT, section 5.1",
    measured=f"likeness x other things, best look less the last (step {', '.join(steps)}), one subject: "
    + ", ".join(f"{m} {value:.2f}" for m, value in losses.items()),
    verdict=stays,
    seeds=[0],
    results="results/subject_driven.csv",
)

# %% frontier text [markdown]
# ## What is won, what is lost
#
# Any method can be made more like the subject by training on, at the price of the rest. So a single number is not
# enough. Put each run into a plane: to the right, likeness; upwards, what is **kept** of the prompts without the
# subject. A run is *beaten* if another one is at least as good in both and better in one. The runs that nobody beats
# are the **frontier**: between them you must choose, and all others you can forget.
#
# **Write `frontier`**: for two lists, larger is better in both, return the numbers of the runs that nobody beats. Equal
# runs do not beat each other.


# %% frontier exercise exercise="frontier" difficulty=3 minutes=15
def frontier(likeness: list[float], kept: list[float]) -> list[int]:
    """The indices of the runs that no other run beats."""
    # <solution>
    runs = list(zip(likeness, kept, strict=True))

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] >= b[0] and a[1] >= b[1] and a != b

    return [k for k, run in enumerate(runs) if not any(beats(other, run) for other in runs)]
    # </solution>


check.frontier(frontier)

# %% frontier hint [markdown] hint="frontier"
# First write `beats(a, b)` for two pairs: nowhere worse and not equal. Then keep each run for which `any(...)` over all
# runs is false.

# %% frontier
means = {
    m: [subject_runs.average(main_runs, m, figure).mean for figure in ("subject_similarity", subject_runs.kept)]
    for m in (subject_runs.BASE, *subject_runs.METHODS)
}
unbeaten = [
    m for m, (x, y) in means.items() if not any(a >= x and b >= y and [a, b] != [x, y] for a, b in means.values())
]
print("On the frontier of the means:", ", ".join(unbeaten))
display(subject_plots.frontier(main_runs, real))
fidelity, fidelity_words = against_rivals(subject_runs.kept)
claim(
    "oft-forgets-less",
    "OFT keeps more of what the model knew than full fine-tuning and LoRA.",
    paper="Qiu et al. 2023, OFT, section 1",
    measured=f"prompts without the subject, paired by subject: {fidelity_words}",
    verdict=subject_runs.verdict(fidelity),
    seeds=[int(seed) for seed in seeds],
    results="results/subject_driven.csv",
)

# %% directions text [markdown]
# ## What a change touches
#
# Keeping all angles sounds careful. But what does a rotation do to prompts that have nothing to do with the subject?
# Here is one more way to look at the three models that we trained live. Take a layer's change, $\Delta W =
# W_\text{eff} - W$, as a matrix with a row for each neuron. Its singular values say in how many **directions** the
# change acts. A change in a few directions leaves alone whatever comes in along the others. The cell prints two
# numbers, both means over the layers: how far the weights moved, and the share of $\lVert \Delta W \rVert^2$ that the
# eight largest directions hold. For LoRA the share is 1: it has rank 8.


# %% directions
def share_of_largest(change: torch.Tensor, count: int = 8) -> float:
    """The part of the squared length of a matrix that its largest singular values hold."""
    squares = torch.linalg.svdvals(change.flatten(1)).square()  # (neurons, inputs), a convolution's row as one
    return (squares[:count].sum() / squares.sum()).item()


shares = {}
for method, own in live.items():
    now = target_weights(own.unet)
    shares[method] = np.mean([share_of_largest(now[path] - weight) for path, weight in before.items()])
    print(f"{method:5} moved {change(own.unet)['moved']:.3f}, in its eight largest directions {shares[method]:.0%}")
assert shares["LoRA"] > 0.999 and shares["OFT"] < 0.8

# %% reading text [markdown]
# A rotation *could* turn a single plane. But nothing in the training asks it to: every number of every block gets a
# gradient, so each block turns most of its inputs a little, and every prompt goes through them. LoRA moves the weights
# about as far, in eight directions. This fits what the column "other things" says above. How far matters as well: COFT
# turns all blocks too, but moves the weights a quarter as far, and hardly forgets. All this is an explanation that
# fits, not a proof: Stable Diffusion's layers are five times as wide, so there is more room to turn in, and the paper's
# layers were the attention alone.
#
# ## How to read these verdicts
#
# - **Keeping the energy is a theorem.** It would hold for a rotation that spoils every picture. The claims about
#   pictures are measurements, and they may come out otherwise on another model.
# - **"Not visible" is not "false".** With few subjects only differences of more than two standard errors can be seen.
#   Compare these errors with the paper's own differences, about 0.02 in DINO.
# - **Every number depends on choices**: the layers, the rank and the block size, three learning rates, when to stop. A
#   method with one more good try at its learning rate often wins. That is why the search is shown.
# - **Size.** Full fine-tuning needs a whole copy of the UNet for each subject. LoRA and OFT keep a file of a few
#   percent of that.
#
# ## What is different on Stable Diffusion
#
# | | here | Stable Diffusion 1.5, as in the paper |
# |---|---|---|
# | layers | nearly all | attention only: 128 linear layers |
# | OFT | blocks of 32 | 4 blocks a layer ($r = 4$), 11.6 million numbers |
# | learning rate, steps | chosen above | 6e-5, batch 1, about 1000 steps |
# | prior | 24 pictures (live: 12), $\lambda = 1$ | 200 pictures, $\lambda = 1$ |
# | likeness | the judge | DINO; no ground truth |
# | a step takes | as in the table above, on a processor core | a part of a second, on a GPU |
#
# More blocks are *fewer* numbers in OFT, the opposite of LoRA's rank. The paper's OFT has several times as many numbers
# as a LoRA of usual rank, so there the two were not on equal terms.
#
# ## When the subject is a person
#
# One of our subjects is a person, drawn by a program. With photographs the same few lines make pictures of a real
# person in places where they never were. Do it only with that person's **consent**, freely given, for that purpose,
# and delete the model when they change their mind. Do not do it with children. In many countries it is also the law.

# %% glossary [markdown]
# ## Glossary
#
# - **Subject**: one particular thing, animal or person. **Class**: the word for its kind.
# - **Rare token**: a word that is one token and has no meaning yet.
# - **Language drift**: the class itself turns into the subject.
# - **Prior preservation**: training also on the model's own pictures of the class.
# - **Likeness** (subject fidelity), **context** (prompt fidelity), **variety** (diversity): see "Measuring likeness".
# - **Forgetting**: what prompts without the subject lose.
# - **Over-training**: training past the best moment. **Collapse**: pictures that no longer follow any prompt.
# - **Frontier** (Pareto frontier): the runs that no other run beats in both of two aims.
# - **Paired comparison**: differences within each subject, so that differences between subjects drop out.
#
# ## Further reading
#
# - Ruiz, Li, Jampani, Pritch, Rubinstein, Aberman: *DreamBooth: Fine Tuning Text-to-Image Diffusion Models for
#   Subject-Driven Generation*, CVPR 2023, [arXiv:2208.12242](https://arxiv.org/abs/2208.12242).
# - Qiu, Liu, Feng, Xue, Feng, Liu, Zhang, Weller, Schölkopf: *Controlling Text-to-Image Diffusion by Orthogonal
#   Finetuning*, NeurIPS 2023, [arXiv:2306.07280](https://arxiv.org/abs/2306.07280).
# - Hu and others: *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022,
#   [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - Gal and others: *An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion*, ICLR
#   2023, [arXiv:2208.01618](https://arxiv.org/abs/2208.01618). The method that leaves the UNet alone; see lesson 06.
