"""Trains the judge: answers, segmentation and landmarks from the world's truth, identities from decorations.

The pictures that it will have to read came out of the VAE. So some of those that it learns from went through it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

from tutorial_lib.pocket import world
from tutorial_lib.pocket.files import POCKET, sha256
from tutorial_lib.pocket.judge import NOTHING, QUESTIONS, JudgeNetwork, split_answers
from tutorial_lib.pocket.pretrain import data
from tutorial_lib.pocket.scene import ANIMALS, EXTRAS, WEARABLES, Person, Scene, sample_scene

UNASKED = -1  # the answer where a question makes no sense; it costs nothing
PLAIN, UNSEEN, MAPPED, IDENTITIES, ALIKE = 30_000, 10_000, 8_000, 16_000, 4
GO_THROUGH_VAE = {"pictures": MAPPED, "unseen": 4_000, "second views": 6_000}
TEMPERATURE = 0.1
FIRST_IDENTITY = 2_000_000
FIRST_UNSEEN = 3_000_000


def answers(scene: Scene) -> list[int]:
    """The right answer's index for each of the judge's questions."""
    said = {"style": scene.style, "background": scene.background, "second kind": NOTHING}
    for place, thing in zip(("first", "second"), scene.things):
        said[f"{place} kind"] = thing.kind
        if isinstance(thing, Person):
            continue
        said[f"{place} colour"] = thing.colour
        if thing.kind in ANIMALS:  # asked of every thing, "no" would be right 96 times in 100, and learned
            said |= {f"{place} {w}": "yes" if w in thing.worn else "no" for w in WEARABLES}
    if len(scene.things) == 1 and isinstance(scene.things[0], Person):
        said |= _said_of(scene.things[0])
    if scene.style == "pencil sketch":
        said = {q: a for q, a in said.items() if q.split()[-1] not in ("colour", "skin", "shirt")}
    return [QUESTIONS[q].index(said[q]) if q in said else UNASKED for q in QUESTIONS]


def _said_of(person: Person) -> dict[str, str]:
    looks = {
        "skin": person.skin,
        "hair colour": person.hair_colour,
        "hair length": person.hair_length,
        "shirt": person.shirt,
    }
    return looks | {e: "yes" if e in person.extras else "no" for e in EXTRAS}


def unseen_pairs(n: int) -> list[Scene]:
    """Scenes with a pair that the other parts never see. The judge is a meter: it must read those as well."""
    return [sample_scene(np.random.default_rng((data.SEED, FIRST_UNSEEN, i)), held_out=True) for i in range(n)]


def identity_views(index: int) -> tuple[Scene, Scene]:
    """Two pictures of one decorated thing; each four in a row are of one kind and colour, so hard to tell apart."""
    rng = np.random.default_rng((data.SEED, FIRST_IDENTITY, index // ALIKE))
    unseen = bool(rng.random() < 0.25)
    while len((scene := sample_scene(rng, unseen)).things) != 1:
        continue
    own = np.random.default_rng((data.SEED, FIRST_IDENTITY, index // ALIKE, index % ALIKE))
    thing = world.decorate(scene, own).things[0] if own.random() < 0.85 else scene.things[0]
    variants = world.VARIANTS.get(thing.kind, ())
    if variants and own.random() < 0.25:
        thing = replace(thing, variant=variants[0])
    return _view(thing, own), _view(thing, own)


def _view(thing, rng: np.random.Generator) -> Scene:
    """The thing in a new place; a person may smile or not, a thing may be turned."""
    if isinstance(thing, Person):
        extras = tuple(e for e in EXTRAS if (e in thing.extras if e != "smile" else rng.random() < 0.4))
        thing = replace(thing, extras=extras)
    else:
        thing = replace(thing, flip=bool(rng.random() < 0.5))
    style = "photo" if rng.random() < 0.7 else str(rng.choice(world.STYLES))
    background = str(rng.choice(list(world.BACKGROUNDS)))
    return Scene(style, background, (world.place(thing, rng),), int(rng.integers(2**31)))


def blurred(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Half of the pictures a little softer, lighter or noisier: the judge must read imperfect pictures."""
    n, device = len(pictures), pictures.device
    share = torch.from_numpy(rng.uniform(0, 0.8, (n, 1, 1, 1)) * (rng.random((n, 1, 1, 1)) < 0.5)).float().to(device)
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), "replicate"), 3, 1)
    light = torch.from_numpy(rng.normal(1, 0.04, (n, 1, 1, 1))).float().to(device)
    noise = torch.from_numpy(rng.standard_normal(pictures.shape, np.float32)).to(device) * rng.uniform(0, 0.03)
    return ((pictures + share * (soft - pictures)) * light + noise).clamp(0, 1)


@torch.no_grad()
def back_from_vae(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """(n, 64, 64, 3) uint8: the pictures, of the same shape and type, as they come back from the VAE."""
    parts = []
    for chunk in tqdm(np.array_split(pictures, max(1, len(pictures) // 64)), desc="through the VAE", unit="batch"):
        with data.autocast():
            back = vae.decode(vae.encode(data.to_tensor(chunk) * 2 - 1).latent_dist.mode()).sample
        parts.append(((back.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


class JudgeTask:
    """Cross-entropy of all questions and of the map, squared error of landmarks, InfoNCE between two views."""

    muon_lr, adam_lr = 3e-3, 1e-3
    plain, mapped, identities = 32, 12, 12

    def __init__(self, cache: Path):
        torch.manual_seed(data.SEED)
        self.module = JudgeNetwork().to(data.DEVICE)
        unseen = unseen_pairs(UNSEEN)
        scenes = data.training_scenes(PLAIN) + unseen
        self.answers = torch.tensor([answers(s) for s in scenes])
        self.maps = _kept(cache / "maps.npy", lambda: np.stack([world.segmentation(s) for s in scenes[:MAPPED]]))
        self.points = torch.tensor(np.stack([_points(s) for s in scenes]))
        views = [view for i in range(IDENTITIES) for view in identity_views(i)]
        self.view_answers = torch.tensor([answers(s) for s in views])
        self.views = _kept(cache / f"views_{IDENTITIES}.npy", lambda: world.draw_many(views))
        self.drawn = {
            "pictures": data.pictures(cache),
            "unseen": _kept(cache / "unseen.npy", lambda: world.draw_many(unseen)),
            "second views": self.views[1::2],
        }
        self._send_through_vae(cache)
        self._hold_out()

    def _send_through_vae(self, cache: Path):
        vae = AutoencoderKL.from_pretrained(POCKET / "vae").float().to(data.DEVICE)
        made_with = sha256(POCKET / "vae" / "diffusion_pytorch_model.safetensors")[:8]
        self.back = {}
        for name, count in GO_THROUGH_VAE.items():
            file = cache / f"{name.replace(' ', '_')}_{count}_back_{made_with}.npy"
            self.back[name] = _kept(file, lambda drawn=self.drawn[name][:count]: back_from_vae(vae, drawn))

    def _hold_out(self):
        scenes = data.held_out_scenes(250) + data.held_out_scenes(250, held_out=True)
        self.held_out = data.to_tensor(world.draw_many(scenes, progress=False))
        self.held_out_answers = torch.tensor([answers(s) for s in scenes])
        self.held_out_maps = torch.tensor(np.stack([world.segmentation(s) for s in scenes])).long()
        views = [view for i in range(IDENTITIES, IDENTITIES + 128) for view in identity_views(i)]
        self.held_out_views = data.to_tensor(world.draw_many(views, progress=False))

    def loss(self, step: int):
        rng = np.random.default_rng((data.SEED, step))
        plain = np.concatenate([rng.choice(MAPPED, self.mapped), rng.choice(len(self.answers), self.plain)])
        four = rng.choice(IDENTITIES // ALIKE, self.identities // ALIKE, replace=False)
        identity = (ALIKE * four[:, None] + np.arange(ALIKE)).reshape(-1)  # (identities,)
        view = (2 * identity[:, None] + np.arange(2)).reshape(-1)  # (2 · identities,)
        pictures = np.concatenate([self._plain(plain, rng), self._views(identity, rng)])
        with data.autocast():
            out = self.module(blurred(data.to_tensor(pictures), rng), self.mapped)
        out = {name: value.float().cpu() for name, value in out.items()}  # the losses are small: on the CPU
        right = torch.cat([self.answers[plain], self.view_answers[view]])
        asked = self._answers_loss(out["answers"], right)
        maps = torch.from_numpy(self.maps[plain[: self.mapped]]).long()
        mapped = F.cross_entropy(out["classes"], maps)
        marked = self._points_loss(out["points"][: len(plain)], self.points[plain])
        told = contrast(out["embedding"][len(plain) :])
        parts = {"answers": asked, "map": mapped, "points": marked, "identity": told}
        return asked + mapped + 20 * marked + 0.3 * told, {k: v.item() for k, v in parts.items()}

    def _plain(self, picked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The pictures of the training set, then those of the pairs that the other parts never see."""
        places = (("pictures", k) if k < PLAIN else ("unseen", k - PLAIN) for k in picked)
        return np.stack([self._shown(name, k, rng) for name, k in places])

    def _views(self, identity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The two views of each identity, one behind the other."""
        return np.stack([view for i in identity for view in (self.views[2 * i], self._shown("second views", i, rng))])

    def _shown(self, name: str, k: int, rng: np.random.Generator) -> np.ndarray:
        """The picture as it was drawn or, every second time, as it came back from the VAE where it went through it."""
        back = self.back[name]
        return back[k] if k < len(back) and rng.random() < 0.5 else self.drawn[name][k]

    @staticmethod
    def _answers_loss(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        blocks = split_answers(logits).values()
        asked = [(b, r) for b, r in zip(blocks, right.T, strict=True) if (r != UNASKED).any()]
        return sum(F.cross_entropy(b, r, ignore_index=UNASKED) for b, r in asked) / len(asked)

    @staticmethod
    def _points_loss(points: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        there = right[:, 0, 0] >= 0
        return F.mse_loss(points[there], right[there]) if there.any() else points.sum() * 0

    def measure(self) -> dict[str, float]:
        out = {name: value.cpu() for name, value in self.module(self.held_out).items()}
        figures = {}
        blocks = split_answers(out["answers"])
        for (question, block), right in zip(blocks.items(), self.held_out_answers.T, strict=True):
            asked = right != UNASKED
            figures[question] = (block.argmax(1)[asked] == right[asked]).float().mean().item()
        figures["map"] = (out["classes"].argmax(1) == self.held_out_maps).float().mean().item()
        embedding = self.module(self.held_out_views)["embedding"].cpu()
        nearest = (embedding @ embedding.T - 2 * torch.eye(len(embedding))).argmax(1)
        figures["identity"] = (nearest // 2 == torch.arange(len(embedding)) // 2).float().mean().item()
        return figures

    def sheet(self):
        return None


def contrast(embedding: torch.Tensor) -> torch.Tensor:
    """InfoNCE: rows 2i and 2i + 1 are two views of one thing, all others are other things."""
    similarity = embedding @ embedding.T / TEMPERATURE
    similarity = similarity.masked_fill(torch.eye(len(embedding), dtype=torch.bool), -1e4)
    return F.cross_entropy(similarity, torch.arange(len(embedding)) ^ 1)


def _points(scene: Scene) -> np.ndarray:
    """(5, 2) landmarks in units of the side; −1 where there is no person alone."""
    alone = len(scene.things) == 1 and isinstance(scene.things[0], Person)
    return (world.landmarks(scene) / world.SIDE if alone else np.full((5, 2), -1.0)).astype(np.float32)


def _kept(file: Path, make) -> np.ndarray:
    if not file.exists():
        partial = file.with_suffix(".partial.npy")
        np.save(partial, make())
        partial.replace(file)
    return np.load(file, mmap_mode="r")


def export(task: JudgeTask) -> None:
    """Writes the judge's weights into the pocket model, in half precision."""
    (POCKET / "judge").mkdir(parents=True, exist_ok=True)
    save_file(task.module.half().state_dict(), POCKET / "judge" / "model.safetensors")
