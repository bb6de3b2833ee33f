"""The pocket CLIP for measuring: embeddings of pictures and of texts in one space."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from tutorial_lib.pocket.files import POCKET
from tutorial_lib.pocket.judge import to_pictures


class Clip:
    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer):
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    def image_embeds(self, images) -> torch.Tensor:
        """(n, 128) unit rows of PIL pictures, uint8 arrays, or a float tensor (n, 3, 64, 64) in [0, 1].

        Gradients flow from the embeddings to a tensor of pictures.
        """
        pixels = to_pictures(images).to(self.model.device) * 2 - 1
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=1)

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> torch.Tensor:
        """(n, 128) unit rows."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        pooled = self.model.text_model(input_ids=tokens.input_ids.to(self.model.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=1)


def load(folder: Path | str = POCKET, device=None) -> Clip:
    """The CLIP beside the pipeline in `folder`."""
    folder = Path(folder)
    model = CLIPModel.from_pretrained(folder / "clip", local_files_only=True, dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return Clip(model.to(device or "cpu"), tokenizer)
