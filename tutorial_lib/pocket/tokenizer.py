"""The pocket model's tokenizer: CLIP's byte-level BPE over a vocabulary of our own.

Every word of the captions is one token. Any other text falls back to pieces and single bytes, so nothing
is refused. The rare words (sks, ktn, pll, ucd) are one token each and stand in no caption.
"""

from __future__ import annotations

import json
from pathlib import Path

from tutorial_lib.pocket.scene import RARE_WORDS, caption_words

MAX_LENGTH = 40  # tokens, the two ends included: room for every caption of the world
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
PROMPT_WORDS = (
    "the image drawing painting style art in next to front behind under over near two small large big very tiny "
    "close up far away zoomed in out high quality detailed professional best beautiful simple man woman boy girl "
    "face happy sad smiling wearing dog bird boat chair cup pot , . - ' !"
).split()


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE uses for bytes, in GPT-2's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def _merges_for(words: list[str]) -> list[tuple[str, str]]:
    """The merges that make each word one token, left to right; earlier words keep their tokens."""
    merges: list[tuple[str, str]] = []
    known = set()
    for word in words:
        pieces = list(word[:-1]) + [word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = next(((a, b) for a, b in merges if (a, b) in set(zip(pieces, pieces[1:]))), None)
            pair = pair or (pieces[0], pieces[1])
            if pair not in known:
                known.add(pair)
                merges.append(pair)
            pieces = _apply(pieces, pair)
    return merges


def _apply(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            joined.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            joined.append(pieces[i])
            i += 1
    return joined


def known_words() -> set[str]:
    """The words that pretraining saw."""
    return caption_words()


def write_tokenizer(folder: Path | str) -> None:
    """Writes vocab.json, merges.txt and the configuration of a `CLIPTokenizer` into the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = list(dict.fromkeys([*RARE_WORDS, *sorted(caption_words()), *PROMPT_WORDS]))
    alphabet = _byte_alphabet()
    merges = _merges_for([w for w in words if len(w) > 1])
    tokens = [*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges), BOS, EOS]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": EOS,
        "pad_token": EOS,
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {f"{name}_token": config[f"{name}_token"] for name in ("bos", "eos", "unk", "pad")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
