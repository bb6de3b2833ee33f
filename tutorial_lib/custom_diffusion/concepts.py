"""What Custom Diffusion trains, section 3: keys and values of the cross-attention and one embedding row a concept.

W0 are a pipeline's keys and values before the first concept; what a concept changes is kept as differences to them,
so that it is small, can be added, compressed and merged, and says by a hash which model it belongs to.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class LowRank:
    """A matrix as the product left (o, r) @ right (r, d)."""

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        return self.left @ self.right


@dataclass(frozen=True)
class ConceptDelta:
    """One concept or several, as differences to a base model.

    matrices: W - W0 (o, d) by path ("...attn2.to_k"), whole or as `LowRank`. tokens: the embedding row (d,) of each
    modifier token. class_words: the word of each token's class, if it was told. base: SHA-256 of the base model's
    keys, values and embedding table, by precision.
    """

    matrices: dict[str, Tensor | LowRank]
    tokens: dict[str, Tensor]
    class_words: dict[str, str | None]
    base: dict[str, str]

    def matrix(self, path: str) -> Tensor:
        """W - W0 of one layer, (o, d)."""
        entry = self.matrices[path]
        return entry.dense() if isinstance(entry, LowRank) else entry

    def tensors(self) -> list[Tensor]:
        """Everything that is stored."""
        parts = [[m.left, m.right] if isinstance(m, LowRank) else [m] for m in self.matrices.values()]
        return [*sum(parts, []), *self.tokens.values()]

    @property
    def parameters(self) -> int:
        return sum(t.numel() for t in self.tensors())

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors())


@dataclass
class Concepts:
    """What a pipeline remembers of its concepts, as `pipe.concepts`: W0, its hash, the tokens, what is training."""

    base: dict[str, Tensor]
    hashes: dict[str, str]
    class_words: dict[str, str | None] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)  # every token ever added here, also those replaced since
    rows: dict[str, nn.Parameter] = field(default_factory=dict)
    hooks: list = field(default_factory=list)


def keys_and_values(unet) -> dict[str, nn.Linear]:
    """The layers that read the text: `to_k` and `to_v` of every cross-attention, by path."""
    found = {name: m for name, m in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    if not found:
        raise ValueError(f"{type(unet).__name__} has no layers attn2.to_k and attn2.to_v: expected a UNet with text")
    return found


def concepts_of(pipe) -> Concepts:
    """The pipeline's concepts; at first sight its keys and values are taken for W0."""
    if getattr(pipe, "concepts", None) is None:
        base = {path: layer.weight.detach().clone() for path, layer in keys_and_values(pipe.unet).items()}
        pipe.concepts = Concepts(base, _hashes(pipe, base))
    return pipe.concepts


def _hashes(pipe, base: dict[str, Tensor]) -> dict[str, str]:
    """SHA-256 of W0 and the embedding table, also as they are when rounded: half-precision users compare those."""
    table = pipe.text_encoder.get_input_embeddings().weight[: pipe.tokenizer.vocab_size]
    tensors = {**base, "table": table.detach()}
    own = table.dtype
    kinds = PRECISIONS if own == torch.float32 else (own,)
    return {str(kind).removeprefix("torch."): _hash(tensors, kind) for kind in kinds}


def _hash(tensors: dict[str, Tensor], kind: torch.dtype) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].to(kind).contiguous().cpu().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_base(base: dict[str, str], other: dict[str, str], what: str) -> None:
    """ValueError unless both hashes are of one model, as far as their precisions can tell."""
    common = [kind for kind in base if kind in other]
    if not common:
        raise ValueError(
            f"{what} cannot be compared: one is known in {', '.join(base)}, the other in {', '.join(other)}; "
            "load the pipeline with dtype=torch.float32"
        )
    if base[common[0]] != other[common[0]]:
        raise ValueError(
            f"{what} belong to different base models ({base[common[0]][:12]}… and {other[common[0]][:12]}…): "
            "a difference means something only on the model that it was trained on"
        )


# ------------------------------------------------------------------ tokens


def add_concept(pipe, token: str = "<new1>", init: str = "ktn", class_word: str | None = None) -> None:
    """Gives the pipeline one new word V*, whose embedding starts as that of `init`.

    init: a word that is one token, as the rare words are (pocket: sks, ktn, pll, ucd). class_word: what V* is one of
    ("cat"); merging constrains "V* cat". Raises ValueError, and changes nothing, where the token is already in the
    vocabulary or the initial word is not one token.
    """
    start = _only_id(pipe.tokenizer, init)
    _check_new(pipe.tokenizer, token)
    concepts = concepts_of(pipe)
    row = pipe.text_encoder.get_input_embeddings().weight[start].detach().clone()
    put_row(pipe.tokenizer, pipe.text_encoder, token, row)
    concepts.class_words[token] = class_word
    concepts.ours.add(token)


def _only_id(tokenizer, word: str) -> int:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise ValueError(
            f"the initial word {word!r} is {len(ids)} tokens for this model, expected one: "
            "take a rare word such as 'ktn', or the word of the class"
        )
    return ids[0]


def _check_new(tokenizer, token: str) -> None:
    """ValueError unless the token is new and, once added, is found again inside a sentence."""
    if not token or token != token.strip():
        raise ValueError(f"a token needs letters or signs and no blanks around them, such as '<new1>'; got {token!r}")
    if token in tokenizer.get_added_vocab() or len(tokenizer(token, add_special_tokens=False).input_ids) == 1:
        raise ValueError(f"the token {token!r} is already in the vocabulary: choose another, such as '<new2>'")
    trial = copy.deepcopy(tokenizer)
    trial.add_tokens([token])
    if trial.convert_tokens_to_ids(token) not in trial(f"a {token} b").input_ids:
        raise ValueError(f"the tokenizer does not find {token!r} again in a sentence: choose one such as '<new1>'")


def put_row(tokenizer, text_encoder, token: str, row: Tensor) -> None:
    """Adds the token if it is new, and sets its embedding."""
    tokenizer.add_tokens([token])
    if len(tokenizer) > len(text_encoder.get_input_embeddings().weight):
        text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[tokenizer.convert_tokens_to_ids(token)] = row.to(table)


# ------------------------------------------------------------------ training


def trainable(pipe) -> list[nn.Parameter]:
    """Exactly what trains: W of every key and value, then one row a concept; all else is frozen.

    The rows are parameters of their own that share their memory with the embedding table: an optimiser that is
    given them cannot touch the rest of it, weight decay included. Keys and values of the first position pass no
    gradient. Ask again after the pipeline was moved; `freeze` ends it. ValueError unless the pipeline is float32.
    """
    return list(named_trainable(pipe).values())


def named_trainable(pipe) -> dict[str, nn.Parameter]:
    """The parameters of `trainable`, by path and by token."""
    concepts = concepts_of(pipe)
    freeze(pipe)
    _check_precision(pipe)
    layers = keys_and_values(pipe.unet)
    for layer in layers.values():
        layer.weight.requires_grad_(True)
        concepts.hooks.append(layer.register_forward_hook(_detach_first))
    table = pipe.text_encoder.get_input_embeddings()
    ids = {token: pipe.tokenizer.convert_tokens_to_ids(token) for token in concepts.class_words}
    concepts.rows = {token: nn.Parameter(table.weight.data[k]) for token, k in ids.items()}
    concepts.hooks.append(table.register_forward_hook(_TrainRows({k: concepts.rows[t] for t, k in ids.items()})))
    return {**{f"{path}.weight": layer.weight for path, layer in layers.items()}, **concepts.rows}


def _check_precision(pipe) -> None:
    for name in ("unet", "text_encoder"):
        if (kind := getattr(pipe, name).dtype) != torch.float32:
            raise ValueError(
                f"the pipeline's {name} is in {kind}, where small steps are lost: load it with dtype=torch.float32 "
                'and train with precision="bf16" or "fp16"'
            )


def freeze(pipe) -> None:
    """Ends training: nothing requires gradients, and the pipeline is a plain one again, with what was learned."""
    concepts = concepts_of(pipe)
    for hook in concepts.hooks:
        hook.remove()
    concepts.hooks, concepts.rows = [], {}
    for module in (pipe.unet, pipe.text_encoder, pipe.vae):
        module.requires_grad_(False)


def _detach_first(layer, inputs, output: Tensor) -> Tensor | None:
    """The first position's key or value without its gradient: it is the same for every prompt.

    So the change cannot hide in it; the forward pass is unchanged.
    """
    if not torch.is_grad_enabled():
        return None
    return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)  # (n, tokens, o)


class _TrainRows:
    """Sends the gradient of the concepts' embeddings to their own parameters, by token id."""

    def __init__(self, rows: dict[int, nn.Parameter]):
        self.rows = rows

    def __call__(self, table: nn.Embedding, inputs, output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        for k, row in self.rows.items():
            if row.data_ptr() != table.weight[k].data_ptr():
                raise RuntimeError("the pipeline changed after trainable(pipe): call it again, with a new optimiser")
            output = torch.where((inputs[0] == k)[..., None], row, output)
        return output


# ------------------------------------------------------------------ differences


def delta(pipe) -> ConceptDelta:
    """What the pipeline's concepts changed: differences of keys and values, the tokens' rows, the base's hash."""
    concepts = concepts_of(pipe)
    table = pipe.text_encoder.get_input_embeddings().weight.detach()
    layers = keys_and_values(pipe.unet)
    changes = {p: layers[p].weight.detach().cpu() - w0.cpu() for p, w0 in concepts.base.items()}
    rows = {t: table[pipe.tokenizer.convert_tokens_to_ids(t)].clone().cpu() for t in concepts.class_words}
    return ConceptDelta(changes, rows, dict(concepts.class_words), dict(concepts.hashes))


def load_into(pipe, delta: ConceptDelta) -> None:
    """Makes the pipeline's keys and values W0 + delta, and teaches it the delta's tokens.

    The concepts that it had before are replaced. Raises ValueError, and changes nothing, for a delta of another
    base model and for a token that is an ordinary word of this one.
    """
    concepts = concepts_of(pipe)
    check_base(delta.base, concepts.hashes, "the delta and the pipeline")
    if set(delta.matrices) != set(concepts.base):
        odd = sorted(set(delta.matrices) ^ set(concepts.base))[0]
        raise ValueError(f"the delta does not fit the pipeline's layers: {odd} is in one of them alone")
    for token in delta.tokens:
        if token not in concepts.ours:
            _check_new(pipe.tokenizer, token)
    for token, row in delta.tokens.items():
        put_row(pipe.tokenizer, pipe.text_encoder, token, row)
    with torch.no_grad():
        for path, layer in keys_and_values(pipe.unet).items():
            layer.weight.copy_(concepts.base[path] + delta.matrix(path).to(concepts.base[path].device))
    concepts.class_words = dict(delta.class_words)
    concepts.ours.update(delta.tokens)


def compress(delta: ConceptDelta, ratio: float = 0.6) -> ConceptDelta:
    """The differences by their largest singular values, as the paper's appendix does.

    Of each matrix as many are kept as sum up to at most `ratio` of the sum of all, one at least; 1 keeps them all.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: expected a share of the singular values, above 0 and at most 1, got {ratio!r}")
    return replace(delta, matrices={path: _truncated(delta.matrix(path), ratio) for path in delta.matrices})


def _truncated(matrix: Tensor, ratio: float) -> LowRank:
    U, S, Vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    shares = S.cumsum(0) / S.sum().clamp(min=torch.finfo(S.dtype).tiny)
    r = max(1, int((shares <= ratio + 1e-12).sum())) if S[0] > 0 else 1
    return LowRank((U[:, :r] * S[:r]).to(matrix.dtype).contiguous(), Vt[:r].to(matrix.dtype).contiguous())
