import pytest
import torch
from diffusers import UNet2DConditionModel

from tutorial_lib import models, training
from tutorial_lib.pocket.subjects import SUBJECTS
from tutorial_lib.pocket.world import draw


@pytest.fixture(scope="package")
def loaded():
    return models.load("pocket", device="cpu")


@pytest.fixture
def pipe(loaded):
    """The pocket pipeline with a small UNet of random weights, which a test may train."""
    torch.manual_seed(0)
    loaded.unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()
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
