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
