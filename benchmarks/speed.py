"""How fast and how large is the pocket model here? Prints each figure beside what it may be at most.

python benchmarks/speed.py        about a minute; run it while the machine has nothing else to do
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tutorial_lib import models, sampling
from tutorial_lib.pocket import world

MODEL = Path(__file__).resolve().parent.parent / "data" / "pocket-sd"
IMPORT = "import time; start = time.perf_counter(); import tutorial_lib; print(time.perf_counter() - start)"
PROMPT = "a photo of a red mug on a beach"
ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sampling_seconds() -> float:
    """8 pictures at 25 steps with guidance, the median of some rounds after one that warms up."""
    pipe = models.load("pocket")

    def make() -> None:
        sampling.generate(pipe, [PROMPT] * 8, seed=list(range(8)), num_inference_steps=25)

    make()
    return statistics.median(seconds(make) for _ in range(ROUNDS))


def import_seconds() -> float:
    """`import tutorial_lib` in a fresh process, the median of some."""
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True) for _ in range(5)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def model_megabytes() -> float:
    return sum(file.stat().st_size for file in MODEL.rglob("*") if file.is_file()) / 1e6


def drawing_milliseconds(pictures: int = 200) -> float:
    """One picture of the pocket world on one core."""
    rng = np.random.default_rng(0)
    scenes = [world.sample_scene(rng) for _ in range(pictures)]
    return seconds(lambda: [world.draw(scene) for scene in scenes]) / pictures * 1000


def main() -> None:
    print(f"{torch.get_num_threads()} threads\n")
    print(f"{'':44}{'measured':>9}{'at most':>9}")
    for figure, measure, most in (
        ("8 pictures, 25 steps, guidance (s)", sampling_seconds, 6),
        ("import tutorial_lib, fresh process (s)", import_seconds, 0.5),
        ("data/pocket-sd (MB)", model_megabytes, 60),
        ("drawing one picture, one core (ms)", drawing_milliseconds, 10),
    ):
        value = measure()
        print(f"{figure:44}{value:9.2f}{most:9}  {'reached' if value <= most else 'not reached'}")


if __name__ == "__main__":
    main()
