"""A task that trains in milliseconds, with keyed noise, dropout and whatever else a resume could get wrong.

python tests/training/tiny.py OPTIONS     trains it with these options of `fit` (JSON), prints each step and the end
"""

import json
import sys

import torch

from tutorial_lib import training


class TinyTask(training.Task):
    """Regression from 3 to 2 numbers by a small network; `broken` is a sample whose loss is not finite."""

    def __init__(self, dropout: float = 0.1, broken: int | None = None, length: int = 7):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(length, 3, generator=generator)
        self.y = torch.sin(self.x @ torch.randn(3, 2, generator=generator))
        self.module = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(5, 2)
        )
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        self.broken, self.drawn = broken, []

    def __len__(self):
        return len(self.x)

    def parameters(self):
        return dict(self.module.named_parameters())

    def batch(self, samples):
        self.drawn += samples
        picked = [s.index for s in samples]
        x = self.x[picked] + 0.1 * torch.stack([s.normal((3,), "noise") for s in samples])
        x[[index == self.broken for index in picked]] = float("nan")
        return x, self.y[picked]

    def loss(self, batch):
        x, y = batch
        return (self.module(x) - y).square().mean()

    def watch(self):
        return {"norm": self.module[0].weight.norm().item()}

    def describe(self):
        return {"task": "tiny", "data": training.fingerprint(self.x, self.y)}

    def train(self, mode=True):
        self.module.train(mode)

    def weights(self) -> list[float]:
        return torch.cat([p.detach().flatten() for p in self.module.parameters()]).tolist()


def main(options: str) -> None:
    torch.set_num_threads(1)
    task = TinyTask()

    def say(step, history):
        print("step", step, flush=True)

    history = training.fit(task, **json.loads(options), every=1, callback=say, progress=False)
    print(json.dumps({"weights": task.weights(), "loss": history.loss}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
