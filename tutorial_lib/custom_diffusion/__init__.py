"""Custom Diffusion (Kumari et al. 2023): a new concept from a few pictures, several concepts in one model.

    pipe = models.load("pocket")
    custom_diffusion.add_concept(pipe, "<new1>", init="ktn", class_word="cat")
    data, masks = custom_diffusion.augmented(pipe, pictures, ["a photo of a <new1> cat"] * len(pictures))
    prior = training.encode(pipe, *custom_diffusion.generated(pipe, "cat"))
    training.fit(custom_diffusion.CustomDiffusionTask(pipe, data, masks, prior=prior), ...)
    custom_diffusion.save(custom_diffusion.delta(pipe), "cat.safetensors")

concepts.py        what trains: keys and values of the cross-attention, one embedding row a concept
augmentation.py    pictures in other sizes, with the words for it and a mask of what is valid
regularisation.py  pictures of the class that keep the class what it is
task.py            the loss, for `training.fit`
least_squares.py   the constrained problem behind merging, in closed form
merging.py         several concepts in one model without training
files.py           concepts as safetensors (other programs' files: tutorial_lib/formats_custom_diffusion.py)
"""

from tutorial_lib.custom_diffusion.augmentation import Augmented, augment, augmented
from tutorial_lib.custom_diffusion.concepts import (
    ConceptDelta,
    LowRank,
    add_concept,
    compress,
    delta,
    freeze,
    keys_and_values,
    load_into,
    named_trainable,
    trainable,
)
from tutorial_lib.custom_diffusion.files import load, save
from tutorial_lib.custom_diffusion.least_squares import LeastChange
from tutorial_lib.custom_diffusion.merging import MergeReport, add, drift, merge
from tutorial_lib.custom_diffusion.regularisation import drawn, generated
from tutorial_lib.custom_diffusion.task import CustomDiffusionTask, masked_errors

__all__ = [
    "Augmented",
    "ConceptDelta",
    "CustomDiffusionTask",
    "LeastChange",
    "LowRank",
    "MergeReport",
    "add",
    "add_concept",
    "augment",
    "augmented",
    "compress",
    "delta",
    "drawn",
    "drift",
    "freeze",
    "generated",
    "keys_and_values",
    "load",
    "load_into",
    "masked_errors",
    "merge",
    "named_trainable",
    "save",
    "trainable",
]
