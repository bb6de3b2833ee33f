import os
import socket

import pytest

# Set before anything imports the hub's client; the notebooks' kernels inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TUTORIAL_STRICT"] = "1"  # a check that is not passed fails its notebook


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any connection that leaves this machine fails the test that makes it."""
    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("localhost", "127.0.0.1", "::1"):
            pytest.fail(f"A test may not use the network, and this one connects to {address}.")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture
def small_unet():
    """A UNet of random weights that fits the pocket pipeline and trains fast."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()
