"""How long does the closed-form merge of three concepts take at Stable Diffusion 1.5's size, and how exact is it?

    python benchmarks/merging.py        about two minutes; run it while the machine has nothing else to do

Weights are random: sizes alone decide the time. The UNet has 32 matrices of keys and values with 768 columns, the text
encoder 12 layers; each concept changes all of them. First the mathematics on features that are there already, from
their triangle to the last matrix; then `custom_diffusion.merge` as a user calls it, which encodes the captions too.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from full_size import SD15, random_pipeline

from tutorial_lib import custom_diffusion, training
from tutorial_lib.custom_diffusion.least_squares import LeastChange, triangle
from tutorial_lib.pocket import world

WORDS = {"cat": "ktn", "mug": "pll", "house": "ucd"}  # class and the rare word that the new one starts from
RIDGE, CHUNK = 1.0, 64  # captions whose features are taken at a time
AT_MOST = 5.0  # seconds for the mathematics
SIZES = SD15 | {"vae": (8, 8, 8, 8), "groups": (32, 4)}  # no picture is made: the VAE may be small


@dataclass(frozen=True)
class Measured:
    """features: (captions, tokens, columns). Seconds: `encoding` and `solving` apart, `merge.seconds` both at once."""

    concepts: int
    matrices: int
    features: tuple[int, int, int]
    encoding: float
    solving: float
    merge: custom_diffusion.MergeReport


def concept(pipe, number: int, word: str, init: str) -> custom_diffusion.ConceptDelta:
    """As training would leave it: every key and value changed by a tenth of its size."""
    own = copy.copy(pipe)
    own.tokenizer, own.text_encoder = copy.deepcopy(pipe.tokenizer), copy.deepcopy(pipe.text_encoder)
    custom_diffusion.add_concept(own, f"<new{number}>", init, word)
    delta = custom_diffusion.delta(own)
    generator = torch.Generator().manual_seed(number)
    for path, matrix in delta.matrices.items():
        scale = 0.1 * pipe.unet.get_submodule(path).weight.std()
        delta.matrices[path] = scale * torch.randn(matrix.shape, generator=generator)
    return delta


def solving_seconds(features: torch.Tensor, deltas: list) -> float:
    """From the captions' features (n, tokens, d) to W - W0 of each matrix, for nine constraint rows a concept."""
    rows = torch.randn(9 * len(deltas), features.shape[-1], dtype=torch.float64)
    begun = time.perf_counter()
    problem = LeastChange(triangle(part.flatten(0, 1) for part in features.split(CHUNK)), rows, RIDGE)
    for path in deltas[0].matrices:
        wanted = torch.cat([d.matrix(path).double() @ c.T for d, c in zip(deltas, rows.split(9))], 1)
        problem.solve(wanted)
    return time.perf_counter() - begun


def measured(sizes: dict, count: int) -> Measured:
    """Three concepts of a random pipeline of these sizes (see `random_pipeline`), merged with this many captions."""
    rng = np.random.default_rng(0)
    captions = [world.caption(world.sample_scene(rng), rng) for _ in range(count)]
    with tempfile.TemporaryDirectory() as words:
        pipe = random_pipeline(Path(words), **sizes)
    pipe.unet.requires_grad_(False)
    deltas = [concept(pipe, k, *words) for k, words in enumerate(WORDS.items(), 1)]
    begun = time.perf_counter()
    features = torch.cat([training.embed(pipe, captions[k : k + CHUNK]) for k in range(0, count, CHUNK)]).detach()
    encoding = time.perf_counter() - begun
    solving = solving_seconds(features, deltas)
    _, merge = custom_diffusion.merge(pipe, deltas, captions, RIDGE)
    return Measured(len(deltas), len(deltas[0].matrices), tuple(features.shape), encoding, solving, merge)


def report(found: Measured) -> Iterator[str]:
    """The lines to print."""
    captions, tokens, columns = found.features
    shape = f"{found.matrices} matrices, {columns} columns, {captions * tokens:,} features"
    yield f"{found.concepts} concepts, {shape} of {captions} captions, {torch.get_num_threads()} threads"
    yield f"from features to the last matrix  {found.solving:6.1f} s, at most {AT_MOST:g}"
    yield f"encoding the captions             {found.encoding:6.1f} s"
    yield f"merge(), with both and its report {found.merge.seconds:6.1f} s"
    yield str(found.merge)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=200)
    count = parser.parse_args().captions
    print(*report(measured(SIZES, count)), sep="\n")


if __name__ == "__main__":
    main()
