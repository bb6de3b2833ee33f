import subprocess
import sys

import numpy as np
import pytest
import torch

from tutorial_lib.lab import session


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """`start` sets how much the libraries say; the next test finds that as it was."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        monkeypatch.setenv(name, "warning")


def test_start_seeds_everything_and_says_what_the_machine_has(capsys, monkeypatch):
    monkeypatch.setattr("tutorial_lib.profiles.obstacle", lambda profile: None)  # as on a machine with a GPU
    lesson = session.start("04", profile="sd15", seed=7)
    first = (np.random.rand(), torch.rand(1).item())
    session.start("04", profile="sd15", seed=7)
    assert (np.random.rand(), torch.rand(1).item()) == first
    assert (lesson.number, lesson.profile, lesson.seed) == ("04", "sd15", 7)
    assert (lesson.root / "tutorial_lib").is_dir()
    printed = capsys.readouterr().out
    assert "Lesson 04, model 'sd15', seed 7" in printed and f"torch {torch.__version__.partition('+')[0]}" in printed
    assert f"processor cores: {session.cores()}" in printed


def test_without_a_gpu_the_lesson_stays_on_the_pocket_model_and_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert session.start("04", profile="sd15").profile == "pocket"
    printed = capsys.readouterr().out
    assert "needs a GPU" in printed and "staying on the pocket model" in printed and "model 'pocket'" in printed


def test_peak_memory_keeps_what_was_freed():
    code = (
        "from tutorial_lib.lab import session\n"
        "before = session.peak_memory_mb()\n"
        "block = bytearray(200_000_000); del block\n"
        "print(session.peak_memory_mb() - before)"
    )
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 190 < grown < 260


def test_importing_the_lab_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from tutorial_lib.lab import claims, plots, session, widgets\n"
        "print([name for name in ('torch', 'diffusers', 'matplotlib', 'ipywidgets') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
