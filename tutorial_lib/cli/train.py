"""`train METHOD`: from a folder of pictures to a folder of weights, with a model card and all settings beside them."""

from __future__ import annotations

import os
from pathlib import Path

from tutorial_lib import profiles
from tutorial_lib.cli import options as reading
from tutorial_lib.cli import output, train_options

PLACES = ("output", "checkpoints")  # where a run lies; all its other settings are written beside the weights


def add(commands) -> None:
    train_options.add(commands, run)


def run(options) -> None:
    """Trains, and writes the output folder. Raises what the library raises, MemoryError where memory is full."""
    options = _with_settings_of_the_run(options)
    reading.check_needed(options)
    _check_source(options)
    if _is_main():
        output.begin_run(Path(options.output), Path(options.checkpoints), options.resume, options.force)
    plan = None
    try:
        pipe = _load(options)
        options = train_options.with_defaults(options, pipe, _processes())
        plan = profiles.Plan(
            options.method, options.lr, options.steps, options.batch_size, options.accumulation, options.precision,
            options.gradient_checkpointing,
        )  # fmt: skip
        _train(options, pipe)
    except RuntimeError as error:
        if plan is None or not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        raise MemoryError(profiles.when_out_of_memory(plan)) from error


def _with_settings_of_the_run(options):
    """With where the run lies, and, when it goes on, with the settings that it began with."""
    for name in ("resume", "force"):
        setattr(options, name, getattr(options, name, False))
    if hasattr(options, "output") and not hasattr(options, "checkpoints"):
        options.checkpoints = str(Path(options.output) / "checkpoints")
    file = Path(getattr(options, "checkpoints", "")) / output.SETTINGS
    if options.resume and file.is_file():
        options = reading.complete(options, file)
    if not hasattr(options, "profile"):
        options.profile = "pocket"
    return options


def _check_source(options) -> None:
    """What can be seen to be wrong before a model is loaded. Raises FileNotFoundError or ValueError."""
    from tutorial_lib.cli import data

    for name in ("pictures", "prior_pictures", "controls"):
        if hasattr(options, name):
            data.check_folder(getattr(options, name))
    if not hasattr(options, "class_word") and (hasattr(options, "prior") or hasattr(options, "prior_pictures")):
        raise ValueError("--prior needs --class: the word for what the subject is one of, such as cat")
    if (why := profiles.obstacle(options.profile)) is not None:
        raise ValueError(f"{why}. Without --profile you stay on the pocket model")


def _load(options):
    from tutorial_lib import models

    device = _device()
    wanted = getattr(options, "precision", None)
    return models.load(options.profile, device, profiles.weights_dtype(options.method, options.profile, device, wanted))


def _device() -> str:
    """This process's own GPU under `accelerate launch`, else the best device."""
    from tutorial_lib import models

    best = models.best_device()
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if best == "cuda" else best


def _train(options, pipe) -> None:
    from tutorial_lib import training
    from tutorial_lib.cli import methods

    with _one_after_another(pipe.device):
        prepared = methods.prepare(options, pipe)
    history = training.fit(
        prepared.task,
        options.steps,
        options.lr,
        options.batch_size,
        options.seed,
        accumulation=options.accumulation,
        warmup=options.warmup,
        ema=options.ema or None,
        precision=options.precision,
        folder=options.checkpoints,
        save_every=options.save_every,
        every=options.every,
        callback=_Watcher(options, pipe, prepared),
        tracker=getattr(options, "tracker", None),
    )
    if _is_main():
        _finish(options, prepared, history)


class _Watcher:
    """At the first look notes the settings, all of which were accepted by then; at each look draws sample pictures.

    They have the same prompts and the same noise each time.
    """

    def __init__(self, options, pipe, prepared):
        self.options, self.pipe, self.prepared = options, pipe, prepared
        self.prompts = getattr(options, "prompts", prepared.prompts)
        if prepared.controls and hasattr(options, "prompts"):
            self.prompts = [self.prompts[k % len(self.prompts)] for k in range(len(prepared.controls))]

    def __call__(self, step: int, history) -> None:
        from tutorial_lib.cli.generate import draw, write_sheet

        _write_settings(self.options, Path(self.options.checkpoints))
        drawn = draw(self.pipe, self.prepared.model, self.prompts, self.prepared.controls, self.options)
        folder = Path(self.options.output) / output.SAMPLES
        folder.mkdir(parents=True, exist_ok=True)
        shown = self.prepared.controls + drawn if self.prepared.controls else drawn
        write_sheet(shown, folder / f"step_{step:06d}.png", len(self.prompts))


def _finish(options, prepared, history) -> None:
    """Weights, card, settings and history, all at once."""
    from tutorial_lib.cli.card import card

    with output.whole(Path(options.output)) as folder:
        prepared.save(folder)
        (folder / "README.md").write_text(card(options, prepared, history, _machine()), encoding="utf-8")
        _write_settings(options, folder)
        output.write_history(history, folder / "history.csv")
    print(f"{options.output}: weights, README.md, {output.SETTINGS}, history.csv, {output.SAMPLES}/")


def _write_settings(options, folder: Path) -> None:
    comment = f"python -m tutorial_lib train {options.method} --config {output.SETTINGS} --output FOLDER"
    reading.write(reading.settings(options, PLACES), folder / output.SETTINGS, comment)


def _machine() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"a CPU ({threads} thread{'s' if threads > 1 else ''})"


# ------------------------------------------------------------------ several processes


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def _is_main() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def _one_after_another(device):
    """The first process prepares, the others then find what it drew."""
    from contextlib import nullcontext

    if _processes() == 1:
        return nullcontext()
    from accelerate import PartialState

    return PartialState(cpu=device.type == "cpu").main_process_first()
