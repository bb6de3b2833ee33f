"""Writes data/pocket-sd/README.md: the model card, its figures taken from results/ and from the training records.

python tools/model_card.py            after benchmarks/pocket_quality.py
python tools/model_card.py --check    fails when the card does not say what the files say
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from tutorial_lib.pocket.files import POCKET, weight_files
from tutorial_lib.pocket.pretrain import data
from tutorial_lib.pocket.pretrain.run import hours

ROOT = Path(__file__).resolve().parent.parent
QUALITY = ROOT / "results" / "pocket_quality.csv"
CARD = POCKET / "README.md"

TEXT = """\
---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
---
# Pocket-SD

A Stable Diffusion small enough for a laptop's CPU, made for teaching. It draws 64x64 pictures of one small world
from prompts such as "a watercolor of a red mug on a beach". Its parts are those of Stable Diffusion 1.x, and plain
diffusers loads them:

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("data/pocket-sd")
pipe("a photo of a white cat with glasses on a table", num_inference_steps=25, guidance_scale=4).images[0]
```

| part | parameters | on disk |
|---|---|---|
{parts}

`text_encoder` is the text tower of the CLIP in `clip`. `judge` reads pictures: attributes, an embedding that tells
subjects apart, a segmentation map, face landmarks. UNet and VAE are stored in half precision and load in float32.

## Data

{pictures:,} pictures drawn by code (`tutorial_lib/pocket/world.py`), each with {captions} captions: the whole one, and
others with parts left out at random. Every fourth scene differs from the one before it in one attribute. No photograph,
no scraped text and no other model was used. Some pairs of (object, colour), (object, background) and (style, object)
are never drawn for training (but for the judge's); the figures below report them apart. CLIP and the VAE's encoder saw
an earlier draw of the same world, with fewer animals and fewer pairs of things, and so did the judge for its first 28
minutes and the UNet for its first 50.

## Training

`python -m tutorial_lib pretrain all` trains everything anew by this recipe (seed {seed}; minutes on a clock, so not to
these very weights): Muon and AdamW, a rate that falls to zero,
averaged weights. The VAE: squared error, a little absolute error, a little KL; at the end its decoder alone. The UNet:
noise prediction with min-SNR weights (gamma 5), Stable Diffusion's betas, 10 % of the prompts left out. The shipped
weights took, in hours of computing on {hardware}: {hours}. The curves and sheets of these runs are in `training/`.

## Measured quality

`python benchmarks/pocket_quality.py`: 500 prompts, one picture each, 25 DDIM steps, guidance 4. "Seen": pairs that are
in the training set. "Held-out": the prompt has a pair that is not. Counted only where the style can show it.
Model {model}.

{tables}

A figure in bold misses the floor that the course set for itself.

## Limits

- It knows the words of its world and nothing else. Other words are accepted, and drawn as something.
- 64x64 pixels; thin lines and small faces are where the VAE loses most.
- The judge, unlike the other parts, trained on all pairs: it is the meter. What it misreads of drawn pictures (first
  table: half of them hold pairs that the others never saw) is in the figures of the made ones too. Short hair under a
  hat is a few pixels, and its colour is what it misreads most.
- Pairs that it never saw, things that animals wear and the colours of two things are where it fails most.
- Two things at most, side by side; relations such as "on top of" mean nothing to it.
- People are cartoons in three skin tones and five hair colours. Nobody real can be drawn, and nothing about people
  should be concluded from it.
"""
HARDWARE = "two CPU cores shared with other work"


def _parts() -> str:
    from safetensors import safe_open

    rows = []
    for name in weight_files(POCKET):
        with safe_open(POCKET / name, "np") as file:
            count = sum(_size(file.get_slice(key).get_shape()) for key in file.keys())
        megabytes = (POCKET / name).stat().st_size / 1e6
        rows.append(f"| {name.split('/')[0]} | {count / 1e6:.2f} M | {megabytes:.1f} MB |")
    return "\n".join(rows)


def _size(shape: list[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _tables(rows: list[dict]) -> str:
    """One table a subject: a line for each figure and split, a column for each style."""
    styles = list(dict.fromkeys(row["style"] for row in rows))
    parts = []
    for subject in dict.fromkeys(row["subject"] for row in rows):
        lines = [f"| {subject} | | {' | '.join(styles)} |", "|---|---|" + "---|" * len(styles)]
        cells = {(r["figure"], r["split"], r["style"]): r for r in rows if r["subject"] == subject}
        for figure, split in dict.fromkeys((f, s) for f, s, _ in cells):
            values = [_cell(cells.get((figure, split, style))) for style in styles]
            lines.append(f"| {figure} | {split} | {' | '.join(values)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    value = f"{float(row['value']):.3f} ({row['count']})"
    return f"**{value}**" if row["reached"] == "False" else value


def card() -> str:
    with QUALITY.open() as stream:
        rows = list(csv.DictReader(stream))
    return TEXT.format(
        parts=_parts(),
        pictures=data.TRAINING_SIZE,
        captions=data.CAPTIONS_PER_PICTURE,
        seed=data.SEED,
        hardware=HARDWARE,
        hours=", ".join(f"{part} {value:.2f}" for part, value in hours().items()),
        model=rows[0]["model"],
        tables=_tables(rows),
    )


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        CARD.write_text(card(), encoding="utf-8")
        return 0
    if CARD.exists() and CARD.read_text(encoding="utf-8") == card():
        return 0
    print(f"{CARD} does not say what results/ and training/ say: run `python tools/model_card.py`")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
