# %% title [markdown] prerequisites="tensors in PyTorch; seed, steps and guidance, as in lesson 00; sine and cosine"
# # 02 · Embedding interpolation
#
# Stable Diffusion is five parts and a loop of ten lines. In this lesson you take the pipeline apart, put it together
# again yourself, and check that your pictures are the same as those of the `diffusers` library. Then you reach into
# the running machine: you mix noises, mix prompts, swap the prompt half-way, and watch where each word is read.
#
# After this lesson you can
#
# - name the parts of Stable Diffusion, and say what goes into each one and what comes out;
# - add noise to a picture, train a small diffusion model on points, and sample from it with DDIM;
# - say what a prompt's vectors hold, word by word, and which of them the picture is made from;
# - interpolate noises and prompts, and explain why noises need the arc and not the straight line;
# - find out when in the sampling a colour, a thing, a place or a style is decided: the key to lesson 03;
# - read cross-attention maps, and say what they do *not* show.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("02", profile="pocket")

# %% parts text [markdown]
# ## Part 1. The machine, taken apart
#
# You give a prompt and a seed, you get a picture. In between the data changes its form four times:
#
# | part | takes | gives |
# |---|---|---|
# | **tokenizer** | the prompt | numbers, one for each word (*tokens*) |
# | **text encoder** | tokens | vectors, one for each token |
# | random generator | the seed | noise $x_T$, shaped like *latents* |
# | **UNet** and **scheduler**, in a loop | noise and vectors | the latents of a picture, $x_0$ |
# | **VAE**, its decoder | latents | the picture |
#
# The cell below runs the whole pipeline as a closed box, and looks at the data at each of these places. Latents have
# four channels; for looking at them, three of them are shown as red, green and blue.

# %% parts
import torch
from IPython.display import display

from tutorial_lib import models, sampling
from tutorial_lib.lab import diffusion_plots, plots

pipe = models.load(lesson.profile)
pocket = pipe if lesson.profile == "pocket" else models.load("pocket")  # where only the pocket world knows the truth
pipe.set_progress_bar_config(disable=True)

prompt = "a photo of a red car on a beach"
tokens = pipe.tokenizer(prompt, padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt")
with torch.no_grad():
    vectors = pipe.text_encoder(tokens.input_ids.to(pipe.device))[0]  # (1, tokens, width)
x_start = sampling.noise(pipe, [3]).to(pipe.device, pipe.unet.dtype)  # (1, 4, h, w)
x_0 = pipe(prompt, latents=x_start, guidance_scale=4.0, num_inference_steps=25, output_type="latent").images
with torch.no_grad():
    picture = pipe.vae.decode(x_0 / pipe.vae.config.scaling_factor).sample / 2 + 0.5  # (1, 3, H, W)
names = pipe.tokenizer.convert_ids_to_tokens(tokens.input_ids[0])
diffusion_plots.stages(names, vectors[0], x_start[0], x_0[0], picture[0])

# %% forward text [markdown]
# The latents look like a coarse picture already. That is the VAE's service: the UNet works on few numbers, and the
# decoder fills in the fine texture. All the rest happens between $x_T$ and $x_0$, so that is where we look now.
#
# ## Part 2. Noise in, noise out
#
# A diffusion model learns from pictures that were spoilt on purpose. The next cell mixes the picture from above with
# more and more noise. On the right almost nothing is left of it, and that is where sampling starts.
#
# Each timestep $t$ from 0 to 999 has a number $\bar\alpha_t$ between 1 and 0: the share of the picture in the variance
# of the mixture. The noise $\epsilon$ has the rest. Both enter by a square root, so that the variances add up:
#
# $$x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1 - \bar\alpha_t}\; \epsilon, \qquad \epsilon \sim \mathcal{N}(0, 1)$$
#
# (Ho et al. 2020, equation 4. The DDIM paper, which we follow below, writes $\alpha_t$ for the same number.) The cell
# uses the scheduler's own function. **Write `add_noise` yourself** in the cell after it. There `alpha` is
# $\bar\alpha_t$, a tensor with one number.

# %% forward
shares = pipe.scheduler.alphas_cumprod  # ᾱ, one for each of the 1000 timesteps
generator = torch.Generator().manual_seed(1)
eps = torch.randn(x_0.shape, generator=generator).to(x_0)
moments = [0, 100, 250, 400, 600, 800, 999]
with torch.no_grad():
    noisy = [pipe.scheduler.add_noise(x_0, eps, torch.tensor([t])) for t in moments]
    decoded = torch.cat([pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample / 2 + 0.5 for x in noisy])


def tiles(pictures):
    """Pictures (n, 3, H, W) from 0 to 1 as arrays that `plots.grid` takes."""
    return list((255 * pictures.float().clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy())


plots.grid(
    tiles(decoded),
    heads=[f"t = {t}, ᾱ = {shares[t]:.2f}" for t in moments],
    columns=7,
    size=128,
    colours=256,
    alt="The red car on the beach with more and more noise, from a clean picture to pure noise",
)

# %% add noise exercise exercise="add_noise" difficulty=1 minutes=5
import torch

from tutorial_lib.lab.checks import lesson_02 as check


def add_noise(x0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """x_t: the picture x0 and the noise eps mixed in the shares of a timestep. Shapes as x0."""
    # <solution>
    return alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps
    # </solution>


check.add_noise(add_noise)

# %% add noise hint [markdown] hint="add_noise"
# Two terms, each a tensor times a number. A tensor with one number has the method `.sqrt()`.

# %% loss text [markdown]
# ### The ε-loss
#
# The model is shown the mixture $x_t$ and the timestep $t$, and must say which noise is in it. It is trained to make
# the squared error small, averaged over pictures, noises and timesteps (Ho et al. 2020, equation 14):
#
# $$L = \mathbb{E}_{x_0,\, \epsilon,\, t} \; \bigl\| \epsilon_\theta(x_t, t) - \epsilon \bigr\|^2$$
#
# That is the core of the training of Stable Diffusion: mix, estimate, compare. (Its model also sees the prompt.) To see
# it happen in seconds we need smaller data than pictures: points in the plane. Below the exercise this loss trains a
# small network on points that lie inside the outline of a teapot. It sees a point, and some waves of it so that it can
# draw sharp borders, and the timestep. The noise levels are Stable Diffusion's own.
#
# **Write `epsilon_loss`** for points: `x0` and `eps` have the shape (n, 2), `t` holds n timesteps, and
# `alphas_cumprod[t]` is $\bar\alpha$ for each of them. `model(x_t, t)` estimates the noise. Return the mean over all
# numbers of the n points, as a tensor with a gradient: the model is to be trained on it.

# %% loss exercise exercise="epsilon_loss" difficulty=2 minutes=10
import torch

from tutorial_lib.lab.checks import lesson_02 as check


def epsilon_loss(
    model: torch.nn.Module, x0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """The mean squared error of the model's estimate of eps: one number."""
    # <solution>
    alpha = alphas_cumprod[t][:, None]  # (n,) -> (n, 1), so that each point gets its own
    x_t = alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps
    return (model(x_t, t) - eps).square().mean()
    # </solution>


check.epsilon_loss(epsilon_loss)

# %% loss hint [markdown] hint="epsilon_loss"
# Three lines: look up ᾱ and give it the shape (n, 1); mix; compare the estimate with `eps`.

# %% point training
import math

import numpy as np
from torch import nn

from tutorial_lib.pocket import world

teapot = world.mask(world.Scene("photo", "table", (world.Thing("teapot", "orange", x=0.5, size=0.8),)))
rows, columns = np.nonzero(teapot)
data = torch.tensor(np.stack([columns, -rows], axis=1), dtype=torch.float32)  # (points, 2), y upwards
data = data - data.mean(0)
pixel = 1 / data.std()
data = data * pixel


class PointModel(nn.Module):
    """Estimates the noise in points of the plane: (n, 2) points, (n,) timesteps -> (n, 2)."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.register_buffer("waves", 2 * torch.randn(2, 24))
        self.register_buffer("beats", math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0]))
        layers = nn.Linear(58, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        self.layers = nn.Sequential(*layers)

    def forward(self, x, t):
        where, when = x @ self.waves, (t[:, None] / 1000).sqrt() * self.beats  # (n, 24), (n, 4)
        return self.layers(torch.cat([x, where.sin(), where.cos(), when.sin(), when.cos()], dim=1))


STEPS, BATCH = 2000, 256
alphas = pocket.scheduler.alphas_cumprod
point_model = PointModel()
optimizer = torch.optim.AdamW(point_model.parameters(), betas=(0.9, 0.99))
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=STEPS)
losses, times = [], []
for _ in range(STEPS):
    x0 = data[torch.randint(len(data), (BATCH,))] + pixel * (torch.rand(BATCH, 2) - 0.5)  # anywhere in its pixel
    eps, t = torch.randn(BATCH, 2), torch.randint(1000, (BATCH,))
    alpha = alphas[t][:, None]
    errors = (point_model(alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps, t) - eps).square().mean(1)
    optimizer.zero_grad()
    errors.mean().backward()
    optimizer.step()
    schedule.step()
    losses.append(errors.detach())
    times.append(t)

diffusion_plots.losses(torch.stack(losses), torch.stack(times))

# %% loss meaning [markdown]
# The loss falls, and then it stays well above zero. Nothing is wrong. The right panel says why: at small $t$ there is
# hardly any noise in the point, and nobody can tell how much of its place is noise. At large $t$ nearly everything is
# noise, and the estimate is easy. So the loss of a diffusion model says little about its samples.
#
# ### From noise to data: DDIM
#
# A trained model knows the way back. Given $x_t$ and its estimate $\hat\epsilon = \epsilon_\theta(x_t, t)$, solve the
# mixture for the picture, then mix again for a smaller timestep $t'$, with the *same* noise:
#
# $$\hat x_0 = \frac{x_t - \sqrt{1 - \bar\alpha_t}\; \hat\epsilon}{\sqrt{\bar\alpha_t}}, \qquad
# x_{t'} = \sqrt{\bar\alpha_{t'}}\; \hat x_0 + \sqrt{1 - \bar\alpha_{t'}}\; \hat\epsilon$$
#
# This is DDIM (Song et al. 2021, equation 12 with σ = 0). No new noise comes in, so the start decides everything.
#
# **Write `ddim_step`.** `alpha` is $\bar\alpha_t$ and `alpha_prev` is $\bar\alpha_{t'}$.

# %% ddim exercise exercise="ddim_step" difficulty=3 minutes=10
import torch

from tutorial_lib.lab.checks import lesson_02 as check


def ddim_step(x: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, alpha_prev: torch.Tensor) -> torch.Tensor:
    """x at the next, smaller timestep; eps is the model's estimate of the noise in x."""
    # <solution>
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_prev.sqrt() * x0 + (1 - alpha_prev).sqrt() * eps
    # </solution>


check.ddim_step(ddim_step)

# %% ddim hint [markdown] hint="ddim_step"
# Two lines, one for each formula. The first uses `alpha` only. In the second both roots use `alpha_prev`.

# %% loop text [markdown]
# The loop around this step is the sampler. Training used 1000 timesteps; sampling visits $N$ of them. Pocket-SD's
# scheduler spaces them *trailing*: $t_i = \mathrm{round}(1000 - 1000\, i / N) - 1$ for $i = 0, \dots, N - 1$. The first
# is 999, the noisiest, where the noise that you start from belongs. (The older spacing, *leading*, starts one stride
# lower; Lin et al. 2024 explain what goes wrong then.)
#
# The loop knows nothing about pictures: it asks `estimate(x, t)` for the noise, and `estimate` may be our point model
# or a UNet. It is a *generator*: after each step it hands out where it is, $x$, and the picture that it believes in,
# $\hat x_0$. One detail decides about the last digits: the last step goes to $\bar\alpha_0$, not to 1, so a trace of
# noise stays, as Stable Diffusion has it (`set_alpha_to_one=False`).

# %% loop
from itertools import pairwise


def ddim(estimate, x, steps: int, done: int = 0):
    """DDIM from noise to data: yields (x, x̂0) after each step. `done`: steps that x has behind it already."""
    visited = [round(1000 - i * 1000 / steps) - 1 for i in range(steps)] + [0]  # the end is ᾱ_0
    for t, t_next in pairwise(visited[done:]):
        alpha, alpha_next = alphas[t], alphas[t_next]
        eps = estimate(x, t)
        x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        x = alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * eps
        yield x, x0


def points_noise(x, t):
    """What the point model takes for noise."""
    with torch.no_grad():
        return point_model(x, torch.full((len(x),), float(t)))


cloud = torch.randn(2000, 2)
flow = [cloud, *(x for x, _ in ddim(points_noise, cloud, steps=50))]
distance = torch.cdist(flow[-1], data).min(1).values / pixel  # to the nearest pixel of the teapot, in pixels
inside = (distance < 1.5).float().mean().item()
assert inside > 0.8, f"only {inside:.2f} of the points became teapot"

print(f"{inside:.0%} of the points ended within a pixel or so of the teapot")
diffusion_plots.flow({step: flow[step] for step in (0, 25, 35, 42, 46, 50)})

# %% flow meaning [markdown]
# The colour of a point says where it *started*. Points that start side by side end side by side: DDIM is a smooth map
# from noise to data. Keep this in mind. It is the reason why interpolating noise can work at all.
#
# ## Part 3. Put together again
#
# Now the same loop makes pictures. Three things are missing: words to vectors, latents to pictures, and an `estimate`
# that listens to the prompt. It asks the UNet twice at each step, with the empty prompt ∅ and with the words $c$, and
# goes $g$ times the way from the one to the other (classifier-free guidance, Ho and Salimans 2022). The UNet knows the
# empty prompt because about one prompt in ten was left out in its training:
#
# $$\hat\epsilon = \epsilon_\theta(x_t, t, \varnothing) + g\,\bigl(\epsilon_\theta(x_t, t, c) -
# \epsilon_\theta(x_t, t, \varnothing)\bigr)$$
#
# That is everything. Then comes the test: our pictures against those of the `diffusers` pipeline, from the same noise.
# We compare floating-point pictures from 0 to 1, before they are rounded to 256 levels.

# %% pipeline
from diffusers import DDIMScheduler


@torch.no_grad()
def embed(pipe, prompts):
    """Prompts to vectors: (n, tokens, width)."""
    length = pipe.tokenizer.model_max_length
    tokens = pipe.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return pipe.text_encoder(tokens.input_ids.to(pipe.device))[0].float()


@torch.no_grad()
def decode(pipe, x):
    """Latents to pictures: (n, 3, H, W) from 0 to 1. One at a time: large pictures need much memory."""
    latents = (x / pipe.vae.config.scaling_factor).to(pipe.vae.dtype)
    pictures = torch.cat([pipe.vae.decode(latent[None]).sample for latent in latents])
    return (pictures.float() / 2 + 0.5).clamp(0, 1)


def guided(pipe, words, g: float):
    """The estimate of the noise that listens to the words (n, tokens, width), with guidance g."""
    both = torch.cat([embed(pipe, [""]).expand_as(words), words]).to(pipe.unet.dtype)

    @torch.no_grad()
    def estimate(x, t):
        x = x.to(pipe.device, pipe.unet.dtype)
        if g == 1:
            return pipe.unet(x, t, both[len(x) :]).sample.float()
        empty, full = pipe.unet(torch.cat([x, x]), t, both).sample.float().chunk(2)
        return empty + g * (full - empty)

    return estimate


prompts = [
    "a photo of a red car on a beach",
    "a watercolor of a blue house in a forest",
    "a photo of an orange cat in a city",
]
noises = sampling.noise(pipe, [3, 1, 2]).to(pipe.device)
path = list(ddim(guided(pipe, embed(pipe, prompts), g=4.0), noises, steps=25))
ours = decode(pipe, path[-1][0])

choices = {"timestep_spacing": "trailing", "clip_sample": False}  # Pocket-SD's own; other models come with others
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **choices)
options = {"guidance_scale": 4.0, "num_inference_steps": 25, "output_type": "pt"}
theirs = pipe(prompts, latents=noises.to(pipe.unet.dtype), **options).images.float()
difference = (ours - theirs).abs().max().item()
if pipe.unet.dtype == torch.float32:
    assert difference < 1e-4, f"our sampler and diffusers differ by {difference:.1e}"
print(f"The largest difference in {ours.numel():,} numbers from 0 to 1: {difference:.1e}")


plots.grid(
    [*tiles(ours), *tiles(theirs)],
    columns=6,
    heads=["ours"] * 3 + ["diffusers"] * 3,
    size=128,
    alt="A car, a house and a cat drawn by our loop, and the same three pictures from the diffusers pipeline",
)

# %% steps text [markdown]
# Ten lines, and the same pictures. (The library has this loop too, in `tutorial_lib/ddim.py`, with what later lessons
# need besides. With a number of steps that does not divide 1000, `diffusers` rounds a little differently.)
#
# ### Look inside the loop
#
# Move the first slider. On the left is what the UNet sees, $x_t$; on the right what it believes, $\hat x_0$. When do
# you first know that it will be a car? When do the wheels appear? The belief starts as a blur, the mean of all
# pictures that are still possible, and becomes sharp as fewer remain.
#
# The second slider turns guidance. Lesson 00 measured it from 1 to 8. With the formula in your own hands, try what
# nobody should: $g = 0$, where the words count for nothing, and values far too high. Watch the colours.

# %% steps
from tutorial_lib.lab import widgets

seen = tiles(decode(pipe, torch.cat([noises[:1], *(x[:1] for x, _ in path[:-1])])))  # before each step
believed = tiles(decode(pipe, torch.cat([x0[:1] for _, x0 in path])))
heads = ["what it sees, x_t", "what it believes, x̂0"]
frames = [
    plots.grid(pair, heads=heads, columns=2, size=192, alt=f"step {i} of 25")
    for i, pair in enumerate(zip(seen, believed, strict=True), start=1)
]
chosen = range(0, 25, 3)
strip = plots.grid(
    [seen[i] for i in chosen] + [believed[i] for i in chosen],
    rows=["x_t", "x̂0"],
    heads=[f"step {i + 1}" for i in chosen],
    columns=len(chosen),
    size=64,
    colours=256,
    alt="Above, the noise turns into the red car; below, the belief: a blur at first, then a car that gets sharper",
)
widgets.browse(frames, "step", [str(i) for i in range(1, 26)], strip, start=8)

# %% guidance
FEW = 10  # steps in the experiments from here on: enough to see, and quick
VALUES = (0, 1, 2, 4, 7, 12, 20)
asked = [
    "a photo of a green ball on a table",
    "a photo of a person with brown hair in the snow",
    "a photo of a yellow car at night",
]


def draw(pipe, words, x, g: float = 4.0, steps: int = FEW):
    """Pictures (n, 3, H, W) of the words (n, tokens, width), from the noise x."""
    *_, (x, _) = ddim(guided(pipe, words, g), x, steps)
    return decode(pipe, x)


start = sampling.noise(pipe, [5, 6, 7]).to(pipe.device)
by_guidance = [draw(pipe, embed(pipe, asked), start, g) for g in VALUES]
frames = []
for g, pictures in zip(VALUES, by_guidance, strict=True):
    clipped = ((pictures < 0.004) | (pictures > 0.996)).float().mean()
    words = f"g = {g}: {clipped:.0%} of all values are at an end of the scale, black or full"
    frames.append(plots.grid(tiles(pictures), columns=3, size=160, labels=asked, alt=words))
strip = plots.grid(
    tiles(torch.stack(by_guidance, dim=1).flatten(0, 1)),  # one row a prompt
    columns=len(VALUES),
    heads=[f"g = {g}" for g in VALUES],
    size=128,
    colours=256,
    alt="Three prompts, one a row, with guidance from 0 to 20: at 0 the words are ignored, at 20 colours are glaring",
)
widgets.browse(frames, "guidance", [str(g) for g in VALUES], strip, start=3)

# %% words text [markdown]
# ## Part 4. What the vectors of a prompt hold
#
# The UNet never sees the words, only the text encoder's vectors: one for each token, and padding up to a fixed length.
# It is tempting to think that the vector of *red* holds "red", and that of *mug* "mug". Let us test that.
#
# - **Readable:** from the vector at one position, can a linear classifier tell the colour, the thing, the place? We
#   train one for each position, on half of 550 prompts "a photo of a (colour) (thing) (place)", and test on the rest.
# - **Changed:** we replace one word of a prompt. By what part of its length does the vector at each position move?

# %% readable
from itertools import product


def caption(colour: str, thing: str, place: str) -> str:
    """The words of a photo with one thing."""
    return world.caption(world.Scene("photo", place, (world.Thing(thing, colour),)))


PLACES = [place for place in world.BACKGROUNDS if place != "night"]  # "at night" has one word less
KINDS = {"colour": world.COLOURS, "thing": world.OBJECTS, "place": PLACES}
POSITIONS = [*range(12), 20, 39]
NAMES = "(start) a photo of a COLOUR THING in the PLACE (end) padding padding padding".split()
combinations = list(product(*KINDS.values()))
vectors = embed(pocket, [caption(*words) for words in combinations]).cpu()  # (550, tokens, width)
trained = torch.rand(len(vectors)) < 0.5


def readable(position: int, kind: int) -> float:
    """The share of the other prompts whose word of this kind ridge regression reads from this position."""
    X = torch.nn.functional.pad(vectors[:, position], (0, 1), value=1.0).double()
    words = list(KINDS.values())[kind]
    right = torch.tensor([words.index(combination[kind]) for combination in combinations])
    Y = torch.nn.functional.one_hot(right).double()
    W = torch.linalg.solve(X[trained].T @ X[trained] + torch.eye(X.shape[1]), X[trained].T @ Y[trained])
    return (X @ W).argmax(1).eq(right)[~trained].double().mean().item()


scores = [[readable(position, kind) for position in POSITIONS] for kind in range(3)]
old = embed(pocket, [caption("red", "mug", "beach")])
EDITS = {"colour": ("blue", "mug", "beach"), "thing": ("red", "car", "beach"), "place": ("red", "mug", "forest")}
new = embed(pocket, [caption(*words) for words in EDITS.values()])  # (3, tokens, width)
moved = ((new - old).norm(dim=-1) / old.norm(dim=-1))[:, POSITIONS].cpu()
assert moved[:, :5].max() < 1e-4 and moved[:, 10].min() > 0.05
assert min(row[-1] for row in scores) > 0.9 and max(max(row[:5]) for row in scores) < 0.5

figure, axes = plots.subplots(2, 1, width=10, height=5)
plots.draw_heatmap(axes[0, 0], scores, NAMES, KINDS, top=1)
axes[0, 0].set_title("readable: share of unseen prompts that are read right")
plots.draw_heatmap(axes[1, 0], moved, NAMES, KINDS)
axes[1, 0].set_title("changed: how far the vector moves when this word is replaced, as a share of its length")
plots.finish(figure, alt="Two tables of words by positions: nothing before a word, much from the word to the end")

# %% words meaning [markdown]
# Two things stand out. **Nothing before the word:** CLIP's text encoder reads from left to right (its attention is
# *causal*), so a vector knows its own word and those before it, and never what comes later: the classifier does little
# better than chance. (Small words can give an answer away. "An" tells of orange. "On a" and "in the" belong to the
# place: in the lower table its row begins two columns early, and in the upper one the second of these words already
# gives a part of it away.) **Everything after it:** from the word on, every position knows it, down to the last
# padding.
#
# So every word is readable at many places. Which of them does the UNet *use*? That takes an experiment: take the
# vectors of "a photo of a **red** mug on a beach", put in *some* vectors of "a photo of a **blue** mug on a beach", and
# look at what is drawn. The same with a thing ("mug" → "car") and a place ("on a beach" → "in a forest").

# %% words prediction
ANSWERS = {
    True: "The mug becomes a car: a word's own vector carries its meaning",
    False: "It stays a mug: the meaning reaches the picture through other vectors",
}
word_guess = widgets.predict("Only the vector of “mug” becomes that of “car”. What is drawn?", list(ANSWERS.values()))
word_guess

# %% transplant
from tutorial_lib.pocket import judge

reader = judge.load()
SEEDS = (0, 1, 2)
END = 10  # position of the end token in these prompts
REPLACED = {"colour": (5, 6), "thing": (6, 7), "place": (7, 10)}  # first position of the replaced words, and the next
PARTS = {
    "nothing": lambda first, after: slice(0, 0),
    "the word itself": lambda first, after: slice(first, after),
    "words after it": lambda first, after: slice(after, END),
    "end and padding": lambda first, after: slice(END, None),
    "all of these": lambda first, after: slice(first, None),
}


def facts(pictures) -> list[dict]:
    """What the judge reads: colour and kind of the first thing, and the place."""
    readings = [(r.things[0].colour, r.things[0].kind, r.background) for r in reader.read(pictures)]
    return [dict(zip(KINDS, reading, strict=True)) for reading in readings]


grafts = old.repeat(len(PARTS), len(KINDS), 1, 1)  # (parts, kinds, tokens, width)
for i, part in enumerate(PARTS.values()):
    for k, kind in enumerate(KINDS):
        positions = part(*REPLACED[kind])
        grafts[i, k, positions] = new[k, positions]
words = grafts.flatten(0, 1).repeat_interleave(len(SEEDS), dim=0)
grafted = draw(pocket, words, sampling.noise(pocket, SEEDS * (len(PARTS) * len(KINDS))).to(pocket.device))

wanted = {kind: words[k] for k, (kind, words) in enumerate(EDITS.items())}  # blue, car, forest
kinds = [kind for _ in PARTS for kind in KINDS for _ in SEEDS]
arrived = [read[kind] == wanted[kind] for read, kind in zip(facts(grafted), kinds, strict=True)]
arrived = np.reshape(arrived, (len(PARTS), len(KINDS), len(SEEDS))).sum(-1)  # pictures that show the new word
for part, row in zip(PARTS, arrived, strict=True):
    print(f"{part:<16}", "   ".join(f"{kind}: {n} of {len(SEEDS)}" for kind, n in zip(KINDS, row, strict=True)))
sheet = plots.grid(
    tiles(grafted),
    columns=len(KINDS) * len(SEEDS),
    rows=PARTS,
    heads=[f"{kind} → {wanted[kind]}" for kind in KINDS for _ in SEEDS],
    size=64,
    colours=256,
    alt="Red mugs on a beach; each row takes other vectors from prompts that ask for blue, for a car, for a forest",
)
display(sheet)
colour, thing, place = arrived[1]
word_guess.outcome(
    ANSWERS[bool(thing > len(SEEDS) / 2)],
    f"with the vectors of the replaced words alone, of {len(SEEDS)} pictures {colour} show the new colour, {thing} the "
    f"new thing, {place} the new place; with all vectors from there on, {', '.join(map(str, arrived[4]))}",
)

# %% noise text [markdown]
# *Readable* is not the same as *used*. A word's meaning is readable from its place to the end, and the picture may take
# it from the word's own vector, from the words after it, or from the padding. The table shows that the way can differ
# from word to word. (One of its zeros says nothing: after the place no words follow, so *words after it* puts nothing
# in.) So do not count on "the vector of a word". Lesson 03, which mixes prompts, mixes all of them.
#
# ## Part 5. Between two noises
#
# DDIM is a smooth map, so a way from one noise to another should give a way from one picture to another. Which way? The
# straight line is the first idea:
#
# $$\mathrm{lerp}(a, b, t) = (1 - t)\, a + t\, b$$
#
# But noise does not fill space evenly. The length of $n$ independent normal numbers is very near $\sqrt n$, always:
# noise lives on a thin shell. Two noises are nearly at right angles (they have nothing to do with each other), so the
# middle of the straight line has length $\sqrt{n} \cdot \sqrt{1/2}$ (Pythagoras). It lies far *inside* the shell, where
# the model has never been. The way on the shell is the arc:
#
# $$\mathrm{slerp}(a, b, t) = \frac{\sin\bigl((1 - t)\,\Omega\bigr)}{\sin \Omega}\, a + \frac{\sin(t\,\Omega)}{\sin
# \Omega}\, b, \qquad \cos \Omega = \frac{a \cdot b}{\|a\|\,\|b\|}$$
#
# (Shoemake 1985; Song et al. 2021 use it for noise.) Here $t$ is the share of the way, from 0 to 1, and no timestep.
#
# **Write `slerp`** for two tensors of any shape. All their numbers together form one vector.

# %% slerp exercise exercise="slerp" difficulty=3 minutes=10
import torch

from tutorial_lib.lab.checks import lesson_02 as check


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """The point at the share t of the arc from a to b. Shape as a."""
    # <solution>
    cosine = (a * b).sum() / (a.norm() * b.norm())
    omega = torch.arccos(cosine)
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)
    # </solution>


check.slerp(slerp)

# %% slerp hint [markdown] hint="slerp"
# `a.norm()` and `(a * b).sum()` take all numbers of a tensor, whatever its shape. `torch.arccos` gives radians. The
# lengths of a and b matter for Ω only: in the sum, a and b enter as they are.

# %% shell
from tutorial_lib import sphere

many = sampling.noise(pocket, range(1000)).flatten(1).norm(dim=1)
a, b = sampling.noise(pocket, [1, 2])
ways = torch.linspace(0, 1, 41)
lengths = {way.__name__: [way(a, b, t).norm().item() for t in ways] for way in (sphere.slerp, sphere.lerp)}
sag = lengths["lerp"][20] / many.mean().item()
assert abs(sag - math.sqrt(0.5)) < 0.05 and abs(lengths["slerp"][20] / many.mean() - 1) < 0.05 and many.min() > 27

display(diffusion_plots.shell(many, lengths))

FACTORS = (0, 0.25, 0.5, 0.71, 1, 1.2, 1.41)
pair = embed(pocket, ["a photo of a red car in a forest", "a photo of a yellow house at night"])
start = torch.cat([factor * sampling.noise(pocket, [1, 3]) for factor in FACTORS]).to(pocket.device)
scaled = tiles(draw(pocket, pair.repeat(len(FACTORS), 1, 1), start, g=1))
plots.grid(
    scaled[0::2] + scaled[1::2],
    columns=len(FACTORS),
    heads=[f"noise × {factor:g}" for factor in FACTORS],
    size=128,
    colours=256,
    alt="Pictures from one noise, made shorter and longer: short noise gives plain pictures, long noise gives debris",
)

# %% length meaning [markdown]
# One noise, multiplied by a number (without guidance, so that nothing else interferes). Too long, and the model takes
# the surplus for detail and draws debris. Too short, and there is too little to make detail from: the picture becomes
# plain. At zero it is the most average picture of all. The middle of a straight line is the factor 0.71.
#
# Does that matter in practice, for pictures on the way between two noises? Six prompts, each with two noises and their
# middle, on the line and on the arc. *Detail* is the mean difference of neighbouring pixels. *Agreement* is the share
# of the prompt that the judge finds in the picture.

# %% lerp
from tutorial_lib import metrics
from tutorial_lib.lab.claims import claim

SCENES = [
    world.Scene("photo", "forest", (world.Thing("car", "red"),)),
    world.Scene("watercolor", "beach", (world.Thing("teapot", "blue"),)),
    world.Scene("photo", "night", (world.Thing("house", "yellow"),)),
    world.Scene("photo", "table", (world.Thing("ball", "green"),)),
    world.Scene("photo", "city", (world.Thing("cat", "orange"),)),
    world.Scene("photo", "snow", (world.Thing("flower", "purple"),)),
]
ONE, TWO = range(10, 16), range(20, 26)  # seeds
a, b = (sampling.noise(pocket, seeds).to(pocket.device) for seeds in (ONE, TWO))
middles = {"line": sphere.lerp(a, b, 0.5), "arc": sphere.slerp(a, b, 0.5, dim=(1, 2, 3))}
noises = {"first noise": a, **{f"middle of the {way}": x for way, x in middles.items()}, "second noise": b}
words = embed(pocket, [world.caption(scene) for scene in SCENES])
between = {name: draw(pocket, words, x, g=1) for name, x in noises.items()}


def detail(pictures):
    """The mean difference of neighbouring pixels: one number a picture."""
    return pictures.diff(dim=2).abs().mean((1, 2, 3)) + pictures.diff(dim=3).abs().mean((1, 2, 3))


def agreement(pictures) -> float:
    """The share of everything that SCENES asks for that the judge finds."""
    shares = metrics.prompt_fidelity(pictures, SCENES, reader).values()
    return sum(share.right for share in shares) / sum(share.count for share in shares)


sheet = plots.grid(
    [picture for pictures in between.values() for picture in tiles(pictures)],
    columns=len(SCENES),
    rows=between,
    size=128,
    colours=256,
    alt="Six prompts, one a column: the pictures of two noises, and of their middle on the line and on the arc",
)
display(sheet)
at_ends = (detail(between["first noise"]) + detail(between["second noise"])) / 2
ratio = {way: (detail(between[f"middle of the {way}"]) / at_ends).mean().item() for way in middles}
found = {name: agreement(pictures) for name, pictures in between.items()}
usual = (found["first noise"] + found["second noise"]) / 2
as_good = found["middle of the arc"] > usual - 0.1 and abs(ratio["arc"] - 1) < 0.07
far_off = found["middle of the arc"] < usual - 0.2 or abs(ratio["arc"] - 1) > 0.2
claim(
    "noise-on-the-sphere",
    "In the middle of the arc between two noises (slerp) pictures are as good as at its ends.",
    paper="Song et al. 2021, DDIM, section 5.3",
    measured=f"middle of the arc: {ratio['arc']:.2f} times the detail of the ends, agreement "
    f"{found['middle of the arc']:.2f} (ends: {usual:.2f}). Middle of the straight line: {ratio['line']:.2f} times the "
    f"detail, agreement {found['middle of the line']:.2f}",
    verdict="reproduced" if as_good else "contradicted" if far_off else "not visible at this scale",
    seeds=[*ONE, *TWO],
)

# %% prompts text [markdown]
# ## Part 6. Between two prompts
#
# The same with words: the noise stays, and the prompt's vectors go from one prompt to the other. Each token's vector is
# mixed with the one at the same position. A text encoder ends with a layer norm, so its vectors too have nearly one
# length, and one may ask for the arc again. Does it make a difference here? And does everything change at once?
#
# Move the slider: on the left the line, on the right the arc. The judge reads both. (Where no kernel runs you see all
# the pictures in a strip.)

# %% prompts
ONE_PROMPT, TWO_PROMPT = ("red", "mug", "beach"), ("blue", "house", "snow")
one, two = embed(pocket, [caption(*ONE_PROMPT), caption(*TWO_PROMPT)])
shares = [k / 8 for k in range(9)]  # of the second prompt
mixed = {
    "lerp": torch.stack([sphere.lerp(one, two, t) for t in shares]),
    "slerp": torch.stack([sphere.slerp(one, two, t, dim=-1) for t in shares]),
}
start = sampling.noise(pocket, SEEDS * len(shares)).to(pocket.device)
morphs = {way: draw(pocket, words.repeat_interleave(len(SEEDS), 0), start) for way, words in mixed.items()}
read = {way: facts(pictures) for way, pictures in morphs.items()}

first_seed = {way: tiles(pictures)[:: len(SEEDS)] for way, pictures in morphs.items()}
frames = []
for i, t in enumerate(shares):
    told = ["{colour} {thing}, {place}".format(**read[way][i * len(SEEDS)]) for way in morphs]
    pair, alt = [first_seed[way][i] for way in morphs], f"{t:.0%} of the way: line “{told[0]}”, arc “{told[1]}”"
    frames.append(plots.grid(pair, columns=2, size=192, heads=list(morphs), labels=told, alt=alt))
strip = plots.grid(
    first_seed["lerp"] + first_seed["slerp"],
    rows=morphs,
    heads=[f"t = {t:g}" for t in shares],
    columns=len(shares),
    size=64,
    colours=256,
    alt="From a red mug on a beach to a blue house in the snow in nine pictures, by lerp above and by slerp below",
)
widgets.browse(frames, "t", [f"{t:g}" for t in shares], strip, start=4)

# %% line or arc
middle = slice(4 * len(SEEDS), 5 * len(SEEDS))
for way, pictures in morphs.items():
    length = mixed[way][4, 6:].norm(dim=-1).mean() / one[6:].norm(dim=-1).mean()
    print(f"{way:<5} at t = 0.5: vectors {length:.2f} times as long, detail {detail(pictures[middle]).mean():.4f}")
one_step = (morphs["lerp"][len(SEEDS) :] - morphs["lerp"][: -len(SEEDS)]).abs().mean()
line_to_arc = (morphs["lerp"] - morphs["slerp"]).abs().mean()
print(f"lerp and slerp differ by {line_to_arc:.4f} a pixel, neighbours on the way by {one_step:.4f}")

figure, axes = plots.subplots(1, 3, width=10, height=2.8)
for axis, kind, word in zip(axes[0], KINDS, TWO_PROMPT, strict=True):
    shown = {way: np.reshape([r[kind] == word for r in read[way]], (len(shares), -1)).mean(1) for way in read}
    plots.draw_curves(axis, {way: (shares, y) for way, y in shown.items()}, "t", f"pictures that show “{word}”")
    axis.set_title(kind)
plots.finish(
    figure, alt="For colour, thing and place, the share of pictures that show the second prompt's word, over t"
)

# %% walk text [markdown]
# For noise the arc is better: the middle of the line lost detail, although the judge still found what the prompts asked
# for. For prompts, compare two numbers that the last cell printed: how much line and arc differ, and how much two
# neighbours on the way differ. If the first is smaller, it matters little which way you take. At most a word changes a
# little earlier on the one than on the other.
#
# Note also *how* a picture changes. It is no double exposure: the model has learned what pictures look like, and
# between two prompts it draws one picture, not two. A colour may pass through others on its way; a thing or a place
# changes within a few steps of the slider, each at a share of its own.
#
# ### A latent walk
#
# Both together: a round trip through four prompts and four noises, on the arc for noise and on the line for words, and
# back to the start without a seam.

# %% walk
from tutorial_lib.lab import animation

STATIONS = [
    ("a photo of a red house in the snow", 21),
    ("a photo of a yellow car in a city", 8),
    ("a photo of a green tree on a beach", 13),
    ("a photo of a blue teapot on a table", 4),
]
PER_LEG = 6
words, start = [], []
for (prompt_a, seed_a), (prompt_b, seed_b) in pairwise([*STATIONS, STATIONS[0]]):
    for i in range(PER_LEG):
        words.append(sphere.lerp(*embed(pocket, [prompt_a, prompt_b]), i / PER_LEG))
        start.append(sphere.slerp(*sampling.noise(pocket, [seed_a, seed_b]), i / PER_LEG))
walk = tiles(draw(pocket, torch.stack(words), torch.stack(start).to(pocket.device)))
display(animation.animate(walk, alt="A walk from a red house to a yellow car, a green tree, a blue teapot, and back"))
frames = [plots.grid([p], columns=1, size=192, alt=f"picture {i} of {len(walk)}") for i, p in enumerate(walk, start=1)]
strip = plots.grid(
    walk[:: PER_LEG // 2], columns=8, size=64, colours=256, alt="Eight pictures of the walk, evenly spaced"
)
widgets.browse(frames, "picture", [str(i) for i in range(1, len(walk) + 1)], strip)

# %% switch text [markdown]
# ## Part 7. Another prompt at step $s$
#
# The next experiment is the door to lesson 03. Start with one prompt, and after $s$ of the steps go on with another.
# The noise stays, the loop goes on where it was: only the vectors change. If the switch comes late, the picture's plan
# is made, and the new prompt can only work on what is still open. So the latest step at which an attribute can still
# be changed tells **when it is decided**.

# %% switch prediction
SWITCHES = {
    "style": ("a photo of a red mug on a beach", "a watercolor of a red mug on a beach"),
    "place": ("a photo of a red mug on a beach", "a photo of a red mug in the snow"),
    "colour": ("a photo of a red car in a city", "a photo of a blue car in a city"),
    "thing": ("a photo of a red mug on a table", "a photo of a red teapot on a table"),
    "glasses": (
        "a photo of a person with black hair on a beach",
        "a photo of a person with black hair and glasses on a beach",
    ),
}
switch_guess = widgets.predict("Which is decided first, so that you must ask for it earliest?", list(SWITCHES))
switch_guess

# %% switch
AFTER = (0, 4, 5, 6, 7, 8, 9, 10)  # of 10 steps: 0 is the new prompt from the start, 10 the old one to the end


def shows_new(kind: str, r) -> bool:
    """Does the judge read the new prompt's attribute?"""
    thing = r.things[0]
    return {
        "style": r.style == "watercolor",
        "place": r.background == "snow",
        "colour": thing.colour == "blue",
        "thing": thing.kind == "teapot",
        "glasses": r.person is not None and "glasses" in r.person.extras,
    }[kind]


edits = [(kind, *pair) for kind, pair in SWITCHES.items() for _ in SEEDS]
olds, news = (guided(pocket, embed(pocket, [edit[k] for edit in edits]), 4.0) for k in (1, 2))
start = sampling.noise(pocket, SEEDS * len(SWITCHES)).to(pocket.device)
on_the_way = [start, *(x for x, _ in ddim(olds, start, FEW))]  # x after 0, 1, ... 10 steps with the old prompt
ends = [[on_the_way[s], *(x for x, _ in ddim(news, on_the_way[s], FEW, done=s))][-1] for s in AFTER]
switched = [decode(pocket, x) for x in ends]
arrived = [[shows_new(edit[0], r) for edit, r in zip(edits, reader.read(p), strict=True)] for p in switched]
arrived = np.reshape(arrived, (len(AFTER), len(SWITCHES), len(SEEDS))).mean(-1)  # share of the pictures

sheet = plots.grid(
    [tiles(pictures)[k * len(SEEDS)] for k in range(len(SWITCHES)) for pictures in switched],
    columns=len(AFTER),
    rows=SWITCHES,
    heads=["new only", *(f"after {s}" for s in AFTER[1:-1]), "old only"],
    size=64,
    colours=256,
    alt="Five edits, one a row; the new prompt takes over after 0 to 10 of 10 steps: late switches keep the picture",
)
display(sheet)
curves = {kind: (AFTER, arrived[:, k]) for k, kind in enumerate(SWITCHES)}
alt = "For each of five attributes, the share of pictures that show the new one, over the step of the switch"
display(plots.curves(curves, "switch after this many of 10 steps", "pictures with the new attribute", alt=alt))
decided = dict(zip(SWITCHES, arrived[1:-1].mean(0), strict=True))
told = ", ".join(f"{kind} {share:.0%}" for kind, share in decided.items())
first = [kind for kind, share in decided.items() if share == min(decided.values())]  # more than one where they tie
measured = switch_guess.guess if switch_guess.guess in first else first[0]
switch_guess.outcome(measured, f"so many of the switches after {AFTER[1]} to {AFTER[-2]} steps still work: {told}")

# %% switch claim
latest = {kind: max((s for s, y in zip(AFTER, row) if y > 0.5), default=0) for kind, row in zip(SWITCHES, arrived.T)}
change = torch.stack([(p - switched[-1]).abs().mean((1, 2, 3)) for p in switched])  # from the old prompt's picture
change = change.view(len(AFTER), len(SWITCHES), len(SEEDS)).mean(-1)
less = {
    kind: (change[AFTER.index(latest[kind]), k] / change[0, k]).item()
    for k, kind in enumerate(SWITCHES)
    if 0 < latest[kind] < FEW
}
mean = np.mean(list(less.values())) if less else 1.0
verdict = "reproduced" if mean < 0.85 and len(less) >= 4 else "not visible at this scale"
claim(
    "late-switch-keeps-the-picture",
    "Changing the prompt only from some step on brings the new attribute in and keeps more of the picture.",
    paper="Wu et al. 2023, Uncovering the Disentanglement Capability",
    measured=f"{len(less)} of {len(SWITCHES)} edits still work when the prompt changes on the way. At the latest "
    f"switch that works in most pictures, pixels change {mean:.2f} times as much as with the new prompt from the start "
    f"({', '.join(f'{kind} {share:.2f}' for kind, share in less.items())})",
    verdict="contradicted" if mean > 1 else verdict,
    seeds=SEEDS,
)

# %% attention text [markdown]
# A hard switch at one step is crude. Lesson 03 gives every step a weight of its own between the two prompts, and lets
# an optimiser find the weights that change the style and keep the content.
#
# ## Part 8. Where each word is read
#
# How do the words get into the picture? Through the UNet's **cross-attention** layers. At each place of the picture a
# query $Q$ is compared with a key $K$ of every token, and the place takes in the tokens' values $V$ in the shares
#
# $$A = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right)$$
#
# $A$ has a row for each place and a column for each token. A token's column, laid out as a picture, is its **map**:
# where the picture reads this token. Hertz et al. (2022) found that such maps follow the layout of the picture, and
# edit pictures by putting the maps of one prompt into another.
#
# **Write `word_maps`.** `Q` has the shape (heads, places, d) and `K` (heads, tokens, d). The places are a square, row
# by row. Return the maps, averaged over the heads: (tokens, side, side).

# %% attention exercise exercise="word_maps" difficulty=4 minutes=15
import math

import torch

from tutorial_lib.lab.checks import lesson_02 as check


def word_maps(Q: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """For each token its share of the attention at each place: (tokens, side, side)."""
    # <solution>
    A = (Q @ K.transpose(1, 2) / math.sqrt(Q.shape[-1])).softmax(dim=-1)  # (heads, places, tokens)
    side = math.isqrt(Q.shape[1])
    return A.mean(0).T.reshape(-1, side, side)  # (places, tokens) -> (tokens, side, side)
    # </solution>


check.word_maps(word_maps)

# %% attention hint [markdown] hint="word_maps"
# `Q @ K.transpose(1, 2)` has the shape (heads, places, tokens). The softmax makes each *place's* shares add up to 1, so
# it runs over the last axis. Then the mean over axis 0, `.T`, and a reshape.

# %% maps
import inspect

from tutorial_lib import attention_maps

print(inspect.getsource(attention_maps.RecordingProcessor.__call__))  # diffusers' attention, with one line more
ALONE = [
    "a photo of a red mug on a beach",
    "a photo of a person with glasses in a forest",
    "a photo of a blue car in the snow",
]
TWO_THINGS = [
    "a photo of a red ball and a blue house on a table",
    "a photo of a yellow house and a green tree on a beach",
    "a photo of a white cat and a red car in a city",
]
SEEN = ALONE + TWO_THINGS * len(SEEDS)
words, start = embed(pocket, SEEN), sampling.noise(pocket, range(len(SEEN))).to(pocket.device)
plain = guided(pocket, words, 4.0)(start, 500)
with attention_maps.record(pocket.unet):
    difference = (guided(pocket, words, 4.0)(start, 500) - plain).abs().max().item()
assert difference < 1e-4, f"recording changes the UNet's output by {difference:.1e}"
with attention_maps.record(pocket.unet) as recorded:
    drawn = draw(pocket, words, start)
A = recorded.mean(side=8)[len(SEEN) :]  # (n, tokens, 8, 8); the second half of the batch has the words
A = torch.nn.functional.interpolate(A, drawn.shape[-2:], mode="bilinear").cpu()  # (n, tokens, H, W)
print(f"maps of {recorded.sides} places a side, mean of {FEW} steps; recording changes the output by {difference:.0e}")


def map_of(i: int, word: str):
    """The map (H, W) of a word of prompt i, at its first place in the prompt."""
    return A[i, 1 + SEEN[i].split().index(word)]


def spotlight(picture, share):
    """The picture (3, H, W), dark where the share (H, W) is low."""
    return picture.cpu() * (0.1 + 0.9 * (share - share.min()) / (share.max() - share.min()))


LOOK = {0: "photo red mug on beach", 3: "red ball blue house table", 1: "photo person with glasses forest"}
lit = [
    x for i, w in LOOK.items() for x in (drawn[i].cpu(), *(spotlight(drawn[i], map_of(i, word)) for word in w.split()))
]
plots.grid(
    tiles(torch.stack(lit)),
    labels=[label for words in LOOK.values() for label in ("the picture", *words.split())],
    columns=6,
    size=128,
    colours=256,
    alt="Three pictures, and for five words of each the picture, lit up where the word is read",
)

# %% maps claim
segments = torch.as_tensor(np.asarray(reader.segment(drawn)))


def fit(i: int, word: str, thing: str, other: str | None = None) -> float:
    """How often a place on the thing has more of the word's attention than a place off it, or on the other thing.

    0.5 is chance, 1 a perfect fit; NaN where a thing was not drawn.
    """
    on = segments[i] == world.CLASSES.index(thing)
    off = ~on if other is None else segments[i] == world.CLASSES.index(other)
    return (map_of(i, word)[on][:, None] > map_of(i, word)[off]).double().mean().item()


things = [[word for word in prompt.split() if word in world.CLASSES] for prompt in SEEN]
one_thing, two_things = range(len(ALONE)), range(len(ALONE), len(SEEN))
fits = {
    "the thing's word": [fit(i, word, word) for i in range(len(SEEN)) for word in things[i]],
    "the word of the place": [fit(i, SEEN[i].split()[-1], things[i][0]) for i in one_thing],
    "“photo”": [fit(i, "photo", word) for i in range(len(SEEN)) for word in things[i]],
    "first of two, against the second": [fit(i, things[i][0], *things[i]) for i in two_things],
    "second of two, against the first": [fit(i, things[i][1], *things[i][::-1]) for i in two_things],
}
fits = {name: np.nanmean(values) for name, values in fits.items()}
for name, value in fits.items():
    print(f"{name:<33} {value:.2f}")
on_thing = fits["the thing's word"]
claim(
    "maps-follow-the-layout",
    "The cross-attention map of a thing's word lies on the thing.",
    paper="Hertz et al. 2022, Prompt-to-Prompt",
    measured=f"a place on the thing has more of the word's attention than a place off it in {on_thing:.2f} of all "
    f"pairs (0.5 is chance); for the word of the place it is {fits['the word of the place']:.2f}, for “photo” "
    f"{fits['“photo”']:.2f}",
    verdict="reproduced" if on_thing > 0.8 else "contradicted" if on_thing < 0.6 else "not visible at this scale",
    seeds=range(len(SEEN)),
)

# %% maps apart claim
first, second = fits["first of two, against the second"], fits["second of two, against the first"]
verdict = "reproduced" if min(first, second) > 0.7 else "not visible at this scale"
claim(
    "maps-tell-two-things-apart",
    "With two things in the picture, the map of each thing's word lies on its own thing.",
    paper="Hertz et al. 2022, Prompt-to-Prompt",
    measured=f"a place on its own thing has more of the word's attention than a place on the other in {first:.2f} of "
    f"all pairs for the word that comes first, in {second:.2f} for the word that comes second (0.5 is chance)",
    verdict="contradicted" if max(first, second) < 0.6 else verdict,
    seeds=two_things,
)

# %% limits [markdown]
# A warning that the numbers bear out: look at the word of the *place*. Where it is far above 0.5, its map lies on the
# thing, although it names the background. Its vector comes after the thing's word and knows the thing too (part 4), and
# the picture may read it there. In the same way the second of two things knows the first. So a map shows **where a
# vector is read**, not what the word means.
#
# ## What is different on Stable Diffusion
#
# - The loop, the formulas and the classes are the same. With `profile="sd15"` parts 1 to 3 run on it, on a GPU. Its own
#   default sampler is PNDM, with *leading* timesteps; our comparison puts DDIM with trailing ones in its place.
# - Latents are 4 × 64 × 64, so noise has length $\sqrt{16384} = 128$, and its shell is thinner still.
# - A prompt has 77 tokens, and most of them are padding.
# - Hertz et al. use the maps of 16 × 16 places. Ours have 8 × 8.
# - Nobody knows what is right: the judge's part is played by CLIP, or by your eyes.
# - Thousands of kinds of things, not eleven: two prompts have much more between them, also pictures that are neither.

# %% glossary [markdown]
# ## Glossary
#
# - **Latents**: the numbers in which the VAE stores a picture, and in which the UNet draws. $x_0$ clean, $x_T$ noise.
# - $\bar\alpha_t$: the share of the picture in the variance of $x_t$; near 1 at $t = 0$, near 0 at $t = 999$.
# - **ε-loss**: mean squared error of the estimated noise.
# - **DDIM**: a sampler without new noise at the steps: the same start gives the same picture.
# - $\hat x_0$: the picture that the model believes in at some step.
# - **Embedding** (of a prompt): the text encoder's vectors, one a token.
# - **Causal**: each position sees itself and what comes before it.
# - **lerp**, **slerp**: interpolation along the straight line, along the arc.
# - **Cross-attention map**: for one token, its share of the attention at each place.
#
# ## Further reading
#
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, NeurIPS 2020,
#   [arXiv:2006.11239](https://arxiv.org/abs/2006.11239).
# - Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, ICLR 2021,
#   [arXiv:2010.02502](https://arxiv.org/abs/2010.02502).
# - Ho, Salimans: *Classifier-Free Diffusion Guidance*, 2022, [arXiv:2207.12598](https://arxiv.org/abs/2207.12598).
# - Lin, Liu, Li, Yang: *Common Diffusion Noise Schedules and Sample Steps Are Flawed*, WACV 2024,
#   [arXiv:2305.08891](https://arxiv.org/abs/2305.08891).
# - Shoemake: *Animating Rotation with Quaternion Curves*, SIGGRAPH 1985. Where slerp comes from.
# - Hertz, Mokady, Tenenbaum, Aberman, Pritch, Cohen-Or: *Prompt-to-Prompt Image Editing with Cross Attention Control*,
#   2022, [arXiv:2208.01626](https://arxiv.org/abs/2208.01626).
# - Wu and others: *Uncovering the Disentanglement Capability in Text-to-Image Diffusion Models*, CVPR 2023,
#   [arXiv:2212.08698](https://arxiv.org/abs/2212.08698). Lesson 03 builds it.
