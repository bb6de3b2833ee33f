import pytest

from tutorial_lib import models, sampling


@pytest.fixture(scope="session")
def pipe():
    return models.load("pocket", device="cpu")


@pytest.fixture(scope="session")
def latents(pipe):
    return sampling.noise(pipe, [11, 12])
