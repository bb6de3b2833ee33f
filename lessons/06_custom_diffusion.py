# %% title [markdown] prerequisites="PyTorch; seed and guidance (lesson 00); ε-loss and attention (lesson 02)"
# # 06 · Custom Diffusion
#
# You have five photos of somebody, and a model that draws "a person". You want a word, `<new1>`, so that "a photo of a
# `<new1>` person at night" is *that* person, in a place where no photo was taken. Kumari et al. (2023) do it with very
# little: of the whole UNet they train two matrices in each cross-attention, and of the text encoder one row.
#
# After this lesson you can
#
# - measure which layers change when everything is trained, and say what such a measurement is worth;
# - say why the text enters through keys and values only, and count what is trained;
# - give a model a new word without touching the old ones;
# - see a model overfit and forget, and keep it from that with pictures of the class;
# - compare Custom Diffusion with DreamBooth, LoRA and textual inversion, by numbers with their spread;
# - teach a style instead of a thing.
#
# Everything here is measured, so it all runs on the pocket model. What changes on Stable Diffusion is at the end.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("06")

# %% photos text [markdown]
# ## Part 1. Five photos
#
# The folder `data/subjects/freckled-person` looks as a folder of yours would: five pictures, and a caption beside each.
# The person has short red hair, glasses, freckles and a striped shirt. The model has seen red hair and glasses on many
# people. It has never seen freckles or stripes, and never this person.
#
# Below: the photos, and what the model draws for their captions as it is.

# %% photos
from tutorial_lib import metrics, models, pictures, sampling
from tutorial_lib.lab import plots
from tutorial_lib.pocket import judge, world

WORD = "person"
pipe = models.load("pocket")
reader = judge.load()
photos, report = pictures.load_folder(lesson.root / "data" / "subjects" / "freckled-person", size=64)


def draw(pipe, prompts, seed: int = 100):
    """One picture a prompt; the picture's number and the seed decide its noise."""
    return sampling.generate(pipe, prompts, seed, num_inference_steps=10, progress=False)


unknown = draw(pipe, report.captions)
among, strangers = (metrics.subject_similarity(images, photos, reader) for images in (photos, unknown))
assert among > 0.8 and strangers < 0.4
print(f"likeness of the photos among themselves {among:.2f}, of the other people {strangers:.2f}")
plots.grid(
    photos + unknown,
    labels=report.captions * 2,
    rows=["the photos", "the model, before"],
    columns=5,
    size=128,
    alt="Five photos of one person with red hair and glasses in five places; below, five other people",
)

# %% likeness text [markdown]
# How near is a picture to the subject? DINO's features play this part in the papers. Here the *judge* has an embedding
# that was trained to tell particular things apart. **Likeness** is the mean cosine between the pictures and the photos:
# the photos among themselves are near 1, strangers are near 0.
#
# ## Part 2. Train everything, and look what moves
#
# The obvious way is to train the whole UNet on the photos. (With a rare word and pictures of the class this is
# DreamBooth, Ruiz et al. 2023.) Kumari et al. did this first and asked: which layers does the training move? For a
# layer $l$ with the weights $\theta_l$ before and $\theta'_l$ after, they measure
#
# $$\Delta_l = \frac{\|\theta'_l - \theta_l\|}{\|\theta_l\|}$$
#
# **Write `relative_change`.** Both arguments hold tensors of any shape by name. A matrix's length is the root of the
# sum of its squares.

# %% change exercise exercise="relative_change" difficulty=1 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_06 as check


def relative_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, float]:
    """Each layer's change as a share of its length before."""
    # <solution>
    return {name: ((after[name] - w).norm() / w.norm()).item() for name, w in before.items()}
    # </solution>


check.relative_change(relative_change)

# %% change hint [markdown] hint="relative_change"
# `.norm()` of a tensor is the root of the sum of its squares, whatever its shape. One line: a dict comprehension over
# `before.items()`.

# %% change
import numpy as np
from IPython.display import display

from tutorial_lib import baselines, training
from tutorial_lib.lab import concept_plots
from tutorial_lib.lab.claims import claim

GROUPS = ("cross-attention: K and V", "cross-attention: the rest", "self-attention", "everything else")
SHORT, RATE = 15, 5e-5


def group(name: str) -> str:
    """The group of layers that a parameter belongs to."""
    if "attn2" in name:
        return GROUPS[0] if "to_k" in name or "to_v" in name else GROUPS[1]
    return GROUPS[2] if "attn1" in name else GROUPS[3]


def by_group(numbers: dict[str, float]) -> dict[str, list[float]]:
    """The numbers of all weights (not biases), sorted into groups."""
    return {g: [value for name, value in numbers.items() if group(name) == g] for g in GROUPS}


def trained_whole(seed: int):
    """The change of each weight, how far one of its numbers moved, and the gradient per number at the start."""
    full = models.load("pocket")
    weights = {name: p for name, p in full.unet.named_parameters() if p.ndim > 1}
    before = {name: p.detach().clone() for name, p in weights.items()}
    data = training.encode(full, photos, [c.replace(WORD, f"sks {WORD}") for c in report.captions])
    task = baselines.dreambooth(full, data)
    task.loss(task.batch([training.sample_at(seed, len(task), k) for k in range(16)])).backward()
    slope = {name: p.grad.square().mean().sqrt().item() for name, p in weights.items()}
    training.fit(task, SHORT, RATE, batch_size=4, seed=seed, every=SHORT, progress=False)
    moved = {name: p.detach() - before[name] for name, p in weights.items()}
    change = {name: (d.norm() / before[name].norm()).item() for name, d in moved.items()}
    return change, {name: d.square().mean().sqrt().item() for name, d in moved.items()}, slope


runs = [trained_whole(seed) for seed in (0, 1)]
change, distance, slope = ({name: np.mean([run[k][name] for run in runs]) for name in runs[0][k]} for k in range(3))
panels = {
    "relative change Δ": by_group(change),
    "distance that one weight moved": by_group(distance),
    "gradient per weight, at the start": by_group(slope),
}
alt = "Three panels with a dot a layer in four groups: relative change, distance of a weight, gradient"
display(concept_plots.groups(panels, alt, log=["gradient per weight, at the start"]))
moved = {g: np.median(values) for g, values in by_group(distance).items()}
assert max(moved.values()) < 2 * min(moved.values()), f"Adam should move all weights about equally far: {moved}"


def ahead(run) -> float:
    """The median change of the cross-attention's layers, over that of the most changed of the groups without text."""
    of_group = by_group(run[0])
    without_text = max(np.median(of_group[GROUPS[2]]), np.median(of_group[GROUPS[3]]))
    return np.median(of_group[GROUPS[0]] + of_group[GROUPS[1]]) / without_text


ratios = [ahead(run) for run in runs]
claim(
    "cross-attention-changes-most",
    "When all layers are fine-tuned on a subject, those of the cross-attention change most.",
    paper="Kumari et al. 2023, section 3.1",
    measured=f"after {SHORT} steps of AdamW, they changed {' and '.join(f'{x:.2f}' for x in ratios)} times as much as "
    "the most changed of self-attention and everything else (a tenth more or less does not count)",
    verdict="contradicted" if max(ratios) < 0.9 else "reproduced" if min(ratios) > 1.1 else "not visible at this scale",
    seeds=(0, 1),
)

# %% change meaning [markdown]
# A dot is a layer, a bar its group's median. Before you believe such a plot, look at the middle panel. The optimiser is
# **Adam**. It divides each gradient by its own size, so at first every weight moves about as far as every other: about
# the learning rate, step by step. Then $\Delta_l$ is large where the weights were *small before*, whatever the task
# wants. The right panel shows the gradients themselves, whose sizes Adam hides. So a short training measures the
# optimiser as much as the task. (The paper trains longer, and a larger model; there the order may well be as it says.)
# The paper's argument has a second leg that does not depend on any of this, and it comes next.
#
# ## Part 3. Where the text comes in
#
# The UNet reads the prompt in one kind of layer only, the cross-attention. Picture features $f$ ask, text features $c$
# answer:
#
# $$Q = W^q f, \quad K = W^k c, \quad V = W^v c, \qquad
# \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d'}}\right) V$$
#
# $c$ appears twice. If the task is "connect these words with those pictures", then $W^k$ and $W^v$ are the two matrices
# that the words go through. So only these are trained, and everything else stays as it is.
#
# **Write `reads_the_text`.** In `diffusers` each transformer block has two attentions: `attn1` (the picture reads
# itself) and `attn2` (the picture reads the text), each with `to_q`, `to_k`, `to_v` and `to_out`. Given the names of
# all parameters, return those that Custom Diffusion trains.

# %% names exercise exercise="reads_the_text" difficulty=2 minutes=5
from tutorial_lib.lab.checks import lesson_06 as check


def reads_the_text(names: list[str]) -> list[str]:
    """Those of the names that are keys' and values' matrices of the cross-attention."""
    # <solution>
    return [name for name in names if "attn2.to_k" in name or "attn2.to_v" in name]
    # </solution>


check.reads_the_text(reads_the_text)

# %% names hint [markdown] hint="reads_the_text"
# A name looks like `down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight`. Two words must be in it, side
# by side, and two combinations of words are right.

# %% share
import torch
from diffusers import UNet2DConditionModel

from tutorial_lib import custom_diffusion

with torch.device("meta"):  # Stable Diffusion's UNet with shapes and without numbers: it needs no memory
    sd15 = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def count(unet) -> tuple[int, int, int]:
    """Matrices that are trained, their parameters, and those of the whole UNet."""
    layers = custom_diffusion.keys_and_values(unet).values()
    return len(layers), sum(layer.weight.numel() for layer in layers), sum(p.numel() for p in unet.parameters())


for name, unet in {"Pocket-SD": pipe.unet, "Stable Diffusion 1.5": sd15}.items():
    matrices, trained, whole = count(unet)
    print(f"{name:<21} {matrices:>3} matrices, {trained:>11,} of {whole:>12,} parameters: {trained / whole:.2%}")
assert count(sd15)[1:] == (19_169_280, 859_520_964)

# %% token text [markdown]
# ## Part 4. A new word
#
# The text encoder begins with a table: one row for each word that it knows. A new word V\* needs a new row. It starts
# as a copy of a **rare** word's row ("ktn" stands in no caption), and it is trained together with keys and values.
#
# The rest of the table must not move, or old words change their meaning. But the table is *one* parameter, and its
# gradient is one matrix. The usual way is to set the gradient to zero in all rows but those of the new words.
#
# **Write `only_new_rows`.** `gradient` has the shape (words, width), `new_ids` holds the numbers of the new words'
# rows. Return a gradient of the same shape, and leave the one that you were given alone.

# %% rows exercise exercise="only_new_rows" difficulty=2 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_06 as check


def only_new_rows(gradient: torch.Tensor, new_ids: list[int]) -> torch.Tensor:
    """The gradient in the rows of the new words, zero in all others: (words, width)."""
    # <solution>
    kept = torch.zeros_like(gradient)
    kept[new_ids] = gradient[new_ids]
    return kept
    # </solution>


check.only_new_rows(only_new_rows)

# %% rows hint [markdown] hint="only_new_rows"
# Start from `torch.zeros_like(gradient)`. A tensor can be indexed with a list of row numbers, on both sides of `=`.

# %% decay text [markdown]
# Is that enough? AdamW has a second force, **weight decay**: at each step it makes every weight a little shorter, also
# where the gradient is zero. The cell tries both ways on a small table: the zeroed gradient, and ours, in which the row
# is a parameter of its own that *shares its memory* with the table, so that the optimiser never gets the rest.


# %% decay
def other_rows_move(separate: bool) -> float:
    """How far the old rows of a table are from where they were, after 100 steps that train row 3."""
    table = torch.nn.Embedding.from_pretrained(torch.linspace(-1, 1, 20).reshape(5, 4), freeze=False)
    before = table.weight.detach().clone()
    row = torch.nn.Parameter(table.weight.data[3])  # shares the table's memory
    adam = torch.optim.AdamW([row] if separate else [table.weight], lr=1e-2, weight_decay=1e-2)
    for _ in range(100):
        target = row if separate else table.weight
        gradient = torch.ones_like(target)
        if not separate:
            gradient[[0, 1, 2, 4]] = 0
        target.grad = gradient
        adam.step()
    assert not torch.equal(table.weight[3], before[3])
    return (table.weight - before)[[0, 1, 2, 4]].abs().max().item()


moved_by_decay, moved_ours = other_rows_move(separate=False), other_rows_move(separate=True)
assert moved_by_decay > 1e-3 and moved_ours == 0
print(f"zeroed gradient: the other rows moved by up to {moved_by_decay:.4f}")
print(f"a parameter of its own: {moved_ours}")

learner = models.load("pocket")
custom_diffusion.add_concept(learner, "<new1>", init="ktn", class_word=WORD)
named = custom_diffusion.named_trainable(learner)
print(
    f"trained by the library: {len(named)} tensors, {sum(p.numel() for p in named.values()):,} numbers, the last of "
    f"them {list(named)[-1]}"
)

# %% first text [markdown]
# ## Part 5. The word that is in every prompt
#
# A prompt begins with a start token. The text encoder reads from left to right, so nothing of the prompt can have
# reached its features: they are the same in *every* prompt. How much of the attention goes there?

# %% first
from tutorial_lib import attention_maps

prompts = [f"a photo of a {WORD} {place}" for place in ("on a beach", "at night", "in a city")]
with attention_maps.record(pipe.unet) as recorded:
    draw(pipe, prompts)
shares = recorded.mean(side=8)[len(prompts) :].mean((0, 2, 3))  # (tokens,); the second half of the batch has the words
words = ["(start)", *prompts[0].split(), "(end)"]
for word, share in zip(words, shares):
    print(f"{word:<8} {share:.3f} " + "█" * round(60 * share.item()))
print(f"{'padding':<8} {shares[len(words) :].sum():.3f} in {len(shares) - len(words)} places")

layer = next(iter(custom_diffusion.keys_and_values(learner.unet).values()))
features = torch.randn(1, 4, layer.in_features)
rows = [torch.autograd.grad(layer(features)[:, k].sum(), layer.weight, allow_unused=True)[0] for k in range(4)]
assert rows[0] is None or not rows[0].any(), "the first position must pass no gradient"
assert all(row.any() for row in rows[1:])
custom_diffusion.freeze(learner)

# %% first meaning [markdown]
# Whatever $W^v$ makes of the start token is added to every picture, asked for or not. If the training were to use it,
# the subject would leak into pictures of everything. So the authors' program cuts it off: keys and values of the first
# position are computed as always, but no gradient goes through them (`.detach()`). The last lines of the cell check
# that the library does the same: of four positions, only the first passes nothing back.
#
# ## Part 6. The loss
#
# Two terms (as in DreamBooth: Ruiz et al. 2023, equation 2). The first is the ε-loss on the photos, with V\* in the
# captions. The second is the same loss on **pictures of the class**, with V\* left out: it keeps "a person" what it
# was. With $\lambda = 1$:
#
# $$L = \mathbb{E}\,\bigl\| m \odot (\epsilon - \epsilon_\theta(x_t, t, c_{V^*})) \bigr\|^2 +
# \lambda\, \mathbb{E}\,\bigl\| \epsilon' - \epsilon_\theta(x^\text{pr}_{t'}, t', c^\text{pr}) \bigr\|^2$$
#
# The mask $m$ is for photos that fill only a part of the canvas (part 9): it is 1 where the photo is.
#
# **Write `masked_error`** for a batch. `predicted` and `target` have the shape (n, c, h, w), `mask` (n, 1, h, w).
# Return for each picture the mean of its squared errors over the numbers that are valid: shape (n,). A full mask must
# give the plain mean.

# %% mask exercise exercise="masked_error" difficulty=3 minutes=10
import torch

from tutorial_lib.lab.checks import lesson_06 as check


def masked_error(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each picture's mean squared error where its mask is 1: (n,)."""
    # <solution>
    squares = (predicted - target).square() * mask  # the mask is used for all c channels
    valid = mask.sum((1, 2, 3)) * predicted.shape[1]
    return squares.sum((1, 2, 3)) / valid
    # </solution>


check.masked_error(masked_error)

# %% mask hint [markdown] hint="masked_error"
# A sum over axes 1, 2 and 3 leaves one number a picture. How many numbers of a picture are valid? The mask counts
# places, and each place has a number in every channel.

# %% training text [markdown]
# ## Part 7. Training
#
# Twice, from the same start, with the same photos, noise and steps: once with pictures of the class beside the photos,
# once without. Pictures of the class could be real ones that are found by their captions, or made by the model itself
# before it learns anything. Here the pocket world draws them. (Part 10 looks at the difference.)
#
# What will become of "a photo of a person", **without** V\*, when nothing holds the class?

# %% training prediction
from tutorial_lib.lab import widgets

CLASS = {
    True: "Without pictures of the class, people become more like the one in the photos",
    False: "The class without V* keeps its distance from the subject either way",
}
class_guess = widgets.predict("What becomes of “a photo of a person”?", options=list(CLASS.values()))
class_guess

# %% training
STEPS = 100
PLACES = list(world.BACKGROUNDS.values())
MINE = [f"a photo of a <new1> {WORD} {place}" for place in PLACES]
PLAIN = [f"a photo of a {WORD} {place}" for place in PLACES for _ in range(2)]
captions = [caption.replace(WORD, f"<new1> {WORD}") for caption in report.captions]
of_class = custom_diffusion.drawn(WORD, models.load_clip(), count=24)


def trained(with_class: bool, looks: int):
    """A pipeline that has learned V*, and its pictures of MINE along the way."""
    learner, seen = models.load("pocket"), {}
    custom_diffusion.add_concept(learner, "<new1>", init="ktn", class_word=WORD)
    prior = training.encode(learner, *of_class) if with_class else None
    data = training.encode(learner, photos, captions)
    task = custom_diffusion.CustomDiffusionTask(learner, data, prior=prior)
    options = {"lr": 6e-4, "batch_size": 4, "ema": 0.95, "every": STEPS // looks, "progress": False}
    training.fit(task, STEPS, **options, callback=lambda step, history: seen.update({step: draw(learner, MINE)}))
    custom_diffusion.freeze(learner)
    seen[STEPS] = draw(learner, MINE)  # with the averaged weights, which are the ones that stay
    return learner, seen


held, on_the_way = trained(with_class=True, looks=4)
alone, alone_on_the_way = trained(with_class=False, looks=1)
likeness = {step: metrics.subject_similarity(images, photos, reader) for step, images in on_the_way.items()}
frames = [
    plots.grid(images, columns=6, size=128, heads=PLACES, alt=f"after {step} steps, likeness {likeness[step]:.2f}")
    for step, images in on_the_way.items()
]
strip = plots.grid(
    [image for images in on_the_way.values() for image in images],
    columns=6,
    rows=[f"{step} steps, likeness {likeness[step]:.2f}" for step in on_the_way],
    heads=PLACES,
    size=128,
    colours=256,
    alt="Six places, one a column: a different person in each at first, and after training the one from the photos",
)
assert likeness[STEPS] > likeness[0] + 0.2, f"V* has not been learned: likeness {likeness}"
widgets.browse(frames, "steps", [str(step) for step in on_the_way], strip, start=len(frames) - 1)

# %% which parts text [markdown]
# Compare with the photos at the top. Some of it came quickly: what the model can draw anyway, now under a new name. The
# judge can say which parts. It reads hair, glasses, skin and shirt in the pictures of V\*:

# %% which parts
LOOKS = {
    "red hair": lambda person: person.hair_colour == "red",
    "short hair": lambda person: person.hair_length == "short",
    "light skin": lambda person: person.skin == "light",
    "glasses": lambda person: "glasses" in person.extras,
    "no beard": lambda person: "beard" not in person.extras,
}


def looks_of(images) -> dict[str, int]:
    """In how many of the pictures the judge reads each part of the person's looks."""
    people = [reading.person for reading in reader.read(images)]
    return {name: sum(person is not None and bool(has(person)) for person in people) for name, has in LOOKS.items()}


before, after = looks_of(on_the_way[0]), looks_of(on_the_way[STEPS])
for name in LOOKS:
    print(f"{name:<12} in {before[name]} of {len(MINE)} pictures before, in {after[name]} after")
assert sum(after.values()) > sum(before.values()) + 4, "the looks that the model can draw have not been learned"

# %% which parts meaning [markdown]
# Look for the freckles and the stripes. Keys and values can only **choose and mix what the rest of the UNet knows how
# to draw**. Stable Diffusion has seen nearly everything, so there this hardly ever hurts. Pocket-SD has seen ten plain
# colours and no pattern, and its cross-attention works on 8 × 8 places and fewer: a stripe is finer than that. So
# expect colours, hair and glasses, and do not expect patterns. Two of the subjects in the table of part 10 are special
# by their pattern alone, a mug with a heart and a two-tone cat.
#
# Now the class. The same seeds, the same prompts, and no V\* in them:

# %% class
crowds = {name: draw(p, PLAIN) for name, p in {"before": pipe, "with class": held, "without": alone}.items()}
near = {name: metrics.subject_similarity(images, photos, reader) for name, images in crowds.items()}
of_alone = metrics.subject_similarity(alone_on_the_way[STEPS], photos, reader)
sheet = plots.grid(
    [image for images in crowds.values() for image in images],
    columns=12,
    rows=[f"{name}, likeness {near[name]:.2f}" for name in crowds],
    size=64,
    alt="Twelve pictures of “a person”: before, after training with pictures of the class, and without them",
)
display(sheet)
numbers = ", ".join(f"{name} {value:.2f}" for name, value in near.items())
class_guess.outcome(
    CLASS[near["without"] > near["with class"] + 0.05],
    f"likeness of plain people to the subject: {numbers}. V* itself: {likeness[STEPS]:.2f} with the class, "
    f"{of_alone:.2f} without",
)

# %% strength text [markdown]
# ### The difference as a dial
#
# What was learned is a difference, $W = W_0 + \Delta W$ for each matrix. So it has a strength: $W_0 + s\,\Delta W$.
# At $s = 0$ only the new row is left; above 1 we go further than the training did. Move the slider.

# %% strength
from dataclasses import replace

learned = custom_diffusion.delta(held)
STRENGTHS = (0, 0.25, 0.5, 0.75, 1, 1.5)
dial = []
for s in STRENGTHS:
    custom_diffusion.load_into(held, replace(learned, matrices={p: s * m for p, m in learned.matrices.items()}))
    dial.append(draw(held, MINE[:4]))
custom_diffusion.load_into(held, learned)
frames = [
    plots.grid(images, columns=4, size=128, heads=PLACES[:4], alt=f"strength {s:g}")
    for s, images in zip(STRENGTHS, dial, strict=True)
]
strip = plots.grid(
    [dial[i][k] for k in range(4) for i in range(len(STRENGTHS))],
    columns=len(STRENGTHS),
    heads=[f"s = {s:g}" for s in STRENGTHS],
    rows=PLACES[:4],
    size=128,
    colours=256,
    alt="Four places, one a row; the difference of keys and values at strength 0 to 1.5: the person comes in gradually",
)
widgets.browse(frames, "strength", [f"{s:g}" for s in STRENGTHS], strip, start=4)

# %% moon text [markdown]
# ## Part 8. Forgetting: the moon gate
#
# A round garden gate is called a *moon gate*. It is the paper's own example. The model knows "moon" and it knows
# "gate"; it has never seen the two words together. We train keys and values on five photos of a moon gate, with the
# captions "a photo of a moon gate ...". Both words were in use for something else.
#
# Three ordinary words are asked afterwards: "moon", "gate", and "car", which was in no caption. **Kept** is the cosine
# between each picture and the picture of the same seed before, as the judge tells particular things apart: 1 if nothing
# has changed.

# %% moon prediction
ORDINARY = ("moon", "gate", "car")
moon_guess = widgets.predict("After training on “moon gate”: whose pictures change most?", options=ORDINARY)
moon_guess

# %% moon
gates, gate_report = pictures.load_folder(lesson.root / "data" / "subjects" / "moon-gate", size=64)
said = [caption.replace("gate", "moon gate") for caption in gate_report.captions]
asked = said[:2] + [f"a photo of a {word} {place}" for word in ORDINARY for place in PLACES]


def trained_on_gates(with_moons: bool):
    """A model whose keys and values have learned “moon gate”, with pictures of moons beside them or without."""
    learner = models.load("pocket")
    layers = {f"{path}.weight": m.weight for path, m in custom_diffusion.keys_and_values(learner.unet).items()}
    prior = training.encode(learner, *custom_diffusion.drawn("moon", models.load_clip(), 24)) if with_moons else None
    task = training.DenoisingTask(learner, training.encode(learner, gates, said), layers, prior=prior)
    training.fit(task, 60, lr=4e-4, batch_size=4, ema=0.95, every=60, progress=False)
    return learner


learners = {"before": pipe, "trained": trained_on_gates(False), "and with moons": trained_on_gates(True)}
drawn = {name: draw(p, asked) for name, p in learners.items()}
cosines = {name: (reader.embed(i) * reader.embed(drawn["before"])).sum(-1)[2:] for name, i in drawn.items()}
kept = {name: dict(zip(ORDINARY, c.view(3, -1).mean(1).tolist())) for name, c in cosines.items()}
for name in ("trained", "and with moons"):
    print(f"kept, {name:<15} " + ", ".join(f"{word} {value:.2f}" for word, value in kept[name].items()))
chosen = [0, 1, 2, 3, 4, 8, 9, 10, 14, 15, 16]  # two moon gates, then three of each word
sheet = plots.grid(
    [images[i] for images in drawn.values() for i in chosen],
    columns=len(chosen),
    rows=list(drawn),
    heads=["moon gate"] * 2 + [word for word in ORDINARY for _ in range(3)],
    size=64,
    alt="Moon gates, moons, gates and cars: before, after training on moon gates, and with moons beside them",
)
display(sheet)
told = ", ".join(f"{word} {value:.2f}" for word, value in kept["trained"].items())
display(moon_guess.outcome(min(ORDINARY, key=kept["trained"].get), f"kept, with 1 for no change: {told}"))
more = [kept["trained"]["car"] - kept["trained"][word] for word in ("moon", "gate")]  # than a word of no caption
saved = kept["and with moons"]["moon"] - kept["trained"]["moon"]
drifted = "reproduced" if min(*more, saved) > 0.05 else "not visible at this scale"
claim(
    "language-drift",
    "Fine-tuning on “moon gate” changes what “moon” and “gate” mean, more than other words; class pictures help.",
    paper="Kumari et al. 2023, section 3",
    measured=f"kept, with 1 for no change: {told}; with pictures of moons, moon {kept['and with moons']['moon']:.2f}",
    verdict="contradicted" if max(*more, saved) < -0.05 else drifted,
    seeds=(0,),
)

# %% augmentation text [markdown]
# ## Part 9. Larger and smaller
#
# Five photos show the subject in five sizes. The paper makes more of them: a photo is shrunk and put somewhere on a
# grey canvas, or enlarged and cut. So that the model does not learn "V\* is small", the **caption says so**: "very
# small", "a far away", "zoomed in", "close up". And so that it does not learn the grey canvas, the loss sees only the
# part of the picture that is real: the mask $m$ of part 6.

# %% augmentation
versions = [custom_diffusion.augment(photos[k % 5], np.random.default_rng(k), pipe.vae_scale_factor) for k in range(40)]
WORDS = ("", "very small", "a far away", "close up", "zoomed in")
shown = [next(version for version in versions if version.words == words) for words in WORDS]
masks = [255 * a.mask[0].repeat_interleave(4, 0).repeat_interleave(4, 1).byte().numpy() for a in shown]
plots.grid(
    [a.picture for a in shown] + [np.stack([mask] * 3, axis=-1) for mask in masks],
    columns=5,
    rows=["picture", "mask"],
    heads=[words or "as it is" for words in WORDS],
    size=128,
    alt="Five versions of the photos: as it is, two on a grey canvas, two enlarged; below each its mask",
)

# %% cells text [markdown]
# The loss works on latents. With $f$ pixels a latent cell, a photo of `side` pixels whose corner is at (`left`, `top`)
# covers columns `left // f` to `(left + side) // f`, the last not included, and rows in the same way from `top`. The
# VAE looks at neighbours, so the cells at the edge have seen grey. They are left out: **one cell on each side**.
#
# **Write `valid_cells`**: a mask of shape (size / f, size / f), 1 where a cell is valid, 0 elsewhere.

# %% cells exercise exercise="valid_cells" difficulty=4 minutes=10
import torch

from tutorial_lib.lab.checks import lesson_06 as check


def valid_cells(left: int, top: int, side: int, size: int, factor: int) -> torch.Tensor:
    """The mask of a photo of side x side pixels on a canvas of size x size, in latent cells of factor pixels."""
    # <solution>
    mask = torch.zeros(size // factor, size // factor)
    columns = slice(left // factor + 1, (left + side) // factor - 1)
    rows = slice(top // factor + 1, (top + side) // factor - 1)
    mask[rows, columns] = 1
    return mask
    # </solution>


check.valid_cells(valid_cells)

# %% cells hint [markdown] hint="valid_cells"
# A tensor's first axis counts rows. `slice(a, b)` ends before b, so "up to the last but one" is `b = end - 1`.

# %% results text [markdown]
# ## Part 10. Side by side
#
# One person, one seed and one rate prove little. The next cells read `results/custom_diffusion.csv`, which `python
# benchmarks/custom_diffusion.py` makes in an hour or two: several subjects and seeds, four methods, the same photos,
# noise and number of steps for all. Each method has the best of three learning rates, chosen with a seed of its own.
#
# - **Custom Diffusion**: keys, values, one row. **DreamBooth**: the whole UNet. **LoRA**: low-rank differences in all
#   attention layers. **Textual inversion**: the row alone. All but the last with pictures of the class.
# - **Likeness** as above, over all prompts. **Asked**: the share of what a prompt asks for (style, place, things) that
#   the judge finds. **CLIP-T**: the same question put to CLIP.
# - **KID** compares pictures of the plain class with drawn ones, lower is better. It is computed from the judge's
#   features, which have a unit of their own: only differences and ratios between rows mean something. **Class kept** is
#   the share of place, style and kind that the judge finds in them.
#
# A table of means hides the trade. A method that learns the subject well and forgets the class, or that stops listening
# to the prompt, is no good. In the figure each point is a method, the bars are the standard deviation over subjects and
# seeds. The best place is at the top right.

# %% results
from tutorial_lib import results

rows = results.read(results.FOLDER / "custom_diffusion.csv")
METHODS = ("before", "Custom Diffusion", "DreamBooth", "LoRA", "textual inversion")
VARIANTS = ("no regularisation", "real regularisation", "augmentation")
MEASURES = {
    "likeness": "likeness",
    "asked": "asked",
    "CLIP-T": "clip_text",
    "KID": "kid",
    "class kept": "class_kept",
    "MB stored": "file_mb",
    "MB a step": "memory_mb",
    "s a step": "seconds",
}


def of(method: str) -> list[dict]:
    """The rows of a method, without those of the search for its learning rate."""
    return [row for row in rows if row["method"] == method and row["part"] != "search"]


print(f"{'':<20} runs" + "".join(f"{name:>17}" for name in MEASURES))
for method in (*METHODS, *VARIANTS):
    if of(method):
        cells = [results.mean_and_spread(row[column] for row in of(method)) for column in MEASURES.values()]
        print(f"{method:<20} {len(of(method)):>4}" + "".join(f"{m:>9.3g} ± {s:<5.1g}" for m, s in cells))
print("\nKID, subject by subject")
for method in ("Custom Diffusion", "no regularisation", "DreamBooth"):
    kid_of = {row["subject"]: [] for row in of(method)}
    for row in of(method):
        kid_of[row["subject"]].append(row["kid"])
    print(f"{method:<20} " + ", ".join(f"{subject} {np.mean(kid):.2f}" for subject, kid in kid_of.items()))
print()
whole = count(pipe.unet)[2]
for method in METHODS[1:]:
    trained_numbers = of(method)[0]["parameters"]
    print(f"{method:<20} trains {trained_numbers:>12,.0f} numbers: {trained_numbers / whole:.3%} of the UNet's")

points = {
    method: tuple(results.mean_and_spread(row[column] for row in of(method)) for column in ("likeness", "asked"))
    for method in METHODS
}
concept_plots.plane(
    points,
    "likeness to the subject",
    "share of the prompt that is found",
    alt="Five methods in a plane: likeness to the subject against the share of the prompt that the judge finds",
)

# %% verdicts text [markdown]
# Subjects differ from one another, and that makes the bars long, for all methods alike. So let us compare the methods
# **subject by subject**, as in lesson 05: for each subject the mean over its seeds of the difference, then the mean
# over the three subjects. A difference counts if it is more than two standard errors away from zero; behind its ± stand
# these two. Three subjects are few: a verdict says what holds for these, and little about others.

# %% method claims
from tutorial_lib.lab.claims import difference, verdict


def apart(one: str, other: str, column: str) -> tuple[float, float]:
    """one - other over the subjects, each the mean over the seeds that both have: the mean, and two standard errors."""
    runs_of = [{(row["subject"], row["seed"]): row[column] for row in of(method)} for method in (one, other)]
    shared = sorted(runs_of[0].keys() & runs_of[1].keys())
    subjects = sorted({subject for subject, _ in shared})
    return difference(*([np.mean([own[key] for key in shared if key[0] == s]) for s in subjects] for own in runs_of))


SEEDS = sorted({int(row["seed"]) for row in rows if row["part"] == "main"})
TABLE = "results/custom_diffusion.csv"
like, like_error = apart("Custom Diffusion", "DreamBooth", "likeness")
text, text_error = apart("Custom Diffusion", "DreamBooth", "asked")
as_near = verdict(like + 0.1, like_error)  # "as near" allows a tenth less
display(
    claim(
        "as-near-as-dreambooth",
        "Custom Diffusion comes as near to the subject as DreamBooth, which trains the whole UNet.",
        paper="Kumari et al. 2023, section 4; on the authors' CustomConcept101, CLIP-I is .744 against .752",
        measured=f"likeness {like:+.3f} ± {like_error:.3f} against DreamBooth (0.1 less still counts as near), share "
        f"of the prompt found {text:+.3f} ± {text_error:.3f}",
        verdict=as_near,
        seeds=SEEDS,
        results=TABLE,
    )
)

UNIT = f"(in units of the judge's features; the untouched model has {np.mean([r['kid'] for r in of('before')]):.1f})"
kid, kid_error = apart("DreamBooth", "Custom Diffusion", "kid")
display(
    claim(
        "keeps-the-class",
        "Custom Diffusion harms the class less than DreamBooth does.",
        paper="Kumari et al. 2023, section 4",
        measured=f"KID of DreamBooth less that of Custom Diffusion: {kid:+.1f} ± {kid_error:.1f} {UNIT}",
        verdict=verdict(kid, kid_error),
        seeds=SEEDS,
        results=TABLE,
    )
)

text, text_error = apart("Custom Diffusion", "textual inversion", "asked")
like, like_error = apart("Custom Diffusion", "textual inversion", "likeness")
claim(
    "follows-the-prompt-better-than-a-word-alone",
    "With keys and values trained the prompt is followed better than with the new word alone.",
    paper="Kumari et al. 2023, section 4; on the authors' CustomConcept101, CLIP-T is .760 against .613",
    measured=f"share of the prompt found {text:+.3f} ± {text_error:.3f} against textual inversion, likeness "
    f"{like:+.3f} ± {like_error:.3f}",
    verdict=verdict(text, text_error),
    seeds=SEEDS,
    results=TABLE,
)

# %% recipe claims
parts = {}
for name in ("no regularisation", "real regularisation"):
    parts[name] = apart(name, "Custom Diffusion", "kid")
(without, without_error), (real, real_error) = parts.values()
display(
    claim(
        "regularisation-keeps-the-class",
        "Pictures of the class keep the class what it is.",
        paper="Kumari et al. 2023, section 4",
        measured=f"KID without pictures of the class, less that with the model's own: {without:+.1f} ± "
        f"{without_error:.1f}; with drawn ones, less that with the model's own: {real:+.1f} ± {real_error:.1f} {UNIT}",
        verdict=verdict(without, without_error),
        seeds=sorted({int(row["seed"]) for row in of("no regularisation")}),
        results=TABLE,
    )
)

more, more_error = apart("augmentation", "Custom Diffusion", "likeness")
claim(
    "augmentation-helps",
    "Photos in other sizes, with captions that say so, let the concept be learned faster.",
    paper="Kumari et al. 2023, section 3",
    measured=f"likeness with augmentation less that without, after as many steps: {more:+.3f} ± {more_error:.3f}",
    verdict=verdict(more, more_error),
    seeds=sorted({int(row["seed"]) for row in of("augmentation")}),
    results=TABLE,
)

# %% verdicts meaning [markdown]
# Read the verdicts with three things in mind. **The model is small:** it cannot draw patterns, and the four phrases of
# part 9 ("very small" and the others) were in none of its captions, so with augmentation it has more to learn in as
# many steps. **The training is short:** all methods got the same small number of steps, which suits the quick ones.
# **The table is honest about its spread:** where the error is larger than the difference, nothing is known yet.
#
# Part 7 and KID seem to disagree about pictures of the class. They ask different things. Part 7 asks how much plain
# people have become *like the subject*; KID asks how far pictures of the class are from drawn ones, in any direction.
# The lines below the table have it subject by subject. For the person KID agrees with part 7: about 1 with pictures of
# the class, about 4 without. For the mug and the cat it is larger *with* them, and their numbers are at least nine
# times those of the person, so these two decide the mean. The same holds for DreamBooth's smaller KID.
#
# The columns without spread need no statistics: what must be stored for each concept, what a step needs in memory.
#
# ## Part 11. V\* in company
#
# The paper shows five kinds of prompts that no photo showed: another **place**, another **style**, something **beside**
# it, a changed **property**, and an **accessory**. The model from part 7 has three seeds for each. The cell prints
# in how many the judge finds what was asked, and the likeness.

# %% company
from collections.abc import Callable

ASKED: dict[str, tuple[str, Callable]] = {
    "place": ("a photo of a <new1> person at night", lambda r: r.background == "night"),
    "style": ("a watercolor of a <new1> person in a forest", lambda r: r.style == "watercolor"),
    "beside": (
        "a photo of a <new1> person and a red house in the snow",
        lambda r: sorted(thing.kind for thing in r.things) == ["house", "person"],
    ),
    "property": (
        "a photo of a <new1> person with black hair on a table",
        lambda r: r.person is not None and r.person.hair_colour == "black",
    ),
    "accessory": (
        "a photo of a <new1> person with a hat on a beach",
        lambda r: r.person is not None and "hat" in r.person.extras,
    ),
}
company = draw(held, [prompt for prompt, _ in ASKED.values() for _ in range(3)])
answers = [check_of(r) for r, (_, check_of) in zip(reader.read(company), [a for a in ASKED.values() for _ in range(3)])]
near = [metrics.subject_similarity([image], photos, reader) for image in company]
for k, (kind, (prompt, _)) in enumerate(ASKED.items()):
    mine = slice(3 * k, 3 * k + 3)
    print(f"{kind:<10} shown in {sum(answers[mine])} of 3, likeness {np.mean(near[mine]):+.2f}   {prompt}")
assert np.mean(near[3:6]) < np.mean(near[:3]), "a watercolor should be less near to the photos than a photo"
plots.grid(
    [company[3 * k + i] for i in range(3) for k in range(len(ASKED))],
    columns=5,
    heads=[prompt.replace("a photo of ", "") for prompt, _ in ASKED.values()],
    size=128,
    alt="V* in five kinds of prompts, one a column: at night, as a watercolor, beside a house, with black hair, a hat",
)

# %% company meaning [markdown]
# Likeness falls wherever the prompt changes the look of the whole picture: a watercolor of somebody is not near a photo
# of somebody, for this judge or for DINO. So a low likeness in the row of styles is no failure by itself. The black
# hair contradicts what V\* itself carries; the pictures show who won. And look at the thing *beside*: its words go
# through the same keys and values that were just trained, on photos in which a person is always alone. The columns
# `background` to `accessory` of the results have these shares for all methods.
#
# ## Part 12. A style instead of a thing
#
# Nothing in the method says that V\* is a thing. Take a style that the model has never seen: a print in two inks, dark
# blue and cream. Six pictures of different things, and captions in which V\* stands where "photo" or "watercolor"
# would: "a `<ink>` of a mug on a beach". No pictures of the class here: a style has none.

# %% style
from PIL import ImageOps


def two_inks(picture):
    """The picture's brightness, from dark blue to cream."""
    return ImageOps.colorize(picture.convert("L"), "#14285a", "#ffe3b8")


def off_style(images) -> float:
    """How far pixels are from the line between the two inks, from 0 to 1: the mean difference to a print."""
    return np.mean([np.abs(np.subtract(image, two_inks(image), dtype=float)).mean() / 255 for image in images])


def things(kinds, seed: int):
    """Scenes of these kinds, in various places and colours."""
    rng, places = np.random.default_rng(seed), list(world.BACKGROUNDS)
    colours = list(world.COLOURS)
    made = [world.place(world.Thing(kind, colours[(3 * k + seed) % 10]), rng) for k, kind in enumerate(kinds)]
    return [world.Scene("photo", places[(k + seed) % 6], (thing,), seed=k) for k, thing in enumerate(made)]


def said_of(scene) -> str:
    """The caption in the new style, without colours: what a caption leaves open, V* may decide."""
    return f"a <ink> of a {scene.things[0].kind} {world.BACKGROUNDS[scene.background]}"


examples = things(("mug", "house", "cat", "tree", "ball", "fish"), seed=1)
prints = [two_inks(world.draw(scene)) for scene in examples]
printed = [said_of(scene) for scene in examples]
new_things = [said_of(scene) for scene in things(("car", "teapot", "flower", "gate"), seed=4)]
new_things += ["a <ink> of a person with a hat in a city", "a <ink> of a cat and a car in the snow"]

printer = models.load("pocket")
custom_diffusion.add_concept(printer, "<ink>", init="ktn")
first_prints = draw(printer, new_things)
task = custom_diffusion.CustomDiffusionTask(printer, training.encode(printer, prints, printed))
training.fit(task, 120, lr=6e-4, batch_size=4, ema=0.95, every=120, progress=False)
custom_diffusion.freeze(printer)
last_prints = draw(printer, new_things)
sheet = plots.grid(
    prints + first_prints + last_prints,
    columns=6,
    rows=["the six prints", "before", "after"],
    size=128,
    labels=printed + new_things + new_things,
    alt="Six prints in blue and cream; six other things before training, in colour; and the same after it",
)
display(sheet)
off = {name: off_style(images) for name, images in {"before": first_prints, "after": last_prints}.items()}
nearer = off["after"] / off["before"]
claim(
    "a-style-too",
    "The same method learns a style from a few pictures.",
    paper="Kumari et al. 2023, section 4",
    measured=f"six pictures of other things: distance of the colours from the two inks {off['before']:.3f} before, "
    f"{off['after']:.3f} after",
    verdict="reproduced" if nearer < 0.5 else "contradicted" if nearer > 0.9 else "not visible at this scale",
    seeds=(0,),
)

# %% stable diffusion [markdown]
# ## What is different on Stable Diffusion
#
# - **The share** is smaller: part 3 counted it, 32 matrices in 16 blocks. Stored in full precision they take about 75
#   MB; the paper compresses the differences to about 15 MB by their singular values (lesson 07).
# - **The recipe.** About 250 steps, 500 for two concepts; learning rate 1e-5, which the authors' program multiplies by
#   the number of pictures in a step; 200 pictures of the class, real or generated; DDIM with 50 to 200 steps, guidance
#   6. Pocket-SD is smaller and wants a larger rate and fewer steps.
# - **Small and large photos** work better: the words for them ("very small", "close up") were in its captions.
# - **Styles** come whole: it has seen thousands. Pocket-SD knows four, and a new one arrives as far as those can be
#   mixed.
# - **Faces are hard.** The authors use half the rate and three times the steps for them.
# - **No judge.** CLIP and DINO stand in for it, and your eyes.
# - **Files.** `custom_diffusion.save` writes safetensors with the base model's hash. The library reads and writes the
#   files of `diffusers` and of the original program too. In the version of `diffusers` that this course uses,
#   `unet.load_attn_procs` reads a Custom Diffusion file and then changes nothing. Look at a picture before you trust
#   it.
#
# With your own photos and a GPU, go on to lesson 10.

# %% glossary [markdown]
# ## Glossary
#
# - **Concept, subject**: the particular thing, person or style to learn. **Class**: what it is one of ("person").
# - **Modifier token** V\*: the new word for it, here `<new1>`; one new row in the text encoder's table.
# - **Keys and values**, $W^k$ and $W^v$: the matrices of the cross-attention that the text goes through.
# - **Regularisation, prior preservation**: training on pictures of the class at the same time.
# - **Language drift**: an ordinary word changes its meaning because it was in the captions.
# - **Overfitting**: the photos are learned, and not what they have in common.
# - **Augmentation**: more versions of each photo; here other sizes, with words and a mask.
# - **DreamBooth**, **LoRA**, **textual inversion**: fine-tuning of everything, of low-rank differences, of one row.
# - **KID**: kernel distance between two sets of pictures, in a network's features; about 0 for sets of one kind.
#
# ## Further reading
#
# - Kumari, Zhang, Zhang, Shechtman, Zhu: *Multi-Concept Customization of Text-to-Image Diffusion*, CVPR 2023,
#   [arXiv:2212.04488](https://arxiv.org/abs/2212.04488). This lesson's paper; lesson 07 builds its second half.
# - Ruiz, Li, Jampani, Pritch, Rubinstein, Aberman: *DreamBooth*, CVPR 2023,
#   [arXiv:2208.12242](https://arxiv.org/abs/2208.12242).
# - Gal, Alaluf, Atzmon, Patashnik, Bermano, Chechik, Cohen-Or: *An Image is Worth One Word*, ICLR 2023,
#   [arXiv:2208.01618](https://arxiv.org/abs/2208.01618). Textual inversion.
# - Hu and others: *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022,
#   [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - Loshchilov, Hutter: *Decoupled Weight Decay Regularization*, ICLR 2019,
#   [arXiv:1711.05101](https://arxiv.org/abs/1711.05101). AdamW.
# - Bińkowski, Sutherland, Arbel, Gretton: *Demystifying MMD GANs*, ICLR 2018,
#   [arXiv:1801.01401](https://arxiv.org/abs/1801.01401). KID.
