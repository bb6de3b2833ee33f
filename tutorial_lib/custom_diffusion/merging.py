"""Several concepts in one model without training, section 3.2: the smallest change that keeps each one's words.

Each concept n was trained alone and turned W0 into W_n. The merged W shall treat the words of concept n as W_n does,
W c = W_n c for the text features c of "V*_n cat", and change what it makes of ordinary captions as little as can be.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib.custom_diffusion.concepts import ConceptDelta, check_base, concepts_of, put_row
from tutorial_lib.custom_diffusion.least_squares import LeastChange, triangle

TEMPLATES = ("{}", "photo of a {}", "a photo of a {}")
BATCH = 64  # captions encoded at a time


@dataclass(frozen=True)
class MergeReport:
    """How well the merge did; errors in float64, the worst over the matrices.

    constraint: ||W C^T - V^T|| / ||V^T - W0 C^T||. rounded: the same after rounding to the delta's precision.
    stationarity: the KKT condition, relative. drift: ||(W - W0) C_reg^T|| / ||W0 C_reg^T|| over all matrices; drifts:
    that of each delta alone. rows, rank: constraint rows, and those that say something new. condition_captions,
    condition_constraints: condition numbers of the two systems.
    """

    constraint: float
    rounded: float
    stationarity: float
    drift: float
    drifts: tuple[float, ...]
    rows: int
    rank: int
    ridge: float
    condition_captions: float
    condition_constraints: float
    seconds: float

    def __str__(self) -> str:
        single = ", ".join(f"{d:.3g}" for d in self.drifts)
        return (
            f"constraint error {self.constraint:.1e} ({self.rounded:.1e} when rounded), KKT error "
            f"{self.stationarity:.1e}\n"
            f"drift on the captions {self.drift:.3g} (each concept alone: {single})\n"
            f"{self.rank} of {self.rows} constraint rows independent, ridge {self.ridge:g}, condition "
            f"{self.condition_captions:.1e} (captions) and {self.condition_constraints:.1e} (constraints), "
            f"{self.seconds:.2f} s"
        )


def merge(
    pipe, deltas, captions, ridge: float = 0.0, prompts: dict[str, list[str]] | None = None
) -> tuple[ConceptDelta, MergeReport]:
    """All concepts in one delta by constrained least squares, in closed form, and a report on how well it went.

    pipe: gives W0 and the text encoder, and is left as it is. captions: ordinary ones, some hundreds and varied: what
    the model makes of them shall stay. prompts: for each token the phrases to keep; default "V* cat" and "photo of a
    V* cat", with the class's word. ridge: weight of ||W - W0||^2. It is needed where the captions leave directions
    free, and before `compress`: the text encoder's last norm leaves all features nearly in a plane, and across it a
    change costs nothing and does nothing, but may outweigh all others in size. 1 is little for a hundred captions.
    Raises ValueError for deltas of different base models, two concepts with one token, no captions, captions that
    leave directions free (without a ridge), and constraints that contradict one another.
    """
    begun = time.perf_counter()
    deltas, captions = list(deltas), list(captions)
    _check(pipe, deltas, captions)
    encode = _TextEncoder(pipe, deltas)
    features = [_constraint_rows(encode, delta, prompts) for delta in deltas]  # of (s_n, d)
    R = encode.triangle(captions)
    problem = LeastChange(R, torch.cat(features), ridge, encode.noise)
    changes, errors = _solved(problem, deltas, features)
    merged = _joined(deltas, changes)
    drift_merged, *drifts = _drifts(pipe, [merged, *deltas], R)
    report = MergeReport(
        *errors,
        drift=drift_merged,
        drifts=tuple(drifts),
        rows=len(problem.C),
        rank=problem.rank,
        ridge=problem.ridge,
        condition_captions=problem.condition_features,
        condition_constraints=problem.condition_constraints,
        seconds=time.perf_counter() - begun,
    )
    return merged, report


def _solved(problem: LeastChange, deltas: list[ConceptDelta], features: list[Tensor]):
    """The change of each matrix by path, and the worst errors: of constraints, when rounded, of stationarity."""
    changes, errors = {}, []
    for path in deltas[0].matrices:
        # V^T - W0 C^T: what each concept's own matrix changes of its own words, (o, s)
        wanted = torch.cat([d.matrix(path).double() @ c.T for d, c in zip(deltas, features)], 1)
        exact = problem.solve(wanted)
        changes[path] = exact.to(deltas[0].matrix(path))
        of_constraints = [problem.constraint_error(change, wanted) for change in (exact, changes[path])]
        errors.append((*of_constraints, problem.stationarity_error(wanted)))
    return changes, [max(column) for column in zip(*errors)]


def add(deltas) -> ConceptDelta:
    """All concepts in one delta by adding their differences: the simple way, to compare the merge with."""
    deltas = list(deltas)
    _check_deltas(deltas)
    return _joined(deltas, {path: sum(d.matrix(path) for d in deltas) for path in deltas[0].matrices})


def drift(pipe, delta: ConceptDelta, captions) -> float:
    """||(W - W0) C_reg^T|| / ||W0 C_reg^T|| over all matrices: how much the delta changes ordinary captions."""
    captions = list(captions)
    _check(pipe, [delta], captions)
    return _drifts(pipe, [delta], _TextEncoder(pipe, []).triangle(captions))[0]


def _drifts(pipe, deltas: list[ConceptDelta], R: Tensor) -> list[float]:
    """||(W - W0) C_reg^T|| is ||(W - W0) R^T||. In float32: it is a figure to read, and the dearest of the report."""
    base, R = concepts_of(pipe).base, R.float()
    whole = sum((w0.cpu().float() @ R.T).square().sum().item() for w0 in base.values())
    changed = [sum((delta.matrix(p).float() @ R.T).square().sum().item() for p in base) for delta in deltas]
    return [(c / whole) ** 0.5 for c in changed]


def _joined(deltas: list[ConceptDelta], changes: dict[str, Tensor]) -> ConceptDelta:
    tokens = {token: row for delta in deltas for token, row in delta.tokens.items()}
    words = {token: word for delta in deltas for token, word in delta.class_words.items()}
    return ConceptDelta(changes, tokens, words, dict(deltas[0].base))


# ------------------------------------------------------------------ text features


class _TextEncoder:
    """Prompts to text features with the deltas' tokens known, on copies of the pipeline's own tokenizer and model."""

    def __init__(self, pipe, deltas: list[ConceptDelta]):
        self.tokenizer, model = copy.deepcopy(pipe.tokenizer), copy.deepcopy(pipe.text_encoder)
        for delta in deltas:
            for token, row in delta.tokens.items():
                put_row(self.tokenizer, model, token, row)
        self.model = model if model.dtype == torch.float64 else model.float()
        self.noise = max(10 * torch.finfo(self.model.dtype).eps, 1e-13)  # relative error of its features

    def ids(self, prompts: list[str]) -> Tensor:
        return self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Tensor:
        """(n, tokens, d) float64, on the CPU: not every accelerator knows float64."""
        return self.model(self.ids(prompts).to(self.model.device))[0].cpu().double()

    def triangle(self, captions: list[str]) -> Tensor:
        """R (d, d) of all tokens of all captions."""
        parts = (captions[k : k + BATCH] for k in range(0, len(captions), BATCH))
        return triangle(self(part).flatten(0, 1) for part in parts)  # (n, tokens, d) -> (n * tokens, d)


def _constraint_rows(encode: _TextEncoder, delta: ConceptDelta, prompts: dict[str, list[str]] | None) -> Tensor:
    """(s, d) features of the delta's phrases, from the modifier token to the end of the text.

    What stands before the token cannot know of it (the text encoder looks back only), so it is the same for all
    concepts and is left to the captions.
    """
    rows = []
    for token, word in delta.class_words.items():
        phrases = (prompts or {}).get(token) or [t.format(f"{token} {word}" if word else token) for t in TEMPLATES]
        for phrase in dict.fromkeys(phrases):
            rows.append(encode([phrase])[0, _span(encode, token, phrase)])
    return torch.cat(rows)


def _span(encode: _TextEncoder, token: str, phrase: str) -> slice:
    """From the modifier token to the first end-of-text."""
    ids = encode.ids([phrase])[0].tolist()
    row = encode.tokenizer.convert_tokens_to_ids(token)
    if row not in ids:
        raise ValueError(f"the phrase {phrase!r} for {token!r} does not contain that token")
    start = ids.index(row)
    return slice(start, ids.index(encode.tokenizer.eos_token_id, start) + 1)


# ------------------------------------------------------------------ validation


def _check(pipe, deltas: list[ConceptDelta], captions: list[str]) -> None:
    if not captions:
        raise ValueError("captions is empty: expected some hundreds of ordinary captions, whose meaning shall stay")
    _check_deltas(deltas)
    check_base(deltas[0].base, concepts_of(pipe).hashes, "the deltas and the pipeline")
    if set(deltas[0].matrices) != set(concepts_of(pipe).base):
        raise ValueError("the deltas do not have the pipeline's layers")


def _check_deltas(deltas: list[ConceptDelta]) -> None:
    if not deltas:
        raise ValueError("there is nothing to merge: expected at least one delta")
    for k, other in enumerate(deltas[1:], 2):
        check_base(deltas[0].base, other.base, f"delta 1 and delta {k}")
    twice = [token for token, n in Counter(t for d in deltas for t in d.tokens).items() if n > 1]
    if twice:
        raise ValueError(f"two concepts have the same token {twice[0]!r}: train one of them with another token")
