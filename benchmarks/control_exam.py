"""What is asked of a control in benchmarks/control.py, and how its pictures are scored: one exam for each control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tutorial_lib import control, metrics, sampling
from tutorial_lib.pocket import conditions, world
from tutorial_lib.pocket.scene import Scene

REGIMES = ("none", "insufficient", "conflicting", "perfect")  # of prompts, as in the paper
INSUFFICIENT = "a picture"
MEASURES = {
    "edges": ("F1", "IoU", "things"),  # things: the judge finds in the picture what the edges are of, no more, no less
    "segmentation": ("mIoU", "mAcc", "aAcc", "KID", "CLIP-T"),  # the last: with the scene's caption, also if unsaid
    "landmarks": ("error",),  # in pixels
}
FALLING = ("KID", "error")  # the smaller the better

TESTED = 48  # scenes that are drawn before and after training
SAMPLING = 10  # DDIM steps of a picture
NOISE = 1000  # the first picture's seed in a run of seed 0; each run has its own thousand
PICTURED = 6  # scenes on a sheet


def scenes(kind: str, stream: int, count: int) -> list[Scene]:
    """The first `count` scenes of TRAINING or TEST that have this control: landmarks need a person alone."""
    if kind == "landmarks":
        return control.scenes(stream, count, lambda scene: kinds(scene) == ["person"])
    return control.scenes(stream, count)


def kinds(picture) -> list[str]:
    """What a scene shows, or what the judge reads in a picture."""
    return sorted(thing.kind for thing in picture.things)


class Exam:
    """The scenes to test one control with, their hints and prompts, and the scores of pictures drawn for them."""

    def __init__(self, pipe, kind: str, judge, clip):
        self.kind, self.judge, self.clip = kind, judge, clip
        self.scenes = scenes(kind, control.TEST, TESTED)
        pictures = [world.draw(scene) for scene in self.scenes]
        self.controls = [
            conditions.of_picture(kind, picture) if kind == "edges" else conditions.of_scene(kind, scene)
            for scene, picture in zip(self.scenes, pictures)
        ]
        self.captions = [world.caption(scene) for scene in self.scenes]
        self.real = self._others() if kind == "segmentation" else []
        self.ceiling = self.scores(control.through_vae(pipe, pictures))

    def _others(self) -> list:
        """True pictures of as many scenes that no hint is taken from, to compare distributions with."""
        count = len(self.scenes)
        return [world.draw(scene) for scene in scenes(self.kind, control.TEST, 2 * count)[count:]]

    # -------------------------------------------------------------- scores

    def scores(self, pictures: list) -> dict[str, float]:
        """Every measure of the control, of pictures of the first scenes."""
        made = {"edges": self._edges, "segmentation": self._segmentation, "landmarks": self._landmarks}
        return made[self.kind](pictures)

    def _edges(self, pictures: list) -> dict[str, float]:
        readings = self.judge.read(pictures)
        right = [kinds(scene) == kinds(reading) for scene, reading in zip(self.scenes, readings)]
        return control.edge_scores(pictures, self.controls[: len(pictures)]) | {"things": sum(right) / len(right)}

    def _segmentation(self, pictures: list) -> dict[str, float]:
        asked = np.stack([world.segmentation(scene) for scene in self.scenes[: len(pictures)]])
        seen = self.judge.segment(pictures).cpu().numpy()
        return metrics.segmentation_scores(seen, asked) | {
            "KID": metrics.kid(self.real, pictures, self.judge),
            "CLIP-T": metrics.clip_text(pictures, self.captions[: len(pictures)], self.clip),
        }

    def _landmarks(self, pictures: list) -> dict[str, float]:
        asked = np.stack([world.landmarks(scene) for scene in self.scenes[: len(pictures)]])
        return {"error": metrics.landmark_error(self.judge.landmarks(pictures).cpu().numpy(), asked)}

    # -------------------------------------------------------------- questions

    def prompts(self, regime: str, count: int) -> list[str]:
        """One for each of the first scenes. "conflicting": the caption of the next scene that has nothing of it."""
        if regime == "conflicting":
            return [self.captions[self.stranger(k)] for k in range(count)]
        return {"none": [""] * count, "insufficient": [INSUFFICIENT] * count, "perfect": self.captions[:count]}[regime]

    def stranger(self, k: int) -> int:
        """The next scene after k with none of its things, counted round."""
        count = len(self.scenes)
        others = [(k + away) % count for away in range(1, count)]
        return next(other for other in others if not set(kinds(self.scenes[k])) & set(kinds(self.scenes[other])))

    def draw(self, pipe, model, regime: str, count: int, seed: int) -> list:
        """Pictures of the first `count` scenes; picture i has the noise i of the run's seed."""
        guidance = 1.0 if regime == "none" else sampling.DEFAULT_GUIDANCE  # without a prompt it would do nothing
        options = {"num_inference_steps": SAMPLING, "guidance_scale": guidance, "progress": False}
        prompts, controls = self.prompts(regime, count), self.controls[:count]
        return control.generate(pipe, model, prompts, controls, seed=NOISE * (seed + 1), **options)

    def look(self, pipe, model, regimes: Sequence[str], count: int, seed: int) -> dict[tuple[str, str], float]:
        """{(regime, measure): score} of the first `count` scenes."""
        found = {}
        for regime in regimes:
            scores = self.scores(self.draw(pipe, model, regime, count, seed))
            found |= {(regime, name): score for name, score in scores.items()}
        return found

    def sheet(self, pipe, model, regimes: Sequence[str], seed: int) -> Image.Image:
        """The first scenes' pictures, a row for each regime, without words: a lesson cuts them out again."""
        rows = [self.draw(pipe, model, regime, PICTURED, seed) for regime in regimes]
        width, height = rows[0][0].size
        sheet = Image.new("RGB", (PICTURED * width, len(rows) * height))
        for i, row in enumerate(rows):
            for j, picture in enumerate(row):
                sheet.paste(picture, (j * width, i * height))
        return sheet
