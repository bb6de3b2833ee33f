"""One loop for every method: `training.fit(task, steps, lr, batch_size, seed)`.

loop.py        the loop
task.py        what it asks of a method
settings.py    what of a run changes its result
samples.py     which sample comes when, and its randomness
history.py     what happened, step by step
checkpoint.py  files that are whole or not there
denoising.py   the task that the methods share: predict the noise
latents.py     pictures and captions encoded once, for all methods
"""

from tutorial_lib.training.checkpoint import fingerprint
from tutorial_lib.training.denoising import DenoisingTask
from tutorial_lib.training.history import History
from tutorial_lib.training.latents import Encoded, TextCache, embed, encode
from tutorial_lib.training.loop import fit
from tutorial_lib.training.samples import Sample, sample_at
from tutorial_lib.training.task import Task

__all__ = [
    "DenoisingTask",
    "Encoded",
    "History",
    "Sample",
    "Task",
    "TextCache",
    "embed",
    "encode",
    "fingerprint",
    "fit",
    "sample_at",
]
