"""What does one training step of OFT cost, beside peft's and beside a step that trains nothing?

    python benchmarks/oft_step.py                    pocket and SD 1.5, batches 1, 4, 16, block sizes 8 to 64
    python benchmarks/oft_step.py --model pocket --batch 4 --block 32    a part of it

A step is forward, loss, backward and AdamW. The floor is the frozen model: forward, and backward down to the input of
the first adapted layer, which every adapter needs. All methods adapt to_q, to_k, to_v and to_out.0 of all attentions,
share the base weights, and take turns, so that a busy machine is busy for all of them; the fastest round counts.
Memory is the peak of what a step allocates beyond the weights: the sizes of all living tensors, counted on a CPU, and
CUDA's own count on a GPU.

SD 1.5 has random weights (its configuration is enough to measure): 16x16 latents in float32 on a CPU, 64x64 in half
precision on a GPU. Each finished row is kept in results/oft_step.csv; run again, and only missing rows are measured.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutorial_lib import oft

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "oft_step.csv"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
METHODS = ("floor", "ours", "peft exact", "peft Neumann", "peft LoRA")
BATCHES, BLOCKS = (1, 4, 16), (8, 16, 32, 64)
LORA_RANK = 16
ROUNDS = {"pocket": 25, "sd15": 15}  # of the large model at batch 16 a third, since its steps are long
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}  # the rest is diffusers' default
KEY = ("model", "batch", "block_size", "device", "threads")
FIELDS = (*KEY, *(f"{m} {unit}" for m in METHODS for unit in ("ms", "MB")), "torch", "peft")


# ------------------------------------------------------------------ the models


def base_model(name: str, device: str):
    from diffusers import UNet2DConditionModel

    if name == "pocket":
        unet = UNet2DConditionModel.from_pretrained(ROOT / "data" / "pocket-sd" / "unet", torch_dtype=torch.float32)
    else:
        unet = UNet2DConditionModel(**SD15)
    unet = unet.half() if half(name, device) else unet
    return unet.to(device).requires_grad_(False)


def half(name: str, device: str) -> bool:
    return name == "sd15" and device == "cuda"


def batch_of(unet, name: str, batch: int, device: str) -> tuple:
    """Noisy latents, timesteps, text, target: the same for all methods."""
    side = 64 if half(name, device) else 16
    tokens = 40 if name == "pocket" else 77
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 4, side, side, generator=generator)
    text = torch.randn(batch, tokens, unet.config.cross_attention_dim, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    steps = torch.randint(0, 1000, (batch,), generator=generator).to(device)
    return latents.to(device, unet.dtype), steps, text.to(device, unet.dtype), noise.to(device)


def adapted(unet, method: str, block: int) -> tuple:
    """A copy of the model that shares its weights, with the method's adapter; and what the adapter trains."""
    memo = {id(t): t for t in (*unet.parameters(), *unet.buffers())}
    model = copy.deepcopy(unet, memo)
    if method == "floor":
        first = next(m for path, m in model.named_modules() if path.endswith(".to_q"))
        first.register_forward_pre_hook(lambda layer, args: (args[0].detach().requires_grad_(),))
        return model, []
    if method == "ours":
        oft.attach(model, TARGETS, block)
        return model, oft.parameters(model)
    from peft import get_peft_model

    model = get_peft_model(model, _peft_config(method, block))
    return model, [p for p in model.parameters() if p.requires_grad]


def _peft_config(method: str, block: int):
    from peft import LoraConfig, OFTConfig

    if method == "peft LoRA":
        return LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=TARGETS)
    return OFTConfig(oft_block_size=block, target_modules=TARGETS, use_cayley_neumann=method == "peft Neumann")


def step_of(model, parameters: list, inputs: tuple) -> Callable[[], None]:
    latents, timesteps, text, noise = inputs
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True) if parameters else None

    def step() -> None:
        predicted = model(latents, timesteps, text).sample
        torch.nn.functional.mse_loss(predicted.float(), noise).backward()
        if optimiser:
            optimiser.step()
            optimiser.zero_grad()

    return step


# ------------------------------------------------------------------ measuring


class LivingTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still alive, and remembers the most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in known:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self.now += size
        self.peak = max(self.peak, self.now)
        self._seen[key] = weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.now -= size
        del self._seen[key]


def megabytes(step: Callable[[], None], device: str) -> float:
    """Peak memory of one step beyond what is there before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with LivingTensors() as living:
        step()
    return living.peak / 1e6


def milliseconds(step: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep what a step frees: it never gives back less than twice the largest piece freed so far.

    Else it may return some MB to the system in each step and fetch them anew: up to 10 ms on the pocket model, for
    whichever method the layout of the heap happens to hit.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)  # freed at once; glibc learns from pieces of up to 32 MB


def rounds(name: str, batch: int) -> int:
    return ROUNDS[name] // 3 if (name, batch) == ("sd15", 16) else ROUNDS[name]


def measure(name: str, unet, batch: int, block: int, device: str) -> dict:
    inputs = batch_of(unet, name, batch, device)
    steps = {method: step_of(*adapted(unet, method, block), inputs) for method in METHODS}
    row = {}
    for method, step in steps.items():
        step()  # warms up, and makes the optimiser's state
        row[f"{method} MB"] = round(megabytes(step, device), 2)
    times = [{method: milliseconds(step, device) for method, step in steps.items()} for _ in range(rounds(name, batch))]
    for method in METHODS:
        row[f"{method} ms"] = round(min(turn[method] for turn in times), 2)
    return row


# ------------------------------------------------------------------ the table


def key_of(row: dict) -> tuple:
    return tuple(str(row[field]) for field in KEY)


def read_rows() -> list[dict]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def append(row: dict) -> None:
    fresh = not RESULTS.exists()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def show(row: dict) -> None:
    """One line: each method's time and memory as ratios to the floor's."""
    cells = [
        f"{float(row[f'{m} ms']) / float(row['floor ms']):6.2f} {float(row[f'{m} MB']) / float(row['floor MB']):5.2f}"
        for m in METHODS[1:]
    ]
    floor = f"{float(row['floor ms']):9.0f} {float(row['floor MB']):8.0f}"
    print(f"{row['model']:8}{row['batch']:>6}{row['block_size']:>7} {floor}  " + "  ".join(cells), flush=True)


def verdicts(rows: list[dict]) -> None:
    def ratio(row: dict, other: str, unit: str) -> float:
        return float(row[f"ours {unit}"]) / float(row[f"{other} {unit}"])

    at_four = [ratio(row, "floor", "ms") for row in rows if row["model"] == "pocket" and str(row["batch"]) == "4"]
    figures = [("pocket, batch 4: ours / floor, time, worst block size", at_four, 1.15)]
    figures += [
        (f"ours / peft exact, {what}, worst row", [ratio(row, "peft exact", unit) for row in rows], 1.0)
        for what, unit in (("time", "ms"), ("memory", "MB"))
    ]
    for text, values, most in figures:
        if values:
            word = "reached" if max(values) <= most else "not reached"
            print(f"{text:56}{max(values):6.2f}   at most {most:.2f}: {word}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(ROUNDS), nargs="+", default=list(ROUNDS))
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--block", type=int, nargs="+", default=list(BLOCKS))
    chosen = parser.parse_args()
    import peft

    device = "cuda" if torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    place = {"device": device, "threads": torch.get_num_threads()}
    done = {key_of(row): row for row in read_rows()}
    print(f"{'':22}{'floor':>17}" + "".join(f"{method:>14}" for method in METHODS[1:]))
    print(f"{'model':8}{'batch':>6}{'block':>7} {'ms':>9} {'MB':>8}" + "    time  mem" * len(METHODS[1:]))
    rows = []
    for name in chosen.model:
        unet = None
        for batch in chosen.batch:
            for block in chosen.block:
                row = {"model": name, "batch": batch, "block_size": block, **place}
                if key_of(row) not in done:
                    unet = unet or base_model(name, device)
                    row |= measure(name, unet, batch, block, device)
                    row |= {"torch": torch.__version__, "peft": peft.__version__}
                    append(row)
                    gc.collect()
                rows.append(done.get(key_of(row), row))
                show(rows[-1])
    print()
    verdicts(rows)


if __name__ == "__main__":
    main()
