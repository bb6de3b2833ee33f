"""Recording changes no output, maps are probabilities in their places, and the UNet is left as it was."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from tutorial_lib import attention_maps

TOKENS, WIDTH = 7, 24


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, 8, 8, generator=generator), torch.randn(3, TOKENS, WIDTH, generator=generator)


@torch.no_grad()
def test_recording_changes_no_output_and_the_processors_come_back(unet, batch):
    x, words = batch
    before = {name: id(processor) for name, processor in unet.attn_processors.items()}
    plain = unet(x, 500, words).sample
    with attention_maps.record(unet):
        recorded = unet(x, 500, words).sample
    assert (recorded - plain).abs().max() < 1e-5 * plain.abs().max()
    assert {name: id(processor) for name, processor in unet.attn_processors.items()} == before


@torch.no_grad()
def test_an_error_inside_leaves_the_unet_as_it_was(unet):
    before = [type(processor) for processor in unet.attn_processors.values()]
    with pytest.raises(RuntimeError), attention_maps.record(unet):
        raise RuntimeError
    assert [type(processor) for processor in unet.attn_processors.values()] == before


@torch.no_grad()
def test_maps_are_probabilities_over_the_tokens_for_each_picture_alone(unet, batch):
    x, words = batch
    with attention_maps.record(unet) as maps:
        unet(x, 500, words)
    with attention_maps.record(unet) as second:
        unet(x[1:2], 500, words[1:2])
    assert maps.sides == [4, 8]
    for side in maps.sides:
        A = maps.mean(side)
        assert A.shape == (3, TOKENS, side, side) and A.min() > 0
        assert torch.allclose(A.sum(1), torch.ones(3, side, side))
        assert torch.allclose(A[1:2], second.mean(side), atol=1e-6)
        assert A.std(1).max() > 1e-4


@torch.no_grad()
def test_calls_and_layers_are_averaged(unet, batch):
    x, words = batch
    alone = []
    for t in (900, 100):
        with attention_maps.record(unet) as maps:
            unet(x, t, words)
        alone.append(maps.mean(4))
    with attention_maps.record(unet) as maps:
        unet(x, 900, words)
        unet(x, 100, words)
    assert (alone[0] - alone[1]).abs().max() > 1e-5
    assert torch.allclose(maps.mean(4), torch.stack(alone).mean(0), atol=1e-6)


def test_a_map_is_where_its_place_looks():
    """One layer by hand: place (row 1, column 2) of 3 x 3 reads token 4 only, all others token 0."""
    maps = attention_maps.AttentionMaps()
    A = torch.zeros(1, 9, TOKENS)
    A[0, :, 0] = 1
    A[0, 5] = torch.eye(TOKENS)[4]
    maps.add("layer", A)
    expected = torch.zeros(3, 3)
    expected[1, 2] = 1
    assert torch.equal(maps.mean(3)[0, 4], expected)


def test_bad_input_is_explained(unet, batch):
    maps = attention_maps.AttentionMaps()
    with pytest.raises(ValueError, match="sample inside"):
        maps.mean(8)
    maps.add("layer", torch.ones(2, 9, TOKENS))
    with pytest.raises(ValueError, match="record anew"):
        maps.add("layer", torch.ones(3, 9, TOKENS))
    maps.add("wide", torch.ones(2, 6, TOKENS))
    with pytest.raises(ValueError, match="square"):
        maps.mean(3)
    x, words = batch
    with attention_maps.record(unet), pytest.raises(ValueError, match="no masks"):
        unet(x, 500, words, encoder_attention_mask=torch.ones(3, TOKENS))
