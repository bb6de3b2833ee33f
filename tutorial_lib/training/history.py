"""What happened in a run, step by step: easy to plot, easy to read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """What happened: `loss` and `seconds` a step; `watched[name]` at the steps `watched_at`, the start included."""

    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    watched_at: list[int] = field(default_factory=list)
    watched: dict[str, list[float]] = field(default_factory=dict)

    @property
    def steps(self) -> range:
        """1, 2, ..., as `loss` is counted: `plt.plot(history.steps, history.loss)`."""
        return range(1, len(self.loss) + 1)

    def smooth(self, window: int = 10) -> list[float]:
        """For each step the mean loss of the last `window` steps up to it."""
        parts = (self.loss[max(0, k - window) : k] for k in self.steps)
        return [sum(part) / len(part) for part in parts]

    def rows(self) -> list[dict]:
        """One row for each look: step, mean loss since the look before (none at the start), what was watched."""
        rows = []
        for k, step in enumerate(self.watched_at):
            part = self.loss[self.watched_at[k - 1] if k else 0 : step]
            loss = sum(part) / len(part) if part else None
            rows.append({"step": step, "loss": loss, **{name: v[k] for name, v in self.watched.items()}})
        return rows

    def look(self, step: int, figures: dict[str, float]) -> None:
        self.watched_at.append(step)
        for name, value in figures.items():
            self.watched.setdefault(name, []).append(float(value))

    def __str__(self) -> str:
        names = ["step", "loss", *self.watched]
        cells = [[_short(row[name]) for name in names] for row in self.rows()]
        widths = [max(len(line[k]) for line in [names, *cells]) for k in range(len(names))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in [names, *cells])


def _short(value) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
