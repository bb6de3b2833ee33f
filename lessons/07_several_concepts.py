# %% title [markdown] prerequisites="Custom Diffusion: K, V and V* (lesson 06); matrices, gradients, least squares"
# # 07 · Several concepts
#
# You have taught a model one person, and another model one cat. Now you want them **in one picture**: "a photo of a
# `<new1>` person and a `<new2>` cat in the snow". Kumari et al. (2023) show two ways to get there: train on both at
# once, or train each alone and then *compute* one model from the two, without any training, in a moment.
#
# After this lesson you can
#
# - measure which of several concepts a picture lost, and which it mixed up;
# - say what goes wrong when differences are simply added;
# - derive the closed-form merge with Lagrange multipliers, solve it, and check a solution by its KKT conditions;
# - compare joint training, merge, addition and DreamBooth by numbers with their spread;
# - compress a concept by its singular values, and say what that costs.
#
# Everything here is measured, so it all runs on the pocket model. What changes on Stable Diffusion is at the end.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("07")

# %% two text [markdown]
# ## Part 1. What should happen, and how to see whether it did
#
# Two subjects: the person of lesson 06 (red hair, glasses, freckles, a striped shirt), and a two-tone cat (orange and
# white, with a collar). This pair is chosen with care. Keys and values can teach the pocket model what it can draw
# anyway, such as hair, glasses and one colour, and hardly a new pattern (lesson 06). Both subjects have something that
# can be learned, and something that can go to the *wrong* one: in this world cats can wear glasses too.
#
# Below: the photos, then the two side by side **as the world draws them**, which is the best that any model could do,
# then what the model makes of "a person and a cat" before it has learned anything.

# %% two
from tutorial_lib import models, sampling
from tutorial_lib.lab import plots, several_concepts
from tutorial_lib.lab.several_concepts import BALL, CAT, PERSON
from tutorial_lib.pocket import judge, world

PLACES = list(world.BACKGROUNDS)
PAIR = (PERSON, CAT)
ORDERS = [(PERSON, CAT)] * 6 + [(CAT, PERSON)] * 6  # each place with the person named first, then with the cat first
pipe, reader = models.load("pocket"), judge.load()


def draw(pipe, prompts, seed: int = 100):
    """One picture a prompt; the picture's number and the seed decide its noise."""
    return sampling.generate(pipe, prompts, seed, num_inference_steps=10, progress=False)


def asked(name) -> list[str]:
    """Prompts for both, in every place and both orders; `name` says what a concept is called."""
    return [several_concepts.prompt([name(c) for c in order], p) for order, p in zip(ORDERS, PLACES * 2, strict=True)]


ideal = [several_concepts.drawn(order, place, k) for k, (order, place) in enumerate(zip(ORDERS, PLACES * 2))]
before = draw(pipe, asked(lambda concept: concept.word))
plots.grid(
    several_concepts.photos(PERSON)[0]
    + [ideal[0]]
    + several_concepts.photos(CAT)[0]
    + [ideal[6]]
    + ideal[1:6]
    + [ideal[7]]
    + before[:6]
    + before[6:],
    columns=6,
    rows=[
        "photos of the person; both, drawn",
        "photos of the cat; both, drawn",
        "both, drawn",
        "the model, person first",
        "the model, cat first",
    ],
    size=128,
    alt="Five photos of a person and of a cat; the two side by side as the world draws them; other people and cats",
)

# %% meter text [markdown]
# Three questions for each picture and each concept:
#
# - **Omitted?** A concept is *there* if the judge finds a thing of its kind in the picture, or recognises it.
# - **Recognised?** The two stand side by side, so each half of the picture is cut out, enlarged and compared with the
#   photos (cosine in the judge's embedding, the part of DINO). The better half counts. At 0.4 or more it is recognised.
# - **Mixed?** Does the cat wear the person's glasses? For things with a colour: have they got the other's colour?
#
# A meter must be tested before it measures. It must say "recognised" of the drawn subjects, and not of strangers.

# %% meter
found = {"drawn": several_concepts.look(ideal, ORDERS, reader), "before": several_concepts.look(before, ORDERS, reader)}
figures = {name: several_concepts.shares(seen) for name, seen in found.items()}
for name, row in figures.items():
    print(f"{name:<8} " + ", ".join(f"{k} {row[k]:.2f}" for k in ("likeness", "recognised", "omitted", "mixed")))
assert figures["drawn"]["recognised"] > 0.85 and figures["before"]["recognised"] < 0.4
assert figures["drawn"]["omitted"] == 0

# %% omission text [markdown]
# **Write `omission`.** `found` has for each picture the kinds of the things in it, `asked` the kinds that every prompt
# asked for. Return for each kind the share of pictures in which it is **missing**. (Why not one mean for all? Because a
# model that always loses the same concept is not the same as one that loses each now and then.)

# %% omission exercise exercise="omission" difficulty=1 minutes=5
from tutorial_lib.lab.checks import lesson_07 as check


def omission(found: list[list[str]], asked: list[str]) -> dict[str, float]:
    """For each kind asked for, the share of pictures in which it is missing."""
    # <solution>
    return {word: sum(word not in kinds for kinds in found) / len(found) for word in asked}
    # </solution>


check.omission(omission)

# %% omission hint [markdown] hint="omission"
# `word not in kinds` is True or False, and `sum` counts the True. Divide by the number of pictures.

# %% three
three = draw(pipe, [several_concepts.prompt([c.word for c in (PERSON, CAT, BALL)], place) for place in PLACES])
seen_three = several_concepts.look(three, [(PERSON, CAT, BALL)] * 6, reader)
missing = {c.word: sum(not picture[k].there for picture in seen_three) / 6 for k, c in enumerate((PERSON, CAT, BALL))}
print("asked for three plain things, missing: " + ", ".join(f"{word} {share:.2f}" for word, share in missing.items()))
plots.grid(
    three, columns=6, size=128, heads=PLACES, alt="“A person and a cat and a ball” in six places: one is missing"
)

# %% three meaning [markdown]
# Before you blame a method for a lost concept, ask the model as it was. No caption of its training had three things in
# it, and when three plain things are asked for, one gets lost. No way of adding concepts can repair that. So this
# lesson learns up to three concepts **in one model**, and asks mostly for **two in a picture**.
#
# ## Part 2. Each alone
#
# As in lesson 06: keys, values and one row for each, with pictures of the class beside the photos. Every concept starts
# from the same pretrained model, and starts with another rare word. What is kept is its **difference** to that model,
# $\Delta_n = W_n - W_0$, for each of the key and value matrices.

# %% alone
import numpy as np

from tutorial_lib import custom_diffusion, metrics, training

STEPS, RATE = 80, 1e-3
clip = models.load_clip()


def learned(concept):
    """One concept, trained alone: its difference to the pretrained model, and pictures of it in every place."""
    learner = models.load("pocket")
    custom_diffusion.add_concept(learner, concept.token, concept.rare, class_word=concept.word)
    photos, captions = several_concepts.photos(concept)
    prior = training.encode(learner, *custom_diffusion.drawn(concept.word, clip, count=24))
    data = training.encode(learner, photos, [caption.format(concept.name) for caption in captions])
    task = custom_diffusion.CustomDiffusionTask(learner, data, prior=prior)
    training.fit(task, STEPS, RATE, batch_size=4, ema=0.95, every=STEPS, progress=False)
    custom_diffusion.freeze(learner)
    return custom_diffusion.delta(learner), draw(learner, [several_concepts.prompt([concept.name], p) for p in PLACES])


deltas, portraits = zip(*(learned(concept) for concept in PAIR))
alone = [
    metrics.subject_similarity(images, several_concepts.photos(c)[0], reader)
    for c, images in zip(PAIR, portraits, strict=True)
]
assert min(alone) > 0.25, f"a concept has not been learned: likeness {alone}"
plots.grid(
    [image for images in portraits for image in images],
    columns=6,
    heads=PLACES,
    rows=[f"the {c.word}, likeness {value:.2f}" for c, value in zip(PAIR, alone, strict=True)],
    size=128,
    alt="The person with red hair and glasses in six places; the orange cat in six places; each from its own model",
)

# %% added text [markdown]
# ## Part 3. Simply add
#
# Two differences, one model: $W = W_0 + \Delta_1 + \Delta_2$. It is the first thing that everybody tries.
#
# **Write `added`** for one matrix: `base` is $W_0$, `tuned` holds $W_1, W_2, \dots$ as they came out of the training
# (whole matrices, not differences). Leave the arguments as they are.

# %% added exercise exercise="added" difficulty=2 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_07 as check


def added(base: torch.Tensor, tuned: list[torch.Tensor]) -> torch.Tensor:
    """W0 and all that the concepts changed, (o, w)."""
    # <solution>
    return base + sum(w - base for w in tuned)
    # </solution>


check.added(added)

# %% added hint [markdown] hint="added"
# What did concept $n$ change? $W_n - W_0$. Sum these, then add $W_0$ once.

# %% added prediction
from tutorial_lib.lab import widgets

AFTER = {
    "fine": "Both are recognised about as often as each alone, and nothing is mixed",
    "lost": "One of the two is missing in most pictures",
    "mixed": "Both are there, and the cat gets something of the person",
    "plain": "Both are there as an ordinary person and an ordinary cat",
}
added_guess = widgets.predict("The two differences are added. What do the pictures show?", options=list(AFTER.values()))
added_guess

# %% add
from IPython.display import display

together = models.load("pocket")


def company(delta):
    """Pictures of both from the model with this difference, and what is seen in them."""
    custom_diffusion.load_into(together, delta)
    images = draw(together, asked(lambda concept: concept.name))
    return images, several_concepts.shares(several_concepts.look(images, ORDERS, reader))


def told(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {row[name]:.2f}" for name in ("recognised", "omitted", "mixed"))


sum_images, figures["addition"] = company(custom_diffusion.add(deltas))
row = figures["addition"]
outcome = "lost" if row["omitted"] > 0.4 else "mixed" if row["mixed"] > 0.2 else "plain"
outcome = "fine" if row["recognised"] > 0.8 and row["mixed"] <= 0.2 else outcome
first, last = (row[f"mixed_{which}"] for which in ("first", "last"))
print(f"glasses on the cat: in {first:.0%} of the pictures where it is named first, in {last:.0%} where it is last")
sheet = plots.grid(
    sum_images,
    columns=6,
    heads=PLACES,
    rows=["person named first", "cat named first"],
    size=128,
    alt="Addition: twelve pictures of both; many cats have the wrong colour, and some wear the person's glasses",
)
display(sheet)
added_guess.outcome(AFTER[outcome], told(row))

# %% add meaning [markdown]
# Look at the cats. Why should the *person's* difference have anything to do with the *cat's* words? Because a matrix
# acts on every word. $\Delta_1$ was trained with prompts about the person. Nobody ever told it to leave the features of
# "`<new2>` cat" alone. Let $C_n$ hold the text features of concept $n$'s words, one a row. How much does each
# difference do to each concept's words, measured by what the concept's own difference does to them?
#
# $$\frac{\|\Delta_m C_n^\top\|}{\|\Delta_n C_n^\top\|}$$
#
# The order counts too. The text encoder reads from left to right, so the features of the **second** name have already
# seen the first one.

# %% disturbance
import torch

from tutorial_lib.lab import several_plots

custom_diffusion.load_into(together, custom_diffusion.add(deltas))  # a text encoder that knows both tokens


@torch.no_grad()
def features(phrase: str, start: str | None = None) -> torch.Tensor:
    """Text features (tokens, w) in float64, from the word `start` to the end of the text."""
    ids = together.tokenizer(phrase).input_ids
    begin = ids.index(together.tokenizer.convert_tokens_to_ids(start)) if start else 0
    return training.embed(together, [phrase])[0, begin : len(ids)].double()


def own_words(concept) -> torch.Tensor:
    """C of one concept: V*, its class and the end, in three phrases."""
    phrases = (concept.name, f"photo of a {concept.name}", f"a photo of a {concept.name}")
    return torch.cat([features(phrase, concept.token) for phrase in phrases])


CONSTRAINTS = [own_words(concept) for concept in PAIR]
PATHS = list(deltas[0].matrices)


def effect(delta, C) -> float:
    """||Delta C^T|| over all matrices."""
    return sum((delta.matrix(path).double() @ C.T).square().sum() for path in PATHS).sqrt().item()


own = [effect(delta, C) for delta, C in zip(deltas, CONSTRAINTS)]
effects = {
    f"difference of {PAIR[m].name}": [effect(deltas[m], C) / own[n] for n, C in enumerate(CONSTRAINTS)]
    for m in range(2)
}
table = np.array(list(effects.values()))
assert min(table[0, 1], table[1, 0]) > 0.1, "each difference should disturb the other's words"
several_plots.tables(
    {"effect on the words of ...": effects},
    [concept.name for concept in PAIR],
    alt="Each difference acts on the other concept's words about as strongly as their own difference does, or half so",
)

# %% merge text [markdown]
# ## Part 4. The merge
#
# So let us *ask* for what we want. One matrix $W$ for all concepts, which
#
# - treats the words of each concept **exactly** as that concept's own matrix does: $W c = W_n c$ for each row $c$ of
#   $C_n$. Stack the rows of all concepts into $C$, and the wanted values $W_n c$ into the rows of $V$: $W C^\top =
#   V^\top$;
# - and among all such $W$ changes as little as possible of what ordinary captions become. Their features are the rows
#   of $C_{\mathrm{reg}}$.
#
# $$\hat W = \arg\min_W \;\|W C_{\mathrm{reg}}^\top - W_0 C_{\mathrm{reg}}^\top\|_F^2
# \quad \text{subject to} \quad W C^\top = V^\top$$
#
# First the picture. A matrix with one row of two numbers is a point in the plane. The constraint is a line. The cost is
# 0 at $W_0$ and grows in rings, which are wide in directions that captions seldom use.

# %% merge picture
import torch

captions_2d = torch.tensor([[2.0, 1.6], [1.2, 0.2], [-1.0, -1.4]], dtype=torch.float64)
W0_2d, C_2d = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
V_2d, G_2d = torch.tensor([[2.0]], dtype=torch.float64), captions_2d.T @ captions_2d
D_2d = C_2d @ torch.linalg.inv(G_2d)
least_2d = W0_2d + (V_2d.T - W0_2d @ C_2d.T) @ torch.linalg.inv(D_2d @ C_2d.T) @ D_2d
nearest_2d = W0_2d + (V_2d.T - W0_2d @ C_2d.T) @ torch.linalg.pinv(C_2d.T)
assert torch.allclose(least_2d @ C_2d.T, V_2d.T) and torch.allclose(nearest_2d @ C_2d.T, V_2d.T)
several_plots.least_change(
    G_2d,
    W0_2d[0],
    C_2d[0],
    V_2d.item(),
    {"least change of the captions": least_2d[0].numpy(), "least change of the matrix": nearest_2d[0].numpy()},
    alt="Rings of equal cost around W0, a line of matrices that satisfy the constraint; where a ring touches it is the "
    "solution, and there the gradient's arrow stands square to the line; at the point nearest to W0 it does not",
)

# %% lagrange [markdown]
# At the solution a ring just **touches** the line. There, the gradient of the cost (the arrow) stands square to the
# line: any step along the line would change the cost by nothing at first. At the point of the line that is nearest to
# $W_0$ the arrow is slanted, and a step along the line still lowers the cost.
#
# "Square to the constraint" means: the gradient is a combination of the rows of $C$. The factors are **Lagrange's
# multipliers** $\Lambda$. With $G = C_{\mathrm{reg}}^\top C_{\mathrm{reg}}$ (and a factor 2 that $\Lambda$ takes in)
# the two conditions, called **KKT** after Karush, Kuhn and Tucker, are
#
# $$\underbrace{(W - W_0)\, G = \Lambda\, C}_{\text{stationary}} \qquad
# \underbrace{W C^\top = V^\top}_{\text{constraint}}$$
#
# The problem is convex, so whoever satisfies both is *the* solution. Solve the first for $W$:
# $W = W_0 + \Lambda\, d$ with $d = C G^{-1}$. Put it into the second: $W_0 C^\top + \Lambda\, d C^\top = V^\top$. So
# $\Lambda = (V^\top - W_0 C^\top)(d C^\top)^{-1}$, and
#
# $$\boxed{\hat W = W_0 + (V^\top - W_0 C^\top)\,(d\, C^\top)^{-1}\, d, \qquad
# d = C\,(C_{\mathrm{reg}}^\top C_{\mathrm{reg}})^{-1}}$$
#
# **Write `merged`.** Shapes: $W_0$ (o, w), $C$ (s, w), $V$ (s, o), $C_{\mathrm{reg}}$ (n, w), with $w$ the width of the
# text features; the result is (o, w).

# %% merged exercise exercise="merged" difficulty=3 minutes=15
import torch

from tutorial_lib.lab.checks import lesson_07 as check


def merged(W0: torch.Tensor, C: torch.Tensor, V: torch.Tensor, C_reg: torch.Tensor) -> torch.Tensor:
    """The least change of what captions become that gives W C^T = V^T: (o, w)."""
    # <solution>
    d = torch.linalg.solve(C_reg.T @ C_reg, C.T).T  # (s, w): C G^-1, as G is symmetric
    wanted = V.T - W0 @ C.T  # (o, s)
    return W0 + wanted @ torch.linalg.inv(d @ C.T) @ d
    # </solution>


check.merged(merged)

# %% merged hint [markdown] hint="merged"
# Three lines: `d` of shape (s, w), the wanted change $V^\top - W_0 C^\top$ of shape (o, s), and the formula in the box.
# `torch.linalg.inv` inverts a square matrix; `@` multiplies. `V` has a word a row, so `V.T` has a word a column.

# %% kkt text [markdown]
# A formula can be copied wrongly, and its result looks like any other matrix. The KKT conditions tell. But $\Lambda$ is
# not known to whoever checks. It need not be: the gradient $(W - W_0)\,G$ is a combination of the rows of $C$ exactly
# if **nothing is left** when its part in those rows is taken off. The matrix $C^{+} C$ (`torch.linalg.pinv(C) @ C`)
# keeps just that part of a row vector.
#
# **Write `kkt`.** Return two lengths, both 0 at the solution: of $W C^\top - V^\top$, and of what is left of the
# gradient.

# %% kkt exercise exercise="kkt" difficulty=4 minutes=10
import torch

from tutorial_lib.lab.checks import lesson_07 as check


def kkt(
    W: torch.Tensor, W0: torch.Tensor, C: torch.Tensor, V: torch.Tensor, C_reg: torch.Tensor
) -> tuple[float, float]:
    """How far W is from the constraint, and how much of the gradient is no combination of the rows of C."""
    # <solution>
    gradient = (W - W0) @ (C_reg.T @ C_reg)
    rest = gradient - gradient @ torch.linalg.pinv(C) @ C
    return (W @ C.T - V.T).norm().item(), rest.norm().item()
    # </solution>


check.kkt(kkt)

# %% kkt hint [markdown] hint="kkt"
# `gradient @ pinv(C) @ C` is the gradient's part in the rows of C; subtract it. A matrix's length is `.norm()`.

# %% merge
rng = np.random.default_rng(0)
captions = [world.caption(world.sample_scene(rng), rng) for _ in range(200)]
merged_delta, report = custom_diffusion.merge(pipe, deltas, captions, ridge=1.0)
print(report)
assert report.constraint < 1e-8 and report.stationarity < 1e-8

# %% compare text [markdown]
# What is the **ridge**? The features of two hundred captions leave some directions nearly unused, and there $G$ can
# hardly be inverted. A small term $\rho\,\|W - W_0\|_F^2$ closes them. It is the same as $\sqrt\rho\, I$ as more rows
# of $C_{\mathrm{reg}}$.
#
# Now three solutions of the same problem for one matrix: the library's; the formula in the box, as in your exercise;
# and the KKT conditions written as **one** system of linear equations, given to a general solver.

# %% compare
import torch

PATH = PATHS[0]
W0 = pipe.unet.get_submodule(PATH).weight.detach().double()
C = torch.cat(CONSTRAINTS)
V = torch.cat([c @ (W0 + delta.matrix(PATH).double()).T for c, delta in zip(CONSTRAINTS, deltas)])
padded = training.embed(pipe, captions).detach().double().flatten(0, 1)  # (captions * tokens, w)
C_reg = torch.cat([padded, torch.eye(C.shape[1], dtype=torch.float64)])  # a ridge of 1
G = C_reg.T @ C_reg

D = C @ torch.linalg.inv(G)
by_formula = W0 + (V.T - W0 @ C.T) @ torch.linalg.inv(D @ C.T) @ D
system = torch.cat([torch.cat([G, C.T], 1), torch.cat([C, torch.zeros(len(C), len(C), dtype=torch.float64)], 1)])
general = torch.linalg.solve(system, torch.cat([G @ W0.T, V]))[: len(G)].T
by_library = W0 + merged_delta.matrix(PATH).double()
apart = {
    name: ((W - by_formula).norm() / (by_formula - W0).norm()).item()
    for name, W in {"the library": by_library, "the general solver": general}.items()
}
print(f"one matrix {tuple(W0.shape)}, {len(C)} words, {len(padded):,} features of captions")
for name, value in apart.items():
    print(f"relative difference to the formula, {name}: {value:.1e}")
assert apart["the general solver"] < 1e-8 and apart["the library"] < 1e-4, apart  # the library's is stored in float32

# %% merge prediction
LIKE = {
    "better": "The merge is more like the photos than addition, and mixes less",
    "mixed": "The merge is more like the photos, and mixes more",
    "same": "The two cannot be told apart",
    "worse": "Addition is more like the photos than the merge",
}
merge_guess = widgets.predict("Merge against addition, same concepts, same noise:", options=list(LIKE.values()))
merge_guess

# %% merge pictures
merge_images, figures["merge"] = company(merged_delta)
gain = figures["merge"]["likeness"] - figures["addition"]["likeness"]
less_mixed = figures["addition"]["mixed"] - figures["merge"]["mixed"]
outcome = "worse" if gain < -0.03 else "same"
if gain > 0.03:
    outcome = "better" if less_mixed > -0.05 else "mixed"
sheet = plots.grid(
    [sum_images[k] for k in range(6)] + merge_images[:6] + sum_images[6:] + merge_images[6:],
    columns=6,
    heads=PLACES,
    rows=["added, person first", "merged, person first", "added, cat first", "merged, cat first"],
    size=128,
    alt="Twelve pictures of both by addition and by the merge, with the same noise: merged cats are nearer to "
    "orange, and those named last wear glasses",
)
display(sheet)
print(f"addition: likeness {figures['addition']['likeness']:.2f}, {told(figures['addition'])}")
print(f"merge:    likeness {figures['merge']['likeness']:.2f}, {told(figures['merge'])}")
merge_guess.outcome(LIKE[outcome], f"likeness {gain:+.2f}, mixed {-less_mixed:+.2f} against addition")

# %% merge meaning [markdown]
# The constraint holds to many digits, and yet a cat may still wear glasses. There is no contradiction. The constraint
# speaks of the features of "`<new2>` cat" **in its own phrases**. In a prompt that names both, the text encoder reads
# the person first, and the cat's features are others. The merge promises nothing for those. And all words are in the
# same picture: a place in the picture may attend to the wrong one.
#
# So "exact" is a statement about matrices and phrases. Only pictures tell about pictures.
#
# ## Part 5. All four, side by side
#
# One pair and one seed prove little. `python benchmarks/several_concepts.py` makes `results/several_concepts.csv`: the
# pairs person + cat and cat + ball (a purple ball with a star), all three in one model, and three seeds.
#
# - **apart**: each concept in its own model, asked for alone. **merge** and **addition** are made of these.
# - **joint**: keys, values and all rows trained on all concepts at once, as many steps as the single ones together.
# - **DreamBooth**: the whole UNet on all concepts with rare words, as many steps as joint. It is the paper's baseline.
# - **before** and **drawn**: the model as it was, and the subjects as the world draws them: floor and ceiling.
#
# All with the same photos, the same pictures of the classes, and the same noise in the pictures that are judged.
# *Whole* is the share of pictures in which both are recognised and nothing is mixed.

# %% results
from tutorial_lib import results

rows = results.read(results.FOLDER / "several_concepts.csv")
METHODS = ("before", "addition", "merge", "joint", "DreamBooth", "drawn")
TWO = ("person+cat", "cat+ball")
MEASURES = ("likeness", "recognised", "omitted", "mixed", "whole", "alone", "class_omitted", "class_change", "drift")


def of(method: str, names=TWO) -> list[dict]:
    """The rows of a method, uncompressed."""
    return [row for row in rows if row["method"] == method and row["concepts"] in names and row["ratio"] == 1]


print(f"{'two concepts':<13} runs" + "".join(f"{name:>14}" for name in MEASURES) + f"{'MB':>8}{'s':>6}")
for method in (*METHODS, "apart"):
    cells = [results.mean_and_spread(row[name] for row in of(method)) for name in MEASURES]
    costs = [results.mean_and_spread(row[name] for row in of(method))[0] for name in ("file_mb", "seconds")]
    print(
        f"{method:<13} {len(of(method)):>4}"
        + "".join(f"{m:>9.2f}±{s:.2f}" for m, s in cells)
        + f"{costs[0]:>8.1f}{costs[1]:>6.0f}"
    )

panels = {
    name: {method: results.mean_and_spread(row[name] for row in of(method)) for method in METHODS}
    for name in ("recognised", "omitted", "mixed", "whole")
}
mean = {
    method: {name: results.mean_and_spread(row[name] for row in of(method))[0] for name in MEASURES}
    for method in METHODS
}
trained = ("addition", "merge", "joint", "DreamBooth")
assert all(mean[k]["omitted"] < 0.2 and mean[k]["recognised"] < 0.5 < mean["drawn"]["recognised"] for k in trained)
assert all(mean[k]["alone"] > mean[k]["likeness"] + 0.05 for k in trained)
assert all(mean["merge"]["mixed"] > mean[k]["mixed"] for k in trained if k != "merge")
assert all(mean["merge"]["class_change"] < mean[k]["class_change"] for k in trained if k != "merge")
assert all(mean["merge"]["drift"] < mean[k]["drift"] / 2 for k in ("addition", "joint"))
assert all(results.mean_and_spread(r["whole"] for r in of(k, TWO[1:]))[0] < 0.1 for k in trained)
several_plots.methods(panels, alt="Six methods, one a line; shares of recognised, omitted, mixed, and whole pictures")


# %% results meaning [markdown]
# Read it from both ends. *Drawn* says what perfect pictures reach; no method comes near. *Before* says what strangers
# reach. Between them:
#
# - **Things are seldom lost, looks are.** "Omitted" is small, "recognised" as well: a cat is there, an ordinary one.
#   Asked for **alone**, from the same weights, each concept is more like its photos than in company.
# - **The merge is careful with everything else, and mixes most.** It changes least what becomes of other captions
#   (*drift*: that is the cost that it minimises), and pictures of the classes too (*class change*). The price: asked
#   for alone, its concepts are less like their photos than in models of their own (*alone* 0.35 against 0.53), although
#   the constraint is met. It binds the concept's words in three phrases, not the place that follows them, nor the
#   padding. And of all methods it mixes most.
# - **Cat and ball fail with every method.** A whole pattern and a new colour are more than this model can hold apart
#   for two things in one picture.
#
# So this toy cannot say which method is best for two concepts. It can say what each of them breaks.

# %% verdicts text [markdown]
# Compared **set by set**: for each set of concepts the mean over its seeds of the difference, then the mean over the
# sets. There are three: the two pairs of the table, and person, cat and ball, learned together and asked for in pairs.
# A difference counts if its mean is more than two standard errors away from zero; behind its ± stand these two. Three
# sets are few, so only large differences can be seen. Whole pictures are too rare with every method to compare methods
# by them. So the **likeness** of pictures with two concepts decides. It is one figure: look at *alone* and *mixed* too.

# %% verdicts
from tutorial_lib.lab.claims import claim, difference, joint_verdict, verdict

SEEDS = sorted({int(row["seed"]) for row in rows})
TABLE = "results/several_concepts.csv"
ALL = (*TWO, "person+cat+ball")


def against(one: str, other: str, column: str) -> tuple[float, float]:
    """one - other over the sets of concepts, each the mean over its seeds: the mean, and two standard errors."""
    means = [[np.mean([r[column] for r in of(method, [names])]) for names in ALL] for method in (one, other)]
    return difference(*means)


for one, other in (("merge", "addition"), ("joint", "merge"), ("joint", "DreamBooth"), ("merge", "DreamBooth")):
    parts = [f"{c} {m:+.2f} ± {e:.2f}" for c in MEASURES[:5] for m, e in [against(one, other, c)]]
    print(f"{one:>7} less {other:<11}" + ", ".join(parts))

like, error = against("merge", "joint", "likeness")
alone_less, alone_error = against("merge", "joint", "alone")
display(
    claim(
        "merge-as-good-as-joint",
        "The closed-form merge comes out about as well as joint training.",
        paper="Kumari et al. 2023, section 4; on the authors' CustomConcept101, CLIP-I is .658 and .668, CLIP-T "
        ".763 and .757",
        measured=f"likeness of the merge less that of joint training {like:+.3f} ± {error:.3f} (0.05 less still counts "
        f"as about as well); of concepts asked for alone {alone_less:+.3f} ± {alone_error:.3f}",
        verdict=verdict(like + 0.05, error),  # "about" allows a twentieth
        seeds=SEEDS,
        results=TABLE,
    )
)
beaten = {method: against(method, "DreamBooth", "likeness") for method in ("joint", "merge")}
claim(
    "several-concepts-better-than-dreambooth",
    "With two concepts in a picture, joint training and the merge do better than DreamBooth on both.",
    paper="Kumari et al. 2023, section 4; on the authors' CustomConcept101, CLIP-T is .757 and .763 against .738",
    measured="; ".join(f"likeness, {k} less DreamBooth: {m:+.2f} ± {e:.2f}" for k, (m, e) in beaten.items()),
    verdict=joint_verdict(*beaten.values()),
    seeds=SEEDS,
    results=TABLE,
)

# %% order and three
order = {
    m: [results.mean_and_spread(r[f"mixed_{w}"] for r in of(m, ("person+cat",)))[0] for w in ("first", "last")]
    for m in METHODS[:-1]
}
for method, (named_first, named_last) in order.items():
    print(f"{method:<11} cats with glasses: {named_first:.2f} when the cat is named first, {named_last:.2f} when last")
of_three = {m: results.mean_and_spread(r["three_omitted"] for r in of(m, ALL[2:])) for m in METHODS[:-1]}
print("three asked for, missing: " + ", ".join(f"{m} {mean:.2f} ± {s:.2f}" for m, (mean, s) in of_three.items()))
joint = of("joint", ALL[2:])
more, error = difference([row["three_omitted"] for row in joint], [row["omitted"] for row in joint])
claim(
    "three-concepts-are-hard",
    "Three concepts in one picture fail more often than two.",
    paper="Kumari et al. 2023, limitations",
    measured=f"of the same jointly trained models, share missing of three less that of two: {more:+.2f} ± {error:.2f}. "
    f"The model before any training loses {of_three['before'][0]:.2f} of three plain things",
    verdict=verdict(more, error),
    seeds=SEEDS,
    results=TABLE,
)

# %% compression text [markdown]
# ## Part 6. Smaller
#
# A concept is a set of differences $\Delta$, one for each matrix. Their **singular values** $\sigma_1 \ge \sigma_2 \ge
# \dots$ tell how much each direction contributes. The paper keeps the largest, as long as their sum is at most a given
# share of the sum of all (0.6), and stores two thin matrices instead of one full one. On Stable Diffusion 75 MB become
# about 15.
#
# **Write `kept_rank`.** `values` are the singular values, largest first. Return how many to keep: as many as sum up to
# **at most** `ratio` of the sum of all, and one at least.

# %% rank exercise exercise="kept_rank" difficulty=2 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_07 as check


def kept_rank(values: torch.Tensor, ratio: float) -> int:
    """How many of the singular values are kept."""
    # <solution>
    shares = values.cumsum(0) / values.sum()
    return max(1, int((shares <= ratio).sum()))
    # </solution>


check.kept_rank(kept_rank)

# %% rank hint [markdown] hint="kept_rank"
# `values.cumsum(0)` has the sums of the first 1, 2, 3, ... values. Count those that are small enough.

# %% compression
RATIOS = (1, 0.8, 0.6, 0.4, 0.2)
small = {ratio: custom_diffusion.compress(merged_delta, ratio) if ratio < 1 else merged_delta for ratio in RATIOS}
frames, strip = [], []
for ratio, delta in small.items():
    custom_diffusion.load_into(together, delta)
    images = draw(together, asked(lambda concept: concept.name)[:6])
    row = several_concepts.shares(several_concepts.look(images, ORDERS[:6], reader))
    words = f"ratio {ratio:g}, {delta.nbytes / 1e6:.2f} MB, likeness {row['likeness']:.2f}"
    frames.append(plots.grid(images, columns=6, heads=PLACES, size=128, alt=words))
    strip += images
labels = [frame.alt for frame in frames]
still = plots.grid(
    strip,
    columns=6,
    heads=PLACES,
    rows=labels,
    size=128,
    colours=256,
    alt="The merge, compressed more and more: " + labels[-1],
)
sizes = [delta.nbytes for delta in small.values()]
assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 5
widgets.browse(frames, "ratio", [f"{ratio:g}" for ratio in RATIOS], still)

# %% curve
by_ratio = {
    ratio: {r["seed"]: r for r in rows if (r["method"], r["concepts"], r["ratio"]) == ("merge", "person+cat", ratio)}
    for ratio in RATIOS
}
curve = {
    ratio: [results.mean_and_spread(r[name] for r in own.values()) for name in ("file_mb", "likeness", "alone")]
    for ratio, own in by_ratio.items()
}
for ratio, ((mb, _), (together_like, spread), (alone_like, alone_spread)) in curve.items():
    print(
        f"ratio {ratio:<4g} {mb:5.2f} MB, likeness together {together_like:.2f} ± {spread:.2f}, alone "
        f"{alone_like:.2f} ± {alone_spread:.2f}"
    )
fifth = max((ratio for ratio in RATIOS if curve[ratio][0][0] <= curve[1][0][0] / 5), default=RATIOS[-1])
likeness = {ratio: [by_ratio[ratio][seed]["likeness"] for seed in by_ratio[1]] for ratio in (1, fifth)}
loss, error = difference(likeness[1], likeness[fifth])
display(
    plots.curves(
        {
            "together": (RATIOS, [c[1][0] for c in curve.values()]),
            "alone": (RATIOS, [c[2][0] for c in curve.values()]),
        },
        "ratio: how much of the singular values' sum is kept at most",
        "likeness",
        alt="Likeness over the ratio, both concepts in a picture and one alone: nearly flat from 1 to 0.8, lower below",
    )
)
claim(
    "compressed-to-a-fifth",
    "A concept can be compressed to a fifth of its size with little loss.",
    paper="Kumari et al. 2023, appendix: 75 MB to 15 MB",
    measured=f"ratio {fifth:g}: {curve[fifth][0][0] / curve[1][0][0]:.2f} of the size, likeness of pictures with both "
    f"{-loss:+.3f} ± {error:.3f} (a loss of 0.05 counts as little)",
    verdict=verdict(0.05 - loss, error),  # "little" allows a twentieth
    seeds=SEEDS,
    results=TABLE,
)

# %% stable diffusion [markdown]
# ## What is different on Stable Diffusion
#
# - **The matrices** are 32 with 768 columns, so $G$ is 768 × 768, and is inverted once for all of them. On two
#   processor cores the mathematics for three concepts takes 1.2 s (`python benchmarks/merging.py`).
# - **The captions** take longer: a text encoder of full size needs about 26 s more for 200 of them, on the same two
#   cores. The paper takes about a thousand captions. More of them leave fewer directions free.
# - **The steps**: 500 for two concepts, twice those for one.
# - **What gets lost.** Two similar animals, and three concepts and more, are named by the authors as failures. Larger
#   models draw three plain things more often than ours does; the binding of words to things stays the weak point.
# - **No judge.** CLIP and DINO compare whole pictures with each concept's photos. A picture with two things is then
#   near to neither, and a mean over both hides who is missing. Look at the pictures.
#
# ## Glossary
#
# - **Omission**: a concept that was asked for is not in the picture. **Mixing**: it is, with something of another one.
# - **Constraint**: what must hold exactly. **Regularisation features** $C_{\mathrm{reg}}$: what should change little.
# - **Lagrange multipliers** $\Lambda$, **KKT conditions**: at the solution the cost's gradient is a combination of the
#   constraints' gradients, and the constraints hold.
# - **Ridge**: a small cost on the matrix itself, so that no direction is free.
# - **Singular values**: how much each direction of a matrix contributes, largest first.
#
# ## Further reading
#
# - Kumari, Zhang, Zhang, Shechtman, Zhu: *Multi-Concept Customization of Text-to-Image Diffusion*, CVPR 2023,
#   [arXiv:2212.04488](https://arxiv.org/abs/2212.04488). Section 3.2 is this lesson.
# - Ruiz, Li, Jampani, Pritch, Rubinstein, Aberman: *DreamBooth*, CVPR 2023,
#   [arXiv:2208.12242](https://arxiv.org/abs/2208.12242). The baseline.
# - Bau, Liu, Wang, Zhu, Torralba: *Rewriting a Deep Generative Model*, ECCV 2020,
#   [arXiv:2007.15646](https://arxiv.org/abs/2007.15646). The same kind of constrained edit of one matrix.
# - Boyd, Vandenberghe: *Convex Optimization*, chapter 5. Lagrange and KKT.
