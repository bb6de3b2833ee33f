"""Figures for diffusion: what a pipeline hands on, where a loss comes from, points that flow, the shell of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.lab.plots import COLOURS, Shown, draw_curves, finish, subplots

SHOWN_TOKENS = 16
LATENT_RANGE = 6  # latents of unit variance hardly leave the range from -3 to 3


def stages(tokens: Sequence[str], vectors, noise, latents, picture) -> Shown:
    """A pipeline's data, four panels: the prompt's vectors, the noise, the latents, the picture.

    vectors: (tokens, width), drawn less their mean, or all would look alike. noise, latents: (c, h, w), of which three
    channels are drawn as colours. picture: (3, H, W) from 0 to 1.
    """
    figure, axes = subplots(1, 4, width=11, height=3.2)
    apart = (vectors - vectors.mean(0))[:SHOWN_TOKENS]
    axes[0, 0].imshow(apart.float().cpu().numpy(), cmap="PuOr", vmin=-2, vmax=2, aspect="auto")
    axes[0, 0].set_yticks(range(len(apart)), [_word(token) for token in tokens[: len(apart)]])
    for axis, image in zip(
        axes[0, 1:], (noise / LATENT_RANGE + 0.5, latents / LATENT_RANGE + 0.5, picture), strict=True
    ):
        axis.imshow(image[:3].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy())  # (c, h, w) -> (h, w, 3)
    titles = ("tokens and their vectors", "noise $x_T$", "latents $x_0$, denoised", "the picture")
    for axis, title, data in zip(axes[0], titles, (vectors, noise, latents, picture), strict=True):
        axis.set_title(f"{title}\n{' × '.join(map(str, data.shape))}", fontsize=10)
        axis.grid(False)
    return finish(figure, "Four panels: the vectors of the prompt's tokens, the noise, the latents, the picture")


def _word(token: str) -> str:
    return token.removesuffix("</w>").strip("<|>")


def losses(values, times, steps_together: int = 50, last_time: int = 1000) -> Shown:
    """The loss over training steps, and, in their second half, over timesteps.

    values, times: (steps, batch), each sample's loss and its timestep. Means are taken over `steps_together` steps, and
    over twenty ranges of timesteps.
    """
    values, times = np.asarray(values), np.asarray(times)
    ends = np.arange(steps_together, len(values) + 1, steps_together)
    by_step = [values[end - steps_together : end].mean() for end in ends]
    late, width = len(values) // 2, last_time // 20
    by_time = [values[late:][times[late:] // width == k].mean() for k in range(20)]
    figure, axes = subplots(1, 2, width=10)
    draw_curves(axes[0, 0], {"loss": (ends, by_step)}, "step", "loss")
    draw_curves(axes[0, 1], {"loss": (width * (np.arange(20) + 0.5), by_time)}, "timestep t", "loss in the second half")
    for axis in axes[0]:
        axis.set_ylim(bottom=0)
    return finish(figure, "Two curves: the loss over the steps of training, and over the timesteps of the samples")


def flow(clouds: Mapping[int, np.ndarray], limit: float = 3.0) -> Shown:
    """Points of the plane, (n, 2), after some numbers of steps. A point keeps the colour of where it started."""
    figure, axes = subplots(1, len(clouds), width=2 * len(clouds), height=2.6)
    start = np.asarray(next(iter(clouds.values())))[:, 0]
    for axis, (step, cloud) in zip(axes[0], clouds.items(), strict=True):
        axis.scatter(*np.asarray(cloud).T, s=1.5, c=start, cmap="viridis", vmin=-2, vmax=2)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axis.set_axis_off()
        axis.set_title(f"after {step} steps")
    return finish(figure, f"{len(start)} points move together step by step; colours that were side by side stay so")


def shell(norms, ways: Mapping[str, Sequence[float]]) -> Shown:
    """The lengths of many noises, and the length along some ways from one noise to another, t from 0 to 1."""
    figure, axes = subplots(1, 2, width=10)
    top = 1.15 * float(max(norms))
    axes[0, 0].hist(np.asarray(norms), bins=40, color=COLOURS[0])
    axes[0, 0].set(xlim=(0, top), xlabel="length", ylabel="noises", title=f"the lengths of {len(norms)} noises")
    draw_curves(axes[0, 1], {name: (np.linspace(0, 1, len(way)), way) for name, way in ways.items()}, "t", "length")
    axes[0, 1].set(ylim=(0, top), title="on the way from one noise to another")
    middles = " and ".join(f"{way[len(way) // 2]:.1f} for {name}" for name, way in ways.items())
    return finish(figure, f"Left: all noises have nearly one length. Right: half-way the length is {middles}")
