"""How well, and how suddenly, does a frozen model learn to follow a control, by a branch beside it or by adapters?

    python benchmarks/control.py                     everything, about six hours on one core
    python benchmarks/control.py --parts edges --seeds 0        a part of it

Writes a row for each figure of a run to results/control.csv and goes on where it stopped; several commands may fill
one file at the same time. A run trains one method with one seed. The parts, and about how many minutes of one core
their seeds take:

    edges          30  ControlNet on edges, by the recipe of lesson 08
    ablations      40  the same with Gaussian convolutions instead of zero convolutions, and ControlNet-lite
    search         40  learning rates of ControlNet, OFT and LoRA, with one seed that is used nowhere else
    adapters       75  OFT, COFT and LoRA on edges, at the smallest rate that was about as good as the best of the
                       search (COFT at OFT's)
    collapse       20  LoRA at twice that rate, which the search liked no less
    pairs          30  ControlNet on edges, with fewer and with more pictures to learn from
    segmentation   60  ControlNet, OFT, COFT and LoRA on segmentation maps
    landmarks      55  the same on face landmarks, with pictures of one person

Runs of seed 0 also leave a sheet of their pictures, a row for each kind of prompts: results/control_<method>.png, and
results/control_segmentation_<method>.png where something else than edges was learned. A run whose sheet is missing is
made again, and its rows stay. (Search, collapse and pairs leave none.)
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import control_exam
from control_exam import FALLING, MEASURES, Exam, scenes
from control_parts import ADAPTERS, COLLAPSING, PARTS, RATES, Part, begin

from tutorial_lib import control, models, results, training
from tutorial_lib.pocket import judge

RESULTS = results.FOLDER / "control.csv"

WATCHED = 12  # scenes to draw then
LOOKS = 20  # at the watched scenes, evenly over the run; the start comes besides
SEEDS, SEARCH_SEED = (0, 1, 2), 100  # the latter is used nowhere else
ALIKE = 0.01  # F1 of rates that are called alike: with one seed, the largest that does not collapse may win by luck
PICTURED_SEED = 0  # of the runs that leave a sheet of pictures

KEY = ("part", "method", "control", "regime", "measure", "pairs", "seed")


@dataclass(frozen=True)
class Row:
    """One figure of one run. `looks` and `curve` are lists with spaces between their numbers."""

    part: str
    method: str  # "full" is ControlNet itself; "OFT at 0.001" in the search
    control: str
    regime: str  # of the prompts that pictures are drawn with
    measure: str
    pairs: int
    seed: int
    value: float  # after training
    start: float  # before
    ceiling: float  # of the true pictures after the VAE's round trip; for things, which it may pass, not a limit
    jump: float  # step in the middle of the steepest fifth of the curve; NaN where none was drawn
    jump_share: float  # how much of the curve's whole rise falls into it
    looks: str
    curve: str  # on the watched scenes, by the running mean of the weights, as `value` is
    steps: int
    parameters: int
    seconds: float  # of the processor, a step
    model: str
    command: str


class Bench:
    """The frozen model, and what the runs share."""

    def __init__(self, pipe, table: results.Table, command: str = ""):
        self.pipe, self.table, self.command = pipe, table, command
        self.judge, self.clip = judge.load(), models.load_clip()

    @functools.cache  # noqa: B019 - one bench a command
    def exam(self, kind: str) -> Exam:
        return Exam(self.pipe, kind, self.judge, self.clip)

    @functools.lru_cache(maxsize=1)  # noqa: B019 - 10,000 pairs are 200 MB
    def pairs(self, kind: str, count: int) -> control.Pairs:
        return control.scene_pairs(self.pipe, kind, scenes(kind, control.TRAINING, count))


@dataclass(frozen=True)
class Run:
    """One method on one control, from fresh weights, order and noise of this seed."""

    part: str
    method: str
    seed: int
    pairs: int = control.EDGES.pairs
    rate: float = control.EDGES.lr

    @property
    def asked(self) -> Part:
        return PARTS[self.part]

    def key(self, regime: str, measure: str) -> tuple:
        method = f"{self.method} at {self.rate:g}" if self.part == "search" else self.method
        return (self.part, method, self.asked.control, regime, measure, self.pairs, self.seed)

    def left(self, table: results.Table) -> bool:
        """Whether a row is missing, or the sheet."""
        keys = [self.key(regime, measure) for regime in self.asked.regimes for measure in MEASURES[self.asked.control]]
        return not all(table.has(*key) for key in keys) or (self.pictured() and not self.sheet(table).exists())

    def pictured(self) -> bool:
        return self.asked.pictured and self.seed == PICTURED_SEED

    def sheet(self, table: results.Table) -> Path:
        learned = "" if self.asked.control == "edges" else f"_{self.asked.control}"
        return table.file.parent / f"control{learned}_{self.method}.png"

    def done(self, bench: Bench) -> list[Row]:
        """Trains and judges: a row for each regime and measure."""
        exam, (pipe, model) = bench.exam(self.asked.control), begin(self.method, bench.pipe, self.seed)
        start = exam.look(pipe, model, self.asked.regimes, control_exam.TESTED, self.seed)
        task, history, seconds = self.train(bench, pipe, model)
        end = exam.look(pipe, model, self.asked.regimes, control_exam.TESTED, self.seed)
        if self.pictured():
            file = self.sheet(bench.table)
            sheet = exam.sheet(pipe, model, self.asked.regimes, self.seed)
            sheet.save(file.with_suffix(".partial"), "PNG", optimize=True)
            file.with_suffix(".partial").replace(file)
        same = {"parameters": sum(p.numel() for p in task.parameters().values()), "steps": control.EDGES.steps}
        same |= {"seconds": seconds, "model": bench.table.model, "command": bench.command}
        rows = []
        for regime, measure in end:
            figures = {"value": end[regime, measure], "start": start[regime, measure]}
            figures |= {"ceiling": exam.ceiling[measure]} | on_the_way(history, regime, measure)
            rows.append(Row(**dict(zip(KEY, self.key(regime, measure), strict=True)), **figures, **same))
        return rows

    def train(self, bench: Bench, pipe, model) -> tuple[control.ControlTask, training.History, float]:
        """Task, history, and the processor's seconds a step without those of the looks."""
        recipe, exam, looking = control.EDGES, bench.exam(self.asked.control), 0.0

        def watch() -> dict[str, float]:
            nonlocal looking
            begun = time.process_time()
            found = exam.look(pipe, model, self.asked.followed, WATCHED, self.seed)
            looking += time.process_time() - begun
            return {" ".join(name): score for name, score in found.items()}

        pairs = bench.pairs(self.asked.control, self.pairs)
        options = {"drop_prompt": recipe.drop_prompt, "noisier": recipe.noisier, "watch": watch}
        task = control.ControlTask(pipe, model, pairs, **options)
        every = max(1, recipe.steps // LOOKS)
        begun = time.process_time()
        history = training.fit(
            task, recipe.steps, self.rate, recipe.batch_size, self.seed, ema=recipe.ema, every=every, progress=False
        )
        return task, history, (time.process_time() - begun - looking) / recipe.steps


def on_the_way(history: training.History, regime: str, measure: str) -> dict:
    """What the looks saw of one figure; nothing where it was not followed."""
    name = f"{regime} {measure}"
    if name not in history.watched:
        return {"jump": math.nan, "jump_share": math.nan, "looks": "", "curve": ""}
    curve = history.watched[name]
    rising = [-value for value in curve] if measure in FALLING else curve
    jump, share = control.sudden_convergence(history.watched_at, rising)
    return {"jump": jump, "jump_share": share, "looks": _listed(history.watched_at), "curve": _listed(curve)}


def _listed(numbers) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


# ------------------------------------------------------------------ which runs


def best_rate(rows: list[Row], method: str) -> float:
    """The smallest rate with nearly the best F1 without prompts in the search. SystemExit while one is missing."""
    method = "OFT" if method == "COFT" else method
    found = {row.method: row.value for row in rows if (row.part, row.regime, row.measure) == ("search", "none", "F1")}
    tried = {rate: found.get(f"{method} at {rate:g}") for rate in RATES[method]}
    if missing := [rate for rate, value in tried.items() if value is None]:
        raise SystemExit(f"the search lacks {method} at {missing}: run this with --parts search first")
    return min(rate for rate, value in tried.items() if value >= max(tried.values()) - ALIKE)


def planned(part: str, seeds: Sequence[int], rows: list[Row]) -> Iterator[Run]:
    """Every run of a part."""
    for seed in (SEARCH_SEED,) if part == "search" else seeds:
        for method in PARTS[part].methods:
            for pairs in PARTS[part].pairs or (control.EDGES.pairs,):
                yield from (Run(part, method, seed, pairs, rate) for rate in rates(part, method, rows))


def rates(part: str, method: str, rows: list[Row]) -> tuple[float, ...]:
    """The learning rates of a method in a part."""
    if part == "search":
        return RATES[method]
    if method not in ADAPTERS:
        return (control.EDGES.lr,)
    return (COLLAPSING if part == "collapse" else best_rate(rows, method),)


def runs(table: results.Table, parts: Sequence[str], seeds: Sequence[int]) -> Iterator[Run]:
    """The runs of which a row or the sheet is missing."""
    for part in parts:
        for run in planned(part, seeds, table.rows()):
            if run.left(table):
                yield run


# ------------------------------------------------------------------ report


def report(rows: list[Row]) -> Iterator[str]:
    """Every figure, how much of the ceiling it is, and the mean over seeds."""
    yield "method    prompts       measure  seed   before   after   of the ceiling   steepest at   with of the rise"
    for row in sorted(rows, key=lambda row: (row.part, row.method, row.regime, row.measure, row.pairs, row.seed)):
        yield (
            f"{row.method:9} {row.regime:13} {row.measure:8} {row.seed:4} {row.start:8.3f} {row.value:7.3f} "
            f"{_share(row):16.2f} {row.jump:13.0f} {row.jump_share:18.2f}"
        )
    for group in dict.fromkeys(_group(row) for row in rows):
        alike = [row for row in rows if _group(row) == group]
        part, method, regime, measure, pairs = group
        name = f"{part}, {pairs} pairs, {method}, {measure}, prompts {regime}"
        if measure in FALLING:
            mean, spread = results.mean_and_spread(row.value for row in alike)
            yield f"{name}: {mean:.3f} ± {spread:.3f}, true pictures {alike[0].ceiling:.3f}, {len(alike)} seeds"
        else:
            mean, spread = results.mean_and_spread(_share(row) for row in alike)
            yield f"{name}: {mean:.2f} ± {spread:.2f} of the ceiling, {len(alike)} seeds"


def _group(row: Row) -> tuple:
    return (row.part, row.method, row.regime, row.measure, row.pairs)


def _share(row: Row) -> float:
    return math.nan if row.measure in FALLING else row.value / row.ceiling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=tuple(PARTS), metavar="PART")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds are 0 or more, got {min(options.seeds)}")

    table = results.Table(options.out, Row, KEY, results.model_hash())
    bench = Bench(models.load("pocket", device="cpu"), table, " ".join(["python benchmarks/control.py", *sys.argv[1:]]))
    for run in runs(table, options.parts, options.seeds):
        for row in run.done(bench):
            if not table.has(*(getattr(row, name) for name in KEY)):  # another command may have made it meanwhile
                table.add(row)
        done = [row for row in table.rows() if (row.part, row.seed) == (run.part, run.seed)]
        print(f"{run.part}: {run.method}, {run.pairs} pairs, seed {run.seed}", *report(done), sep="\n", flush=True)
    print("", *report(table.rows()), sep="\n")


if __name__ == "__main__":
    main()
