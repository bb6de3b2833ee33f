"""Loads a text-to-image pipeline by profile: the pocket model in this repository, or one from a hub."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from pathlib import Path

from tutorial_lib.pocket import files

HTTP_LIBRARIES = ("httpx", "httpx2", "requests")  # the hub's client has used each; not all their errors are OSErrors
PROFILES = {"sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")}


def load(profile: str = "pocket", device=None, dtype=None):
    """A diffusers `StableDiffusionPipeline`: "pocket", "sd15", a hub id such as "name/model", or a folder.

    device: default the GPU if there is one (CUDA, then Apple's), else the CPU. dtype: default float32, and
    half precision for hub models on CUDA (bfloat16 where the GPU has it). Only a hub model needs the network.
    Raises ValueError for an unknown profile or a damaged file, FileNotFoundError for a missing one,
    ConnectionError when a hub model is neither here nor within reach.
    """
    import torch

    place, revision = source(profile)
    device = torch.device(device or best_device())
    dtype = dtype or _default_dtype(profile, device)
    try:
        pipe = _read(place, revision)
    except Exception as error:
        if Path(place).is_dir() or not _of_the_network(error):
            raise
        raise ConnectionError(
            f"profile {profile!r} needs the model {place} from its hub, since no folder here has that name, and it "
            f"could not be fetched ({error}). Check the name and the connection, or stay offline with "
            'models.load("pocket").'
        ) from error
    with quiet():
        return pipe.to(device, dtype)


def _of_the_network(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in HTTP_LIBRARIES


def _read(source: str, revision: str | None):
    with quiet():
        from diffusers import StableDiffusionPipeline

        options = {"revision": revision} if revision else {}
        return StableDiffusionPipeline.from_pretrained(
            source,
            local_files_only=Path(source).is_dir(),
            safety_checker=None,
            requires_safety_checker=False,
            **options,
        )


@contextmanager
def quiet():
    """Without bars for files that load in a moment, and without notices that need no action here."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    diffusers_level = diffusers_logging.get_verbosity()
    logging.set_verbosity_error()
    diffusers_logging.set_verbosity_error()
    logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        diffusers_logging.set_verbosity(diffusers_level)
        diffusers_logging.enable_progress_bar()
        if bar:
            logging.enable_progress_bar()


def load_clip(profile: str = "pocket", device=None):
    """The CLIP that belongs to a profile: the pocket model's own."""
    if profile != "pocket":
        raise ValueError(f'only the profile "pocket" brings a CLIP of its own, got {profile!r}')
    files.check()
    with quiet():
        from tutorial_lib.pocket import clip

        return clip.load(device=device)


def best_device() -> str:
    """ "cuda", "mps" or "cpu": what this machine has, the fastest first."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def source(profile: str) -> tuple[str, str | None]:
    """Where a profile's files are, and the revision that is pinned."""
    if profile == "pocket":
        files.check()
        return str(files.POCKET), None
    if profile in PROFILES:
        return PROFILES[profile]
    if Path(profile).is_dir():
        return profile, None
    if profile.count("/") == 1 and not profile.startswith((".", "/")):
        return profile, None
    near = difflib.get_close_matches(profile, ["pocket", *PROFILES], 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown profile {profile!r}: expected 'pocket', {', '.join(map(repr, PROFILES))}, a folder that holds a "
        f"pipeline, or a hub id such as 'name/model'.{hint}"
    )


def _default_dtype(profile: str, device):
    import torch

    if profile == "pocket" or device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
