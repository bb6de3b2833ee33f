"""The parts of pretraining in order, and what each leaves in the pocket model's folder."""

from __future__ import annotations

import csv
import json
import shutil
from importlib import import_module
from pathlib import Path

from tutorial_lib.pocket.files import POCKET, load_weights, write_hashes
from tutorial_lib.pocket.pretrain import data, loop

CHECKPOINTS = Path("checkpoints")
WEIGHTS = {  # where a resumed run begins; the decoder always begins from the shipped autoencoder
    "clip": "clip/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "judge": "judge/model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
}
TASKS = {"clip": "ClipTask", "vae": "VaeTask", "judge": "JudgeTask", "unet": "UNetTask", "decoder": "DecoderTask"}
MINUTES = {"clip": 8.6, "vae": 28, "judge": 80, "unet": 140, "decoder": 64}  # as the shipped model
SHEETS_KEPT = 3
PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def pretrain(part: str, minutes: float | None = None, resume: bool = False) -> None:
    """Trains one part, or all in order, for so many minutes, and writes its weights into the pocket model's folder.

    With `resume` a run that was stopped goes on from its last checkpoint until it has had its minutes. Where there is
    no checkpoint, one part alone trains on from the shipped weights, for so many minutes more; of all parts, each
    begins anew, since the shipped weights of one do not fit a new one of another. ValueError unless minutes are more
    than 0.
    """
    if minutes is not None and minutes <= 0:
        raise ValueError(f"--minutes must be more than 0, got {minutes:g}")
    for name in TASKS if part == "all" else [part]:
        module = import_module(f"tutorial_lib.pocket.pretrain.{name}")
        task = getattr(module, TASKS[name])(CHECKPOINTS / "cache" / data.fingerprint())
        trains_on = resume and part != "all" and not (CHECKPOINTS / name / "checkpoint.pt").exists()
        begun = _from_shipped(task, CHECKPOINTS / name) if trains_on else loop.NOTHING
        loop.train(task, CHECKPOINTS / name, MINUTES[name] if minutes is None else minutes, resume, begun)
        module.export(task)
        _keep_history(CHECKPOINTS / name, POCKET / "training")
        (POCKET / "model_index.json").write_text(json.dumps(PIPELINE, indent=2) + "\n")
        write_hashes()
    if part in ("clip", "vae"):
        print(f"{part}: the UNet was trained with the one before; train it next, by `pretrain unet`")


def _from_shipped(task, run: Path) -> loop.Begun:
    """Takes the shipped weights and their record, so that curves and minutes go on where the record ends."""
    name = run.name
    if name in WEIGHTS:
        task.module.load_state_dict(load_weights(POCKET / WEIGHTS[name]))
    begun = _restore_history(run, POCKET / "training")
    print(f"{name}: no checkpoint here, so training goes on from the shipped weights, {begun.minutes:.0f} minutes old")
    return begun


def _restore_history(run: Path, history: Path) -> loop.Begun:
    """What `_keep_history` kept of a run, back in the run's folder; where the run stood at its end."""
    run.mkdir(parents=True, exist_ok=True)
    shutil.copy(history / f"{run.name}.csv", run / "curve.csv")
    shutil.copy(history / f"{run.name}_measured.csv", run / "measured.csv")
    for sheet in history.glob(f"{run.name}_[0-9]*.png"):
        shutil.copy(sheet, run / f"sheet_{sheet.stem.removeprefix(f'{run.name}_')}.png")
    last = _last_row(run / "measured.csv")
    return loop.Begun(int(last["step"]), float(last["minutes"]))


def _last_row(file: Path) -> dict[str, str]:
    with file.open() as stream:
        return list(csv.DictReader(stream))[-1]


def _keep_history(run: Path, history: Path) -> None:
    """The curves of a run and a few of its sheets, from first to last."""
    history.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "curve.csv", history / f"{run.name}.csv")
    shutil.copy(run / "measured.csv", history / f"{run.name}_measured.csv")
    for old in history.glob(f"{run.name}_[0-9]*.png"):
        old.unlink()
    sheets = sorted(run.glob("sheet_*.png"))
    for k in sorted({round(i * (len(sheets) - 1) / (SHEETS_KEPT - 1)) for i in range(SHEETS_KEPT)} if sheets else []):
        shutil.copy(sheets[k], history / f"{run.name}_{sheets[k].stem.removeprefix('sheet_')}.png")


def hours(history: Path = POCKET / "training") -> dict[str, float]:
    """Computing hours that each part took, read from its record."""
    return {name: float(_last_row(history / f"{name}_measured.csv")["minutes"]) / 60 for name in TASKS}
