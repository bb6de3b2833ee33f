"""Pipelines with random weights, as folders: Stable Diffusion 1.5's configuration at a tenth of its width, and less."""

import pytest
from full_size import random_pipeline

from tutorial_lib.cli.main import main
from tutorial_lib.pocket.subjects import FOLDER

CAT = FOLDER / "two-tone-cat"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="session")
def sd(tmp_path_factory):
    """The folder: four levels, two layers each, a VAE that halves three times, 77 tokens; 64x64 pictures."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    _pipeline(tmp_path_factory.mktemp("words"), (32, 64, 96, 96)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Two levels, one layer each, for what does not depend on the architecture."""
    return _tiny(tmp_path_factory, (32, 64), 64)


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Of other widths."""
    return _tiny(tmp_path_factory, (64, 96), 96)


def _tiny(tmp_path_factory, widths: tuple, text: int):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    levels = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
    }
    _pipeline(tmp_path_factory.mktemp("words"), widths, text, **levels).save_pretrained(folder)
    return folder


def _pipeline(words, widths: tuple, text: int = 64, **levels):
    sizes = {"side": 8, "vae": (8, 8, 8, 8), "layers": 2, "heads": 2, "groups": (8, 4)}
    return random_pipeline(words, widths, text, **sizes, **levels)


@pytest.fixture
def command(capsys):
    """Runs a command in this process: exit code, what it printed, what it complained of."""

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse, for options that it cannot understand
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def brief(tiny):
    """Options for a training of two steps on the tiny model that changes the weights visibly."""

    def options(method: str, profile=tiny) -> list:
        words = ["--profile", profile, "--pictures", CAT, "--steps", 2, "--lr", 1e-2, "--batch-size", 2]
        words += ["--sampling-steps", 2, "--every", 2]
        return words if method == "control" else [*words, "--class", "cat", "--prior", 0]

    return options


@pytest.fixture
def train(command, brief, tmp_path):
    """Trains a method for a moment on the tiny model; the output folder."""

    def run(method: str, *words, output: str | None = None, **options):
        folder = tmp_path / (output or method)
        code, _, said = command("train", method, *brief(method, **options), "--output", folder, *words)
        assert code == 0, said
        return folder

    return run
