"""Loading: plain diffusers, one precision throughout, and clear errors for what is wrong."""

import json
import shutil

import pytest
import torch

from tutorial_lib import models
from tutorial_lib.pocket import files


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the pocket model that a test may damage."""
    folder = tmp_path / "pocket-sd"
    shutil.copytree(files.POCKET, folder)
    monkeypatch.setattr(files, "POCKET", folder)
    return folder


def test_plain_diffusers_loads_the_same_pipeline_in_one_precision():
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(files.POCKET)
    ours = models.load("pocket", device="cpu")
    for name in ("unet", "vae", "text_encoder"):
        theirs, mine = getattr(plain, name).state_dict(), getattr(ours, name).state_dict()
        assert {t.dtype for t in theirs.values() if t.is_floating_point()} == {torch.float32}
        assert theirs.keys() == mine.keys() and all(torch.equal(theirs[k], mine[k]) for k in theirs)


def test_the_pipelines_text_encoder_is_clips_text_tower():
    pipe, clip = models.load("pocket", device="cpu"), models.load_clip()
    ids = pipe.tokenizer(["a photo of a red mug on a table"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        ours, theirs = pipe.text_encoder(ids)[0], clip.model.text_model(input_ids=ids)[0]
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=1e-2)  # CLIP is stored in half precision


def test_old_versions_of_transformers_find_the_text_encoders_keys():
    from safetensors import safe_open

    with safe_open(files.POCKET / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(key.startswith("text_model.") for key in file.keys())


def test_the_model_is_under_60_megabytes_and_all_of_it_is_hashed():
    sizes = [f.stat().st_size for f in files.POCKET.rglob("*") if f.is_file()]
    assert sum(sizes) < 60e6
    files.check()
    assert len(files.weight_files(files.POCKET)) == 5
    hashed = set(json.loads((files.POCKET / files.HASHES).read_text()))
    read = {f for f in files.POCKET.rglob("*") if f.is_file() and f.parent.name != "training"}
    beside = {"README.md", files.HASHES}
    assert hashed == {f.relative_to(files.POCKET).as_posix() for f in read} - beside


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "judge/model.safetensors",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
        "hashes.json",
    ],
)
def test_a_truncated_file_is_named_with_the_cure(copy, name):
    file = copy / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{name}.*damaged.*git checkout"):
        models.load("pocket")


def test_a_missing_file_is_named_with_the_cure(copy):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"vae/diffusion_pytorch_model.safetensors is missing.*make pretrain"):
        models.load("pocket")


def test_a_damaged_judge_is_an_error_also_when_loaded_alone(tmp_path):
    from tutorial_lib.pocket import judge

    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not json ......")
    with pytest.raises(ValueError, match="damaged"):
        judge.load(tmp_path)


@pytest.mark.parametrize(("profile", "near"), [("poket", "'pocket'"), ("sd-15", "'sd15'")])
def test_an_unknown_profile_names_what_was_meant(profile, near):
    with pytest.raises(ValueError, match=f"unknown profile .* Did you mean {near}"):
        models.load(profile)


def test_a_hub_profile_without_a_network_says_so():
    with pytest.raises(ConnectionError, match=r'needs the model .* models.load\("pocket"\)'):
        models.load("sd15")


@pytest.mark.parametrize("library", models.HTTP_LIBRARIES)
def test_a_network_that_does_not_answer_is_told_alike(monkeypatch, library):
    """The hub's client lets time-outs of its HTTP library through, and they are no OSErrors."""
    timeout = type("ConnectTimeout", (Exception,), {"__module__": f"{library}._exceptions"})

    def never(*_):
        raise timeout("timed out")

    monkeypatch.setattr(models, "_read", never)
    with pytest.raises(ConnectionError, match="no folder here has that name.*timed out"):
        models.load("runs/catt")


def test_an_error_that_has_nothing_to_do_with_the_network_stays_what_it_is(monkeypatch):
    def broken(*_):
        raise KeyError("unet")

    monkeypatch.setattr(models, "_read", broken)
    with pytest.raises(KeyError, match="unet"):
        models.load("sd15")


def test_no_config_names_the_folder_it_was_made_in():
    """diffusers writes where a model was loaded from into what it saves."""
    configs = list(files.POCKET.rglob("*.json"))
    assert len(configs) > 5
    assert not [c for c in configs if "_name_or_path" in c.read_text(encoding="utf-8")]
