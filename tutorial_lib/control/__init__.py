"""Spatial control of a frozen diffusion model: ControlNet, its ablations, and OFT and LoRA that see a hint.

    branch = control.from_unet(pipe.unet, "full", vae_factor=4)
    data = control.scene_pairs(pipe, "edges", scenes)
    training.fit(control.ControlTask(pipe, branch, data), ...)
    control.generate(pipe, branch, prompts, controls)
    branch.save_pretrained("edges")                # control.load("edges"), or plain diffusers

hint_encoders.py   from a hint in pixels to features as large as the latents
branch.py          ControlNet, ControlNet-lite, Gaussian convolutions
adapters.py        OFT and LoRA for control
prediction.py      the UNet under control: ε, and whole pictures
pairs.py           pictures, hints and captions, encoded once
task.py            what `training.fit` trains
watching.py        fixed prompts drawn during training; sudden convergence
recipe.py          the settings and scenes of lesson 08 and its benchmark
"""

from tutorial_lib.control.adapters import adapter_parameters, with_lora, with_oft
from tutorial_lib.control.branch import ControlNetLite, ControlNetPaperHint, from_unet, load, zero_convolutions
from tutorial_lib.control.hint_encoders import HintEncoder, PaperHintEncoder, code_widths, vae_factor, zero
from tutorial_lib.control.pairs import Pairs, encode_pairs, scene_pairs
from tutorial_lib.control.prediction import check_fit, generate, hinted, picture_side, predict
from tutorial_lib.control.recipe import EDGES, TEST, TRAINING, Recipe, edge_ceiling, scenes, through_vae
from tutorial_lib.control.task import ControlTask
from tutorial_lib.control.watching import Probe, edge_scores, sudden_convergence

__all__ = [
    "EDGES",
    "TEST",
    "TRAINING",
    "ControlNetLite",
    "ControlNetPaperHint",
    "ControlTask",
    "HintEncoder",
    "Pairs",
    "PaperHintEncoder",
    "Probe",
    "Recipe",
    "adapter_parameters",
    "check_fit",
    "code_widths",
    "edge_ceiling",
    "edge_scores",
    "from_unet",
    "generate",
    "hinted",
    "load",
    "encode_pairs",
    "picture_side",
    "predict",
    "scene_pairs",
    "scenes",
    "sudden_convergence",
    "through_vae",
    "vae_factor",
    "with_lora",
    "with_oft",
    "zero",
    "zero_convolutions",
]
