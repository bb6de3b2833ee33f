"""What do gradients through a whole DDIM chain cost, in memory and in time, with and without checkpointing?

python benchmarks/mixing_memory.py        about 6 minutes on two cores; run it while the machine has nothing else to do

Each measurement is a fresh process, so that its peak is its own. "above the model" is the peak less what the process
held with the model loaded and one picture made.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from tutorial_lib import mixing, models, sampling

NEUTRAL, STYLED = "a photo of a person on a beach", "a photo of a person with a smile on a beach"
SHORT, LONG = 10, 50
MEMORY_LIMIT = 1.3  # the peak of LONG steps in units of that of SHORT steps
TIME_LIMIT = 60.0  # seconds of an optimisation of LONG steps and 10 iterations on two cores
MODES = {True: "checkpointed", False: "everything kept"}
OFFICIAL_GB = 48  # the GPU that the authors' code asks for, with Stable Diffusion 1.4


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def gradient(pipe, latents, steps: int, checkpoint: bool) -> None:
    weights = mixing.initial_weights(steps, steps // 2).requires_grad_(True)
    images = mixing.sample(pipe, NEUTRAL, STYLED, weights, latents, checkpoint=checkpoint)
    images.square().mean().backward()


def measure(steps: int, checkpoint: bool, whole: bool) -> dict[str, float]:
    """In this process: one gradient of one picture, or a whole optimisation."""
    pipe = models.load("pocket", device="cpu")
    latents = sampling.noise(pipe, [0])
    with torch.no_grad():
        mixing.sample(pipe, NEUTRAL, STYLED, torch.ones(2), latents)
    before = peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    if whole:
        mixing.optimize(pipe, NEUTRAL, STYLED, latents, num_inference_steps=steps, checkpoint=checkpoint)
    else:
        gradient(pipe, latents, steps, checkpoint)
    return {
        "seconds": time.perf_counter() - start,
        "CPU seconds": time.process_time() - cpu,
        "peak": peak_mb(),
        "above": peak_mb() - before,
    }


def in_a_fresh_process(steps: int, checkpoint: bool, whole: bool = False) -> dict[str, float]:
    run = [sys.executable, __file__, "--one", json.dumps([steps, checkpoint, whole])]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def line(name: str, row: dict[str, float]) -> str:
    return f"{name:42}{row['peak']:12.0f}{row['above']:18.0f}{row['seconds']:11.1f}{row['CPU seconds']:13.1f}"


def verdict(name: str, value: float, limit: float) -> str:
    return f"{name:60}{value:8.2f}   at most {limit:g}: {'reached' if value <= limit else 'not reached'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one measurement: what the fresh processes are started with
    if (one := parser.parse_args().one) is not None:
        print(json.dumps(measure(*json.loads(one))))
        return

    print(f"{torch.get_num_threads()} threads\n")
    print(
        f"{'one gradient of one picture':42}{'peak (MB)':>12}{'above model (MB)':>18}{'seconds':>11}{'CPU seconds':>13}"
    )
    rows = {}
    for checkpoint in (True, False):
        for steps in (SHORT, LONG):
            rows[steps, checkpoint] = in_a_fresh_process(steps, checkpoint)
            print(line(f"{steps} steps, {MODES[checkpoint]}", rows[steps, checkpoint]), flush=True)
    whole = {checkpoint: in_a_fresh_process(LONG, checkpoint, whole=True) for checkpoint in (True, False)}
    for checkpoint, row in whole.items():
        print(line(f"optimisation, {LONG} steps, {MODES[checkpoint]}", row), flush=True)
    print("\n")

    def ratio(what: str, first: tuple, second: tuple) -> float:
        return rows[first][what] / rows[second][what]

    for what, name in (("peak", "peak"), ("above", "peak above the model")):
        print(verdict(f"{name}, {LONG} / {SHORT} steps", ratio(what, (LONG, True), (SHORT, True)), MEMORY_LIMIT))
    print(f"{'the same with everything kept':60}{ratio('above', (LONG, False), (SHORT, False)):8.2f}")
    print(f"{'time, checkpointed / everything kept':60}{ratio('CPU seconds', (LONG, True), (LONG, False)):8.2f}")
    for checkpoint, row in whole.items():
        share = f"peak of the optimisation, {MODES[checkpoint]} / the official {OFFICIAL_GB} GB"
        print(f"{share:60}{row['peak'] / 1024 / OFFICIAL_GB:8.3f}")
    for checkpoint, row in whole.items():
        print(verdict(f"seconds, {MODES[checkpoint]}, {torch.get_num_threads()} threads", row["seconds"], TIME_LIMIT))


if __name__ == "__main__":
    main()
