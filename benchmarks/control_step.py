"""What does our training step of a ControlNet cost, beside the plain recipe of diffusers' example script?

    python benchmarks/control_step.py                        the pocket model, and Stable Diffusion 1.5's configuration
    python benchmarks/control_step.py --networks pocket      a part of it

The plain recipe sends each picture through the VAE and each caption through the text encoder in every step. Ours has
done both once, before the training. All else is the same: model, pictures, hints, noise, time steps, batch, AdamW,
clipping. Both take turns, so that a busy machine is busy for both; the fastest round counts. Memory is the peak of what
a step allocates beyond the weights. "Equal loss": the means over some batches of the losses that both compute from the
same noise and time steps; the VAE's own noise differs.

Stable Diffusion 1.5 has random weights: 128x128 and 256x256 pictures in float32 on a CPU, 512x512 in half precision on
a GPU. Rows go to results/control_step.csv; run again, and only missing rows are measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from full_size import SD15, random_pipeline
from oft_step import megabytes, milliseconds

from tutorial_lib import control, models, results, training
from tutorial_lib.pocket import conditions, world

RESULTS = results.FOLDER / "control_step.csv"
NETWORKS = {"pocket": 4, "SD 1.5": 1}  # pictures in a step on a CPU
SIDES = {"pocket": (64,), "SD 1.5": (128, 256)}  # of a picture on a CPU, in pixels
ON_GPU, SIDE_ON_GPU = 4, {"pocket": 64, "SD 1.5": 512}
ROUNDS = {"pocket": 9, "SD 1.5": 3}
COMPARED = 8  # batches over which the losses are compared
TARGET = 1.4  # times as fast, on Stable Diffusion 1.5's configuration
LR, CLIP = 1e-5, 1.0


@dataclass(frozen=True)
class Row:
    """One network. Times and memory of a step: the plain recipe's, and ours."""

    network: str
    batch: int
    device: str
    threads: int
    side: int
    plain_ms: float
    ours_ms: float
    plain_mb: float
    ours_mb: float
    plain_loss: float
    ours_loss: float
    model: str


KEY = ("network", "batch", "device", "threads", "side")


# ------------------------------------------------------------------ what both train


@dataclass(frozen=True)
class Course:
    """A pipeline with a fresh branch, and pairs: as pictures and words, and encoded."""

    pipe: object
    branch: torch.nn.Module
    pictures: list
    captions: list[str]
    task: control.ControlTask

    def batch(self, step: int, size: int) -> dict:
        """What both steps see: samples, noise, time steps, hints, captions."""
        return self.task.batch([training.sample_at(0, len(self.task), step * size + k) for k in range(size)])


def course(network: str, side: int, device: str, scratch: Path) -> Course:
    pipe = models.load("pocket", device) if network == "pocket" else _stable_diffusion(side, device, scratch)
    scenes = control.scenes(control.TRAINING, 16)
    pictures = [world.draw(scene).resize((side, side)) for scene in scenes]
    captions = [world.caption(scene) for scene in scenes]
    pairs = control.encode_pairs(pipe, pictures, [conditions.of_picture("edges", p) for p in pictures], captions)
    branch = control.from_unet(pipe.unet, "full", control.vae_factor(pipe.vae)).to(device)
    return Course(pipe, branch, pictures, captions, control.ControlTask(pipe, branch, pairs, drop_prompt=0.0))


def _stable_diffusion(side: int, device: str, scratch: Path):
    """Random weights, for pictures of this side."""
    pipe = random_pipeline(scratch, **SD15 | {"side": side // 8})
    return (pipe.to(device, torch.float16) if device == "cuda" else pipe).to(device)


# ------------------------------------------------------------------ the two recipes


def plain_loss(course: Course, batch: dict) -> torch.Tensor:
    """The loss as the example script computes it: VAE and text encoder in every step."""
    from diffusers.image_processor import VaeImageProcessor

    pipe, device, dtype = course.pipe, course.pipe.unet.device, course.pipe.unet.dtype
    chosen = [sample.index for sample in batch["samples"]]
    pixels = VaeImageProcessor().preprocess([course.pictures[k] for k in chosen]).to(device, dtype)
    with torch.no_grad():
        latents = pipe.vae.encode(pixels).latent_dist.sample() * pipe.vae.config.scaling_factor
        words = pipe.tokenizer(
            [course.captions[k] for k in chosen],
            max_length=pipe.tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        context = pipe.text_encoder(words.input_ids.to(device))[0]
    noisy = course.task.scheduler.add_noise(latents, batch["noise"], batch["timesteps"])
    see = {"encoder_hidden_states": context, "return_dict": False}
    down, middle = course.branch(noisy, batch["timesteps"], controlnet_cond=batch["hints"].to(dtype), **see)
    told = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    predicted = pipe.unet(noisy, batch["timesteps"], **see, **told)[0]
    return torch.nn.functional.mse_loss(predicted.float(), batch["noise"].float())


def our_loss(course: Course, batch: dict) -> torch.Tensor:
    return course.task.loss(batch)


def step_of(course: Course, loss: Callable, size: int) -> Callable[[], None]:
    parameters = list(course.branch.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=LR)

    def step() -> None:
        loss(course, course.batch(0, size)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
        optimiser.zero_grad()

    return step


def mean_loss(course: Course, loss: Callable, size: int) -> float:
    """Over some batches, the weights as they are."""
    with torch.no_grad():
        found = [loss(course, course.batch(step, size)).item() for step in range(COMPARED)]
    return sum(found) / len(found)


# ------------------------------------------------------------------ measuring


def measured(network: str, batch: int, device: str, made: Course, model: str) -> Row:
    recipes = {"plain": plain_loss, "ours": our_loss}
    figures = {f"{name}_loss": mean_loss(made, loss, batch) for name, loss in recipes.items()}
    steps = {name: step_of(made, loss, batch) for name, loss in recipes.items()}
    for name, step in steps.items():
        step()  # warms up, fills caches, and makes the optimiser's state
        figures[f"{name}_mb"] = megabytes(step, device)
    turns = [{name: milliseconds(step, device) for name, step in steps.items()} for _ in range(ROUNDS[network])]
    figures |= {f"{name}_ms": min(turn[name] for turn in turns) for name in steps}
    side = made.pictures[0].width
    return Row(network, batch, device, torch.get_num_threads(), side, **figures, model=model)


def report(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        faster, less = row.plain_ms / row.ours_ms, row.ours_mb / row.plain_mb
        yield (
            f"{row.network}, {row.side}x{row.side}, {row.batch} a step on {row.device}: plain {row.plain_ms:.0f} ms, "
            f"ours {row.ours_ms:.0f} ms, {faster:.2f} times as fast; memory {less:.2f} of the plain step's; "
            f"loss {row.plain_loss:.4f} and {row.ours_loss:.4f}"
        )
        if row.network == "SD 1.5":
            word = "reached" if row.plain_ms / row.ours_ms >= TARGET else "not reached"
            yield f"  at least {TARGET} times as fast: {word}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=tuple(NETWORKS), metavar="NETWORK")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = results.Table(options.out, Row, KEY, results.model_hash())
    for network in options.networks:
        batch = ON_GPU if device == "cuda" else NETWORKS[network]
        for side in (SIDE_ON_GPU[network],) if device == "cuda" else SIDES[network]:
            if table.has(network, batch, device, torch.get_num_threads(), side):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                made = course(network, side, device, Path(scratch))
            table.add(measured(network, batch, device, made, table.model))
    print(*report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
