"""The loop: forward, backward, step, look, save; on one process or several, killed and gone on with or not.

history = training.fit(task, steps=200, lr=1e-4, batch_size=4, seed=0, folder="runs/cat")
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from tutorial_lib.training import checkpoint
from tutorial_lib.training.history import History
from tutorial_lib.training.samples import Sample, sample_at
from tutorial_lib.training.settings import Settings, expect, is_whole
from tutorial_lib.training.task import Task, check


def fit(
    task: Task,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int = 0,
    *,
    accumulation: int = 1,
    warmup: int = 0,
    weight_decay: float = 1e-2,
    clip: float | None = 1.0,
    ema: float | None = None,
    precision: str | None = None,
    folder: str | Path | None = None,
    save_every: int = 50,
    every: int = 10,
    callback: Callable[[int, History], None] | None = None,
    tracker: str | None = None,
    progress: bool = True,
) -> History:
    """Trains the task's parameters in place with AdamW and returns what happened, step by step.

    batch_size: samples in one forward pass; a step takes `accumulation` of them in each process. The learning rate
    rises to `lr` over `warmup` steps and stays. clip: largest norm of the gradient. ema: decay of an average of the
    weights (diffusers' EMAModel), which is left in the model at the end, and is what every look sees before.
    precision: "no", "bf16" or "fp16".
    folder: checkpoints go there every `save_every` steps and at the end; the same call goes on from what is there,
    after a kill as after a disconnect, and ends in the same weights bit for bit (same machine, threads and batch).
    every: steps between two looks at the task's own figures; `callback(step, history)` is called after each look.
    tracker: a tracker of accelerate's such as "tensorboard", with its logs in the folder.

    Raises ValueError for bad arguments and for a checkpoint of another run, FloatingPointError when loss or gradient
    stop being finite: the error names the step and the samples, the weights are those before that step.
    """
    for name, value in {"steps": steps, "batch_size": batch_size, "accumulation": accumulation}.items():
        expect(is_whole(value, 1), name, "a whole number, 1 or more", value)
    for name, value in {"save_every": save_every, "every": every}.items():
        expect(is_whole(value, 1), name, "a number of steps, 1 or more", value)
    named = dict(task.parameters())
    check(task, named)
    accelerator = _accelerator(next(iter(named.values())).device, precision, accumulation, tracker, folder)
    batch = batch_size * accelerator.gradient_accumulation_steps * accelerator.num_processes
    chosen = Settings(lr, batch, seed, warmup, weight_decay, clip, ema, accelerator.mixed_precision)
    run = _Run(task, named, chosen, accelerator, batch_size, None if folder is None else Path(folder))
    run.resume(steps)
    with run.reporting(steps, progress, callback, tracker):
        if not run.history.watched_at:
            run.look()
        while run.step < steps:
            run.compute_gradient()  # raises if it is not finite, so that what is saved next is known to be good
            if run.step % save_every == 0:
                run.save()
            run.update()
            if run.step % every == 0 or run.step == steps:
                run.look()
    return run.finish()


def _accelerator(device: torch.device, precision, accumulation: int, tracker, folder):
    """The processes, devices and precision of this run alone: accelerate holds them for the whole of a program."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.tracking import get_available_trackers

    if tracker is not None and tracker not in [str(t) for t in get_available_trackers()]:
        raise ImportError(f"the tracker {tracker!r} is not installed here: pip install {tracker}, or leave it out")
    if tracker is not None and folder is None:
        raise ValueError(f"the tracker {tracker!r} needs a folder for its logs: fit(..., folder=...)")
    expect(precision in (None, "no", "bf16", "fp16"), "precision", '"no", "bf16" or "fp16"', precision)
    if precision == "fp16" and device.type == "cpu":
        raise ValueError('precision: fp16 needs a GPU; on the CPU there are "bf16" and "no"')
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        gradient_accumulation_steps=accumulation,
        log_with=tracker,
        project_dir=folder if tracker else None,
    )


class _Run:
    """One run of the loop: parameters, optimiser, average, history and the step they stand at."""

    def __init__(self, task: Task, named: dict, settings: Settings, accelerator, batch_size: int, folder: Path | None):
        self.task, self.settings, self.accelerator, self.batch_size = task, settings, accelerator, batch_size
        self.file = None if folder is None else folder / "checkpoint.pt"
        self.named, self.parameters = named, list(named.values())
        self._begin_together()
        adamw = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.optimiser = accelerator.prepare(adamw)
        self.ema = None if settings.ema is None else self._average()
        self.history = History()
        self.description: dict = {}  # what a checkpoint must agree with
        self.step = self.saved_at = 0
        self.loss = self.spent = 0.0  # of the step that is being made
        self.bar, self.callback, self.figures = None, None, ""

    def _begin_together(self) -> None:
        """No gradients left over; in all processes the weights that the first one begins with."""
        from accelerate.utils import broadcast

        several, device = self.accelerator.num_processes > 1, self.accelerator.device
        if several and device.type != "cpu" and self.parameters[0].device != device:
            raise ValueError(
                f"this process computes on {device}, and the parameters are on {self.parameters[0].device}: "
                f"load the model there, models.load(..., device={str(device)!r})"
            )
        for parameter in self.parameters:
            parameter.grad = None
            if several:
                parameter.data.copy_(broadcast(parameter.data))

    def _average(self):
        from diffusers.training_utils import EMAModel

        return EMAModel(self.parameters, decay=self.settings.ema)

    def _parts(self, rank: int) -> range:
        """A process's share of the step's small batches, by their numbers in the order in which samples are drawn."""
        return range(rank, self.settings.batch // self.batch_size, self.accelerator.num_processes)

    def _samples(self, part: int) -> list[Sample]:
        first = self.step * self.settings.batch + part * self.batch_size
        return [sample_at(self.settings.seed, len(self.task), first + k) for k in range(self.batch_size)]

    def compute_gradient(self) -> None:
        """Loss and gradient of the step's samples, both the mean over all processes; checked to be finite."""
        begun = time.perf_counter()
        own = [self._backward(self._samples(part)) for part in self._parts(self.accelerator.process_index)]
        losses = self.accelerator.gather(torch.stack(own))  # (small batches,), those of the first process first
        self._check_finite(losses)
        self.loss = losses.mean().item()
        if self.accelerator.num_processes > 1:
            self._average_gradient()
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        if self.accelerator.scaler is None and not norm.isfinite():  # a scaler skips such a step and scales down
            parts = range(self.settings.batch // self.batch_size)
            self._stop("gradient", [s.index for k in parts for s in self._samples(k)])
        self.spent = time.perf_counter() - begun

    def _backward(self, samples: list[Sample]) -> torch.Tensor:
        """The loss of one forward pass; its gradient is added to what is there."""
        batch = self.task.batch(samples)
        device = self.parameters[0].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), self.accelerator.autocast():
            torch.manual_seed(int(samples[0].rng("dropout").integers(2**63)))
            loss = self.task.loss(batch)
        if not loss.requires_grad:
            raise ValueError(f"the loss of {type(self.task).__name__} does not depend on the parameters it trains")
        self.accelerator.backward(loss)
        return loss.detach().float()

    def _check_finite(self, losses: torch.Tensor) -> None:
        """Stops the run if the loss of one of the small batches is not finite."""
        parts = [part for rank in range(self.accelerator.num_processes) for part in self._parts(rank)]
        bad = sorted(part for part, finite in zip(parts, losses.isfinite().tolist()) if not finite)
        if bad:
            self._stop("loss", [s.index for part in bad for s in self._samples(part)])

    def _average_gradient(self) -> None:
        """By hand rather than by a wrapped module, so that a task may train parameters of several models."""
        for parameter in self.parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(own, "mean")

    def _stop(self, what: str, indices: list[int]) -> None:
        self.optimiser.zero_grad()
        raise FloatingPointError(
            f"the {what} is not finite at step {self.step + 1}, on the samples {indices}. The weights are those of "
            f"step {self.step}. {self._advice()} Or look at these samples."
        )

    def _advice(self) -> str:
        kept = f"The last good checkpoint, of step {self.saved_at}, is {self.file}. " if self.saved_at else ""
        return (
            f"{kept}Try a learning rate below {self.settings.lr:g}, a warm-up, or more precision than "
            f"{self.settings.precision!r} gives (bf16 rather than fp16)."
        )

    def update(self) -> None:
        """One step of AdamW along the gradient."""
        begun = time.perf_counter()
        ramp = min(1.0, (self.step + 1) / max(1, self.settings.warmup))
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr * ramp
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema:
            self.ema.step(self.parameters)
        self.step += 1
        self.history.loss.append(self.loss)
        self.history.seconds.append(self.spent + time.perf_counter() - begun)
        self.bar.update()
        self.bar.set_postfix_str(f"loss {self.loss:.4g}{self.figures}", refresh=False)
        if self.accelerator.trackers:
            self.accelerator.log({"loss": self.loss}, step=self.step)

    def look(self) -> None:
        """Notes the task's own figures and hands the history to the callback, with the weights that are kept."""
        self.task.train(False)
        with self._averaged():
            with torch.no_grad():
                figures = self.task.watch()
            self.history.look(self.step, figures)
            self.figures = "".join(f", {name} {value:.4g}" for name, value in figures.items())
            if figures and self.accelerator.trackers:
                self.accelerator.log(figures, step=self.step)
            if self.callback and self.accelerator.is_main_process:
                self.callback(self.step, self.history)
        self.task.train(True)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the averaged weights, if there is an average; afterwards as it was, bit for bit."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

    @contextmanager
    def reporting(self, steps: int, progress: bool, callback, tracker) -> Iterator[None]:
        """Progress bar, callback and tracker for as long as the loop runs; the model is left ready for use."""
        from tqdm.auto import tqdm

        hidden = not (progress and self.accelerator.is_main_process)
        self.callback = callback
        self.bar = tqdm(total=steps, initial=self.step, desc="training", unit="step", disable=hidden)
        if tracker:
            self.accelerator.init_trackers("training", config=asdict(self.settings))
        self.task.train(True)
        try:
            yield
        finally:
            self.task.train(False)
            self.bar.close()
            for log in self.accelerator.trackers:
                log.finish()

    def resume(self, steps: int) -> None:
        """Goes on from the checkpoint in the folder, if there is one and it is of the very same run."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.description = self.describe()  # before anything changes
        if not self.file.exists():
            return
        state = checkpoint.read(self.file)
        checkpoint.compare(self.file, state["run"], self.description)
        if state["step"] > steps:
            raise ValueError(
                f"{self.file} stands at step {state['step']}, beyond the {steps} steps asked for: "
                "ask for as many or more, or choose another folder"
            )
        self._restore(state)

    def _restore(self, state: dict) -> None:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(state["parameters"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.parameters[0].device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.history = History(**state["history"])
        self.step = self.saved_at = state["step"]

    def save(self) -> None:
        """Writes a checkpoint, if there is a folder and something new to keep."""
        if self.file is None or self.step == self.saved_at:
            return
        scaler = self.accelerator.scaler
        state = {
            "run": self.description,
            "step": self.step,
            "parameters": {name: parameter.detach() for name, parameter in self.named.items()},
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "history": asdict(self.history),
        }
        if self.accelerator.is_main_process:
            checkpoint.write(self.file, state)
        self.accelerator.wait_for_everyone()
        self.saved_at = self.step

    def describe(self) -> dict:
        """Whatever must be the same for a run to go on, as it will look when it is read from a file."""
        shapes = {f"parameter {name}": p.shape for name, p in self.named.items()}
        return json.loads(json.dumps({**asdict(self.settings), **self.task.describe(), **shapes}))

    def finish(self) -> History:
        """The last checkpoint; then the averaged weights take the model, if an average was asked for."""
        if not all(parameter.isfinite().all() for parameter in self.parameters):
            raise FloatingPointError(f"the weights are not finite after step {self.step}. {self._advice()}")
        self.save()
        if self.ema:
            self.ema.copy_to(self.parameters)
        return self.history
