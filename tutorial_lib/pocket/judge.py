"""The judge: a small network that reads pictures of the pocket world.

It reads style, background, things with their colours and what they wear, and a person's attributes; it
gives an embedding that tells subjects apart, a segmentation map and face landmarks. It is trained on the
world and on decorated variants of it, never on generated pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tutorial_lib.pocket.files import POCKET, check, load_weights
from tutorial_lib.pocket.scene import (
    ANIMALS,
    BACKGROUNDS,
    COLOURS,
    EXTRAS,
    HAIR_COLOURS,
    HAIR_LENGTHS,
    OBJECTS,
    SKINS,
    STYLES,
    WEARABLES,
)
from tutorial_lib.pocket.world import CLASSES

KINDS = (*OBJECTS, "person")
NOTHING = "nothing"
# Each question has one answer. "first" and "second" are the things from left to right.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "style": STYLES,
    "background": tuple(BACKGROUNDS),
    "first kind": KINDS,
    "first colour": COLOURS,
    "second kind": (*KINDS, NOTHING),
    "second colour": COLOURS,
    **{f"{place} {worn}": ("no", "yes") for place in ("first", "second") for worn in WEARABLES},
    "skin": SKINS,
    "hair colour": HAIR_COLOURS,
    "hair length": HAIR_LENGTHS,
    "shirt": COLOURS,
    **{extra: ("no", "yes") for extra in EXTRAS},
}
EMBEDDING = 96
SIDE = 64


@dataclass(frozen=True)
class ThingReading:
    kind: str
    colour: str | None  # None for a person
    worn: tuple[str, ...] = ()


@dataclass(frozen=True)
class PersonReading:
    skin: str
    hair_colour: str
    hair_length: str
    shirt: str
    extras: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one picture; `person` is read for a person alone in it."""

    style: str
    background: str
    things: tuple[ThingReading, ...]
    person: PersonReading | None


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the first may halve the resolution."""

    def __init__(self, inside: int, outside: int, stride: int = 1):
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, outside), nn.GroupNorm(8, outside)])
        plain = inside == outside and stride == 1
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.silu(self.norms[0](self.first(x)))
        return F.silu(self.shortcut(x) + self.norms[1](self.second(y)))


class JudgeNetwork(nn.Module):
    """(n, 3, 64, 64) in [0, 1] to answers' logits, an embedding, segmentation logits and landmarks."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 112, 160)):
        super().__init__()
        a, b, c, d = widths
        self.stem = nn.Conv2d(3, a, 4, 2, 1)  # 32x32
        self.at_32 = Block(a, a)
        self.at_16 = nn.Sequential(Block(a, b, 2), Block(b, b))
        self.at_8 = nn.Sequential(Block(b, c, 2), Block(c, c))
        self.at_4 = nn.Sequential(Block(c, d, 2), Block(d, d))
        self.trunk = nn.Sequential(nn.Conv2d(d, 48, 1), nn.Flatten(), nn.SiLU(), nn.Linear(48 * 16, 256), nn.SiLU())
        self.answers = nn.Linear(256, sum(map(len, QUESTIONS.values())))
        self.points = nn.Linear(256, 10)
        self.embedding = nn.Sequential(nn.Linear(2 * (b + c + d), 192), nn.SiLU(), nn.Linear(192, EMBEDDING))
        self.up_16 = nn.Conv2d(b + c, 64, 3, padding=1)
        self.up_32 = nn.Conv2d(64 + a, 48, 3, padding=1)
        self.classes = nn.Conv2d(48, 4 * len(CLASSES), 1)  # four sub-pixels each

    def forward(self, pictures: torch.Tensor, mapped: int | None = None) -> dict[str, torch.Tensor]:
        """`mapped`: segment only so many pictures, the first ones; training has no need of more."""
        f32 = self.at_32(F.silu(self.stem(pictures * 2 - 1)))
        f16 = self.at_16(f32)
        f8 = self.at_8(f16)
        f4 = self.at_4(f8)
        trunk = self.trunk(f4)
        pooled = torch.cat([p for f in (f16, f8, f4) for p in (f.mean((2, 3)), f.amax((2, 3)))], 1)
        up = F.silu(self.up_16(torch.cat([f16[:mapped], F.interpolate(f8[:mapped], scale_factor=2.0)], 1)))
        up = F.silu(self.up_32(torch.cat([f32[:mapped], F.interpolate(up, scale_factor=2.0)], 1)))
        return {
            "answers": self.answers(trunk),  # (n, all answers)
            "points": self.points(trunk).unflatten(1, (5, 2)),  # in units of the picture's side
            "embedding": F.normalize(self.embedding(pooled), dim=1),
            "classes": F.pixel_shuffle(self.classes(up), 2),  # (n, classes, 64, 64)
            "features": trunk,
        }


def split_answers(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """(n, all answers) to one (n, answers) block for each question."""
    return dict(zip(QUESTIONS, logits.split([len(a) for a in QUESTIONS.values()], 1), strict=True))


class Judge:
    """Reads pictures: PIL pictures, uint8 (n, 64, 64, 3), or float (n, 3, 64, 64) in [0, 1]."""

    def __init__(self, network: JudgeNetwork):
        self.network = network.eval().requires_grad_(False)

    def read(self, images) -> list[Reading]:
        """One `Reading` a picture."""
        blocks = split_answers(self._forward(images, "answers"))
        named = {q: [QUESTIONS[q][i] for i in b.argmax(1).tolist()] for q, b in blocks.items()}
        rows = [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]
        return [_reading(row) for row in rows]

    def embed(self, images) -> torch.Tensor:
        """(n, 96) unit rows: near for pictures of one subject, far for two; DINO's part in the papers."""
        return self._forward(images, "embedding")

    def features(self, images) -> torch.Tensor:
        """(n, 256) features, for FID and KID."""
        return self._forward(images, "features")

    def segment(self, images) -> torch.Tensor:
        """(n, 64, 64) indices into `world.CLASSES`."""
        return self._forward(images, "classes").argmax(1)

    def landmarks(self, images) -> torch.Tensor:
        """(n, 5, 2) pixels: eyes, nose, corners of the mouth; meaningful where a person is."""
        return self._forward(images, "points") * SIDE

    @torch.no_grad()
    def _forward(self, images, name: str) -> torch.Tensor:
        batches = to_pictures(images).split(128)
        return torch.cat([self.network(batch)[name] for batch in batches])


def to_pictures(images) -> torch.Tensor:
    """PIL pictures, uint8 arrays or float tensors to float32 (n, 3, 64, 64) in [0, 1]. ValueError for all else."""
    if isinstance(images, torch.Tensor):
        if not images.is_floating_point():
            raise ValueError(f"a tensor of pictures holds floats in [0, 1], got {images.dtype}: give uint8 as an array")
        pictures = images.float().cpu()
    else:
        array = np.stack([np.asarray(i.convert("RGB") if hasattr(i, "convert") else i) for i in images])
        if array.dtype != np.uint8:
            raise ValueError(f"an array of pictures must be uint8, got {array.dtype}: give floats as a tensor")
        pictures = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255
    if pictures.ndim != 4 or pictures.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"the judge reads RGB pictures of {SIDE}x{SIDE}, got a batch of shape {tuple(pictures.shape)}")
    return pictures


def _reading(row: dict[str, str]) -> Reading:
    places = ["first"] if row["second kind"] == NOTHING else ["first", "second"]
    things = tuple(_thing(row, place) for place in places)
    alone = len(things) == 1 and things[0].kind == "person"
    return Reading(row["style"], row["background"], things, _person(row) if alone else None)


def _thing(row: dict[str, str], place: str) -> ThingReading:
    kind = row[f"{place} kind"]
    worn = tuple(w for w in WEARABLES if kind in ANIMALS and row[f"{place} {w}"] == "yes")
    return ThingReading(kind, None if kind == "person" else row[f"{place} colour"], worn)


def _person(row: dict[str, str]) -> PersonReading:
    extras = tuple(e for e in EXTRAS if row[e] == "yes")
    return PersonReading(row["skin"], row["hair colour"], row["hair length"], row["shirt"], extras)


def load(folder: Path | str | None = None) -> Judge:
    """The shipped judge, or the one in `folder`. ValueError for a damaged file, FileNotFoundError for a missing one."""
    if folder is None:
        check()
    network = JudgeNetwork()
    network.load_state_dict(load_weights(Path(folder or POCKET / "judge") / "model.safetensors"))
    return Judge(network)
