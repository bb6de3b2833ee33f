"""The pocket CLIP: a text tower that becomes the pipeline's text encoder, as in SD, and an image tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from tutorial_lib.pocket import world
from tutorial_lib.pocket.files import POCKET
from tutorial_lib.pocket.pretrain import data
from tutorial_lib.pocket.tokenizer import MAX_LENGTH, write_tokenizer

WIDTH, LAYERS, HEADS, PROJECTION = 192, 4, 6, 128


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "projection_dim": PROJECTION,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": 64, "patch_size": 16}
    config = CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=PROJECTION)
    return CLIPModel(config)


class ClipTask:
    """Symmetric cross-entropy over a batch of pictures and captions, siblings beside each other."""

    muon_lr, adam_lr, batch = 3e-3, 1e-3, 256

    def __init__(self, cache: Path):
        torch.manual_seed(data.SEED)
        write_tokenizer(POCKET / "tokenizer")
        self.tokenizer = CLIPTokenizer.from_pretrained(POCKET / "tokenizer")
        self.module = build(self.tokenizer).to(data.DEVICE)
        self.pictures = data.pictures(cache)
        texts = [c for i, scene in enumerate(data.training_scenes()) for c in data.captions(i, scene)]
        self.tokens = self.tokenize(texts).reshape(-1, data.CAPTIONS_PER_PICTURE, MAX_LENGTH)
        scenes = data.held_out_scenes(256)
        self.held_out = data.to_tensor(world.draw_many(scenes, progress=False))
        self.held_out_tokens = self.tokenize([world.caption(s) for s in scenes])

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        padded = self.tokenizer(texts, padding="max_length", max_length=MAX_LENGTH, truncation=True)
        return torch.tensor(padded.input_ids, dtype=torch.int32)

    def _forward(self, pictures: torch.Tensor, tokens: torch.Tensor):
        with data.autocast():
            out = self.module(input_ids=tokens.long().to(data.DEVICE), pixel_values=pictures * 2 - 1)
        return out.logits_per_image.float()

    def loss(self, step: int):
        rng = np.random.default_rng((data.SEED, step))
        fours = np.sort(rng.choice(len(self.pictures) // 4, self.batch // 4, replace=False))
        picked = (4 * fours[:, None] + np.arange(4)).reshape(-1)  # (batch,), siblings included
        which = rng.choice(data.CAPTIONS_PER_PICTURE, self.batch, p=(0.6, 0.2, 0.2))
        logits = self._forward(data.to_tensor(self.pictures[picked]), self.tokens[picked, which])
        target = torch.arange(self.batch, device=logits.device)
        cross_entropy = torch.nn.functional.cross_entropy
        loss = 0.5 * (cross_entropy(logits, target) + cross_entropy(logits.T, target))
        right = (logits.argmax(1) == target).float().mean()
        return loss, {"right": right.item()}

    def measure(self) -> dict[str, float]:
        logits = self._forward(self.held_out, self.held_out_tokens)
        target = torch.arange(len(logits), device=logits.device)
        return {"right": (logits.argmax(1) == target).float().mean().item()}

    def sheet(self):
        return None


def export(task: ClipTask) -> None:
    """Writes CLIP in half precision and, from it, the pipeline's text encoder in float32.

    transformers keeps the stored precision of a text encoder where diffusers does not, so float32 it is. Its
    keys get the prefix `text_model.`, which old and new versions of transformers understand.
    """
    tower = {k: v.clone() for k, v in task.module.state_dict().items() if k.startswith("text_model.")}
    task.module.config.text_config.architectures = ["CLIPTextModel"]
    task.module.config.text_config.save_pretrained(POCKET / "text_encoder")
    save_file(tower, POCKET / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    task.module.half().save_pretrained(POCKET / "clip")
