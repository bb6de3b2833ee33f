# %% title [markdown] prerequisites="lessons 00 and 01; matrix products, transposes, inverses; torch"
# # 04 · Orthogonal fine-tuning
#
# Lesson 01 proved a law: turn the inputs of a layer, and all angles between its neurons stay as they are.
# *Orthogonal fine-tuning* (OFT, Qiu et al. 2023) makes a training method of it. It teaches a model something new by
# **turning** its weights and by nothing else. This lesson builds the method from one turned arrow up to a fine-tuned
# UNet.
#
# After this page you can
#
# - say what LoRA's addition does to the angles between neurons and a rotation does not, and show it on a trained layer;
# - describe any rotation by free numbers, with the Cayley map, and prove that it works;
# - cut a rotation into blocks, and count what there is to train;
# - build a layer that starts as the pretrained one exactly, learns by turning, and merges back into a plain weight;
# - bound how far it may turn (COFT), and turn it up, down and backwards after training (the strength dial);
# - check a well-known library against the mathematics, and know where care is needed.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("04", profile="pocket")

# %% adding and turning text [markdown]
# ## Adding, or turning?
#
# A linear layer is a matrix $W$ whose rows are its neurons, arrows $w_i$. Fine-tuning changes them. **LoRA** (Hu et al.
# 2022) adds a matrix of small rank, $W + BA$, where $B$ and $A$ are thin: every arrow gets some multiple of the same
# few vectors added. **OFT** turns: $W R^\top$ with a rotation $R$, so every arrow $w_i$ becomes $R w_i$, with the same
# $R$ for all.
#
# Here are four neurons with two inputs each. Move the **amount**. Pale arrows show where the neurons were, dots their
# directions on the unit circle. Watch the angles written below: on the left some neurons drift together and others
# apart, on the right the whole arrangement turns like a wheel.

# %% adding and turning
import torch

from tutorial_lib.lab import rotation_plots

W = torch.tensor([[1.2, 0.45], [0.45, 1.1], [-0.9, 0.75], [-0.35, -1.2]])
B, A = torch.tensor([[0.9], [-0.3], [-0.5], [0.7]]), torch.tensor([[0.5, 0.9]])
rotation_plots.change_panel(W, B, A)

# %% trained layer text [markdown]
# ## The same on a trained layer
#
# In a real layer the arrows have hundreds of coordinates, so we cannot draw them, but we can measure the angle of every
# pair before and after. We take one layer of the UNet, in the middle of it, and make two random changes of the same
# size, $\lVert \Delta W \rVert = 0.3 \, \lVert W \rVert$: an added matrix of rank 4, as in LoRA, and a rotation in
# blocks of 64 inputs, as in OFT. (The functions of `orthogonal` are what you are about to build.)

# %% trained layer
import numpy as np

from tutorial_lib import models, orthogonal, sphere
from tutorial_lib.lab import plots
from tutorial_lib.rotated import rotate

pipe = models.load(lesson.profile)
pocket = pipe if lesson.profile == "pocket" else models.load("pocket")  # what is trained below, and has a judge
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
W = pipe.unet.get_submodule(LAYER).weight.detach().cpu().double()
n, m = W.shape
g = torch.Generator().manual_seed(lesson.seed)
vector = 0.0195 * torch.randn(m // 64, 64 * 63 // 2, generator=g, dtype=torch.float64)
turned = rotate(W, orthogonal.cayley(orthogonal.skew_symmetric(vector, 64)).mT)
size = (turned - W).norm() / W.norm()
BA = torch.randn(n, 4, generator=g, dtype=torch.float64) @ torch.randn(4, m, generator=g, dtype=torch.float64)
added = W + size * W.norm() * BA / BA.norm()

angles = {name: sphere.pairwise_angles(V).rad2deg() for name, V in (("W", W), ("added", added), ("turned", turned))}
some = torch.randperm(len(angles["W"]), generator=g)[:6000]
seen = torch.cat([V[some] for V in angles.values()])
SHOWN_ANGLES = (seen.min() - 2, seen.max() + 2)  # both plots alike
figure, axes = plots.subplots(1, 2, width=8, height=3.9)
for place, name, colour in ((axes[0, 0], "added", plots.COLOURS[1]), (axes[0, 1], "turned", plots.COLOURS[0])):
    off = (angles[name] - angles["W"]).abs().max().item()
    place.plot(angles["W"][some], angles[name][some], ".", color=colour, markersize=2.5, alpha=0.6)
    off = f"{off:.0f}°" if off > 1 else f"{off:.0e}°"
    place.set(title=f"{name}: largest change {off}", xlabel="angle of two neurons before, degrees", aspect="equal")
    place.set(xlim=SHOWN_ANGLES, ylim=SHOWN_ANGLES)
axes[0, 0].set_ylabel("and after")
print(f"{LAYER}: {n} neurons, {len(angles['W'])} pairs, size of both changes {size:.2f}")
assert (angles["turned"] - angles["W"]).abs().max() < 1e-6 and (angles["added"] - angles["W"]).abs().max() > 3
plots.finish(figure, alt="Angles after against before: a cloud when a matrix is added, a straight line when turned")

# %% skew text [markdown]
# To the last digits of float64 the turned layer has the angles of the old one. The paper's idea in one sentence: what a
# pretrained model knows lies in these angles (lesson 01 puts that to the test: shuffled lengths do little harm, new
# directions destroy everything), so leave them alone and learn the rotation only.
#
# ## How do you train a rotation?
#
# $R$ is a rotation if $R^\top R = I$ (and its determinant is 1, not −1: no mirror). An optimiser knows nothing of that.
# One step of gradient descent on the numbers of $R$, and it is a rotation no more. We need free numbers, which may take
# **any** value, and a map that makes a rotation of them.
#
# In the plane one number is enough, the angle. In $b$ dimensions there is one number for each pair of axes, the plane
# that they span: $b(b-1)/2$. Write them into a matrix $Q$, above the diagonal, and their negatives below:
#
# $$Q = \begin{pmatrix} 0 & q_1 & q_2 \\ -q_1 & 0 & q_3 \\ -q_2 & -q_3 & 0 \end{pmatrix}, \qquad Q^\top = -Q .$$
#
# Such a matrix is **skew-symmetric**. **Write `skew`**, which makes $Q$ from the vector of its free numbers, row by
# row.

# %% skew exercise exercise="skew" difficulty=1 minutes=8
from tutorial_lib.lab.checks import lesson_04 as check


def skew(vector: torch.Tensor, size: int) -> torch.Tensor:
    """Q = U - U^T of shape (size, size): the vector's size(size-1)/2 numbers above the diagonal, row by row."""
    # <solution>
    U = torch.zeros(size, size, dtype=vector.dtype)
    row, column = torch.triu_indices(size, size, offset=1)
    U[row, column] = vector
    return U - U.T
    # </solution>


check.skew(skew)

# %% skew hint [markdown] hint="skew"
# `torch.triu_indices(size, size, offset=1)` gives the rows and columns of all places above the diagonal, in the order
# that we want. Write the vector there into a matrix of zeros. What has to be taken away to fill the lower half?

# %% Cayley text [markdown]
# ## The Cayley map
#
# One property of a skew matrix does all the work: **$Qx$ is always perpendicular to $x$**. For
# $x^\top Q x = (x^\top Q x)^\top = x^\top Q^\top x = -x^\top Q x$, and only 0 equals its own negative.
#
# Now step from $x$ along $Qx$, once forwards and once backwards. By Pythagoras both ends are equally far from the
# origin:
#
# $$\lVert x + Qx \rVert^2 = \lVert x \rVert^2 + \lVert Qx \rVert^2 = \lVert x - Qx \rVert^2 .$$
#
# So a map that takes $x - Qx = (I - Q)x$ to $x + Qx = (I + Q)x$, for every $x$, keeps all lengths. A linear map that
# keeps all lengths is orthogonal. And there is such a map: $I - Q$ has an inverse, since $\lVert (I - Q) x \rVert \ge
# \lVert x \rVert$ says that it never sends an arrow to zero. Undo $I - Q$, then do $I + Q$:
#
# $$R = (I + Q)(I - Q)^{-1} .$$
#
# This is the **Cayley map**, found in 1846. Move $q$. The picture is scaled so that the two ends stay on the circle.

# %% Cayley panel
rotation_plots.cayley_panel()

# %% Cayley laws text [markdown]
# Read off the picture, and then prove:
#
# - **Zero is the identity.** $Q = 0$ gives $R = I$, exactly. Training can start at the pretrained model.
# - **$-Q$ turns back.** It exchanges the two ends: $R(-Q) = R(Q)^{-1} = R^\top$.
# - **Near zero, $R \approx I + 2Q$.** From $R = 2(I - Q)^{-1} - I$ we get $dR = 2 (I-Q)^{-1} \, dQ \, (I-Q)^{-1}$,
#   which is $2\,dQ$ at $Q = 0$. The factor 2 is the reason why $q$ turns by $2 \arctan q$.
# - **The half turn is never reached.** Suppose $R v = -v$, and write $v = (I - Q) u$. Then $(I + Q)u = -(I - Q)u$, so
#   $2u = 0$ and $v = 0$. So no eigenvalue is $-1$. A large $q$ only comes close. Mirrors are out of reach too:
#   $\det R = 1$ at $Q = 0$, it can only be 1 or −1, and it cannot jump.
#
# **Write `cayley`** for a stack of blocks: $Q$ has the shape (r, b, b), and each of the $r$ matrices is turned into a
# rotation of its own.


# %% Cayley exercise exercise="cayley" difficulty=2 minutes=10
def cayley(Q: torch.Tensor) -> torch.Tensor:
    """R = (I + Q)(I - Q)^{-1} of each skew-symmetric block; Q and the result have the shape (r, b, b)."""
    # <solution>
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return torch.linalg.solve(eye - Q, eye + Q)  # the two factors commute, so this is the same product
    # </solution>


check.cayley(cayley)

# %% Cayley hint [markdown] hint="cayley"
# `torch.eye(b)` is added to a whole stack at once. `torch.linalg.inv` inverts every matrix of a stack, and `@`
# multiplies stack by stack. Check yourself with `R @ R.mT`: what should it be?


# %% Cayley laws
def random_skew(b: int, norm: float, blocks: int = 4):
    """Random blocks with the spectral norm ||Q||_2 = norm, which is the largest q of all planes."""
    Q = orthogonal.skew_symmetric(torch.randn(blocks, b * (b - 1) // 2, generator=g), b)
    return norm * Q / torch.linalg.matrix_norm(Q, ord=2)[:, None, None]


print("||Q||   largest angle   ||R Rᵀ - I||, float32   nearest eigenvalue to -1    det")
for norm in (0.1, 1.0, 10.0, 100.0):
    R = orthogonal.cayley(random_skew(32, norm))
    values = torch.linalg.eigvals(R.double())
    angle, gap = values.angle().abs().max().rad2deg(), (values + 1).abs().min()
    error, det = orthogonal.orthogonality_error(R), torch.linalg.det(R.double()).mean()
    print(f"{norm:5}   {angle:12.1f}°   {error:21.0e}   {gap:24.4f}   {det:.5f}")
    assert norm > 10 or error < 2e-5
assert torch.equal(orthogonal.cayley(torch.zeros(2, 5, 5)), torch.eye(5).expand(2, 5, 5))
Q, h = random_skew(6, 1.0).double(), 1e-6
slope = (orthogonal.cayley(h * Q) - orthogonal.cayley(-h * Q)) / (2 * h)
print(f"The slope at zero, measured, differs from 2 dQ by {(slope - 2 * Q).abs().max():.0e}")
assert (slope - 2 * Q).abs().max() < 1e-8

# %% blocks text [markdown]
# The library's map stays a rotation up to the rounding of float32, also close to the half turn.
#
# ## Blocks
#
# A layer with $n$ inputs would have $n(n-1)/2$ numbers to train, and an $n \times n$ matrix to invert. In a square
# layer that is half as many numbers as the weight has. In a 3×3 convolution from 320 to 320 channels, with $n = 9 \cdot
# 320 = 2880$, it is 4.1 million, and the weight has 0.9 million. So OFT takes a **block-diagonal** $R$: the inputs are
# cut into $r$ groups of $b = n/r$ neighbours, and each group is turned within itself. Zeros everywhere else. The blocks
# may also **share** one small rotation.
#
# Blocks of rotations are a rotation, so everything above still holds. What is lost is mixing: with many small blocks,
# an input can only be exchanged for its near neighbours.

# %% blocks
figure, axes = plots.subplots(1, 4, width=9, height=2.7)
for place, (r, share) in zip(axes[0], ((1, False), (3, False), (6, False), (6, True)), strict=True):
    b = 24 // r
    Q = orthogonal.skew_symmetric(0.7 / b**0.5 * torch.randn(1 if share else r, b * (b - 1) // 2, generator=g), b)
    R = torch.block_diag(*orthogonal.cayley(Q).expand(r, -1, -1))
    place.imshow(R, cmap="RdBu", vmin=-1, vmax=1)
    place.set(title=f"r = {r}, b = {b}{', shared' if share else ''}\n{Q[:, 0, 0].numel() * b * (b - 1) // 2} numbers")
    place.set(xticks=[], yticks=[])
    place.grid(False)
plots.finish(
    figure, alt="R of 24 inputs as one block, three blocks, six blocks, and six equal ones; fewer numbers each time"
)

# %% count text [markdown]
# How many numbers is that? In LoRA the rank is called $r$, and a larger $r$ means more to train. In OFT the number of
# blocks is called $r$. Does a larger $r$ mean more here, too? Guess, then **write `trainable_numbers`**; the cell after
# it draws both counts for Stable Diffusion 1.5.


# %% count exercise exercise="trainable_numbers" difficulty=1 minutes=5
def trainable_numbers(inputs: int, blocks: int) -> int:
    """The free numbers of R for a layer with so many inputs, cut into so many blocks of equal size (not shared)."""
    # <solution>
    size = inputs // blocks
    return blocks * size * (size - 1) // 2
    # </solution>


check.trainable_numbers(trainable_numbers)

# %% count hint [markdown] hint="trainable_numbers"
# How large is one block? Of its $b \cdot b$ places, how many are above the diagonal? And how many blocks are there?

# %% count
from IPython.display import display

from tutorial_lib.lab.claims import claim

widths = [320] * 5 + [640] * 5 + [1280] * 6  # the 16 transformer blocks of Stable Diffusion 1.5
sd15 = [(w, w) for w in widths for _ in range(6)] + [(768, w) for w in widths for _ in range(2)]  # (inputs, outputs)
sd15_oft = {r: sum(n * (n // r - 1) // 2 for n, _ in sd15) for r in (2, 4, 8, 16, 32)}
sd15_lora = {r: sum(r * (n + outputs) for n, outputs in sd15) for r in (2, 4, 8, 16, 32, 64)}
by_size = {b: sum(n * (b - 1) // 2 for n, _ in sd15) for b in (4, 8, 16, 32, 64, 128)}
figure, axes = plots.subplots(1, 2, width=9, height=3.2)
panels = (
    (axes[0, 0], {"OFT, r blocks": sd15_oft, "LoRA, rank r": sd15_lora}, "r"),
    (axes[0, 1], {"OFT": by_size}, "block size b"),
)
for place, counts, label in panels:
    millions = {name: (list(row), [count / 1e6 for count in row.values()]) for name, row in counts.items()}
    plots.draw_curves(place, millions, label, "trainable numbers, millions", log=True)
    ticks = sorted({r for row in counts.values() for r in row})
    place.set(xscale="log", xticks=ticks, xticklabels=ticks, ylim=(0.1, 40))
    place.set(yticks=[0.1, 0.3, 1, 3, 10, 30], yticklabels=["0.1", "0.3", "1", "3", "10", "30"])
    place.minorticks_off()
assert sd15_oft[16] < sd15_oft[4] and sd15_lora[16] > sd15_lora[4]
display(plots.finish(figure, alt="Numbers to train over r: OFT's fall, LoRA's rise; over the block size OFT's rise"))

assert abs(sd15_oft[4] / 11.60e6 - 1) < 0.01 and abs(sd15_lora[4] / 0.80e6 - 1) < 0.01
ratios = {rank: sd15_oft[4] / sd15_lora[rank] for rank in (4, 8, 16)}
claim(
    "oft-size-like-lora",
    "With its published settings OFT trains about as many numbers as LoRA.",
    paper="Qiu et al. 2023, OFT, experiments",
    measured="counted, all attention layers of Stable Diffusion 1.5: OFT with r = 4 has "
    f"{sd15_oft[4] / 1e6:.2f} million, "
    + ", ".join(f"{ratio:.1f} times LoRA of rank {rank}" for rank, ratio in ratios.items()),
    verdict="reproduced" if min(ratios.values()) < 2 else "contradicted",
    seeds=[lesson.seed],
)

# %% layer text [markdown]
# A block size that stays the same in all layers is easier to compare than a number of blocks, so our library (like
# PEFT) takes `block_size`. At a block size of 32 the whole adapter is in the range of a usual LoRA.
#
# ## The layer
#
# The forward pass is $y = x W_\text{eff}^\top$ with $W_\text{eff} = W R^\top$, so $y = (x R) W^\top$: it is the same to
# turn the weight or the input. Whichever has fewer numbers is cheaper; the library chooses for each call.
#
# **Which side?** $R$ stands on the *input* side. Then
#
# $$W_\text{eff} W_\text{eff}^\top = W R^\top R W^\top = W W^\top ,$$
#
# and this matrix holds all dot products of neurons: all lengths and angles stay, and so does the energy. On the other
# side, $R W$ makes new neurons as mixtures of old ones, and nothing of the kind holds (lesson 01 measures both). Some
# programs do put their "OFT" on that side. Check before you rely on the energy.
#
# A convolution is no exception: flatten what one output channel sees (channels × height × width) to a row, turn the
# rows, give the shape back. **Write `turn_neurons`** for both kinds of weight.
#
# Then everything is there for a layer that learns by turning. The cell after the exercise has one: a frozen layer and a
# vector of zeros. It is compared with the library's `oft.attach`, which does the same to whole models.


# %% layer exercise exercise="turn_neurons" difficulty=3 minutes=15
def turn_neurons(weight: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
    """W R^T in the weight's own shape. weight: (out, in) or (out, channels, h, w); R: (r, b, b)."""
    # <solution>
    r, b, _ = R.shape
    pieces = weight.reshape(len(weight), r, b)  # each row cut into r pieces of b neighbours
    return torch.einsum("nrb,rcb->nrc", pieces, R).reshape(weight.shape)
    # </solution>


check.turn_neurons(turn_neurons)

# %% layer hint [markdown] hint="turn_neurons"
# A neuron $w$ goes to $R w$; as a row, that is $w R^\top$. With one block, `weight.flatten(1) @ R[0].T` does it. With
# several, cut each row into $r$ pieces of $b$ neighbours and turn piece $i$ with block $i$: a loop over
# `split(b, dim=1)` works, and so does `torch.einsum`. At the end, give the weight its own shape back.

# %% our layer
import copy
from collections import OrderedDict

import torch.nn.functional as F

from tutorial_lib import oft


class Turned(torch.nn.Module):
    """A linear layer with W_eff = W R^T, R learnt."""

    def __init__(self, layer: torch.nn.Linear, block_size: int):
        super().__init__()
        self.layer, self.block_size = layer.requires_grad_(False), block_size
        blocks = layer.in_features // block_size
        self.vector = torch.nn.Parameter(torch.zeros(blocks, block_size * (block_size - 1) // 2))

    def R(self):
        return orthogonal.cayley(orthogonal.skew_symmetric(self.vector, self.block_size))

    def forward(self, x):
        return F.linear(rotate(x, self.R()), self.layer.weight, self.layer.bias)  # (x R) W^T

    @torch.no_grad()
    def merged(self):
        plain = copy.deepcopy(self.layer)
        plain.weight.copy_(rotate(self.layer.weight, self.R().mT))  # W R^T
        return plain


def alone(layer):
    """A model that is this one layer, under the name "layer"."""
    return torch.nn.Sequential(OrderedDict(layer=copy.deepcopy(layer)))


torch.manual_seed(lesson.seed)
linear, conv = torch.nn.Linear(48, 20), torch.nn.Conv2d(6, 20, 3, padding=1)
x, picture = torch.randn(7, 48), torch.randn(2, 6, 9, 9)
mine, library, turned_conv = Turned(copy.deepcopy(linear), 8), alone(linear), alone(conv)
oft.attach(library, "layer", block_size=8)
oft.attach(turned_conv, "layer", block_size=9)  # 6 channels of 3 × 3: one block for each channel's kernel
for name, new, old in (("linear", mine(x), linear(x)), ("3×3 convolution", turned_conv(picture), conv(picture))):
    print(f"{name:16} at the start: largest difference from the plain layer {(new - old).abs().max():.0e}")
    assert (new - old).abs().max() < 1e-6
with torch.no_grad():
    mine.vector.copy_(0.2 * torch.randn(mine.vector.shape))
    for model in (library, turned_conv):
        for vector in oft.parameters(model):
            vector.copy_(mine.vector if model is library else 0.2 * torch.randn(vector.shape))
library_says, conv_says = library(x), turned_conv(picture)
oft.merge(turned_conv)
rows = {
    "turned: ours and the library's": mine(x) - library_says,
    "turned and merged, linear": mine(x) - mine.merged()(x),
    "turned and merged, convolution": conv_says - turned_conv(picture),
}
for name, difference in rows.items():
    print(f"{name:32} differ by at most {difference.abs().max():.0e}")
    assert difference.abs().max() < 1e-5
assert (mine(x) - linear(x)).abs().max() > 0.1

# %% merge text [markdown]
# Merging costs nothing at run time: $W_\text{eff}$ has the shape of $W$, so the finished model is a plain one again,
# without any trace of OFT.
#
# ## COFT: stay near the pretrained model
#
# A rotation keeps the angles *within* a layer, but a large one can still ruin the model: the next layer expects what
# the old one said (lesson 01 shows such pictures). **Constrained OFT** adds a leash. Every block must stay in a
# ball,
#
# $$\lVert Q \rVert_F \le \varepsilon' .$$
#
# Why around $Q = 0$? Because $R \approx I + 2Q$, so this is a ball of about twice the radius around $R = I$, the
# pretrained model. People often report the zero in the official code as a mistake; it is right. After each step of
# training, a block outside is put back to the nearest point of the ball: **projected gradient descent**. Below, a toy
# with two of the three numbers of a $3 \times 3$ block. Free, the path runs to the best rotation. With the leash, it
# slides along the edge to the best one that is allowed.
#
# Below the picture, **write `into_ball`**, the projection, for vectors of shape (r, b(b−1)/2), one row for each block.
# Mind the norm: it is the norm of $Q$, in which each number stands *twice*. (For that reason the disc has the radius
# $\varepsilon'/\sqrt{2}$.)

# %% COFT picture
targets = torch.randn(40, 3, generator=g) * torch.tensor([1.0, 1.6, 0.3])  # neurons that differ along some axes
best = torch.tensor([0.95, 0.6, 0.0])


def toy_loss(vector):
    """How far the neurons are from where the best rotation would put them; vector: (..., 3)."""
    R, wanted = (orthogonal.cayley(orthogonal.skew_symmetric(v.reshape(-1, 3), 3)) for v in (vector, best))
    return (targets @ R.mT - targets @ wanted.mT).square().sum((-2, -1))


def descend(radius=None, steps=160):
    """The (steps + 1, 3) vectors of gradient descent from zero, in the ball of this radius if there is one."""
    path = [torch.zeros(3)]
    for _ in range(steps):
        vector = path[-1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(toy_loss(vector).sum(), vector)
        step = ((path[-1] - 0.0004 * slope) * torch.tensor([1.0, 1.0, 0.0]))[None]
        path.append((step if radius is None else orthogonal.project(step, radius))[0])
    return torch.stack(path)


radius = 0.8
across, up = torch.meshgrid(torch.linspace(-0.8, 1.4, 60), torch.linspace(-0.8, 1.1, 60), indexing="xy")
heights = toy_loss(torch.stack([across, up, torch.zeros_like(up)], -1).reshape(-1, 3)).view(60, 60)
figure, axes = plots.subplots(1, 1, width=6.2, height=4.4)
place, turns = axes[0, 0], torch.linspace(0, 2 * torch.pi, 200)
place.contour(across, up, heights, levels=14, colors="0.8", linewidths=1)
place.fill(turns.cos() * radius / 2**0.5, turns.sin() * radius / 2**0.5, color=plots.COLOURS[5], alpha=0.25)
paths = {"OFT: free": descend(), "COFT: back into the ball after each step": descend(radius)}
for (name, path), colour, marker in zip(paths.items(), (plots.COLOURS[1], plots.COLOURS[0]), "os", strict=True):
    place.plot(path[:, 0], path[:, 1], marker=marker, markersize=4, color=colour, label=name)
place.plot(0, 0, "k*", markersize=12, label="Q = 0, the pretrained model")
place.set(xlabel="first number of Q", ylabel="second number of Q", aspect="equal")
place.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))
assert (paths["OFT: free"][-1] - best).norm() < 0.05
plots.finish(
    figure, alt="Two paths from zero: the free one ends in the valley, the other slides along the edge of a disc"
)


# %% COFT exercise exercise="into_ball" difficulty=3 minutes=12
def into_ball(vector: torch.Tensor, radius: float) -> torch.Tensor:
    """Each row's nearest point with ||Q||_F <= radius; vector: (r, b(b-1)/2), the numbers above Q's diagonals."""
    # <solution>
    norm = 2**0.5 * vector.norm(dim=1, keepdim=True)  # (r, 1): of Q, block by block
    return vector * radius / norm.clamp(min=radius)
    # </solution>


check.into_ball(into_ball)

# %% COFT hint [markdown] hint="into_ball"
# $\lVert Q \rVert_F^2$ is the sum of the squares of all numbers of $Q$. The diagonal is zero, and the two triangles
# have the same squares. A row that is too long is multiplied by radius / norm; what should a row that is short enough
# be multiplied by, and what must not happen to a row of zeros?

# %% eps text [markdown]
# What is a sensible radius? With larger blocks $\lVert Q \rVert_F$ has more numbers to add up, so the same radius means
# less turning. Our `eps` is free of that: the radius is $\varepsilon \sqrt{b}$, and then a random direction moves by at
# most $2\varepsilon$ of its length (as a root mean square), at any block size. The official code takes
# $\varepsilon' = \text{eps} \cdot b^2 / \sqrt{r}$, which is another amount of turning in every layer. The cell measures
# ours, at the edge of the ball.
#
# ## Magnitudes afterwards
#
# One thing a rotation cannot do is make a neuron louder. **Re-scaled OFT** fits that at the end, with the rotations
# frozen: one factor $s_i$ for each neuron, $s_i R w_i$. Lengths change, directions do not, so the energy still stays.

# %% eps
EPS = 0.05
for b in (8, 32, 64):
    Q = orthogonal.skew_symmetric(orthogonal.project(torch.randn(4, b * (b - 1) // 2, generator=g), EPS * b**0.5), b)
    directions = F.normalize(torch.randn(2000, 4 * b, generator=g), dim=1)
    moved = (rotate(directions, orthogonal.cayley(Q).mT) - directions).norm(dim=1).square().mean().sqrt().item()
    print(f"block size {b:2}: at the edge of the ball a random direction moves by {moved:.3f} of its length")
    assert 0.9 * 2 * EPS < moved < 1.01 * 2 * EPS

oft.refit_magnitudes(library)
with torch.no_grad():
    for magnitude in oft.parameters(library):  # now these, one for each neuron; the rotations are frozen
        magnitude.uniform_(0.5, 2)
scaled = oft.effective_weights(library)["layer"].double()
lengths = scaled.norm(dim=1) / linear.weight.norm(dim=1)
energies = [sphere.hyperspherical_energy(V).item() for V in (linear.weight.double(), scaled)]
print(
    f"Re-scaled: lengths times {lengths.min():.2f} to {lengths.max():.2f}, energy {energies[0]:.6f} → {energies[1]:.6f}"
)
assert abs(energies[1] / energies[0] - 1) < 1e-6 and lengths.max() > 1.3

# %% peft text [markdown]
# ## Against a well-known library
#
# **PEFT** is the library that most people use for LoRA. It has OFT as well, in the fast form of the later paper OFTv2.
# Where it does the same as we do, the two must agree. We take a trained layer of the UNet, the exact Cayley branch of
# PEFT, and compare outputs and gradients. One difference is only a convention: PEFT's exact branch computes $(I - Q)(I
# + Q)^{-1}$, the inverse of ours, so a vector changes its sign when it crosses over.

# %% peft
import warnings

import peft


def in_peft(model, block_size: int, **options):
    """A copy of the model with PEFT's OFT on its layer, the rotation's parameter, and the matrix R that PEFT makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.OFTConfig(target_modules=["layer"], oft_block_size=block_size, **options)
        twin = peft.get_peft_model(copy.deepcopy(model), config)
    (rotation,) = twin.base_model.model.layer.oft_R.values()
    return twin, rotation.weight, rotation.get_weight


base = alone(pocket.unet.get_submodule(LAYER).cpu())
ours = copy.deepcopy(base)
oft.attach(ours, "layer", block_size=32)
theirs, weight, R_of_peft = in_peft(base, 32, use_cayley_neumann=False)
with torch.no_grad():
    oft.parameters(ours)[0].copy_(0.05 * torch.randn(weight.shape, generator=g))
    weight.copy_(-oft.parameters(ours)[0])
x = torch.randn(100, base.layer.in_features, generator=g)
ours(x).square().sum().backward()
theirs(x).square().sum().backward()
gradients = oft.parameters(ours)[0].grad, -weight.grad
apart = {
    "outputs": (ours(x) - theirs(x)).abs().max() / ours(x).abs().max(),
    "gradients": (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max(),
}
print(f"peft {peft.__version__}, exact branch; the turn changes the outputs by {(ours(x) - base(x)).abs().max():.2f}")
for name, difference in apart.items():
    print(f"{name:10} differ by {difference:.0e} of the largest")
    assert difference < 1e-5

# %% peft care text [markdown]
# So for linear layers the exact branch and we are the same method. In four places care is needed. All software has such
# places, and ours will too; a measurement finds them. (The numbers belong to the version printed above. A later one may
# have mended them, and then the assertions of this lesson will say so.)
#
# 1. **Convolutions wider than 1×1.** At the start, with all numbers zero, nothing should change. PEFT takes the picture
#    apart into overlapping patches, turns them, and adds the patches up again, so most pixels are counted nine times.
# 2. **The sign of the flag.** By default PEFT computes a series instead of the exact map, and the series approximates
#    $(I + Q)(I - Q)^{-1}$, the inverse of its own exact branch. Load a file with the other flag, and it turns back.
# 3. **COFT at its default.** The official code multiplies `eps` by $b^2$, PEFT does not. With the default, the ball is
#    so small that the model cannot move.
# 4. **Two options.** `module_dropout` is never used, and the example `OFTConfig(r=8)` of its own documentation stops
#    with an error (`oft_block_size=0` has to be added).

# %% peft care
turned_conv = alone(conv)
oft.attach(turned_conv, "layer", block_size=9)
conv_in_peft, _, _ = in_peft(alone(conv), 9, use_cayley_neumann=False)
flat = torch.ones(1, 6, 12, 12)
shown = {"ours": turned_conv(flat), "PEFT": conv_in_peft(flat), "plain": conv(flat)}
inside = {name: (y[..., 3:-3, 3:-3] - conv.bias[:, None, None]).norm() for name, y in shown.items()}
ratios = {name: (inside[name] / inside["plain"]).item() for name in ("ours", "PEFT")}
print("1. 3×3 convolution before training, a flat picture: answers are", end=" ")
print(", ".join(f"{ratio:.3f} times the plain layer's ({name})" for name, ratio in ratios.items()))
assert abs(ratios["ours"] - 1) < 1e-5 and ratios["PEFT"] > 5

small = 0.02 * torch.randn(weight.shape, generator=g)
R = {}
for flag in (False, True):
    _, parameter, R_of_peft = in_peft(base, 32, use_cayley_neumann=flag)
    with torch.no_grad():
        parameter.copy_(small)
        R[flag] = R_of_peft().clone()
same, inverse = ((R[False] - other).abs().max().item() for other in (R[True], R[True].mT))
print(f"2. the same file with the other flag: R differs by {same:.2f} from R, by {inverse:.0e} from its inverse")
assert inverse < 0.01 * same

# %% peft COFT
wanted = F.linear(rotate(x, orthogonal.cayley(orthogonal.skew_symmetric(10 * small, 32))), *base.layer.parameters())
ways = {"PEFT, coft=True, default eps": in_peft(base, 32, use_cayley_neumann=False, coft=True)[:2]}
ways["PEFT, OFT"] = in_peft(base, 32, use_cayley_neumann=False)[:2]
for name, eps in (("ours, COFT, eps=0.1", 0.1), ("ours, OFT", None)):
    model = copy.deepcopy(base)
    oft.attach(model, "layer", block_size=32, eps=eps)
    ways[name] = model, oft.parameters(model)[0]
print("3. 40 steps towards a layer that was turned by a known rotation, loss:")
left = {}
for name, (model, parameter) in ways.items():
    optimiser, losses = torch.optim.Adam([parameter], lr=0.02), []
    for _ in range(40):
        losses.append((model(x) - wanted.detach()).square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    left[name] = (losses[-1] / losses[0]).item()
    print(f"   {name:30} {losses[0].item():.4f} → {losses[-1].item():.4f}")
assert left["PEFT, coft=True, default eps"] > 0.99 > 0.95 > left["ours, COFT, eps=0.1"] > left["ours, OFT"]
assert abs(left["PEFT, OFT"] - left["ours, OFT"]) < 1e-3

dropping, parameter, _ = in_peft(base, 32, use_cayley_neumann=False, module_dropout=0.99)
with torch.no_grad():
    parameter.copy_(small)
print(
    "4. with module_dropout=0.99, outputs of ten training passes:",
    len({dropping.train()(x).sum().item() for _ in range(10)}),
)
try:
    peft.OFTConfig(r=8)
except ValueError as error:
    print(f"   OFTConfig(r=8): {str(error).split('.')[0][:80]} ...")

# %% series text [markdown]
# The series deserves a picture of its own. An inverse can be written as a geometric series, $(I - Q)^{-1} = I + Q + Q^2
# + \dots$, and if $Q$ is small, a few terms will do and no inverse has to be computed. But a cut series is **no
# rotation**. How far from one? Multiply out: with 5 terms $R = (I + Q)(I + Q + Q^2 + Q^3)$ and $R R^\top = (I -
# Q^4)^2$, with 3 or 4 terms (which are the same matrix in PEFT) it is $I - Q^6$, with 6 it is $I - Q^{10}$. So below
# $\lVert Q \rVert_2 = 1$ three terms are *more* orthogonal than the default five, though further from the exact map.
# Above 1 every series fails, and more terms do not help.

# %% series
norms = np.geomspace(0.05, 3, 12)
Q1 = random_skew(32, 1.0, blocks=1)
maps = {f"series, {terms} terms": lambda Q, terms=terms: orthogonal.cayley_neumann(Q, terms) for terms in (3, 5, 6)}
maps["exact"] = orthogonal.cayley
errors = {name: [orthogonal.orthogonality_error(f(norm * Q1)).item() for norm in norms] for name, f in maps.items()}
_, parameter, R_of_peft = in_peft(base, 32, use_cayley_neumann=True)
with torch.no_grad():
    parameter.copy_(orthogonal.upper_triangle(0.5 * Q1).expand_as(parameter))
    same = torch.block_diag(*orthogonal.cayley_neumann(0.5 * Q1, 5).expand(len(parameter), -1, -1))
    gap = (R_of_peft() - same).abs().max().item()
print(f"PEFT's default and our cayley_neumann(Q, 5) differ by {gap:.0e} at ||Q|| = 0.5")
assert gap < 1e-4 and max(errors["exact"]) < 2e-5
figure, axes = plots.subplots(1, 1, width=7, height=3.6)
plots.draw_curves(
    axes[0, 0], {name: (norms, values) for name, values in errors.items()}, "||Q||₂", "||R Rᵀ − I||₂", log=True
)
axes[0, 0].set_xscale("log")
axes[0, 0].axhline(1e-2, color="0.6", linewidth=1)
axes[0, 0].text(norms[0], 1.3e-2, "1 %", color="0.4")
plots.finish(
    figure, alt="Errors of the series rise steeply with the norm of Q; that of the exact map stays at rounding level"
)

# %% training text [markdown]
# For small turns the series is fine, and in half precision hardly worse than rounding. But nothing stops a training
# from going further, and nothing reports it. The exact map costs a little more and needs no watching.
#
# ## A real training
#
# Now OFT on the UNet. The task is that of lesson 05: learn one particular cat from five pictures, and call it *sks*.
# All attention layers and the 3×3 convolutions of the residual blocks get rotations in blocks of 32; everything else is
# frozen. Beside it, with the same pictures and noises, LoRA of rank 4 on the attention layers, and full fine-tuning;
# they are compared after the same number of steps, and then OFT goes on to learn the cat well. (The learning rates were
# chosen by hand. Lesson 05 searches them, repeats all with several subjects and seeds, and compares the *pictures* of
# the methods. Here we look inside of the layers.)
#
# During the training we watch the layers that a method trains: how far the weights moved, $\lVert \Delta W \rVert /
# \lVert W \rVert$; the change of the angles between neurons; the change of the energy. What will the energy do under
# OFT, beside LoRA?

# %% training prediction
from tutorial_lib.lab import widgets

DRIFTS = ["about the same", "ten to a thousand times smaller", "more than a thousand times smaller"]
drift_prediction = widgets.predict("Under OFT, the change of the energy will be, beside LoRA's, ...", options=DRIFTS)
drift_prediction

# %% training
from tutorial_lib import baselines, pictures, training

TARGETS, STEPS = [*baselines.ATTENTION, "conv1", "conv2"], 40
images, report = pictures.load_folder(lesson.root / "data" / "subjects" / "two-tone-cat", size=64)
data = training.encode(pocket, images, [caption.replace("a cat", "a sks cat") for caption in report.captions])
paths = [name for name, _ in pocket.unet.named_modules() if any(f".{name}".endswith(f".{t}") for t in TARGETS)]
attention = [path for path in paths if ".attn" in path]
before = {path: pocket.unet.get_submodule(path).weight.detach().double() for path in paths}
own_energy = {path: sphere.hyperspherical_energy(V).item() for path, V in before.items()}
own_angles = {path: sphere.pairwise_angles(V) for path, V in before.items()}


def looks(now) -> dict[str, float]:
    """What to watch in these weights by path, the mean over the layers; of the energy the median."""
    now = {path: V.detach().double() for path, V in now.items()}
    drift = [abs(sphere.hyperspherical_energy(V).item() / own_energy[path] - 1) for path, V in now.items()]
    angle = [(sphere.pairwise_angles(V) - own_angles[path]).abs().mean().rad2deg().item() for path, V in now.items()]
    moved = [((V - before[path]).norm() / before[path].norm()).item() for path, V in now.items()]
    return {"moved": np.mean(moved), "angle": np.mean(angle), "energy": np.median(drift)}


def weights_of(chosen, weight_of):
    return {path: weight_of(pocket.unet.get_submodule(path)) for path in chosen}


def watch_full():
    return looks(weights_of(paths, lambda layer: layer.weight))


def watch_lora():
    return looks(weights_of(attention, lambda layer: layer.base_layer.weight + layer.get_delta_weight("lora")))


def watch_oft():
    error = max(orthogonal.orthogonality_error(R).item() for R in oft.rotations(pocket.unet).values())
    return looks(oft.effective_weights(pocket.unet)) | {"R Rᵀ - I": error}


def fit(task, lr: float, steps: int):
    return training.fit(task, steps, lr, batch_size=5, seed=lesson.seed, every=20, progress=False)


histories = {}
plain = copy.deepcopy(pocket.unet.state_dict())
histories["full"] = fit(baselines.dreambooth(pocket, data, watch=watch_full), 1e-4, STEPS)
pocket.unet.load_state_dict(plain)

histories["LoRA"] = fit(baselines.lora(pocket, data, rank=4, watch=watch_lora), 2e-3, STEPS)
baselines.remove_lora(pocket)

attached = oft.attach(pocket.unet, TARGETS, block_size=32)
assert attached == paths
oft_task = training.DenoisingTask(pocket, data, oft.parameters(pocket.unet), watch=watch_oft, name="OFT")
histories["OFT"] = fit(oft_task, 1e-3, 2 * STEPS)
print(f"{len(paths)} layers, {sum(p.numel() for p in oft_task.parameters().values())} numbers to train")

# %% training measured
figure, axes = plots.subplots(1, 3, width=9.5, height=3.2)
SHOWN = {
    "moved": "weights moved, ‖ΔW‖/‖W‖",
    "angle": "mean change of an angle, °",
    "energy": "|ΔE / E| of a typical layer",
}
for place, (key, label) in zip(axes[0], SHOWN.items(), strict=True):
    floor = 0 if key == "moved" else 1e-13
    series = {name: (h.watched_at[1:], np.maximum(h.watched[key][1:], floor)) for name, h in histories.items()}
    plots.draw_curves(place, series, "step", label, log=key != "moved")
worst = max(histories["OFT"].watched["R Rᵀ - I"])
print(f"OFT, all steps and layers: ||R Rᵀ - I|| at most {worst:.0e}")
assert worst < 2e-5
display(
    plots.finish(
        figure, alt="Over the steps: OFT moves the weights, yet its angles and energy stay far below the others'"
    )
)

after = {name: {key: h.watched[key][h.watched_at.index(STEPS)] for key in SHOWN} for name, h in histories.items()}
share = after["LoRA"]["energy"] / after["OFT"]["energy"]
told = f"after {STEPS} steps |ΔE/E| of a typical layer: " + ", ".join(
    f"{n} {a['energy']:.0e}" for n, a in after.items()
)
display(drift_prediction.outcome(DRIFTS[2 if share > 1000 else 1 if share > 10 else 0], told))
far = after["OFT"]["moved"] > 2 * after["full"]["moved"]
assert far, "the text says that OFT does not keep the energy by standing still"
others = min(after["LoRA"]["energy"], after["full"]["energy"])
kept = 10 * after["OFT"]["energy"] < others and histories["OFT"].watched["energy"][-1] < 1e-6
claim(
    "oft-keeps-energy-while-training",
    "OFT keeps the hyperspherical energy while it fine-tunes; full fine-tuning and LoRA change it.",
    paper="Qiu et al. 2023, OFT, section 3",
    measured=told + "; weights moved by " + ", ".join(f"{a['moved']:.2f} ({n})" for n, a in after.items()),
    verdict="reproduced"
    if kept
    else "contradicted"
    if after["OFT"]["energy"] > others
    else "not visible at this scale",
    seeds=[lesson.seed],
)

# %% dial text [markdown]
# OFT did not keep its energy by standing still: its weights moved further than in full fine-tuning. What is left of a
# change is the rounding of float32. (LoRA moved the energy about ten times as far as in lesson 01, because
# `baselines.lora` draws the numbers of $A$ at the start about six times as large as PEFT does by default.)
#
# ## The strength dial
#
# After a training we would like to turn the new thing up or down. For LoRA that is easy, $W + s \, BA$. For a rotation
# the straight line from $I$ to $R$, $I + s(R - I)$, leaves the rotations: half way, the neurons are shorter. But the
# free numbers may take any value, also $s$ times their own. So we scale **inside** of the map:
#
# $$R(s) = \text{Cayley}(s\,Q) .$$
#
# It is a rotation at every $s$: $I$ at 0 (the old model, exactly), $R$ at 1 (as trained), further at 2, and at −1 the
# inverse $R^\top$, which turns away from what was learned. **Write `at_strength`** that way.
#
# Then turn it: the row of pictures shows eight strengths, the slider below shows them larger. Compare $s = 0$, the old
# model, with 1. And look at the mug, which has nothing to do with the cat: from which strength on does it suffer?


# %% dial exercise exercise="at_strength" difficulty=2 minutes=8
def at_strength(Q: torch.Tensor, s: float) -> torch.Tensor:
    """R at strength s, a rotation for every s: I at 0, Cayley(Q) at 1, its inverse at -1. Q: (r, b, b)."""
    # <solution>
    return orthogonal.cayley(s * Q)
    # </solution>


check.at_strength(at_strength)

# %% dial hint [markdown] hint="at_strength"
# Which of the laws of the Cayley map gives $I$ at $s = 0$, and which the inverse at $s = -1$? Is $sQ$ still
# skew-symmetric? You may use `orthogonal.cayley`.

# %% dial prediction
DIALS = ["below 1, so less than was trained", "at 1, as trained", "beyond 1, more than was trained"]
dial_prediction = widgets.predict("At which strength do the pictures look most like the cat?", options=DIALS)
dial_prediction

# %% dial
from tutorial_lib import metrics
from tutorial_lib.pocket import judge
from tutorial_lib.sampling import generate

STRENGTHS = (-1.0, -0.5, 0.0, 0.5, 0.75, 1.0, 1.5, 2.0)
PROMPTS = ["a photo of a sks cat in the snow", "a photo of a sks cat on a table", "a photo of a blue mug on a beach"]
drawn = {}
for s in STRENGTHS:
    oft.set_strength(pocket.unet, s)
    drawn[s] = generate(pocket, PROMPTS, seed=1, num_inference_steps=12, progress=False)
    error = max(orthogonal.orthogonality_error(R).item() for R in oft.rotations(pocket.unet).values())
    assert error < 2e-5, "a rotation at every strength"
oft.set_strength(pocket.unet, 1.0)
display(plots.grid(images, rows=["to learn from"], columns=5, size=64, alt="Five pictures of an orange and white cat"))
display(
    plots.grid(
        [drawn[s][i] for i in range(len(PROMPTS)) for s in STRENGTHS],
        columns=len(STRENGTHS),
        rows=PROMPTS,
        heads=[f"s = {s:g}" for s in STRENGTHS],
        size=64,
        alt="Three prompts at eight strengths from -1 to 2: the cat appears between 0 and 1, later the mug changes too",
    )
)
frames = [
    plots.grid(drawn[s], labels=PROMPTS, columns=3, size=192, alt=f"The three prompts at strength {s:g}")
    for s in STRENGTHS
]
still = plots.grid(
    [drawn[s][0] for s in (0.0, 0.5, 1.0, 2.0)],
    labels=[f"the cat in the snow, s = {s}" for s in (0, 0.5, 1, 2)],
    columns=4,
    alt="The cat in the snow at four strengths, from the old model to beyond the trained one",
)
widgets.browse(frames, "strength s", [f"{s:g}" for s in STRENGTHS], still, start=STRENGTHS.index(1.0))


# %% dial measured
reader = judge.load()
similar = [metrics.subject_similarity(drawn[s][:2], images, reader) for s in STRENGTHS]
R = torch.cat(list(oft.rotations(pocket.unet).values()))[::4]  # every fourth block is enough to draw
line = np.linspace(-1, 2, 13)
lost = [orthogonal.orthogonality_error(torch.eye(32) + s * (R - torch.eye(32))).item() for s in line]
kept_by_dial = [
    orthogonal.orthogonality_error(orthogonal.cayley(s * orthogonal.inverse_cayley(R))).item() for s in line
]
figure, axes = plots.subplots(1, 2, width=9, height=3.2)
plots.draw_curves(axes[0, 0], {"judge": (STRENGTHS, similar)}, "strength s", "likeness to the cat (judge)")
both = {"I + s(R − I)": (line, np.maximum(lost, 1e-8)), "Cayley(sQ)": (line, np.maximum(kept_by_dial, 1e-8))}
plots.draw_curves(axes[0, 1], both, "strength s", "‖R(s) R(s)ᵀ − I‖", log=True)
top = STRENGTHS[int(np.argmax(similar))]
display(dial_prediction.outcome(DIALS[0 if top < 1 else 1 if top == 1 else 2], f"most alike at s = {top:g}"))
assert max(kept_by_dial) < 2e-5 < 0.05 < max(lost)
display(
    plots.finish(
        figure, alt="Left: likeness rises from strength 0 on. Right: the line leaves the rotations, the dial does not"
    )
)

SEEDS = (1, 2, 3)
subject_prompts = ["a photo of a sks cat in the snow", "a photo of a sks cat on a table"]
likeness = {}
for s in (0.0, 1.0):
    oft.set_strength(pocket.unet, s)
    for seed in SEEDS:
        made = generate(pocket, subject_prompts, seed=[seed] * 2, num_inference_steps=12, progress=False)
        likeness[s, seed] = metrics.subject_similarity(made, images, reader)
gains = [likeness[1.0, seed] - likeness[0.0, seed] for seed in SEEDS]
claim(
    "rotations-teach-a-subject",
    "Rotations of a model's weights alone teach it a new subject.",
    paper="Qiu et al. 2023, OFT, experiments",
    measured="likeness to the subject, without and with the rotations: "
    + ", ".join(f"{likeness[0.0, seed]:.2f} → {likeness[1.0, seed]:.2f}" for seed in SEEDS),
    verdict="reproduced" if min(gains) > 0.05 else "contradicted" if max(gains) < 0 else "not visible at this scale",
    seeds=SEEDS,
)

# %% share text [markdown]
# ## Save, share, merge
#
# The adapter is a small file, in PEFT's format, so that others can use it without our library. The proof is to load it
# there and to compare. Ours turns 3×3 convolutions too, and `oft.save` warns of what you measured above: PEFT's own
# forward pass is no rotation there. PEFT's *merge*, though, computes the weights rightly, so it has to be called first.
# For people who want no library at all: merge here, and save a plain model.

# %% share
import tempfile
from pathlib import Path

latents, step = torch.randn(2, 4, 16, 16, generator=g).to(pocket.device), torch.tensor([300, 700]).to(pocket.device)
words = training.embed(pocket, PROMPTS[:2]).detach()
says = {}
with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    trained = pocket.unet(latents, step, words).sample
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        oft.save(pocket.unet, folder)
    kilobytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1000
    oft.remove(pocket.unet)
    says["the old model"] = pocket.unet(latents, step, words).sample
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(pocket.unet), folder)
    says["loaded in PEFT, as it is"] = loaded(latents, step, words).sample
    says["loaded in PEFT, merged there"] = loaded.merge_and_unload()(latents, step, words).sample
    oft.load(pocket.unet, folder)
    oft.merge(pocket.unet)
    says["loaded and merged here"] = pocket.unet(latents, step, words).sample
print(f"the adapter has {kilobytes:.0f} kB; warnings when it was saved: {len(warned)}")
off = {name: (trained - answer).abs().max().item() for name, answer in says.items()}
print("\n".join(f"{name:30} differs from the trained model by {value:.0e}" for name, value in off.items()))
assert max(off["loaded in PEFT, merged there"], off["loaded and merged here"]) < 1e-3 and len(warned) == 1
assert min(off["the old model"], off["loaded in PEFT, as it is"]) > 0.05

# %% different [markdown]
# ## What is different on Stable Diffusion
#
# - The first layer picture is drawn from Stable Diffusion 1.5 with `profile="sd15"`. The training here uses Pocket-SD
#   in any case, because its judge and its small size make the measurements possible. Lesson 10 trains on your own
#   pictures.
# - The paper's settings for subjects: rotations on the query, key, value and output layers of all attentions, $r = 4$
#   blocks, learning rate 6e-5, batches of one picture at 512 × 512, about 1000 steps, and 200 pictures of the class to
#   prevent forgetting (lesson 05 explains them). Our rates are larger because our trainings are short.
# - Widths go up to 1280, so $r = 4$ means blocks of 320. Blocks of 32 train far fewer numbers, as your count shows.
# - The rotations are computed in float32 even if the model runs in half precision. A rotation made in half precision is
#   none.
# - The official program saves its parameter as a full square and calls $R$ the inverse of ours in some of its branches.
#   Our library reads such files, and knows the signs.
#
# ## Glossary
#
# - **Rotation**: a matrix with $R^\top R = I$ and determinant 1; it keeps lengths and angles. **Orthogonal**: the same,
#   mirrors included.
# - **Skew-symmetric**: $Q^\top = -Q$.
# - **Cayley map**: $Q \mapsto (I + Q)(I - Q)^{-1}$, from skew-symmetric matrices to rotations without a half turn.
# - **Block-diagonal**: square blocks along the diagonal, zeros elsewhere.
# - **Frobenius norm** $\lVert Q \rVert_F$: the root of the sum of all squares. **Spectral norm** $\lVert Q \rVert_2$:
#   the most that $Q$ lengthens a vector.
# - **LoRA**: fine-tuning by $W + BA$ with thin $B$ and $A$; their width is the **rank**.
# - **COFT**: OFT with every block kept in a ball around $Q = 0$.
# - **Merge**: write $W_\text{eff}$ into the weight; what is left is a plain model.
#
# ## Further reading
#
# - Qiu, Liu, Feng, Xue, Feng, Liu, Zhang, Weller, Schölkopf: *Controlling Text-to-Image Diffusion by Orthogonal
#   Finetuning*, NeurIPS 2023, [arXiv:2306.07280](https://arxiv.org/abs/2306.07280). The paper of this lesson.
# - Liu, Qiu, Feng, Xiu, Xue, Yu, Feng, Liu, Heo, Peng, Wen, Black, Weller, Schölkopf: *Parameter-Efficient Orthogonal
#   Finetuning via Butterfly Factorization*, ICLR 2024, [arXiv:2311.06243](https://arxiv.org/abs/2311.06243). Blocks
#   that exchange their inputs, so that few numbers mix all of them.
# - Qiu, Liu, Weller, Schölkopf: *Orthogonal Finetuning Made Scalable*, 2025,
#   [arXiv:2506.19847](https://arxiv.org/abs/2506.19847). Turning the input, and the series of PEFT.
# - Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022,
#   [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - Cayley: *Sur quelques propriétés des déterminants gauches*, Journal für die reine und angewandte Mathematik 32,
#   1846.
# - Lezcano-Casado, Martínez-Rubio: *Cheap Orthogonal Constraints in Neural Networks*, ICML 2019,
#   [arXiv:1901.08428](https://arxiv.org/abs/1901.08428). Cayley against the matrix exponential.
