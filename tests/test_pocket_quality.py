"""The benchmark's own promises: the same balanced list of prompts, floors where they belong, copies found."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tutorial_lib import metrics, models
from tutorial_lib.metrics import HIDDEN
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket import world
from tutorial_lib.pocket.scene import EXTRAS, STYLES, held_out_pairs


@pytest.fixture(scope="module")
def quality():
    import pocket_quality

    return pocket_quality


@pytest.fixture(scope="module")
def cases(quality):
    return quality.make_cases()


def test_half_of_the_prompts_hold_pairs_that_training_never_saw(cases):
    assert len(cases) == 500 and [case.seed for case in cases] == list(range(500))
    assert Counter(case.split for case in cases) == {"seen": 250, "held-out": 250}
    assert all(bool(held_out_pairs(case.scene)) == (case.split == "held-out") for case in cases)


def test_each_figure_counts_enough_pictures(quality, cases):
    styles = Counter(case.scene.style for case in cases)
    assert 230 <= styles["photo"] <= 270 and all(styles[style] >= 60 for style in STYLES)
    people = [case.scene for case in cases if quality.plan_of(case.scene) == "person"]
    for extra in EXTRAS:
        shown = [s for s in people if extra in s.things[0].extras and extra not in HIDDEN.get(s.style, ())]
        assert len(shown) >= 48
        assert {scene.style for scene in shown} == set(STYLES) - {s for s in STYLES if extra in HIDDEN.get(s, ())}
    for split, least in (("seen", 60), ("held-out", 100)):
        plans = Counter(quality.plan_of(case.scene) for case in cases if case.split == split)
        assert plans["object"] + plans["worn"] >= least
        assert plans["two objects"] + plans["person and object"] >= least


def test_the_list_and_the_sheet_are_the_same_every_time(quality, cases):
    assert quality.make_cases() == cases
    sheet = quality.contact_scenes()
    assert sheet == quality.contact_scenes()
    assert len(sheet) == 8 and all(len(row) == 12 for row in sheet.values())
    prompts = [world.caption(scene) for row in sheet.values() for scene in row]
    assert len(set(prompts)) == len(prompts)


def test_pictures_go_through_the_vae_in_batches_and_keep_their_order(quality, monkeypatch):
    sizes = []
    monkeypatch.setattr(quality.control, "through_vae", lambda pipe, batch: sizes.append(len(batch)) or batch)
    images = np.random.default_rng(0).integers(0, 256, (51, 4, 6, 3), dtype=np.uint8)
    assert np.array_equal(quality.round_trip(None, images), images) and sizes == [26, 25]


def test_a_held_out_figure_is_measured_by_the_seen_one(quality):
    def row(split, value, style="photo"):
        return quality.Row("pictures", "colour", split, style, value, 40, floor=0.92)

    rows = quality.with_held_out_floors([row("seen", 0.99), row("held-out", 0.93), row("held-out", 0.91, "all")])
    assert [r.floor for r in rows] == [0.92, pytest.approx(0.94), 0.92]
    assert [r.reached for r in rows] == [True, False, False]
    lines = list(quality.report(rows))
    assert "0.930 (40) -0.94" in lines[2] and lines[-1].endswith("Not: 2, of which 2 by one picture.")


def test_a_floor_that_one_picture_would_reach_is_told_apart(quality):
    def row(value, count, floor):
        return quality.Row("pictures", "colour", "seen", "photo", value, count, floor)

    assert row(11 / 12, 12, 0.92).nearly and not row(12 / 12, 12, 0.92).nearly  # one wrong; none wrong
    assert not row(10 / 12, 12, 0.92).nearly and not row(0.90, 100, 0.92).nearly  # two wrong; ten
    assert not row(30.9, 250, 31.0).nearly  # decibels are no share


class PixelJudge:
    def features(self, images):
        return torch.from_numpy(images[:, ::8, ::8]).flatten(1).float()


def test_copies_of_training_pictures_are_found(quality):
    rng = np.random.default_rng(0)
    training, fresh = rng.integers(0, 256, (2, 40, 64, 64, 3), dtype=np.uint8)
    copies = training[[7, 3, 3, 30]].copy()
    copies[:, :2] ^= 1  # a little noise
    rows, neighbours = quality.copy_rows(copies, fresh, training, PixelJudge())
    shares = {row.figure: row.value for row in rows if row.figure.startswith("nearer")}
    assert shares == {"nearer than fresh (features)": 1.0, "nearer than fresh (pixels)": 1.0}
    assert list(neighbours["pixels"]) == list(neighbours["features"]) == [7, 3, 3, 30]
    rows, _ = quality.copy_rows(fresh[:20], fresh[20:], training, PixelJudge())
    assert all(row.value <= 0.2 for row in rows if row.figure.startswith("nearer"))


def _recorded(figure, split, style):
    rows = csv.DictReader((Path(__file__).parents[1] / "results" / "pocket_quality.csv").open())
    keys = ("pictures", figure, split, style)
    row = next(r for r in rows if (r["subject"], r["figure"], r["split"], r["style"]) == keys)
    return float(row["value"]), int(row["count"])


def _worn(scene):
    return any(getattr(thing, "worn", ()) for thing in scene.things)


def test_rows_of_the_results_come_out_again(quality, cases):
    """All pictures that one row counts are made and read again; another machine's rounding may flip one answer."""
    chosen = [c for c in cases if (c.split, c.scene.style) == ("held-out", "pixel art") and _worn(c.scene)]
    images = quality.make_pictures(models.load("pocket"), chosen)
    shares = metrics.prompt_fidelity(images, [case.scene for case in chosen], pocket_judge.load())
    value, count = _recorded("worn", "held-out", "pixel art")
    assert shares["worn"].count == count >= 6
    assert abs(shares["worn"].right - value * count) < 1.5
