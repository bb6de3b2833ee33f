"""Sheets of small pictures, saved while a part of the model trains."""

from __future__ import annotations

import torch
from PIL import Image


def grid(pictures: torch.Tensor, columns: int, zoom: int = 2) -> Image.Image:
    """(n, 3, h, w) in [0, 1] to one picture, row by row, with a thin white gap."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), "white")
    arrays = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for i, array in enumerate(arrays):
        sheet.paste(Image.fromarray(array), ((i % columns) * (width + 2), (i // columns) * (height + 2)))
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.NEAREST)
