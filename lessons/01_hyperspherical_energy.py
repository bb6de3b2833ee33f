# %% title [markdown] prerequisites="lesson 00; Python with a little torch; dot products and matrix products"
# # 01 · Hyperspherical energy
#
# A neural network keeps what it knows in its weights. This lesson looks at weights in an unusual way: as **points on a
# sphere**. How the points stand to one another is summed up in one number, the *hyperspherical energy*. Orthogonal
# fine-tuning, the method of lessons 04 and 05, is built on the idea that this number should stay as it is.
#
# After this page you can
#
# - read the neurons of a layer as directions, and show that a direction says more than a length;
# - write down the hyperspherical energy, and find arrangements of least energy on a real sphere;
# - measure the energy of every layer of a diffusion model, before and after several kinds of change;
# - say which changes keep it, prove why, and say what keeping it does **not** promise;
# - avoid a rounding trap in which simple code returns infinity.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("01", profile="pocket")

# %% neurons text [markdown]
# ## A neuron is an arrow
#
# A linear layer is a matrix $W$. Each row $w_i$ is one **neuron**. It takes an input $x$ and answers with the number
#
# $$\langle w_i, x \rangle = \lVert w_i \rVert \, \lVert x \rVert \cos\theta_i ,$$
#
# where $\theta_i$ is the angle between the two. So a neuron is an arrow, and its answer has two parts. The **length**
# $\lVert w_i \rVert$ is a volume knob: it makes every answer louder or softer. The **direction** decides which inputs
# are answered at all. Divide each arrow by its length, and all of them end on a sphere of radius 1: only the directions
# are left. (In a convolution a neuron is one output channel, with all numbers of its kernel in one row.)

# %% neurons
import torch

from tutorial_lib.lab import plots

arrows = torch.tensor([[1.4, 0.4], [0.3, 0.9], [-1.1, 0.8], [-0.5, -0.3], [0.4, -1.5]])
round_trip = torch.linspace(0, 2 * torch.pi, 100)
figure, axes = plots.subplots(1, 2, width=8, height=3.9)
for place, ends, title in (
    (axes[0, 0], arrows, "five neurons"),
    (axes[0, 1], arrows / arrows.norm(dim=1, keepdim=True), "their directions, on the unit circle"),
):
    place.plot(round_trip.cos(), round_trip.sin(), color="0.7")
    place.quiver(*torch.zeros(2, 5), *ends.T, color=plots.COLOURS[:5], angles="xy", scale_units="xy", scale=1)
    place.plot(*ends.T, "o", color=plots.COLOURS[6], markersize=3)
    place.set(title=title, aspect="equal", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7))
plots.finish(figure, alt="Left: five arrows of different lengths. Right: the same arrows, all ending on a circle")

# %% what matters text [markdown]
# ## Which matters more, length or direction?
#
# Let us ask Pocket-SD. Its UNet has more than a hundred weight matrices. We change all of them in one of two ways:
#
# - **lengths shuffled**: each neuron keeps its direction and gets the length of another neuron of its layer;
# - **directions replaced**: each neuron keeps its length and gets a random direction.
#
# We look at the pictures, and at the quantity that the UNet was trained to make small, the **denoising error**: take
# pictures of known scenes, add known noise, let the UNet estimate that noise. The error is the mean square of what it
# misses. A UNet that always answers zero has the error 1.

# %% what matters prediction
from tutorial_lib.lab import widgets

KNOBS = ["Shuffled lengths do more damage", "Both do about the same damage", "Replaced directions do more damage"]
knob_prediction = widgets.predict("Which of the two changes spoils the pictures more?", options=KNOBS)
knob_prediction

# %% tools
import copy

import numpy as np

from tutorial_lib import models
from tutorial_lib.pocket import world

pipe = models.load(lesson.profile)
pocket = pipe if lesson.profile == "pocket" else models.load("pocket")  # here we know what is right
device = pocket.device


def changed(unet, change):
    """A copy of the UNet in which each weight, seen as a matrix of shape (neurons, inputs), is change(weight)."""
    new = copy.deepcopy(unet)
    for weight in new.parameters():
        if weight.ndim > 1:
            weight.data = change(weight.data.flatten(1)).reshape(weight.shape)
    return new


@torch.no_grad()
def encoded(pictures, captions):
    """Latents of the pictures and the text encoder's vectors of their captions."""
    pixels = torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    latents = pocket.vae.encode(pixels.to(device)).latent_dist.mean * pocket.vae.config.scaling_factor
    tokens = pocket.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return latents, pocket.text_encoder(tokens.to(device))[0]


scenes = [world.sample_scene(np.random.default_rng(1000 + k)) for k in range(16)]
latents, words = encoded([np.asarray(world.draw(s)) for s in scenes], [world.caption(s) for s in scenes])
noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
times = torch.linspace(50, 950, 16).long().to(device)
noisy = pocket.scheduler.add_noise(latents, noise, times)


@torch.no_grad()
def denoising_error(unet) -> float:
    return (unet(noisy, times, words).sample - noise).square().mean().item()


print(f"Denoising error of Pocket-SD: {denoising_error(pocket.unet):.3f}")

# %% what matters
from tutorial_lib.sampling import generate


def shuffled_lengths(W):
    lengths = W.norm(dim=1, keepdim=True)
    return W / lengths * lengths[torch.randperm(len(W))]


def random_directions(W):
    new = torch.randn_like(W)
    return new / new.norm(dim=1, keepdim=True) * W.norm(dim=1, keepdim=True)


PROMPTS = ["a photo of a red mug on a beach", "a photo of a person with black hair in a city"]
PROMPTS += ["a watercolor of a green house in the snow", "pixel art of an orange cat in a forest"]


def drawn(unet):
    """The four prompts, drawn with this UNet in the place of Pocket-SD's own."""
    own, pocket.unet = pocket.unet, unet
    try:
        return generate(pocket, PROMPTS, seed=1, num_inference_steps=12, progress=False)
    finally:
        pocket.unet = own


torch.manual_seed(lesson.seed)
unets = {
    "unchanged": pocket.unet,
    "lengths shuffled": changed(pocket.unet, shuffled_lengths),
    "directions replaced": changed(pocket.unet, random_directions),
}
errors = {name: denoising_error(unet) for name, unet in unets.items()}
plots.grid(
    [picture for unet in unets.values() for picture in drawn(unet)],
    rows=[f"{name}: error {errors[name]:.2f}" for name in unets],
    columns=4,
    alt="Pictures of the unchanged UNet, nearly the same with shuffled lengths, noise with replaced directions",
)

# %% angles claim
from IPython.display import display

from tutorial_lib.lab.claims import claim, difference, verdict

harm = {name: error - errors["unchanged"] for name, error in errors.items()}
ratio = harm["directions replaced"] / harm["lengths shuffled"]
assert ratio > 5
lengths = [w.detach().flatten(1).norm(dim=1) for w in pocket.unet.parameters() if w.ndim > 1 and len(w) >= 32]
uneven = np.median([(each.std() / each.mean()).item() for each in lengths])
print(f"In a typical layer the neurons' lengths differ by {uneven:.0%} (standard deviation, of their mean).")
assert uneven < 0.3
numbers = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
display(knob_prediction.outcome(KNOBS[2 if ratio > 2 else 1 if ratio > 0.5 else 0], f"denoising errors: {numbers}"))
claim(
    "direction-over-length",
    "A network's knowledge lies in the directions of its neurons more than in their lengths.",
    paper="Qiu et al. 2023, OFT, section 3",
    measured=f"denoising errors: {numbers}",
    verdict="reproduced" if ratio > 2 else "not visible at this scale" if ratio > 0.5 else "contradicted",
    seeds=[lesson.seed],
)

# %% directions text [markdown]
# A fair reader objects: the lengths within a layer differ little from one another, so shuffling them is a *small*
# change of $W$, while a new direction is a large one. That is true. The lengths were nearly equal before training and
# differ by a few percent after it, so there is little that they could tell. The OFT paper makes the same observation on
# an autoencoder and concludes that the **angles between neurons** carry what the network knows.
#
# ## Angles between neurons
#
# **Write `directions`**: from a weight of shape (neurons, inputs), or (neurons, channels, height, width) for a
# convolution, make the matrix of directions $u_i = w_i / \lVert w_i \rVert$, of shape (neurons, everything else).
#
# The cell after it looks at the angles $\theta_{ij} = \arccos \langle u_i, u_j \rangle$ between all pairs of neurons,
# with the library's `sphere.pairwise_angles`. Before you run it: which angles do you expect between random directions
# in 3 dimensions, and which in 300?

# %% directions exercise exercise="directions" difficulty=1 minutes=5
from tutorial_lib.lab.checks import lesson_01 as check


def directions(weight: torch.Tensor) -> torch.Tensor:
    """Each neuron as a row of length 1, shape (neurons, inputs)."""
    # <solution>
    rows = weight.flatten(1)
    return rows / rows.norm(dim=1, keepdim=True)
    # </solution>


check.directions(directions)

# %% directions hint [markdown] hint="directions"
# `weight.flatten(1)` keeps the first dimension and joins all others. Then each row has a length of its own:
# `rows.norm(dim=...)`. Which dimension must go, and what does `keepdim=True` do for the division?

# %% histogram
from diffusers import UNet2DConditionModel

from tutorial_lib import sphere

torch.manual_seed(lesson.seed)
LAYER = "down_blocks.0.resnets.0.conv2.weight"
trained = pocket.unet.get_parameter(LAYER).detach().cpu()
fresh = UNet2DConditionModel.from_config(pocket.unet.config).get_parameter(LAYER).detach()
spread = {m: sphere.pairwise_angles(torch.randn(200, m)).rad2deg() for m in (3, 30, 300)}
figure, axes = plots.subplots(1, 2, width=9, height=3.2)
panels = (
    ("random directions in m dimensions", {f"m = {m}": angles for m, angles in spread.items()}),
    ("one convolution of the UNet, m = 576", {"trained": trained, "untrained": fresh}),
)
for place, (title, groups) in zip(axes[0], panels, strict=True):
    for i, (name, values) in enumerate(groups.items()):
        angles = values if values.ndim == 1 else sphere.pairwise_angles(values).rad2deg()
        style = {"density": True, "histtype": "step", "linewidth": 1.6, "linestyle": plots.LINES[i]}
        place.hist(angles, bins=100, label=name, color=plots.COLOURS[i], **style)
    place.set(title=title, xlabel="angle between two neurons, degrees", ylabel="share of pairs, per degree")
    place.legend(frameon=False)
axes[0, 1].set(xlim=(60, 120), yscale="log")
assert all(abs(spread[m].std().deg2rad() * m**0.5 - 1) < 0.1 for m in (30, 300))
plots.finish(figure, alt="The more dimensions, the more angles gather at 90 degrees; a trained layer spreads wider")

# %% energy text [markdown]
# In three dimensions nearly every angle occurs. In 300 dimensions **almost every pair is nearly perpendicular**: the
# angles gather around 90° with a standard deviation of about $1/\sqrt{m}$ radians. There is so much room that random
# arrows do not meet.
#
# An untrained layer looks just like that (right, dashed). The trained one has pairs far from 90°, on both sides. Those
# are neurons that came to do related things. What training has made is in these tails.
#
# ## One number for a whole layer
#
# We want one number that is large when some neurons crowd together and small when all keep away from one another.
# Physics has one: put equal electric charges on the points. Each pair holds an energy that falls with the distance,
#
# $$f_s(d) = \frac{1}{d^{\,s}} \quad (s > 0), \qquad f_0(d) = \log\frac{1}{d}, \qquad
# d_{ij} = \lVert u_i - u_j \rVert ,$$
#
# and the **hyperspherical energy** of $n$ neurons adds up all pairs (Liu et al. 2018). We take the mean over the
# $n(n-1)/2$ pairs, so that layers of different sizes can be compared, and $s = 1$, as OFT does:
#
# $$E = \frac{2}{n(n-1)} \sum_{i<j} \frac{1}{\lVert u_i - u_j \rVert} .$$
#
# Why $1/d$ and not, say, $-d$? Because the curve, drawn below, is **steep where it matters**. Between $d = 1$ and
# $d = 2$ it hardly moves, but two points that come close dominate the sum, and the slope that pushes them apart grows
# as $1/d^2$. A larger $s$ looks at near pairs even more, a smaller one at all pairs alike.
#
# Under the picture, **write `mean_energy`** for directions that are already of length 1.

# %% energy curve
distance = torch.linspace(0.08, 2, 200)
potentials = {"s = 0: log 1/d": -distance.log(), "s = 1: 1/d": 1 / distance, "s = 2: 1/d²": 1 / distance**2}
figure, axes = plots.subplots(1, 1, width=6.5, height=3.2)
place = axes[0, 0]
plots.draw_curves(
    place, {name: (distance, f) for name, f in potentials.items()}, "distance d of two points", "energy of the pair"
)
place.axvline(2**0.5, color="0.5", linewidth=1)
place.text(2**0.5 + 0.02, 7, "perpendicular,\nd = √2", va="top")
place.set_ylim(-1, 10)
plots.finish(figure, alt="Three curves that fall with distance; 1/d² is steepest near zero; a line marks √2")


# %% energy exercise exercise="mean_energy" difficulty=2 minutes=10
def mean_energy(u: torch.Tensor) -> torch.Tensor:
    """The mean of 1 / |u_i - u_j| over all pairs i < j of the rows of u, a tensor of shape (n, m)."""
    # <solution>
    i, j = torch.triu_indices(len(u), len(u), offset=1)
    distance = (u[i] - u[j]).norm(dim=1)  # (n(n-1)/2,)
    return (1 / distance).mean()
    # </solution>


check.mean_energy(mean_energy)

# %% energy hint [markdown] hint="mean_energy"
# `torch.triu_indices(n, n, offset=1)` gives the indices $i$ and $j$ of all pairs with $i < j$. With them `u[i] - u[j]`
# has one row for each pair. What is its length, and what comes first, inverting or averaging?

# %% Thomson text [markdown]
# ## Points that repel one another
#
# In 1904 J. J. Thomson asked: if electrons sit on a sphere and repel one another, where do they come to rest? It is the
# energy above in three dimensions, as a sum over all pairs instead of their mean. For most $n$ nobody has a proof to
# this day. But a computer finds the arrangements: let every point feel the force of all others, move a little, return
# to the sphere, repeat.
#
# The force is the downhill slope of this sum: $F_i = \sum_{j \ne i} \dfrac{u_i - u_j}{\lVert u_i - u_j \rVert^3}$.
#
# **Write `repel`**, one step: move each point by rate × force, then put it back on the sphere.


# %% Thomson exercise exercise="repel" difficulty=3 minutes=15
def repel(points: torch.Tensor, rate: float) -> torch.Tensor:
    """The points (n, 3) of length 1 after one step of size `rate` along their forces, again of length 1."""
    # <solution>
    apart = points[:, None] - points[None]  # (n, n, 3): from point j to point i
    distance = apart.norm(dim=2).fill_diagonal_(torch.inf)  # (n, n): no point pushes itself
    force = (apart / distance[..., None] ** 3).sum(dim=1)  # (n, 3)
    moved = points + rate * force
    return moved / moved.norm(dim=1, keepdim=True)
    # </solution>


check.repel(repel)

# %% Thomson hint [markdown] hint="repel"
# `points[:, None] - points[None]` has the shape $(n, n, 3)$ and holds $u_i - u_j$ at `[i, j]`. Take its norm along the
# last dimension; on the diagonal it is 0, and `fill_diagonal_(torch.inf)` makes the force of a point on itself vanish.
# Over which of the two $n$ should the sum run?

# %% sphere text [markdown]
# Here is the whole descent. All points start close together at the top, and the library's `hyperspherical_energy` with
# torch's automatic gradient does what your `repel` does. Blue points feel the least pressure, orange ones much more.
#
# - Move **step** from 0 to the end and watch them run apart.
# - **Turn** and **tilt** the sphere. With 12 points you see an icosahedron, with 6 an octahedron.
# - Try 8 points. You might expect a cube. Is it one?
#
# Do they reach the published energies? Plain descent slows down near the end, so for the table below it we take a
# method that also learns the curvature, L-BFGS, from three random starts for each $n$. Some $n$ have several resting
# places; the best of the starts counts.

# %% sphere
from tutorial_lib.lab import sphere_plots

KNOWN = {  # the least energies known, as a sum over pairs (Wales and Ulker 2006 and earlier tables)
    **{2: 0.5, 3: 1.732050808, 4: 3.674234614, 5: 6.474691495, 6: 9.985281374, 7: 14.452977414, 8: 19.675287861},
    **{9: 25.759986531, 10: 32.716949460, 11: 40.596450510, 12: 49.165253058, 20: 150.881568334, 32: 412.261274651},
}


def descend(n: int, steps: int = 150):
    """The positions (steps + 1, n, 3) and energies (steps + 1,) of n points that start together at the top."""
    generator = torch.Generator().manual_seed(n)
    start = torch.tensor([0.0, 0.0, 1.0]) + 0.3 * torch.randn(n, 3, generator=generator)
    points, positions, energies = start.double(), [], []
    for _ in range(steps + 1):
        points = (points / points.norm(dim=1, keepdim=True)).detach().requires_grad_()
        energy = sphere.hyperspherical_energy(points, reduction="sum")
        positions.append(points.detach().numpy())
        energies.append(energy.item())
        move = -torch.autograd.grad(energy, points)[0] * 2.5 / n**1.5
        points = points + move * (0.15 / move.norm(dim=1, keepdim=True)).clamp(max=1)  # no leaps
    return np.stack(positions), energies


sphere_plots.descent_panel(descend, KNOWN, n=12)


# %% table
def least_energy(n: int, starts: int = 3) -> float:
    """The least energy that L-BFGS reaches from some random starts."""
    found = []
    for seed in range(starts):
        points = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        optimiser = torch.optim.LBFGS([points.requires_grad_()], max_iter=300, line_search_fn="strong_wolfe")

        def energy(points=points, optimiser=optimiser):
            optimiser.zero_grad()
            total = sphere.hyperspherical_energy(points, reduction="sum")
            total.backward()
            return total

        optimiser.step(energy)
        found.append(energy().item())
    return min(found)


print(" n    reached here    published     difference")
for n, published in KNOWN.items():
    reached = least_energy(n)
    print(f"{n:2}  {reached:14.6f} {published:12.6f}  {reached - published:13.1e}")
    assert abs(reached - published) < 1e-4

# %% floor text [markdown]
# ## How low can a layer go?
#
# For up to $m + 1$ points in $m$ dimensions the best arrangement is known: the *regular simplex* (2 points: opposite;
# 3: a triangle; 4: a tetrahedron), in which all distances are equal. Its energy is the floor below which no layer with
# $n \le m + 1$ neurons can go. For random directions there is a formula for the expected energy too:
#
# $$E_\text{least} = \sqrt{\frac{n-1}{2n}} , \qquad
# E_\text{random} = \frac{2^{m-3}}{\sqrt{\pi}} \,
# \frac{\Gamma(\frac{m}{2}) \, \Gamma(\frac{m}{2} - 1)}{\Gamma(m - \frac{3}{2})} .$$
#
# ($\Gamma$ is the gamma function, the factorial continued to numbers in between: $\Gamma(k) = (k-1)!$. The formula
# needs $m \ge 3$: in the plane near pairs are so common that the expected energy is infinite.) Both come close to
# $1/\sqrt{2} \approx 0.707$, the first for many neurons, the second in many dimensions, where all pairs are nearly
# perpendicular anyway.

# %% floor
from math import exp, lgamma, log, pi


def random_energy(m: int) -> float:
    """The expected mean energy of random directions in m dimensions, for s = 1."""
    return exp((m - 3) * log(2) + lgamma(m / 2) + lgamma(m / 2 - 1) - lgamma(m - 1.5)) / pi**0.5


def least_mean_energy(n: int) -> float:
    """The mean energy of n points at equal distances (possible for n <= m + 1), for s = 1."""
    return ((n - 1) / (2 * n)) ** 0.5


weights = {name: weight.detach() for name, weight in pipe.unet.named_parameters() if weight.ndim > 1}
gaps = {}
for name, weight in weights.items():
    n, m = len(weight), weight[0].numel()
    if 32 <= n <= m + 1:
        gaps[name] = random_energy(m) / least_mean_energy(n) - 1
sampled = sphere.hyperspherical_energy(torch.randn(500, 64)).item()
print(f"500 random directions in 64 dimensions: measured {sampled:.4f}, by the formula {random_energy(64):.4f}")
assert abs(sampled / random_energy(64) - 1) < 3e-3
claim(
    "random-is-near-minimal",
    "Random initialisation already has nearly the least hyperspherical energy.",
    paper="Liu et al. 2021, Orthogonal over-parameterized training",
    measured=f"in the {len(gaps)} layers of the UNet whose floor is known, random directions lie between "
    f"{min(gaps.values()):.2%} and {max(gaps.values()):.2%} above it",
    verdict="reproduced" if max(gaps.values()) < 0.03 else "contradicted",
    seeds=[lesson.seed],
)

# %% regularise text [markdown]
# ## Low energy as a rule of training
#
# If crowded neurons say the same thing twice, why not forbid crowding? Liu et al. (2018) add the energy to the loss of
# ordinary training, loss + λ · E, and report that networks then classify unseen pictures better. It takes one more
# line. Let us try it on a toy: points in the plane, on five arms of a pinwheel, only 60 to learn from, and a network
# whose first layer has 16 neurons. They are arrows in the plane, so we can see them.

# %% regularise
import torch.nn.functional as F


def pinwheel(count: int, generator):
    """Points (count, 2) on five bent arms, and the number of each one's arm."""
    arm = torch.randint(0, 5, (count,), generator=generator)
    radius = 2 * torch.rand(count, generator=generator).sqrt() + 0.2
    angle = 2 * torch.pi * arm / 5 + radius + 0.25 * torch.randn(count, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


def train_classifier(seed: int, lam: float, steps: int = 200):
    """First-layer weights before and after, and the share of 2000 unseen points that is put on the right arm."""
    generator = torch.Generator().manual_seed(seed)
    (x, arm), (unseen, its_arm) = pinwheel(60, generator), pinwheel(2000, generator)
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16))
    net.extend([torch.nn.ReLU(), torch.nn.Linear(16, 5)])
    before = net[0].weight.detach().clone()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        loss = F.cross_entropy(net(x), arm)
        if lam:
            loss = loss + lam * sphere.hyperspherical_energy(net[0].weight)  # the one more line
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = (net(unseen).argmax(dim=1) == its_arm).float().mean().item()
    return before, net[0].weight.detach(), right


SEEDS = tuple(range(8))
plain, low = ([train_classifier(seed, lam) for seed in SEEDS] for lam in (0.0, 0.1))
figure, axes = plots.subplots(1, 3, width=9, height=3.3)
stages = (("untrained", plain[0][0]), ("trained", plain[0][1]), ("trained with + λE", low[0][1]))
for place, (title, weight) in zip(axes[0], stages, strict=True):
    ends = weight / weight.norm(dim=1, keepdim=True)
    energy = sphere.hyperspherical_energy(weight).item()
    place.plot(round_trip.cos(), round_trip.sin(), color="0.8")
    place.quiver(*torch.zeros(2, 16), *ends.T, color=plots.COLOURS[0], angles="xy", scale_units="xy", scale=1)
    place.set(title=f"{title}: E = {energy:.2f}", aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
plots.finish(figure, alt="Sixteen arrows on a circle: in bundles before and after training; with energy further apart")

# %% regularise claim
gain, error = difference([right for *_, right in low], [right for *_, right in plain])
spread_out = [sphere.hyperspherical_energy(result[1]).item() for result in low]
crowded = [sphere.hyperspherical_energy(result[1]).item() for result in plain]
assert all(after < before for after, before in zip(spread_out, crowded, strict=True))
claim(
    "minimum-energy-regularisation",
    "Adding the hyperspherical energy to the loss improves a classifier's accuracy on unseen data.",
    paper="Liu et al. 2018, minimum hyperspherical energy",
    measured=f"a toy network of 16 neurons, 60 points: accuracy {np.mean([r[2] for r in plain]):.3f} without, "
    f"{np.mean([r[2] for r in low]):.3f} with; gain {gain:+.3f} ± {error:.3f} (two standard errors)",
    verdict=verdict(gain, error),
    seeds=SEEDS,
)

# %% layers text [markdown]
# In every run the energy spread the arrows further apart. Whether that helps depends on the task, and the paper's gains
# were on image classifiers with many more neurons. A toy of this size has none to waste.
#
# ## Every layer of a diffusion model
#
# Back to the UNet. For each layer we measure the energy in percent **above random directions**:
# $E / E_\text{random} - 1$. A fresh UNet of the same shape, as it stands before training, is measured beside it. Layers
# with very few neurons are left out, since chance moves their energy too much.

# %% layers
PARTS = ["conv_in", "time_embedding", "down_blocks", "mid_block", "up_blocks", "conv_out"]
KINDS = {
    "convolution": lambda name: ".conv" in name or name.startswith("conv") or "sampler" in name,
    "attention": lambda name: ".attn" in name or "proj_in" in name or "proj_out" in name,
    "feed-forward": lambda name: ".ff." in name,
    "time": lambda name: "time_emb" in name,
}


def in_order(unet) -> dict:
    """The weights with at least 32 neurons, from the input to the output."""
    found = {name: w.detach() for name, w in unet.named_parameters() if w.ndim > 1 and len(w) >= 32}
    return {name: found[name] for name in sorted(found, key=lambda name: PARTS.index(name.split(".")[0]))}


layers = in_order(pipe.unet)
torch.manual_seed(lesson.seed)
untrained = UNet2DConditionModel.from_config(pipe.unet.config)


def above_random(weight) -> float:
    """The mean energy above that of random directions, in percent."""
    return 100 * (sphere.hyperspherical_energy(weight.double()).item() / random_energy(weight[0].numel()) - 1)


excess = {name: above_random(weight) for name, weight in layers.items()}
fresh_excess = {name: above_random(untrained.get_parameter(name).detach()) for name in layers}
above = np.mean([excess[name] > fresh_excess[name] for name in layers])
by_kind = {kind: np.mean([excess[n] for n in layers if belongs(n)]) for kind, belongs in KINDS.items()}
print(f"{above:.0%} of the layers have more energy than before training.")
print("Mean above random:", ", ".join(f"{kind} {value:+.2f} %" for kind, value in by_kind.items()))
print("Highest:", *(f"{name} {excess[name]:+.2f} %" for name in sorted(excess, key=excess.get)[:-4:-1]), sep="\n  ")
assert above > 0.55 and by_kind["convolution"] > 0.1 and abs(np.mean(list(fresh_excess.values()))) < 0.1

figure, axes = plots.subplots(1, 1, width=9, height=4)
place = axes[0, 0]
place.plot(list(fresh_excess.values()), ".", color="0.6", label="untrained (all kinds)")
for i, (kind, belongs) in enumerate(KINDS.items()):
    chosen = {k: excess[name] for k, name in enumerate(layers) if belongs(name)}
    marker = {"color": plots.COLOURS[i], "marker": "os^D"[i], "markersize": 5, "linestyle": ""}
    place.plot(chosen.keys(), chosen.values(), label=f"trained: {kind}", **marker)
for part in PARTS[2:5]:
    first = next(k for k, name in enumerate(layers) if name.startswith(part))
    place.axvline(first - 0.5, color="0.8", linewidth=1)
    place.text(first, 1.0, part, transform=place.get_xaxis_transform(), va="bottom", fontsize=9)
place.set(xlabel="layer, from the input to the output", ylabel="energy above random, %")
place.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
plots.finish(
    figure,
    alt="Untrained layers lie about zero; most trained layers lie above, some convolutions and time layers far above",
)

# %% rotation text [markdown]
# Training moved neurons **together**: the model needs related neurons, and that costs energy. The numbers look small,
# mostly well below one percent, because in hundreds of dimensions almost all pairs stay perpendicular whatever happens.
# What counts are the few pairs in the tails of the histogram. Keep the scale in mind: *training itself* moved the
# energy by this much.
#
# ## What keeps the energy: turning the inputs
#
# Turn every neuron by the same rotation $R$: $w_i \to R w_i$, for all rows at once $W \to W R^\top$. Then
#
# $$\lVert R u_i - R u_j \rVert = \lVert R (u_i - u_j) \rVert = \lVert u_i - u_j \rVert ,$$
#
# because rotations keep lengths. All distances stay, so the energy stays, exactly. The whole arrangement turns like the
# sphere under your slider. But $R W$, from the other side, makes each new neuron a *mixture* of old ones: nothing then
# protects the angles. **Write `rotate_inputs`** for weights of any shape.


# %% rotation exercise exercise="rotate_inputs" difficulty=2 minutes=10
def rotate_inputs(weight: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
    """The weight with each neuron w_i turned to R w_i, in the weight's own shape; R is (inputs, inputs)."""
    # <solution>
    rows = weight.flatten(1)  # (neurons, inputs)
    return (rows @ R.T).reshape(weight.shape)
    # </solution>


check.rotate_inputs(rotate_inputs)

# %% rotation hint [markdown] hint="rotate_inputs"
# For one neuron it is `R @ w`, with `w` a vector. In the matrix the neurons are rows, so the product is transposed:
# what is $(R W^\top)^\top$? For a convolution flatten first, and give the old shape back at the end.

# %% changes text [markdown]
# The experiment. A change has the size $\lVert \Delta W \rVert / \lVert W \rVert$. All changes are random, so that none
# of them *wants* anything. Rotations turn blocks of 64 numbers each, as OFT does: a random antisymmetric matrix $A$
# gives a rotation $e^{A}$. We change every weight of the UNet, measure the denoising error, and measure the energy (in
# float64) on the first convolution of each residual block, one of the kinds of layer that training moved most.

# %% changes prediction
CHOICES = ["Yes, clearly less than the others", "No, about as much as noise or more"]
keep_prediction = widgets.predict(
    "Four changes of W, equally large: inputs turned, outputs turned, noise added, a low-rank matrix added. "
    "Only the first keeps the energy. Does it also harm the model least?",
    options=CHOICES,
)
keep_prediction


# %% changes
def small_rotation(n: int, size: float, generator):
    """Random rotations (n / b, b, b) of blocks of b = 64 coordinates; each moves a vector by about `size` times it."""
    b = 64 if n % 64 == 0 else n
    A = torch.randn(n // b, b, b, generator=generator, dtype=torch.float64)
    return torch.linalg.matrix_exp(size * (A - A.mT) / (2 * b) ** 0.5)


def turn(W, R):
    """W Rᵀ, where R is a stack of blocks along the diagonal."""
    return torch.einsum("nrb,rcb->nrc", W.reshape(len(W), *R.shape[:2]), R.to(W)).reshape(W.shape)


def add(W, change, size: float):
    return W + size * W.norm() * change.to(W) / change.norm()


CHANGES = {
    "inputs turned": lambda W, size, g: turn(W, small_rotation(W.shape[1], size, g)),
    "outputs turned": lambda W, size, g: turn(W.T, small_rotation(W.shape[0], size, g)).T,
    "noise": lambda W, size, g: add(W, torch.randn(W.shape, generator=g), size),
    "rank 4": lambda W, size, g: add(
        W, torch.randn(len(W), 4, generator=g) @ torch.randn(4, W.shape[1], generator=g), size
    ),
}
SIZES, CHANGE_SEEDS = (0.1, 0.2, 0.4), (0, 1, 2)
firsts = {
    name: weight.detach().flatten(1).double()
    for name, weight in pocket.unet.named_parameters()
    if name.endswith("conv1.weight")
}
before = {name: sphere.hyperspherical_energy(W).item() for name, W in firsts.items()}
base_error = denoising_error(pocket.unet)
error, moved = {}, {}
for kind, change in CHANGES.items():
    for size in SIZES:
        for seed in CHANGE_SEEDS:
            g = torch.Generator().manual_seed(seed)
            error[kind, size, seed] = denoising_error(changed(pocket.unet, lambda W: change(W, size, g)))  # noqa: B023
            after = {name: sphere.hyperspherical_energy(change(W, size, g)).item() for name, W in firsts.items()}
            moved[kind, size, seed] = np.mean([abs(after[name] / before[name] - 1) for name in firsts])

figure, axes = plots.subplots(1, 2, width=9, height=3.4)
for place, values, label in ((axes[0, 0], moved, "mean |ΔE / E|"), (axes[0, 1], error, "denoising error")):
    means = {kind: [np.mean([values[kind, size, s] for s in CHANGE_SEEDS]) for size in SIZES] for kind in CHANGES}
    plots.draw_curves(place, {kind: (SIZES, y) for kind, y in means.items()}, "size of the change", label)
axes[0, 0].set_yscale("log")
axes[0, 1].axhline(base_error, color="0.6", linewidth=1)
axes[0, 1].text(SIZES[-1], base_error, "unchanged", ha="right", va="top", color="0.4")
axes[0, 1].set_ylim(0)
plots.finish(figure, alt="Turned inputs leave the energy at rounding level; the denoising error rises for all changes")

# %% changes claim
worst = max(moved["inputs turned", size, seed] for size in SIZES for seed in CHANGE_SEEDS)
others = min(moved[kind, SIZES[-1], seed] for kind in list(CHANGES)[1:] for seed in CHANGE_SEEDS)
assert worst < 1e-9 < 1e-5 < others
claim(
    "rotation-keeps-energy",
    "Rotating the input side of a layer leaves its hyperspherical energy unchanged.",
    paper="Qiu et al. 2023, OFT, section 3",
    measured=f"largest mean change {worst:.0e} in float64; other changes of size {SIZES[-1]}: at least {others:.0e}",
    verdict="reproduced" if worst < 1e-9 else "contradicted",
    seeds=CHANGE_SEEDS,
)

# %% kept energy claim
harm = {
    (kind, seed): np.mean([error[kind, size, seed] / base_error - 1 for size in SIZES])
    for kind in CHANGES
    for seed in CHANGE_SEEDS
}
rivals = ("noise", "rank 4")
gentler = all(harm["inputs turned", s] < 0.9 * harm[rival, s] for rival in rivals for s in CHANGE_SEEDS)
assert not gentler, "the text below says that the energy alone does not protect the model"
harsher = all(harm["inputs turned", s] > harm[rival, s] for rival in rivals for s in CHANGE_SEEDS)
told = ", ".join(f"{kind} {np.mean([harm[kind, s] for s in CHANGE_SEEDS]):+.0%}" for kind in CHANGES)
display(keep_prediction.outcome(CHOICES[0 if gentler else 1], f"mean rise of the denoising error: {told}"))
claim(
    "energy-kept-knowledge-kept",
    "A change that keeps the hyperspherical energy keeps what the model knows (random changes of equal size compared).",
    paper="the reasoning of Qiu et al. 2023, OFT, section 3",
    measured=f"mean rise of the denoising error: {told}",
    verdict="reproduced" if gentler else "contradicted" if harsher else "not visible at this scale",
    seeds=CHANGE_SEEDS,
)

# %% far rotation text [markdown]
# So the energy is a thermometer, not the patient. A **random** rotation keeps all angles between the neurons of a
# layer, but the layer's input does not turn with them, and the layer before it does not know. Turn far enough, and the
# energy still stands where it stood, to the last digit, while the pictures are gone. (No rotation moves $W$ by more
# than twice its length. The 5 below is the size put into $e^A$; then each neuron ends about perpendicular to its old
# place, so $\lVert \Delta W \rVert / \lVert W \rVert$ is about 1.4.)

# %% far rotation
far = {}
for size in (0.1, 0.4, 5.0):
    g = torch.Generator().manual_seed(lesson.seed)
    far[size] = changed(pocket.unet, lambda W: CHANGES["inputs turned"](W, size, g))  # noqa: B023
plots.grid(
    [picture for unet in far.values() for picture in drawn(unet)],
    rows=[f"turned, size {size:g}" for size in far],
    columns=4,
    alt="Pictures after a small, a larger and a very large rotation of all inputs: good, damaged, pure noise",
)

# %% fine-tuning text [markdown]
# OFT does not claim that any rotation is harmless. It *learns* the rotation, starting from none, and claims that with
# the angles kept, what is learned last disturbs less of what was learned before. Lesson 05 puts that to the test. Here
# we only ask: how much does **ordinary** fine-tuning move the energy?
#
# We teach the UNet one particular cat, from five pictures, in two ways. *Full* fine-tuning changes every weight. *LoRA*
# adds a matrix of rank 4 to each weight of the attention layers. As a yardstick we take what training from scratch did:
# the distance of each layer's energy from random.

# %% fine-tuning prediction
SHARES = ["more than half of what training from scratch did", "between a tenth and a half", "less than a tenth"]
tuning_prediction = widgets.predict(
    "In a typical layer, 40 steps of full fine-tuning move the energy by ...", options=SHARES
)
tuning_prediction

# %% fine-tuning
from peft import LoraConfig
from PIL import Image

folder = lesson.root / "data" / "subjects" / "two-tone-cat"
files = sorted(folder.glob("*.png"))
cat_latents, cat_words = encoded(
    [np.asarray(Image.open(file).convert("RGB")) for file in files],
    [file.with_suffix(".txt").read_text().strip().replace("a cat", "a sks cat") for file in files],
)


def fine_tune(unet, rate: float, steps: int = 40):
    """Trains what in the UNet can be trained to draw the five pictures; 5 noises and noise levels in each step."""
    optimiser = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=rate)
    g = torch.Generator().manual_seed(lesson.seed)
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(files),), generator=g).to(device)
        eps = torch.randn(cat_latents.shape, generator=g).to(device)
        estimate = unet(pocket.scheduler.add_noise(cat_latents, eps, t), t, cat_words).sample
        optimiser.zero_grad()
        (estimate - eps).square().mean().backward()
        optimiser.step()
    return unet


torch.manual_seed(lesson.seed)
full = fine_tune(copy.deepcopy(pocket.unet), rate=1e-4)
lora = copy.deepcopy(pocket.unet).requires_grad_(False)
lora.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
lora = fine_tune(lora, rate=2e-3)
PROMPTS = ["a photo of a sks cat in the snow", "a photo of a sks cat on a table", "a photo of a black cat in a city"]
PROMPTS += ["a photo of a red mug on a beach"]
display(
    plots.grid([Image.open(file) for file in files], rows=["to learn from"], columns=5, alt="Five pictures of a cat")
)
plots.grid(
    [picture for unet in (pocket.unet, full, lora) for picture in drawn(unet)],
    rows=["before", "full fine-tuning", "LoRA"],
    heads=PROMPTS,
    columns=4,
    alt="A sks cat twice, another cat and a mug: before, after full fine-tuning, after LoRA",
)

# %% fine-tuning energy
lora.fuse_lora()
stays = {"full fine-tuning": full, "LoRA": lora}
parts = {
    name: {key.replace(".base_layer", ""): value for key, value in unet.state_dict().items()}
    for name, unet in stays.items()
}
g = torch.Generator().manual_seed(lesson.seed)
turned = changed(pocket.unet, lambda W: CHANGES["inputs turned"](W.double(), 0.1, g).float())
parts["inputs turned by 0.1, kept in float32"] = turned.state_dict()
own = in_order(pocket.unet)
energy = {name: sphere.hyperspherical_energy(weight.double()).item() for name, weight in own.items()}
drift = {"training from scratch": {k: abs(energy[k] / random_energy(own[k][0].numel()) - 1) for k in own}}
for name, state in parts.items():
    drift[name] = {
        k: abs(sphere.hyperspherical_energy(state[k].detach().double()).item() / energy[k] - 1)
        for k in own
        if not torch.equal(state[k], own[k])
    }

figure, axes = plots.subplots(1, 1, width=9, height=3.6)
place, number = axes[0, 0], {name: k for k, name in enumerate(own)}
for i, (name, values) in enumerate(drift.items()):
    marker = {"color": plots.COLOURS[i], "marker": "osD^"[i], "markersize": 4, "linestyle": ""}
    place.plot([number[k] for k in values], [max(v, 1e-12) for v in values.values()], label=name, **marker)
place.set(yscale="log", xlabel="layer, from the input to the output", ylabel="|ΔE / E|")
place.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
plots.finish(figure, alt="Change of energy by layer: training most, then fine-tuning, far below the rotation")

# %% fine-tuning claim
typical = {name: np.median(list(values.values())) for name, values in drift.items()}
share = typical["full fine-tuning"] / typical["training from scratch"]
told = ", ".join(f"{name} {value:.0e}" for name, value in typical.items())
display(tuning_prediction.outcome(SHARES[0 if share > 0.5 else 1 if share > 0.1 else 2], f"typical |ΔE / E|: {told}"))
rounding = typical["inputs turned by 0.1, kept in float32"]
visible = min(typical["full fine-tuning"], typical["LoRA"]) > 10 * rounding
claim(
    "fine-tuning-moves-energy",
    "Full fine-tuning and LoRA change the hyperspherical energy of a model's layers; rotations do not.",
    paper="Qiu et al. 2023, OFT, section 3",
    measured=f"40 steps on five pictures, typical |ΔE / E| of a layer: {told}",
    verdict="reproduced" if visible else "not visible at this scale",
    seeds=[lesson.seed],
)

# %% trap text [markdown]
# So fine-tuning moves the energy: far more than rounding does, but in this run only by about a hundredth of what
# training from scratch did, or less. The settings count: the LoRA of lesson 04 starts with larger random numbers, and
# moves the energy about ten times as far. "Reproduced" says here that the change can be measured, not that it is large.
#
# ## The float32 trap
#
# The fast way to all distances is one matrix product: $d_{ij}^2 = 2 - 2 \langle u_i, u_j \rangle$. Most code that you
# will find does this in float32, which holds about seven digits. For twins, two neurons 0.0001 apart, the cosine is
# 0.999999995, which float32 rounds to 1. The distance becomes 0, the energy infinite. And twins are exactly the pairs
# that an energy is there to find. The table shows the error of five ways, for one pair of twins among 64 neurons. In
# the last column the first two ways are finite by luck: there rounding makes the cosine 0.9999998. The distance comes
# out hundreds of times too large, and the energy far too small. An error of 1 means that nearly all of the energy is
# missing.
#
# Two things must hold. The directions must be computed in float64 **before** anything is rounded, and small distances
# must come from the *difference* of two directions, where nothing cancels. The library takes the matrix product for
# pairs that are far apart and differences for the few near ones, a few rows at a time: it needs little memory, also for
# the 10240 neurons of the largest layer of Stable Diffusion 1.5.
#
# **Write `careful_energy`**, which stays right for twins. It may be slow. As in `rotate_inputs`, the weight may have
# any shape: join all dimensions after the first.


# %% trap
def gram(u):
    """Energy by 2 - 2 cos, in the precision of u."""
    i, j = torch.triu_indices(len(u), len(u), offset=1)
    return (2 - 2 * (u @ u.T)[i, j]).clamp(min=0).rsqrt().mean()


def by_cdist(u):
    i, j = torch.triu_indices(len(u), len(u), offset=1)
    return (1 / torch.cdist(u, u)[i, j]).mean()


WAYS = {
    "2 - 2 cos, float32": lambda W: gram(F.normalize(W)),
    "torch.cdist, float32": lambda W: by_cdist(F.normalize(W)),
    "torch.pdist, float32": lambda W: (1 / torch.pdist(F.normalize(W))).mean(),
    "2 - 2 cos, float64": lambda W: gram(F.normalize(W.double())),
    "hyperspherical_energy": sphere.hyperspherical_energy,
}
print(f"{'twins this far apart:':24}" + "".join(f"{gap:>12.0e}" for gap in (1e-2, 1e-4, 1e-6)))
for name, way in WAYS.items():
    off = []
    for gap in (1e-2, 1e-4, 1e-6):
        W = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
        W[1] = W[0] + gap * W[0].norm() * F.normalize(W[2], dim=0)
        truth = (1 / torch.pdist(F.normalize(W.double()))).mean().item()  # differences, in float64
        off.append(abs(way(W).item() / truth - 1))
    print(f"{name:24}" + "".join(f"{value:12.1e}" for value in off))
assert max(off) < 1e-6  # the last row is the library's


# %% trap exercise exercise="careful_energy" difficulty=4 minutes=15
def careful_energy(weight: torch.Tensor) -> torch.Tensor:
    """The mean of 1/distance over all pairs of directions, right also where two of them nearly agree."""
    # <solution>
    rows = weight.flatten(1).double()
    u = rows / rows.norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(len(u), len(u), offset=1)
    return (1 / (u[i] - u[j]).norm(dim=1)).mean()
    # </solution>


check.careful_energy(careful_energy)

# %% trap hint [markdown] hint="careful_energy"
# A clamp, or a small number added to the distance, makes the result finite and wrong. Which operation loses the digits?
# And in which precision are the lengths of the rows computed?

# %% different [markdown]
# ## What is different on Stable Diffusion
#
# - With `profile="sd15"` the floor and the layer-by-layer figure are measured on Stable Diffusion 1.5. Its weights have
#   up to 10240 neurons; on a CPU the energies of all layers take minutes. All else stays on Pocket-SD, where we know
#   the scenes.
# - Its training was longer by orders of magnitude. Expect more structure, and do not expect these very numbers.
# - Fine-tuning there takes hundreds of steps at much smaller rates. Lesson 05 follows the energy during such a
#   training.
# - OFT's official code measures the energy over the neurons **and their negatives**, $u_i$ and $-u_i$, since a neuron
#   and its mirror image look for the same line. In our library that is `antipodal=True`.
#
# ## Glossary
#
# - **Neuron**: one row of a weight; of a convolution, one output channel with all its kernel.
# - **Direction**: a neuron divided by its length; a point on the unit sphere in $m$ dimensions, the **hypersphere**.
# - **Hyperspherical energy**: the mean over all pairs of neurons of 1/distance between their directions.
# - **Thomson problem**: where do $n$ points that repel one another rest on a sphere?
# - **Rotation**: a matrix $R$ with $R^\top R = I$ (and determinant 1); it keeps all lengths and angles.
# - **Rank** of a matrix: how many independent rows it has. **LoRA** adds a matrix of small rank.
# - **float32, float64**: numbers with about 7 and 16 digits.
#
# ## References
#
# - Liu, Lin, Liu, Liu, Yu, Dai, Song: *Learning towards Minimum Hyperspherical Energy*, NeurIPS 2018,
#   [arXiv:1805.09298](https://arxiv.org/abs/1805.09298). The energy, and training with it.
# - Lin, Liu, Liu, Feng, Yu, Rehg, Xiong, Song: *Regularizing Neural Networks via Minimizing Hyperspherical Energy*,
#   CVPR 2020, [arXiv:1906.04892](https://arxiv.org/abs/1906.04892). How to minimise it in many dimensions.
# - Liu, Lin, Liu, Rehg, Paull, Xiong, Song, Weller: *Orthogonal Over-Parameterized Training*, CVPR 2021,
#   [arXiv:2004.04690](https://arxiv.org/abs/2004.04690). Keep the random start's low energy, learn a rotation.
# - Qiu, Liu, Feng, Xue, Feng, Liu, Zhang, Weller, Schölkopf: *Controlling Text-to-Image Diffusion by Orthogonal
#   Finetuning*, NeurIPS 2023, [arXiv:2306.07280](https://arxiv.org/abs/2306.07280). The paper of lessons 04 and 05.
# - Wales, Ulker: *Structure and dynamics of spherical crystals characterized for the Thomson problem*, Physical Review
#   B 74, 2006. Least energies for many $n$.
