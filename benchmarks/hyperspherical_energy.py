"""Hyperspherical energy in several ways: how long, how much memory, how wrong? Prints a table for each weight.

python benchmarks/hyperspherical_energy.py        about five minutes of one core; 4 GB of memory

Each way runs in a process of its own. Time is processor time, as a ratio to the float64 Gram matrix of the same run;
memory is the peak above the input; the error is relative to float64 differences. The last two rows are this course's.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from tutorial_lib.lab.session import peak_memory_mb
from tutorial_lib.sphere import hyperspherical_energy

CASES = {
    "320 x 1280, random": (320, 1280, None),
    "320 x 1280, twins 1e-4 apart": (320, 1280, 1e-4),
    "320 x 1280, twins 1e-6 apart": (320, 1280, 1e-6),
    "10240 x 1280, random": (10240, 1280, None),
}
MOST_MEMORY = 4e9  # bytes; ways that need more are not run


def weight(case: str) -> torch.Tensor:
    """A float32 weight; with twins, every tenth row nearly has the direction of the row before it."""
    n, m, gap = CASES[case]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, m, generator=generator)
    if gap:
        twin = F.normalize(torch.randn(n, m, generator=generator)) * gap * rows.norm(dim=1, keepdim=True)
        rows[1::10] = rows[::10] + twin[::10]
    return rows


# ------------------------------------------------------------------ the ways


def differences(rows):
    u = F.normalize(rows)
    i, j = torch.triu_indices(len(u), len(u), 1)
    return (1 / (u[i] - u[j]).norm(dim=1)).mean()


def pdist(rows):
    return (1 / torch.pdist(F.normalize(rows))).mean()


def cdist(rows):
    u = F.normalize(rows)
    return _mean_of_upper(1 / torch.cdist(u, u))


def gram(rows):
    u = F.normalize(rows)
    return _mean_of_upper((2 - 2 * (u @ u.T)).rsqrt())


def _mean_of_upper(each):
    n = len(each)
    return each.triu_(1).sum(dtype=torch.float64) / (n * (n - 1) / 2)


def backward(rows):
    rows.requires_grad_()
    energy = hyperspherical_energy(rows)
    energy.backward()
    return energy


WAYS = {
    "float64 Gram": lambda rows: gram(rows.double()),
    "float32 Gram": gram,
    "torch.cdist, float32": cdist,
    "torch.pdist, float32": pdist,
    "torch.pdist, float64": lambda rows: pdist(rows.double()),  # differences in float64: the reference
    "all differences, float32": differences,
    "hyperspherical_energy": hyperspherical_energy,
    "... and its gradient": backward,
}
REFERENCE = "torch.pdist, float64"


def needed(way: str, case: str) -> float:
    """Bytes that a way holds at least, where that is a matter of all pairs at once."""
    n, m, _ = CASES[case]
    return n * (n - 1) / 2 * 4 * m if way == "all differences, float32" else 0


# ------------------------------------------------------------------ measuring


def measure_here(way: str, case: str) -> dict:
    """Seconds of processor time (the least of up to ten rounds), peak MB above the input, and the energy."""
    rows = weight(case)
    WAYS[way](torch.randn(8, 8))  # what is loaded at the first call
    before, rounds = peak_memory_mb(), []
    while len(rounds) < 10 and sum(rounds) < 1:
        start = time.process_time()
        energy = WAYS[way](rows).item()
        rounds.append(time.process_time() - start)
    return {"seconds": min(rounds), "mb": peak_memory_mb() - before, "energy": energy}


def measure(way: str, case: str) -> dict:
    """`measure_here` in a fresh process."""
    run = subprocess.run([sys.executable, __file__, way, case], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def table(case: str) -> None:
    found = {way: measure(way, case) for way in WAYS if needed(way, case) < MOST_MEMORY}
    truth, unit = found[REFERENCE]["energy"], found["float64 Gram"]["seconds"]
    print(f"\n{case}{'time':>{38 - len(case)}}{'memory, MB':>14}{'error':>12}")
    for way in WAYS:
        if way not in found:
            print(f"  {way:26} not run: needs {needed(way, case) / 1e9:,.0f} GB")
            continue
        result = found[way]
        error = abs(result["energy"] / truth - 1)
        told = "reference" if way == REFERENCE else f"{error:.0e}" if math.isfinite(error) else str(result["energy"])
        print(f"  {way:26}{result['seconds'] / unit:10.2f}{result['mb']:14.0f}{told:>12}")
    print(f"  (time 1 is {unit:.2f} s of processor time)", flush=True)


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure_here(*sys.argv[1:])))
        return
    print(f"{torch.get_num_threads()} threads")
    for case in CASES:
        table(case)


if __name__ == "__main__":
    main()
