"""Two processes of the command line give what one gives with twice the accumulation."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]  # or two CPUs
LAUNCH += ["--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no", "-m", "tutorial_lib"]


@pytest.fixture
def one_thread():
    """As the launched processes have: other threads round otherwise, and Adam makes a step of a rounded zero."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_two_processes_are_one_with_twice_the_accumulation(brief, command, one_thread, tmp_path):
    words = ["train", "lora", *brief("lora"), "--prior", 3, "--steps", 3, "--lr", 1e-3]
    together, alone = tmp_path / "together", tmp_path / "alone"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launched = [sys.executable, *LAUNCH, *map(str, words), "--accumulation", "1", "--output", str(together)]
    run = subprocess.run(launched, capture_output=True, text=True, timeout=600, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("drawing 3 pictures") == 1 and run.stdout.count("weights, README.md") == 1
    assert command(*words, "--accumulation", 2, "--output", alone)[0] == 0
    one, two = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in (alone, together))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=0)
    once = tmp_path / "once"
    assert command(*words, "--accumulation", 1, "--output", once)[0] == 0
    other = load_file(once / "pytorch_lora_weights.safetensors")
    assert max((one[name] - other[name]).abs().max() for name in one) > 1e-4  # so that the test can tell
    assert "3, 4 pictures each" in (together / "README.md").read_text()
