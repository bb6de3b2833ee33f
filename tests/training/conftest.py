import pytest

from tutorial_lib import models, training
from tutorial_lib.pocket.subjects import SUBJECTS
from tutorial_lib.pocket.world import draw


@pytest.fixture(scope="package")
def loaded():
    return models.load("pocket", device="cpu")


@pytest.fixture
def pipe(loaded, small_unet):
    """The pocket pipeline with a small UNet of random weights, which a test may train."""
    loaded.unet = small_unet
    loaded.scheduler.register_to_config(prediction_type="epsilon")
    return loaded


def encoded(pipe, slug: str, count: int):
    subject = SUBJECTS[slug]
    return training.encode(
        pipe, [draw(scene) for scene in subject.scenes[:count]], [subject.caption(k) for k in range(count)]
    )


@pytest.fixture
def cat(pipe):
    return encoded(pipe, "two-tone-cat", 4)


@pytest.fixture
def mug(pipe):
    return encoded(pipe, "heart-mug", 3)
