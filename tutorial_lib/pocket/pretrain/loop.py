"""One loop for the four parts of the pocket model: minutes on the clock, checkpoints, curves, sheets.

A task is an object with
    module            what is trained
    loss(step)        -> (scalar loss, {name: number}); all randomness keyed by (seed, step)
    measure()         -> {name: number}, the same pictures every time, slow enough to be done rarely
    sheet()           -> a PIL picture of what the model does now, or None
    muon_lr, adam_lr  the peak learning rates of the two optimisers
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from tutorial_lib.pocket.pretrain.muon import Muon, split_parameters

WARMUP_STEPS = 100
CHECKPOINT_SECONDS = 120.0
CURVE_SECONDS = 15.0


class Begun(NamedTuple):
    """What the weights of a new run have behind them already."""

    steps: int
    minutes: float


NOTHING = Begun(0, 0.0)


def train(task, folder: Path, minutes: float, resume: bool = False, begun: Begun = NOTHING) -> None:
    """Trains `task.module` for so many minutes of computing and leaves the averaged weights in it.

    `folder` gets checkpoint.pt (written atomically), curve.csv, measured.csv and sheet pictures. With `resume`, a run
    that was killed goes on where its last checkpoint stood, and what it has spent of its minutes counts. `begun` is
    what the weights of a new run have behind them; its minutes come on top of that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(task, folder, 60 * minutes, begun)
    if resume:
        state.load()
    elif state.checkpoint.exists():
        raise FileExistsError(f"{state.checkpoint} holds an earlier run: add --resume to go on, or delete it")
    if state.spent < state.budget:
        _work(state)
    else:
        print(f"{folder.name}: this run has had its {minutes:g} minutes; more --minutes go on with it")
    state.ema.copy_to(task.module.parameters())
    task.module.eval()


def _work(state: _State) -> None:
    """Step after step until the minutes are over."""
    state.task.module.train()
    bar = tqdm(total=round(state.budget), initial=round(state.spent), unit="s", desc=state.folder.name)
    while state.spent < state.budget:
        begun = time.perf_counter()
        figures = state.step()
        state.spent += time.perf_counter() - begun
        bar.update(round(state.spent) - bar.n)
        bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()})
        state.log(figures)
        if state.spent - state.saved_at > CHECKPOINT_SECONDS:
            state.report()
    bar.close()
    state.report()


class _State:
    """The run: optimisers, average, clock and files."""

    def __init__(self, task, folder: Path, seconds: float, begun: Begun):
        self.task, self.folder, self.seconds = task, folder, seconds
        matrices, others = split_parameters(task.module)
        self.muon = Muon(matrices, lr=task.muon_lr)
        self.adam = torch.optim.AdamW(others, lr=task.adam_lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.ema = EMAModel(task.module.parameters(), decay=0.998, use_ema_warmup=True, power=0.8)
        self.steps, self.spent, self.began_at = begun.steps, 60 * begun.minutes, 60 * begun.minutes
        self.warm_at = begun.steps + WARMUP_STEPS
        self.saved_at = self.logged_at = self.spent
        self.recent: list[dict] = []
        self.checkpoint = folder / "checkpoint.pt"

    @property
    def budget(self) -> float:
        """The seconds at which the run ends, those behind its first weights included."""
        return self.began_at + self.seconds

    def step(self) -> dict[str, float]:
        loss, figures = self.task.loss(self.steps)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{self.folder.name}: loss is {loss.item()} at step {self.steps}")
        loss.backward()
        others = [p for group in self.adam.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser, peak in ((self.muon, self.task.muon_lr), (self.adam, self.task.adam_lr)):
            for group in optimiser.param_groups:
                group["lr"] = peak * self._schedule()
            optimiser.step()
        self.task.module.zero_grad(set_to_none=True)
        self.steps += 1
        self.ema.step(self.task.module.parameters())
        return {"loss": loss.item(), **figures}

    def _schedule(self) -> float:
        """Warm-up, then linearly down to zero at the end of the minutes."""
        left = max(0.0, 1.0 - self.spent / self.budget)
        return min(1.0, 1 - (self.warm_at - self.steps - 1) / WARMUP_STEPS) * min(1.0, 1.15 * left)

    def log(self, figures: dict[str, float]) -> None:
        self.recent.append(figures)
        if self.spent - self.logged_at > CURVE_SECONDS:
            self._write_curve()

    def _write_curve(self) -> None:
        """The means since the last row."""
        if self.recent:
            mean = {k: sum(f[k] for f in self.recent) / len(self.recent) for k in self.recent[0]}
            self._write("curve.csv", {"step": self.steps, "minutes": self.spent / 60, **mean})
        self.recent, self.logged_at = [], self.spent

    def report(self) -> None:
        """Checkpoint, figures and a sheet, with the averaged weights in place for the last two."""
        self._write_curve()
        self.saved_at = self.spent
        self._save()
        parameters = list(self.task.module.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        self.task.module.eval()
        with torch.no_grad():
            figures = self.task.measure()
            sheet = self.task.sheet()
        self.ema.restore(parameters)
        self.task.module.train()
        self._write("measured.csv", {"step": self.steps, "minutes": self.spent / 60, **figures})
        tqdm.write(f"{self.folder.name} {self.spent / 60:.1f} min, step {self.steps}: {figures}")
        if sheet is not None:
            sheet.save(self.folder / f"sheet_{self.steps:06d}.png")

    def _write(self, name: str, row: dict) -> None:
        file = self.folder / name
        fresh = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, row, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow({k: round(v, 6) for k, v in row.items()})

    def _save(self) -> None:
        state = {
            "module": self.task.module.state_dict(),
            "ema": self.ema.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "steps": self.steps,
            "spent": self.spent,
            "began_at": self.began_at,
            "warm_at": self.warm_at,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def load(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.task.module.load_state_dict(state["module"])
        self.ema.load_state_dict(state["ema"])
        self.ema.to(next(self.task.module.parameters()).device)
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.steps, self.spent = state["steps"], state["spent"]
        self.began_at, self.warm_at = state["began_at"], state["warm_at"]
        self.saved_at = self.logged_at = self.spent
        for name in ("curve.csv", "measured.csv"):
            self._forget_later_rows(self.folder / name)

    def _forget_later_rows(self, file: Path) -> None:
        """What a killed run wrote after its last checkpoint is made again."""
        if file.exists():
            with file.open(newline="") as stream:
                head, *rows = csv.reader(stream)
            with file.open("w", newline="") as stream:
                kept = [row for row in rows if len(row) == len(head) and int(row[0]) <= self.steps]
                csv.writer(stream, lineterminator="\n").writerows([head, *kept])
