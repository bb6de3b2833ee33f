# %% title [markdown] prerequisites="a training step and guidance (lesson 02); gradients in PyTorch"
# # 08 · ControlNet: telling the model where
#
# "A red house beside a tree" says what there is. It does not say *where*, how large, or from which side. A drawing says
# that at once. ControlNet (Zhang et al. 2023) teaches a finished text-to-image model to follow such a picture: edges, a
# map of regions, a pose. The model itself stays as it is. Beside it grows a copy that can learn, and the two are joined
# by layers that begin at zero.
#
# After this page you can
#
# - write a zero convolution, and say why it learns although it is zero;
# - build the trainable copy, and prove that at the start it changes nothing;
# - train a control on pairs of edges and pictures, and see the moment when it starts to obey;
# - measure obedience with the F1 of edges, and know how much of it is chance;
# - say what prompt dropping, conditioning scale and guess mode do, and why.

# %% set-up
from tutorial_lib.lab import session

lesson = session.start("08")

# %% task text [markdown]
# ## The task
#
# In the top row are **edge maps**: what Canny's edge detector (1986) finds in some pictures. Below is what the model
# draws when it gets the captions of these pictures. It draws the right things, and puts them where it likes. The bottom
# row has the pictures that the edges were taken from: compare places and sizes.
#
# An edge map is one kind of **condition**, or **hint**. Everything on this page works for other kinds too; lesson 09
# compares them. We need pictures whose true edges are known, so this lesson always works on the pocket model.

# %% task
import numpy as np
import torch

from tutorial_lib import control, models
from tutorial_lib.lab import plots
from tutorial_lib.pocket import conditions, world
from tutorial_lib.sampling import generate

pipe = models.load("pocket", device="cpu")
test = control.scenes(control.TEST, 16)  # never trained on
captions = [world.caption(scene) for scene in test]
pictures = [world.draw(scene) for scene in test]
edges = [conditions.of_picture("edges", picture) for picture in pictures]
FEW, STEPS = 4, 10  # scenes to watch while training; denoising steps of a picture
untold = generate(pipe, captions[:FEW], seed=0, num_inference_steps=STEPS, progress=False)
plots.grid(
    [*edges[:FEW], *untold, *pictures[:FEW]],
    rows=["edges", "the model, told by words only", "where the edges come from"],
    columns=FEW,
    size=128,
    alt="Edge maps of four scenes; what the model draws from the captions alone, in other places and sizes; and the "
    "scenes themselves",
)

# %% network text [markdown]
# ## The network
#
# Fine-tuning the whole model on some thousand pairs would teach it the edges and let it forget the rest. ControlNet's
# answer has three parts:
#
# - **locked**: the UNet's weights $\Theta$ never change;
# - **trainable copy**: a second encoder and middle block, with weights $\Theta_c$ that start as a copy of $\Theta$. It
#   gets the noisy latents $x_t$ plus the hint, and it knows already how to read pictures;
# - **zero convolutions**: 1×1 convolutions $\mathcal Z$ whose weights and biases start at 0. Each output of the copy
#   passes one before it is added to the input of the locked decoder. So does the hint on its way in (a 3×3 one).
#
# For one block $\mathcal F$, with input $x$ and hint $c$, this reads (equation 2 of the paper)
#
# $$y_c = \underbrace{\mathcal F(x; \Theta)}_{\text{locked}} +
# \underbrace{\mathcal Z\big(\,\mathcal F(x + \mathcal Z(c; \Theta_{z1});\; \Theta_c);\; \Theta_{z2}\big)}_{\text{what
# the branch adds}} .$$
#
# Follow the arrows in the drawing: what does the locked encoder know of the hint? Nothing. The decoder is told, and the
# middle block's output is added to on its way there. One arrow stands for all outputs of a level: seven in all.

# %% network
from tutorial_lib.lab import control_plots

control_plots.diagram()

# %% zero text [markdown]
# ## Why zero is no dead end
#
# At the start every $\mathcal Z$ is zero, so the branch adds nothing and the model is exactly the old one. No noise of
# fresh layers ever disturbs what it knows. But can something that is zero learn? If all of a network's weights were 0,
# nothing would. Look at one zero convolution, $y = wx + b$ at each place:
#
# $$\frac{\partial y}{\partial w} = x, \qquad \frac{\partial y}{\partial b} = 1, \qquad
# \frac{\partial y}{\partial x} = w = 0 .$$
#
# The derivative by $w$ has no $w$ in it. As long as the input $x$ is not zero, $w$ gets a gradient and moves. What is 0
# is the gradient that goes *back* to $x$: everything in front of the zero convolution has to wait for it.
#
# **Write these gradients** by hand. `x` has the shape (n, inputs, h, w), and `g` $= \partial L / \partial y$ has the
# shape (n, outputs, h, w). Return $\partial L/\partial w$ (outputs, inputs), $\partial L/\partial b$ (outputs,) and
# $\partial L/\partial x$ at $w = 0$, $b = 0$.

# %% zero exercise exercise="zero_convolution_gradients" difficulty=2 minutes=10
from tutorial_lib.lab.checks import lesson_08 as check


def zero_convolution_gradients(x: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dL/dw, dL/db and dL/dx of a 1x1 convolution whose w and b are zero, given g = dL/dy."""
    # <solution>
    dw = torch.einsum("nohw,nihw->oi", g, x)  # every picture and place uses the same w: sum over them
    db = g.sum((0, 2, 3))
    return dw, db, torch.zeros_like(x)
    # </solution>


check.zero_convolution_gradients(zero_convolution_gradients)

# %% zero hint [markdown] hint="zero_convolution_gradients"
# At one place of one picture $y_o = \sum_i w_{oi} x_i + b_o$, so $\partial L / \partial w_{oi} = g_o x_i$. The same $w$
# serves all places of all pictures: their shares add up. `torch.einsum("nohw,nihw->oi", ...)` multiplies and sums.

# %% zero steps text [markdown]
# Here is the wait, in the smallest example. A layer $f$, then a zero convolution, and a target to reach. In the first
# step only the zero convolution gets a gradient. After that step it is no longer zero, and in the second step $f$
# learns too. Nothing had to be set free: the wall opens by itself.

# %% zero steps
import copy

from torch import nn

torch.manual_seed(lesson.seed)
f, Z = nn.Conv2d(3, 4, 3, padding=1), control.zero(nn.Conv2d(4, 2, 1))
x, target = torch.randn(5, 3, 8, 6), torch.randn(5, 2, 8, 6)
optimiser = torch.optim.SGD([*f.parameters(), *Z.parameters()], lr=0.1)
felt = []  # the gradient's norm in f and in Z at each step
for _ in range(3):
    optimiser.zero_grad()
    (Z(f(x)) - target).square().mean().backward()
    felt.append((f.weight.grad.norm().item(), Z.weight.grad.norm().item()))
    optimiser.step()
for k, (in_f, in_z) in enumerate(felt, start=1):
    print(f"step {k}: norm of the gradient in f {in_f:.1e}, in the zero convolution {in_z:.1e}")
assert felt[0][0] == 0 < min(felt[0][1], felt[1][0])

# %% block text [markdown]
# ## One controlled block
#
# Now the block of equation 2. **Write `ControlBlock`**: it is given a frozen block $\mathcal F$ (its parameters have
# `requires_grad=False`) whose input and output have `channels` channels. It should have three layers,
#
# - `trainable_copy`, with weights of its own that start as the block's,
# - `zero_in` and `zero_out`, 1×1 convolutions of `channels` to `channels`, all zero,
#
# and `forward(x, c)` returns what is *added* to the frozen block's output.


# %% block exercise exercise="control_block" difficulty=3 minutes=15
class ControlBlock(nn.Module):
    """What ControlNet adds to the output of a frozen block (equation 2)."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        # <solution>
        self.trainable_copy = copy.deepcopy(block).requires_grad_(True)
        self.zero_in = control.zero(nn.Conv2d(channels, channels, 1))
        self.zero_out = control.zero(nn.Conv2d(channels, channels, 1))
        # </solution>

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        # <solution>
        return self.zero_out(self.trainable_copy(x + self.zero_in(c)))
        # </solution>


check.control_block(ControlBlock)

# %% block hint [markdown] hint="control_block"
# `copy.deepcopy` copies a module with its weights, and with their `requires_grad`. You may use `control.zero(layer)`,
# which sets a convolution's weight and bias to 0. Which of the two zero convolutions is the last thing to be called?

# %% branch text [markdown]
# ## The whole branch
#
# A real branch is this block many times, with one economy: the hint comes in only once, at the top. It has the size of
# the picture, 64 × 64 pixels, and the latents have 16 × 16 places. So a small **hint encoder** of plain convolutions
# brings it down. Its last convolution is a zero convolution too: it plays the part of $\Theta_{z1}$.
#
# The next cell makes a branch by the library (a diffusers `ControlNetModel`), shakes all of its weights so that nothing
# is zero any more, and computes its outputs a second time by hand: with deep copies of the pocket UNet's parts, as you
# did in your block, and with the shaken weights loaded into them. The difference is 0.
#
# One change to the library's default: the hint encoder's layers get **Gaussian weights** that keep the signal's
# strength (He et al. 2015). The paper's text says Gaussian, the official code leaves PyTorch's default, which shrinks
# the hint layer by layer. Watch the numbers: with it nearly nothing arrives.

# %% branch
branch = control.from_unet(pipe.unet, "full", vae_factor=4, hint_encoder="gaussian", seed=lesson.seed)
zeros = control.zero_convolutions(branch)
g = torch.Generator().manual_seed(1)
x_t, t = torch.randn(4, 4, 16, 16, generator=g), torch.tensor([100, 300, 500, 900])
hints = conditions.hints(edges[:4])


@torch.no_grad()
def arriving(hint_encoder):
    """How much the features of four hints vary where they meet the hint encoder's zero convolution."""
    encoder, seen = control.from_unet(pipe.unet, "full", 4, hint_encoder).controlnet_cond_embedding, []
    encoder.conv_out.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].std((0, 2, 3)).mean().item())
    )
    encoder(hints)
    return seen[0]


@torch.no_grad()
def by_hand(unet, shaken, x_t, t, context, hints):
    """The branch's outputs, with parts of our own: copies of the UNet's, the shaken branch's weights in them."""
    parts = {name: copy.deepcopy(getattr(unet, name)) for name in ("conv_in", "time_embedding", "mid_block")}
    blocks = copy.deepcopy(unet.down_blocks)
    for name, part in (*parts.items(), ("down_blocks", blocks)):
        part.load_state_dict(getattr(shaken, name).state_dict())
    time = parts["time_embedding"](unet.time_proj(t))
    h = parts["conv_in"](x_t) + shaken.controlnet_cond_embedding(hints)  # x + Z(c)
    outputs = [h]
    for block in blocks:
        reads = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
        h, more = block(h, time, **reads)
        outputs += more
    h = parts["mid_block"](h, time, encoder_hidden_states=context)
    behind = [zero for name, zero in control.zero_convolutions(shaken).items() if "cond_embedding" not in name]
    return [zero(output) for zero, output in zip(behind, [*outputs, h], strict=True)]


shaken = copy.deepcopy(branch)
with torch.no_grad():
    for parameter in shaken.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=g)
    words = pipe.encode_prompt(captions[:4], "cpu", 1, False)[0]
    down, middle = shaken(x_t, t, words, hints, return_dict=False)
    ours = by_hand(pipe.unet, shaken, x_t, t, words, hints)
difference = max((a - b).abs().max().item() for a, b in zip(ours, [*down, middle], strict=True))
print(f"{sum(p.numel() for p in branch.parameters()):,} numbers, {len(zeros)} zero convolutions")
print("outputs:", ", ".join("×".join(map(str, output.shape[1:])) for output in ours))
print(f"largest output {max(o.abs().max().item() for o in ours):.2f}, ours and diffusers' differ by {difference:.0e}")
reach = {kind: arriving(kind) for kind in ("code", "gaussian")}
print(f"of the hint arrives: {reach['code']:.4f} with default weights, {reach['gaussian']:.2f} with Gaussian ones")
assert difference < 1e-5 and reach["gaussian"] > 10 * reach["code"]

# %% init text [markdown]
# ## At the start: exactly the old model
#
# The claim is a strong one: not "nearly", but *exactly* the same. We test it bit for bit, with several strengths of the
# control. And beside it the paper's ablation: the same branch with Gaussian convolutions instead of zero convolutions.
# That one shouts into the decoder from the first moment. The pictures show the same noise and prompts with no branch,
# with a fresh branch, and with a fresh Gaussian one.

# %% init
from IPython.display import display

from tutorial_lib.lab.claims import claim

gaussian = control.from_unet(pipe.unet, "gaussian", vae_factor=4, hint_encoder="gaussian", seed=lesson.seed)


@torch.no_grad()
def predicted(branch, scale=1.0):
    return control.predict(pipe.unet, branch, x_t, t, words, hints, scale)


with torch.no_grad():
    base = pipe.unet(x_t, t, words).sample
fresh_off = max((predicted(branch, scale) - base).abs().max().item() for scale in (0.5, 1.0, 3.0))
gaussian_off = ((predicted(gaussian) - base).std() / base.std()).item()
options = {"seed": 5, "num_inference_steps": STEPS, "progress": False}
rows = {
    "no branch": generate(pipe, captions[:5], **options),
    "fresh zero convolutions": control.generate(pipe, branch, captions[:5], edges[:5], **options),
    "fresh Gaussian convolutions": control.generate(pipe, gaussian, captions[:5], edges[:5], **options),
}
assert fresh_off == 0 and gaussian_off > 0.1
shown = plots.grid(
    [picture for row in rows.values() for picture in row],
    rows=list(rows),
    columns=5,
    size=128,
    alt="Five pictures without a branch; the same five with a fresh branch; and ruined ones with Gaussian convolutions",
)
display(shown)
claim(
    "fresh-controlnet-is-silent",
    "With zero convolutions a fresh ControlNet leaves the model exactly as it was; with Gaussian ones it does not.",
    paper="Zhang et al. 2023, ControlNet, sections 3.1 and 4.2",
    measured=f"largest difference in the predicted noise {fresh_off:g}; Gaussian convolutions change it by "
    f"{gaussian_off:.0%} of its spread",
    verdict="reproduced" if fresh_off == 0 and gaussian_off > 0.1 else "contradicted",
    seeds=[lesson.seed],
)

# %% first text [markdown]
# ## The first steps
#
# The branch has four parts: the **zero convolutions behind** the copy, the **trainable copy**, the **zero convolution
# of the hint encoder**, and the **rest of the hint encoder**. Draw the chain from the hint to the loss on paper. Which
# of them get a gradient in the very first step of training?

# %% first prediction
from tutorial_lib.lab import widgets

PARTS = ["zero convolutions behind", "trainable copy", "hint's zero convolution", "hint encoder"]
FIRST = ["all four", "both kinds of zero convolutions", "only those behind the copy", "none"]
first_prediction = widgets.predict("Which parts get a gradient in the first step?", FIRST)
first_prediction

# %% first
from tutorial_lib import training

R = control.EDGES
pairs = control.scene_pairs(pipe, "edges", control.scenes(control.TRAINING, 32))  # a few, to begin with


def part_of(name):
    """Which of PARTS a parameter of the branch belongs to."""
    if name.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
        return PARTS[0]
    if "controlnet_cond_embedding" not in name:
        return PARTS[1]
    return PARTS[2] if "conv_out" in name else PARTS[3]


def first_steps(seed):
    """{step: {part: norm of its gradient}} for the first three steps of a fresh branch."""
    fresh = control.from_unet(pipe.unet, "full", 4, R.hint_encoder, seed=seed)
    task, found = control.ControlTask(pipe, fresh, pairs), {}
    optimiser = torch.optim.AdamW(fresh.parameters(), lr=R.lr)
    for step in (1, 2, 3):
        optimiser.zero_grad()
        task.loss(task.batch([training.sample_at(seed, len(task), 4 * step + k) for k in range(4)])).backward()
        squares = dict.fromkeys(PARTS, 0.0)
        for name, parameter in fresh.named_parameters():
            squares[part_of(name)] += 0.0 if parameter.grad is None else parameter.grad.square().sum().item()
        found[step] = {part: square**0.5 for part, square in squares.items()}
        optimiser.step()
    return found


felt_at = {seed: first_steps(seed) for seed in (0, 1, 2)}
reached = [part for part in PARTS if felt_at[0][1][part] > 0]
display(first_prediction.outcome(FIRST[2] if reached == PARTS[:1] else FIRST[0], ", ".join(reached)))
assert all(felt[1][PARTS[0]] > 0 == sum(felt[1][part] for part in PARTS[1:]) for felt in felt_at.values())
assert all(min(felt[3].values()) > 0 for felt in felt_at.values())
display(control_plots.gradients(felt_at[0]))
claim(
    "first-step-zero-convolutions-only",
    "In the first step only the zero convolutions learn, and soon after all of the branch does.",
    paper="Zhang et al. 2023, ControlNet, section 3.1",
    measured="with a gradient at steps 1, 2, 3: "
    + "; ".join(
        ", ".join(str(sum(norm > 0 for norm in felt_at[seed][step].values())) for step in (1, 2, 3)) for seed in felt_at
    )
    + " of 4 parts",
    verdict="reproduced"
    if all(sum(n > 0 for n in felt[1].values()) == 1 and min(felt[3].values()) > 0 for felt in felt_at.values())
    else "contradicted",
    seeds=list(felt_at),
)

# %% drop text [markdown]
# One wall after the other opens: first the convolutions behind the copy; in the second step the copy, and at the far
# end of it the hint's zero convolution; in the third step the hint encoder. Then everything learns. Nothing was ever
# disturbed, and only two steps were lost.
#
# ## What to train on
#
# Pairs of a picture and its hint, with a caption. The loss is the usual one, with time $t$, text $c_t$ and the hint,
# which the paper here calls $c_f$:
#
# $$L = \mathbb E_{x_0, t, c_t, c_f, \epsilon}\; \lVert \epsilon - \epsilon_\theta(x_t, t, c_t, c_f) \rVert^2 .$$
#
# One trick is easily overlooked, and the example scripts leave it out: **half of the captions are replaced by the empty
# prompt**. Captions give much of a picture away. A branch that can lean on them has less to learn from the edges, and
# fails when a user writes no prompt or a bad one. A dropped prompt forces it to find out from the hint alone what there
# is to see.
#
# **Write `drop_prompts`**: each caption becomes "" with probability `share`, each by a coin of its own.


# %% drop exercise exercise="drop_prompts" difficulty=1 minutes=5
def drop_prompts(captions: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """The captions, each one dropped (empty) with probability `share`."""
    # <solution>
    return ["" if rng.random() < share else caption for caption in captions]
    # </solution>


check.drop_prompts(drop_prompts)

# %% drop hint [markdown] hint="drop_prompts"
# `rng.random()` is a number from 0 to 1, and it is below `share` with probability `share`. Throw it once a caption.

# %% f1 text [markdown]
# ## Measuring obedience
#
# Does a picture obey the edges? Detect *its* edges in the same way, and compare the two maps. Pixel by pixel is too
# strict: a line that is one pixel off is still right to the eye. So an edge pixel counts as right if the other map has
# one at most one pixel away, diagonals included. That gives two shares,
#
# - **precision** $p$: of the edge pixels *found* in the picture, the share with an *asked* one nearby;
# - **recall** $r$: of those that were *asked* for, the share with a *found* one nearby;
#
# and $F_1 = 2pr / (p + r)$, their harmonic mean, which is high only if both are. The **IoU**, intersection over union,
# is the strict measure beside it: no tolerance.
#
# **Write `edge_f1`** for two maps of True and False of the shape (h, w). At least one edge is in each of them.


# %% f1 exercise exercise="edge_f1" difficulty=3 minutes=15
def edge_f1(found: torch.Tensor, asked: torch.Tensor, tolerance: int) -> torch.Tensor:
    """F1 of two edge maps (h, w); an edge is right if the other map has one at most `tolerance` pixels away."""
    # <solution>

    def near(edges):
        grown = nn.functional.max_pool2d(edges[None, None].float(), 2 * tolerance + 1, 1, tolerance)
        return grown[0, 0] > 0  # (1, 1, h, w) -> (h, w)

    precision = (found & near(asked)).sum() / found.sum()
    recall = (asked & near(found)).sum() / asked.sum()
    return 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    # </solution>


check.edge_f1(edge_f1)

# %% f1 hint [markdown] hint="edge_f1"
# First widen *one* map: `nn.functional.max_pool2d(map, 2 * tolerance + 1, 1, tolerance)` takes the largest value in a
# square around each place (it wants the shape (1, 1, h, w), and floats). Then count the other map's pixels in it.

# %% floor text [markdown]
# A measure needs a floor and a ceiling before it means anything.
#
# - **Floor**: the model without a branch. The cell first counts: one pixel in seven is an edge here, and nearly half of
#   all pixels lie on one or next to one. So many edges that are found are near one that was asked for, by chance. And a
#   caption alone tells much of this small world: where the horizon is, how a house looks.
# - **Ceiling**: the true picture, sent through the VAE and back. What is lost there no control can bring back.
#
# We look at pictures **with their prompts** and at pictures **without** any. With prompts the floor is high, so the
# second is the cleaner test.

# %% floor
lines = conditions.hints(edges)[:, :1]  # (16, 1, 64, 64), 1 on an edge
near = nn.functional.max_pool2d(lines, 3, 1, 1)
print(f"of all pixels {lines.mean():.2f} are edges, {near.mean():.2f} lie on one or next to one")
assert 0.1 < lines.mean() < 0.2 and 0.35 < near.mean() < 0.5
ceilings = control.edge_ceiling(pipe, pictures, edges)
draw_options = {"num_inference_steps": STEPS, "progress": False}
floors = {
    "with prompts": control.edge_scores(generate(pipe, captions, seed=40, **draw_options), edges),
    "without": control.edge_scores(
        generate(pipe, [""] * len(captions), seed=40, guidance_scale=1.0, **draw_options), edges
    ),
}
for name, scores in {**floors, "ceiling: the true picture through the VAE": ceilings}.items():
    print(f"{name:42}" + ", ".join(f"{measure} {value:.2f}" for measure, value in scores.items()))
assert floors["without"]["F1"] < floors["with prompts"]["F1"] < ceilings["F1"]

# %% live text [markdown]
# ## Training, live
#
# Now train. The recipe stands in one place, `control.EDGES`, and the long experiment below repeats it with other seeds.
# Compared with the paper it has a large learning rate, since the training must end within minutes, and what is left at
# the end is a running mean of the weights (EMA), which is steadier. And one more change: the paper draws the time step
# $t$ uniformly; we draw it with a density that grows with $t$. At small $t$ the latents show the edges already, so the
# hint has nothing to add, while the loss, and with it the noise of the gradient, is largest there.
#
# While it trains we draw the same four scenes again and again, from the same noise, and score them. What do you
# expect of the curve?
#
# Afterwards move the slider through the training. Above without a prompt, below with it. When do the lines begin to
# matter? What comes first, the place of things or their detail?

# %% live prediction
CURVES = ["it rises evenly", "flat at first, then a jump", "fast at first, then slower and slower"]
curve_prediction = widgets.predict("How do the scores (without prompts) rise over the steps?", CURVES)
curve_prediction

# %% live
print(R)
pairs = control.scene_pairs(pipe, "edges", control.scenes(control.TRAINING, R.pairs))
watched = edges[:FEW]
probes = {
    "with prompts": control.Probe(captions[:FEW], watched, lambda drawn: control.edge_scores(drawn, watched)),
    "without": control.Probe(
        [""] * FEW, watched, lambda drawn: control.edge_scores(drawn, watched), guidance_scale=1.0
    ),  # guidance between two empty prompts would do nothing
}


def watch():
    found = {name: probe.look(pipe, branch) for name, probe in probes.items()}
    return {f"{measure} {name}": value for name, scores in found.items() for measure, value in scores.items()}


def tell(step, history):
    row = history.rows()[-1]
    figures = ", ".join(f"{name} {value:.2f}" for name, value in row.items() if name not in ("step", "loss"))
    print(f"step {step:4}: {figures}")


task = control.ControlTask(pipe, branch, pairs, drop_prompt=R.drop_prompt, noisier=R.noisier, watch=watch)
looks = {"every": R.steps // 10, "callback": tell, "progress": False}
history = training.fit(task, R.steps, R.lr, R.batch_size, seed=lesson.seed, ema=R.ema, **looks)
print(f"{np.median(history.seconds):.2f} s a step, {sum(history.seconds):.0f} s without the looks")

# %% live browser
moments = history.watched_at


def sheet(looks, size, colours=None):
    """The edges, and below them the pictures of these looks."""
    rows = [(name, k) for k in looks for name in ("without", "with prompts")]
    return plots.grid(
        watched + [picture for name, k in rows for picture in probes[name].drawn[k]],
        rows=["edges", *(f"step {moments[k]}, {name}" for name, k in rows)],
        columns=FEW,
        size=size,
        colours=colours,
        alt=f"Edges, and pictures for them after {', '.join(str(moments[k]) for k in looks)} steps, without and with "
        "their prompts",
    )


thirds = sorted({0, len(moments) // 3, 2 * len(moments) // 3, len(moments) - 1})
frames = [sheet([k], 128) for k in range(len(moments))]
widgets.browse(frames, "step", [str(m) for m in moments], still=sheet(thirds, 64, colours=256), start=len(moments) - 1)

# %% sudden text [markdown]
# ## Sudden convergence
#
# Zhang et al. saw that the control is not learned bit by bit: for thousands of steps the model ignores the hint, and
# then, within a few hundred, it follows. Each wall behind another wall is one reason. As long as the convolutions
# behind the copy pass nothing of the hint on, the hint encoder is not told what to say; and as long as it says nothing,
# they have nothing to pass on.
#
# "Sudden" needs a rule, fixed *before* looking: take the fifth of the run in which the score rises most. An even rise
# has a share of 0.2 of the whole rise in it. But the scores of a few scenes scatter, and the steepest fifth is picked
# afterwards, so here even an even rise may show 0.3 to 0.45. We call it sudden at **0.5 or more**. The grey band below
# is that fifth.
#
# And one run proves little. `python benchmarks/control.py --parts edges` repeats it with three seeds of noise, order
# and fresh weights, with more scenes and more looks, and writes `results/control.csv`. The second figure is from there.
# The claim is reproduced if all three seeds are sudden, contradicted if none reaches 0.35, and else not visible.

# %% sudden
NAMES = ("with prompts", "without")
steps_seen, window = history.watched_at, 0.2
score = history.watched["F1 without"]
jump, share = control.sudden_convergence(steps_seen, score, window)
half = window * R.steps / 2
slow_start = np.interp(R.steps / 2, steps_seen, score) - score[0] > 0.6 * (score[-1] - score[0])
kind = CURVES[1] if share >= 0.5 else CURVES[2] if slow_start else CURVES[0]
display(curve_prediction.outcome(kind, f"{share:.2f} of the rise falls into the fifth around step {jump:.0f}"))
control_plots.learning(
    steps_seen,
    {measure: {name: history.watched[f"{measure} {name}"] for name in NAMES} for measure in ("F1", "IoU")},
    control.edge_ceiling(pipe, pictures[:FEW], watched),
    (jump - half, jump + half),
)

# %% seeds
from tutorial_lib import results

table = [row for row in results.read(lesson.root / "results" / "control.csv") if row["part"] == "edges"]


def rows_of(measure, regime):
    """The benchmark's rows of one measure, by seed."""
    return sorted(
        (row for row in table if (row["measure"], row["regime"]) == (measure, regime)), key=lambda row: row["seed"]
    )


def numbers(text):
    return [float(number) for number in str(text).split()]


control_plots.seeds(
    [(f"seed {r['seed']:g}", numbers(r["looks"]), numbers(r["curve"]), r["jump"]) for r in rows_of("F1", "none")],
    "edge F1 without prompts",
)

# %% sudden claim
shares = [row["jump_share"] for row in rows_of("F1", "none")]
jumps = [row["jump"] for row in rows_of("F1", "none")]
claim(
    "sudden-convergence",
    "The control is not learned gradually: suddenly the model follows the hint.",
    paper="Zhang et al. 2023, ControlNet, section 3.3 and figure 4",
    measured="share of the whole rise that falls into the steepest fifth of the run: "
    + ", ".join(f"{share:.2f} around step {jump:.0f}" for share, jump in zip(shares, jumps, strict=True))
    + "; an even rise has 0.20",
    verdict="reproduced"
    if min(shares) >= 0.5
    else "contradicted"
    if max(shares) < 0.35
    else "not visible at this scale",
    seeds=[int(row["seed"]) for row in rows_of("F1", "none")],
    results="results/control.csv",
)

# %% final text [markdown]
# ## What it has learned
#
# Twelve scenes that it was not watched on; eight of them are shown. The first row has their edges, the second is drawn
# from the edges alone, with *no word* said. The third adds the prompt, and the last is the true picture. Ask two things
# of each column: are the lines obeyed? And without words, did the model find out what the lines show?
#
# The claim after it asks for 0.8 of the VAE's own F1 in every seed, also without prompts. Less, but above the start,
# counts as not visible, although the lines help. No branch was trained without dropping prompts, so what dropping alone
# brings stays open.

# %% final
rest = slice(FEW, None)
silent = [""] * len(captions[rest])
told = control.generate(pipe, branch, captions[rest], edges[rest], seed=60, **draw_options)
alone = control.generate(pipe, branch, silent, edges[rest], seed=60, guidance_scale=1.0, **draw_options)
top = control.edge_ceiling(pipe, pictures[rest], edges[rest])
for name, drawn in (("with prompts", told), ("without", alone)):
    scores = control.edge_scores(drawn, edges[rest])
    print(
        f"{name:13}"
        + ", ".join(
            f"{measure} {value:.2f}, {value / top[measure]:.2f} of the VAE's own" for measure, value in scores.items()
        )
    )
assert control.edge_scores(alone, edges[rest])["F1"] > floors["without"]["F1"] + 0.05
SHOWN = slice(0, 8)
plots.grid(
    [*edges[rest][SHOWN], *alone[SHOWN], *told[SHOWN], *pictures[rest][SHOWN]],
    rows=["edges", "edges alone", "with prompt", "true picture"],
    columns=8,
    size=64,
    alt="Eight edge maps, pictures drawn from them without and with a prompt, and the true pictures",
)

# %% share claim
ceiling_rows = {regime: rows_of("F1", regime) for regime in ("none", "perfect")}
of_ceiling = {regime: [row["value"] / row["ceiling"] for row in rows] for regime, rows in ceiling_rows.items()}
before = [row["start"] / row["ceiling"] for row in ceiling_rows["none"]]
claim(
    "control-without-prompts",
    "Trained with half of the prompts dropped, the control is obeyed with and without a prompt.",
    paper="Zhang et al. 2023, ControlNet, sections 3.3 and 4.1",
    measured="edge F1 as a share of what the VAE's reconstruction reaches: without prompts "
    + ", ".join(f"{a:.2f} → {b:.2f}" for a, b in zip(before, of_ceiling["none"], strict=True))
    + "; with prompts "
    + ", ".join(f"{value:.2f}" for value in of_ceiling["perfect"]),
    verdict="reproduced"
    if min(of_ceiling["none"]) >= 0.8
    else "not visible at this scale"
    if min(of_ceiling["none"]) > max(before)
    else "contradicted",
    seeds=[int(row["seed"]) for row in ceiling_rows["none"]],
    results="results/control.csv",
)

# %% scale text [markdown]
# ## How strong?
#
# The branch's outputs are multiplied by the **conditioning scale** before they are added. At 0 the old model draws; at
# 1 the model as it was trained; beyond 1 it exaggerates. Move the slider. From which strength on are the lines obeyed,
# and do the pictures suffer beyond 1?

# %% scale
SCALES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
by_scale = {
    scale: control.generate(pipe, branch, captions[8:12], edges[8:12], seed=60, scale=scale, **draw_options)
    for scale in SCALES
}


def strength_sheet(scales, size):
    return plots.grid(
        edges[8:12] + [picture for scale in scales for picture in by_scale[scale]],
        rows=["edges", *(f"scale {scale:g}" for scale in scales)],
        columns=4,
        size=size,
        alt=f"Four edge maps, and pictures for them at the scales {', '.join(f'{scale:g}' for scale in scales)}",
    )


scale_scores = {scale: control.edge_scores(drawn, edges[8:12])["F1"] for scale, drawn in by_scale.items()}
print("F1: " + ", ".join(f"{value:.2f} at {scale:g}" for scale, value in scale_scores.items()))
widgets.browse(
    [strength_sheet([scale], 128) for scale in SCALES],
    "scale",
    [f"{scale:g}" for scale in SCALES],
    still=strength_sheet((0.0, 0.5, 1.0, 2.0), 64),
    start=SCALES.index(1.0),
)

# %% guess text [markdown]
# ## Guess mode: no prompt at all
#
# Classifier-free guidance sharpens what the *prompt* says: it goes from the answer without prompt towards the answer
# with it, and beyond,
#
# $$\hat\epsilon = \epsilon_\text{uc} + w\,(\epsilon_\text{c} - \epsilon_\text{uc}) .$$
#
# If the hint is added to both halves and there is no prompt, both are the same, their difference is 0, and $w$ does
# nothing. **Guess mode** gives the hint to the second half only. Then the difference is what the *hint* says, and
# guidance sharpens that. It sharpens it so much that the strengths must be lowered again: the paper multiplies each
# connection by a weight that depends on its resolution. The released programs let it rise by equal factors from 0.1 at
# the first, finest output to 1 at the middle block. With $n$ outputs:
#
# $$s_k = 10^{-1 + k/(n-1)}, \qquad k = 0, \ldots, n - 1 .$$
#
# **Write one step of guess mode.** `predict(residuals)` returns the predicted noise for a list of residuals, which are
# the outputs of the branch. Without control all of them are zero.


# %% guess exercise exercise="guess_mode" difficulty=3 minutes=10
from collections.abc import Callable


def guess_mode(
    predict: Callable[[list[torch.Tensor]], torch.Tensor], residuals: list[torch.Tensor], guidance: float
) -> torch.Tensor:
    """The guided noise when only one half of guidance sees the control, at scales from 0.1 to 1."""
    # <solution>
    scales = torch.logspace(-1, 0, len(residuals))
    without = predict([torch.zeros_like(residual) for residual in residuals])
    with_control = predict([scale * residual for scale, residual in zip(scales, residuals)])
    return without + guidance * (with_control - without)
    # </solution>


check.guess_mode(guess_mode)

# %% guess hint [markdown] hint="guess_mode"
# `torch.logspace(-1, 0, n)` has n numbers from 10⁻¹ to 10⁰ that rise by equal factors. `torch.zeros_like` makes the
# residuals of the half without control. The formula of guidance is above; $\epsilon_\text{uc}$ is the half without.

# %% guess
official = np.array([0.825 ** (12 - k) for k in range(13)])  # the constant in the released code, for SD's 13 outputs
apart = np.abs(official / np.logspace(-1, 0, 13) - 1).max()
print(f"the released code's scales and 10^(-1 ... 0) differ by at most {apart:.1%}")
assert apart < 0.01
target, guessing = edges[FEW : FEW + 6], {}
quiet = [""] * len(target)
guessing["w = 1"] = control.generate(pipe, branch, quiet, target, seed=60, guidance_scale=1.0, **draw_options)
guessing["w = 4"] = control.generate(pipe, branch, quiet, target, seed=60, guidance_scale=4.0, **draw_options)
for w in (2.0, 4.0):
    guessing[f"guess, w = {w:g}"] = control.generate(
        pipe, branch, quiet, target, seed=60, guidance_scale=w, guess_mode=True, **draw_options
    )
same = np.abs(np.stack(guessing["w = 1"]).astype(int) - np.stack(guessing["w = 4"])).mean()
scores = {name: control.edge_scores(drawn, target)["F1"] for name, drawn in guessing.items()}
for name, value in scores.items():
    print(f"{name:12} F1 {value:.2f}")
assert max(value for name, value in scores.items() if "guess" in name) < scores["w = 1"]
assert same < 1, "without a prompt ordinary guidance has nothing to sharpen"
plots.grid(
    target + [picture for drawn in guessing.values() for picture in drawn],
    rows=["edges", *guessing],
    columns=len(target),
    size=64,
    alt="Six edge maps and pictures without any prompt: with guidance 1 and 4, which are the same, and in guess mode",
)

# %% compose text [markdown]
# Look at the pictures and at the numbers. In guess mode some things are clearer, but not always the right ones. And the
# lines are obeyed *less*. A likely reason: all strengths but the last were lowered, the finest most. Six pictures are
# few.
#
# ## Your own edges
#
# Compose an edge map: choose shapes, move them, choose the edges of a background or none. Or upload a drawing: square,
# dark lines on light paper, from a paint program or a photo of a sheet. The branch has only ever seen edges that Canny
# found in pictures of the pocket world. Try lines that no such picture has, a prompt that contradicts the shape, and no
# prompt at all.

# %% compose
from tutorial_lib.lab import compose


def paint(prompt, edge_map, scale, seed):
    made = control.generate(
        pipe, branch, [prompt], [edge_map], seed=seed, scale=scale, num_inference_steps=STEPS, progress=False
    )
    return made[0]


compose.panel(paint, "a photo of a red house on a beach")

# %% save
# A branch is saved in diffusers' format, so others load it without our library. The proof is to do that, and compare.
import tempfile

from diffusers import ControlNetModel

with tempfile.TemporaryDirectory() as folder:
    branch.save_pretrained(folder)
    loaded = ControlNetModel.from_pretrained(folder)
off = (predicted(loaded) - predicted(branch)).abs().max().item()
print(f"loaded by plain diffusers, the predicted noise differs by {off:.0e}")
assert off <= 1e-6 < (predicted(branch) - base).abs().max().item()

# %% different [markdown]
# ## What is different on Stable Diffusion
#
# - The branch has 361 million numbers, 13 outputs and 14 zero convolutions; the hint is 512 × 512 and the VAE reduces
#   it 8 times, so the hint encoder halves it three times instead of twice.
# - Learning rates are 100 times smaller (1e-5 in the paper's program) and trainings longer, on thousands to millions of
#   pairs; the program's batch is 4. The authors saw sudden convergence within the first 10,000 steps.
# - Our hint encoder begins with Gaussian weights, and noisy time steps come more often. Both are ours, to get through
#   in minutes. With the official code the hint encoder has PyTorch's default weights, and time steps are uniform.
# - Example scripts drop no prompts unless told to (`--proportion_empty_prompts 0.5` in diffusers).
# - The hint must lie in [0, 1] while the picture to be made lies in [-1, 1]. Scaling the hint like a picture is a
#   common mistake, and it looks like "it does not converge".
# - Guess mode works with guidance 3 to 5 there.
#
# ## Glossary
#
# - **Hint, condition**: the picture that says where: here an edge map.
# - **Zero convolution**: a convolution, mostly 1×1, whose weights and biases start at 0.
# - **Trainable copy**: the UNet's encoder and middle once more, with weights that may change.
# - **Residuals**: here the outputs of the branch, which are added to the inputs of the frozen decoder.
# - **Conditioning scale**: what they are multiplied by.
# - **Guess mode**: drawing from the hint alone, with guidance between "with hint" and "without hint".
# - **F1**: harmonic mean of precision and recall. **IoU**: intersection over union.
# - **Canny**: an edge detector: blur, gradient, thin lines, two thresholds.
#
# ## Further reading
#
# - Zhang, Rao, Agrawala: *Adding Conditional Control to Text-to-Image Diffusion Models*, ICCV 2023,
#   [arXiv:2302.05543](https://arxiv.org/abs/2302.05543). The paper of this lesson.
# - Mou, Wang, Xie, Wu, Zhang, Qi, Shan: *T2I-Adapter*, AAAI 2024, [arXiv:2302.08453](https://arxiv.org/abs/2302.08453).
#   A much smaller network that adds its features to the encoder.
# - Zhao, Chen, Chen, Bao, Hao, Yuan, Wong: *Uni-ControlNet*, NeurIPS 2023,
#   [arXiv:2305.16322](https://arxiv.org/abs/2305.16322). Several conditions in two adapters.
# - He, Zhang, Ren, Sun: *Delving Deep into Rectifiers*, ICCV 2015,
#   [arXiv:1502.01852](https://arxiv.org/abs/1502.01852). Initial weights that keep a signal's strength.
# - Canny: *A Computational Approach to Edge Detection*, IEEE Transactions on Pattern Analysis and Machine Intelligence
#   8(6), 1986.
