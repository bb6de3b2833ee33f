"""How long does a step of each method take on Stable Diffusion 1.5, how much memory, and which GPU of Colab holds it?

    python benchmarks/full_size.py                              every method, on a GPU
    python benchmarks/full_size.py --methods lora --gpus T4     a part of it

Weights are random: the configuration is enough to measure, and nothing is fetched. Each method runs through the
command line, `python -m tutorial_lib train`, with the plan that profiles.py makes for each GPU of Colab: its batch,
precision and checkpointing. The seconds are those of the GPU that is here, whose name stands in each row; the memory is
CUDA's own count, and it fits a GPU if it is below the share that plans are made for. Rows go to results/full_size.csv,
and only missing ones are measured. Without a GPU nothing is: a step would take minutes, and say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from tutorial_lib import profiles, results
from tutorial_lib.cli.main import main as command
from tutorial_lib.pocket.subjects import FOLDER
from tutorial_lib.pocket.tokenizer import write_tokenizer

RESULTS = results.FOLDER / "full_size.csv"
GPUS = {"T4": profiles.GPU(16, "fp16"), "L4": profiles.GPU(24, "bf16"), "A100": profiles.GPU(40, "bf16")}
PRIOR = 2  # pictures of the class that the model draws first; how many changes nothing of a step
STEPS, WARM = 8, 3  # the first steps choose kernels and do not count
SD15 = {
    **{"widths": (320, 640, 1280, 1280), "text": 768, "side": 64, "vae": (128, 256, 512, 512)},
    **{"layers": 12, "heads": 12, "groups": (32, 32), "vae_layers": 2},
}


# ------------------------------------------------------------------ a model of random weights


def random_pipeline(
    words: Path,
    widths: tuple,
    text: int,
    side: int,
    vae: tuple,
    layers: int,
    heads: int,
    groups: tuple,
    vae_layers: int = 1,
    **levels,
):
    """Stable Diffusion 1.5's configuration, whole or narrower. words: a folder for the tokenizer's files.

    widths, text: of the UNet's levels and of the text; side: of the latents; vae, vae_layers: widths of its levels and
    layers of each; layers, heads: of the text encoder; groups: of the norms of UNet and VAE. levels: other arguments of
    the UNet. All else are diffusers' defaults, which are those of Stable Diffusion 1.x, but for the words: the pocket
    model's, 0.1 GB fewer.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    write_tokenizer(words)
    tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True, model_max_length=77)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=side,
        block_out_channels=widths,
        cross_attention_dim=text,
        attention_head_dim=8,
        norm_num_groups=groups[0],
        **levels,
    )
    text_encoder = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text,
        intermediate_size=4 * text,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    autoencoder = AutoencoderKL(
        block_out_channels=vae,
        down_block_types=("DownEncoderBlock2D",) * len(vae),
        up_block_types=("UpDecoderBlock2D",) * len(vae),
        layers_per_block=vae_layers,
        norm_num_groups=groups[1],
        sample_size=side * 2 ** (len(vae) - 1),
    )
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=CLIPTextModel(text_encoder).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def enlarged_pictures(folder: Path, side: int) -> Path:
    """A subject of the course at this size, with its captions."""
    folder.mkdir(parents=True)
    for file in sorted((FOLDER / "two-tone-cat").iterdir()):
        if file.suffix == ".png":
            Image.open(file).resize((side, side)).save(folder / file.name)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


# ------------------------------------------------------------------ rows


@dataclass(frozen=True)
class Row:
    """One method with the plan for one GPU."""

    method: str
    gpu: str
    batch: int
    accumulation: int
    precision: str
    checkpointing: bool
    seconds: float  # a step, the median, on the device
    peak_gb: float  # of a whole run: loading, encoding, sampling and training; NaN on a CPU
    estimate_gb: float  # what profiles.py thought
    device: str
    model: str  # whose weights


KEY = ("method", "gpu")


def measured(model: Path, pictures: Path, method: str, gpu: str, output: Path) -> Row:
    """Trains for some steps as the plan for this GPU says, through the command line. RuntimeError if it fails."""
    prior = method not in ("control", "textual-inversion")
    plan = profiles.plan(profiles.STABLE_DIFFUSION, method, GPUS[gpu], prior=prior)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    words = [*_arguments(model, pictures, plan, prior, on_gpu), "--output", output]
    if code := command([str(word) for word in words]):
        raise RuntimeError(f"train {method} ended with {code}")
    with (output / "history.csv").open(newline="", encoding="utf-8") as lines:
        seconds = [float(line["seconds"]) for line in csv.DictReader(lines) if line["seconds"]]
    return Row(
        method=method,
        gpu=gpu,
        batch=plan.batch_size,
        accumulation=plan.accumulation,
        precision=plan.precision,
        checkpointing=plan.gradient_checkpointing,
        seconds=statistics.median(seconds[WARM:]),
        peak_gb=torch.cuda.max_memory_reserved() / 1e9 if on_gpu else math.nan,
        estimate_gb=profiles.memory_needed(method, plan.batch_size * (1 + prior), plan.gradient_checkpointing),
        device=torch.cuda.get_device_name() if on_gpu else "CPU",
        model="random",
    )


def _arguments(model: Path, pictures: Path, plan: profiles.Plan, prior: bool, on_gpu: bool) -> list:
    """The command that trains by this plan. The CPU has no half precision worth its name."""
    words = ["train", plan.method, "--profile", model, "--pictures", pictures, "--steps", STEPS, "--every", STEPS]
    words += ["--batch-size", plan.batch_size, "--accumulation", plan.accumulation, "--sampling-steps", 2]
    words += ["--precision", plan.precision if on_gpu else "no", "--save-every", STEPS]
    words += ["--gradient-checkpointing"] if plan.gradient_checkpointing else ["--no-gradient-checkpointing"]
    return words if plan.method == "control" else [*words, "--class", "cat", "--prior", PRIOR * prior]


def report(rows: list[Row]) -> Iterator[str]:
    """A line a method and GPU."""
    for row in rows:
        fits = "fits" if row.peak_gb <= profiles.SHARE * GPUS[row.gpu].memory else "does not fit"
        checkpointing = ", checkpointing" if row.checkpointing else ""
        yield (
            f"{row.method:18}{row.gpu:5} {row.batch} x {row.accumulation} in {row.precision}{checkpointing}: "
            f"{row.seconds:.2f} s a step on {row.device}, {row.peak_gb:.1f} GB (estimate {row.estimate_gb:.1f}): {fits}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=profiles.METHODS, default=profiles.METHODS, metavar="METHOD")
    parser.add_argument("--gpus", nargs="+", choices=GPUS, default=tuple(GPUS), metavar="GPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA GPU here, so nothing is measured.", file=sys.stderr)
        return 1
    table = results.Table(options.out, Row, KEY, "random")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        random_pipeline(scratch / "words", **SD15).half().save_pretrained(scratch / "model")
        pictures = enlarged_pictures(scratch / "pictures", 512)
        for method in options.methods:
            for gpu in options.gpus:
                if not table.has(method, gpu):
                    table.add(measured(scratch / "model", pictures, method, gpu, scratch / f"{method}-{gpu}"))
    print(*report(table.rows()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
