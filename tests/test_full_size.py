"""The benchmark at full size, run at a tenth of it: the same functions, the plans of the GPUs, the table."""

import dataclasses
import math

import full_size
import pytest
import torch

from tutorial_lib import profiles

NARROW = {
    **{"widths": (32, 64, 96, 96), "text": 64, "side": 8, "vae": (8, 8, 8, 8)},
    **{"layers": 2, "heads": 2, "groups": (8, 4)},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full-size")
    full_size.random_pipeline(folder / "words", **NARROW).save_pretrained(folder / "model")
    full_size.enlarged_pictures(folder / "pictures", 64)
    return folder


def test_the_full_configuration_is_stable_diffusions(tmp_path):
    with torch.device("meta"):
        pipe = full_size.random_pipeline(tmp_path, **full_size.SD15)
    assert sum(p.numel() for p in pipe.unet.parameters()) == 859_520_964
    counted = sum(p.numel() for part in (pipe.vae, pipe.text_encoder) for p in part.parameters()) / 1e6
    assert profiles.REST - 40 < counted < profiles.REST, "less only the table of words"


@pytest.mark.parametrize("method", ["control", "textual-inversion", "lora"])
def test_a_method_is_measured_as_the_plan_for_the_gpu_says(method, place):
    row = full_size.measured(place / "model", place / "pictures", method, "T4", place / f"out-{method}")
    plan = profiles.plan(profiles.STABLE_DIFFUSION, method, full_size.GPUS["T4"], prior=method == "lora")
    assert (row.batch, row.accumulation) == (plan.batch_size, plan.accumulation)
    assert (row.precision, row.checkpointing) == ("fp16", plan.gradient_checkpointing)
    assert row.seconds > 0 and math.isnan(row.peak_gb) and row.device == "CPU"


def test_the_report_says_whether_it_fits():
    row = full_size.Row("lora", "T4", 1, 1, "fp16", False, 0.5, 9.0, 8.0, "some GPU", "random")
    large = dataclasses.replace(row, method="dreambooth", peak_gb=15.9)
    lines = list(full_size.report([row, large]))
    assert lines[0].endswith("9.0 GB (estimate 8.0): fits") and lines[1].endswith(
        "15.9 GB (estimate 8.0): does not fit"
    )


def test_without_a_gpu_nothing_is_measured_and_that_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["full_size.py", "--out", str(tmp_path / "full_size.csv")])
    assert full_size.main() == 1
    assert "no CUDA GPU" in capsys.readouterr().err and not (tmp_path / "full_size.csv").exists()
