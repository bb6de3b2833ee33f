"""The beginning of a lesson: what this machine can do, one profile, one seed."""

from __future__ import annotations

import os
import platform
import random
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
STRICT = "TUTORIAL_STRICT"


@dataclass(frozen=True)
class Lesson:
    """A started lesson: its number, the model profile, the seed, and the folder that holds data/ and results/."""

    number: str
    profile: str
    seed: int
    root: Path = ROOT


def start(lesson: str, profile: str = "pocket", seed: int = 0) -> Lesson:
    """Seeds Python, NumPy and torch, and prints what this machine can do.

    `profile` is the model for the whole lesson: "pocket", "sd15", a hub id or a folder. Where one cannot be used (no
    GPU, no network) a sentence says so, and the lesson stays on the pocket model: the profile of the returned lesson.
    """
    _quieten_libraries()
    import numpy as np
    import torch

    from tutorial_lib import profiles

    profile = profiles.usable(profile)

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    print(f"Lesson {lesson}, model {profile!r}, seed {seed}")
    print("\n".join(machine()))
    return Lesson(lesson, profile, seed)


def _quieten_libraries() -> None:
    """Keeps away messages of the libraries that a reader can do nothing about; errors still come through."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # read when they are imported
        os.environ.setdefault(name, "error")
    warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)


def machine() -> list[str]:
    """Lines that say what this machine has: versions, cores, memory, GPU."""
    libraries = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in ("torch", "diffusers"))
    return [
        f"Python {platform.python_version()}, {libraries}",
        f"processor cores: {cores()}, memory: {memory_gb():.0f} GB",
        gpu(),
    ]


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; on shared machines a process may not use every core
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float:
    """The machine's memory in GB."""
    import psutil

    return psutil.virtual_memory().total / 1e9


def gpu() -> str:
    """One line about the accelerator."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return f"GPU: {properties.name}, {properties.total_memory / 1e9:.0f} GB"
    if torch.backends.mps.is_available():
        return "GPU: Apple silicon"
    return "No GPU, and none is needed for the pocket model"


def peak_memory_mb() -> float:
    """The most memory that this process ever held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would include the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def strict() -> bool:
    """True while the course is being built: then a check that is not passed raises."""
    return os.environ.get(STRICT) == "1"
