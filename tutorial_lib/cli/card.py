"""The model card beside the weights: what was trained on what, how long, with which seed, and how to load it."""

from __future__ import annotations

import json
from pathlib import Path

from tutorial_lib import models

NAMES = {
    "oft": "OFT (orthogonal fine-tuning)",
    "coft": "COFT (constrained orthogonal fine-tuning)",
    "lora": "LoRA",
    "dreambooth": "DreamBooth (the whole UNet)",
    "textual-inversion": "Textual inversion",
    "custom": "Custom Diffusion",
    "control": "Spatial control",
}
MOST = 20  # steps over which a loss is averaged
LIBRARY = {"oft": "peft", "coft": "peft", "custom": "tutorial_lib"}


def card(options, prepared, history, machine: str) -> str:
    """The card as Markdown, with the header that hubs read."""
    source, revision = models.PROFILES.get(options.profile, (options.profile, None))
    source = Path(source).name if Path(source).is_dir() else source  # a folder's place is nobody's business
    output = Path(options.output)
    name = output.resolve().name
    place = name if output.is_absolute() else output.as_posix()  # from where the command ran, as "data/pocket-sd" is
    base = _quoted(source if options.profile != "pocket" else "data/pocket-sd")
    loading = prepared.loading.format(base=base + (f", revision={_quoted(revision)}" if revision else ""),
                                      profile=_quoted(options.profile if revision else source),
                                      folder=_quoted(place))  # fmt: skip
    header = [
        "---",
        *([f"base_model: {source}"] if "/" in source else []),  # then it is a hub's
        f"library_name: {LIBRARY.get(options.method, 'diffusers')}",
        "pipeline_tag: text-to-image",
        "---",
    ]
    seconds = sum(history.seconds)
    rows = {
        "method": NAMES[options.method],
        "base model": source + (f" at {revision}" if revision else ""),
        "learned from": prepared.learned,
        "numbers trained": f"{sum(p.numel() for p in prepared.task.parameters().values()):,}",
        "steps": f"{len(history.loss)}, {options.batch_size * options.accumulation * options.processes} pictures each",
        "learning rate": f"{options.lr:g}",
        "precision": options.precision,
        "seed": str(options.seed),
        "time": f"{seconds:.0f} s on {machine}",
        "loss": _loss(history.loss),
    }
    table = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(
        [
            *header, f"# {name}", "", *table, "",
            "`samples/` shows what the model drew on the way, `training.toml` has all settings,",
            "the names of your folders included.", "",
            "## Load it", "", "```python", loading.rstrip(), "```", "",
            "## Before you share it", "",
            "These weights can draw what was in the pictures. Share them only if the pictures are yours to share, and "
            "if every person in them has agreed to this use. The licence of the base model applies to them as well.",
            "",
        ]
    )  # fmt: skip


def _quoted(text: str) -> str:
    """A Python literal in double quotes, as formatters want it."""
    return json.dumps(text, ensure_ascii=False)


def _loss(losses: list[float]) -> str:
    """At the beginning and at the end, each a mean of some steps, as single ones jump."""
    few = max(1, min(MOST, len(losses) // 2))
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    return f"{first:.4f} in the first {few} steps, {last:.4f} in the last {few}"
