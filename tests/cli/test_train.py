"""Each method from a folder of pictures to files that other programs load, on Stable Diffusion's configuration."""

import csv
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tutorial_lib import models, profiles, training
from tutorial_lib.cli import options, weights
from tutorial_lib.pocket.subjects import FOLDER

CAT = FOLDER / "two-tone-cat"
NOISE = torch.Generator().manual_seed(1)
LATENTS = torch.randn(2, 4, 8, 8, generator=NOISE)


@torch.no_grad()
def look(pipe, prompt: str = "a photo of a sks cat") -> torch.Tensor:
    context = training.embed(pipe, [prompt, prompt])
    return pipe.unet(LATENTS, torch.tensor([700, 20]), context).sample


def diffusers_pipeline(folder):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)


def load_elsewhere(method: str, folder, sd):
    """As the model card says, without this library where that is possible."""
    if method == "dreambooth":
        return diffusers_pipeline(folder)
    pipe = diffusers_pipeline(sd)
    if method in ("oft", "coft"):
        from peft import PeftModel

        pipe.unet = PeftModel.from_pretrained(pipe.unet, folder).merge_and_unload()
    elif method == "lora":
        pipe.load_lora_weights(folder)
    elif method == "textual-inversion":
        pipe.load_textual_inversion(folder)
    return pipe


@pytest.mark.parametrize("method", ["oft", "coft", "lora", "dreambooth", "textual-inversion"])
def test_what_a_method_learned_loads_in_other_programs(method, train, sd):
    folder = train(method, profile=sd)
    assert not [f for f in folder.rglob("*.json") if "_name_or_path" in json.loads(f.read_text())]  # of this machine
    prompt = "a photo of a <new1> cat" if method == "textual-inversion" else "a photo of a sks cat"
    base = models.load(str(sd), "cpu")
    if method == "textual-inversion":
        from tutorial_lib import custom_diffusion

        custom_diffusion.add_concept(base, "<new1>", "ktn")
    ours = models.load(str(folder if method == "dreambooth" else sd), "cpu")
    if method != "dreambooth":
        assert weights.put(ours, folder) is None
    theirs = look(load_elsewhere(method, folder, sd), prompt)
    assert not torch.allclose(look(ours, prompt), look(base, prompt), atol=1e-4)
    torch.testing.assert_close(theirs, look(ours, prompt), atol=1e-5, rtol=1e-4)


def test_custom_diffusion_learns_a_word_beside_pictures_of_its_class(train, sd):
    folder = train("custom", "--prior", 3, profile=sd)
    assert len(list((folder / "checkpoints" / "prior").glob("*.png"))) == 3
    base, ours = models.load(str(sd), "cpu"), models.load(str(sd), "cpu")
    weights.put(ours, folder)
    assert "<new1>" in ours.tokenizer.get_added_vocab()
    assert not torch.allclose(look(ours), look(base), atol=1e-4)
    assert "3 pictures of its class" in (folder / "README.md").read_text()


@pytest.mark.parametrize("branch", ["full", "lite", "oft"])
def test_a_control_reloads_and_sees_its_hint(branch, train, sd, command, tmp_path):
    folder = train("control", "--branch", branch, "--gradient-checkpointing", profile=sd)
    assert not [f for f in folder.rglob("*.json") if "_name_or_path" in json.loads(f.read_text())]
    if branch == "full":
        from diffusers import ControlNetModel

        ControlNetModel.from_pretrained(folder, local_files_only=True)
    drawn = []
    for picture in ("0.png", "1.png"):
        words = ["--weights", folder, "--prompts", "a cat", "--count", 1, "--sampling-steps", 2]
        code, _, said = command("generate", *words, "--edges-of", CAT / picture, "--output", tmp_path / picture)
        assert code == 0, said
        drawn.append(Image.open(tmp_path / picture / "0000.png").tobytes())
    assert drawn[0] != drawn[1]


def test_a_branch_in_half_precision_is_half_the_file_and_nearly_the_same(train, sd):
    name = "diffusion_pytorch_model.safetensors"
    whole = train("control", output="whole", profile=sd) / name
    half = train("control", "--half", output="half", profile=sd) / name
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    rounded = load_file(half)
    for key, tensor in load_file(whole).items():
        torch.testing.assert_close(rounded[key].float(), tensor, atol=1e-4, rtol=1e-3)


def test_rotations_are_not_saved_in_half_precision(command, tiny, tmp_path):
    words = ["--profile", tiny, "--pictures", CAT, "--branch", "oft", "--half", "--output", tmp_path / "none"]
    code, _, said = command("train", "control", *words)
    assert code == 2 and "orthogonal" in said and not (tmp_path / "none").exists()


def test_the_card_loads_from_where_the_command_ran_and_names_no_absolute_place(command, brief, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("train", "lora", *brief("lora"), "--output", "runs/mug")[0] == 0
    card = (tmp_path / "runs" / "mug" / "README.md").read_text()
    assert 'load_lora_weights("runs/mug")' in card and "# mug" in card
    assert str(tmp_path) not in card


def test_the_output_tells_all_of_the_run(train, tiny):
    folder = train("lora", "--seed", 3, "--rank", 5)
    settings = options.read(folder / "training.toml")
    expected = {"profile": str(tiny), "seed": 3, "rank": 5, "steps": 2, "lr": 0.01, "batch_size": 2, "class": "cat"}
    assert {key: settings[key] for key in expected} == expected
    card = (folder / "README.md").read_text()
    for words in (
        "LoRA",
        "5 pictures of one subject",
        "| seed | 3 |",
        "2, 2 pictures each",
        'load_lora_weights("lora")',
    ):
        assert words in card
    with (folder / "history.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2"]
    assert [f.name for f in sorted((folder / "samples").iterdir())] == ["step_000000.png", "step_000002.png"]
    sheets = [Image.open(f).tobytes() for f in sorted((folder / "samples").iterdir())]
    assert sheets[0] != sheets[1]
    assert not (folder / ".partial").exists()


def test_the_settings_beside_the_weights_make_the_same_run_again(train, command, tmp_path):
    first = train("lora", "--seed", 1)
    again = tmp_path / "again"
    assert command("train", "lora", "--config", first / "training.toml", "--output", again)[0] == 0
    name = "pytorch_lora_weights.safetensors"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    other = tmp_path / "other"
    assert command("train", "lora", "--config", first / "training.toml", "--seed", 2, "--output", other)[0] == 0
    assert (first / name).read_bytes() != (other / name).read_bytes()


def test_a_run_goes_on_where_its_checkpoint_is_kept(train, command, tmp_path):
    """As after a disconnect on Colab: the output is gone, the checkpoints on another disk are not."""
    whole = train("lora", "--steps", 4, output="whole")
    kept = tmp_path / "drive"
    half = train("lora", "--checkpoints", kept, output="half")
    assert sorted(f.name for f in kept.iterdir()) == ["checkpoint.pt", "training.toml"]
    assert not (half / "checkpoints").exists()
    code, _, said = command(
        "train", "lora", "--checkpoints", kept, "--output", tmp_path / "end", "--steps", 4, "--resume"
    )
    assert code == 0, said
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "end" / name).read_bytes() == (whole / name).read_bytes()


def test_nothing_is_overwritten(train, command, brief, tmp_path):
    folder = train("oft")
    before = (folder / "adapter_model.safetensors").read_bytes()
    words = ["train", "oft", *brief("oft"), "--output", folder]
    code, _, said = command(*words, "--seed", 7)
    assert code == 2 and "--resume goes on with it, --force sets it aside" in said
    assert (folder / "adapter_model.safetensors").read_bytes() == before
    code, said, _ = command(*words, "--seed", 7, "--force")
    assert code == 0 and "is now in" in said
    assert (tmp_path / "oft.1" / "adapter_model.safetensors").read_bytes() == before
    assert (folder / "adapter_model.safetensors").read_bytes() != before


def test_another_run_does_not_go_on_from_a_checkpoint(train, command):
    folder = train("lora")
    code, _, said = command("train", "lora", "--output", folder, "--resume", "--lr", 1e-3)
    assert code == 2 and "is the checkpoint of another run" in said and "lr: 0.01 there, 0.001 now" in said


def test_out_of_memory_names_the_next_smaller_setting(command, brief, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(training, "fit", full)
    words = ["train", "lora", *brief("lora"), "--output"]
    code, _, said = command(*words, tmp_path / "a")
    assert code == 2 and "--batch-size 1 --accumulation 2" in said and "Traceback" not in said
    code, _, said = command(*words, tmp_path / "b", "--batch-size", 1)
    assert code == 2 and "--gradient-checkpointing" in said


def test_another_error_of_torch_is_not_hidden(command, brief, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(training, "fit", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        command("train", "lora", *brief("lora"), "--output", tmp_path / "a")


def test_the_pocket_model_is_the_default_and_scenes_teach_it_a_control(command, tmp_path):
    words = ["--steps", 2, "--batch-size", 2, "--scenes", 5, "--sampling-steps", 2, "--kind", "landmarks"]
    code, _, said = command("train", "control", *words, "--branch", "lite", "--output", tmp_path / "faces")
    assert code == 0, said
    assert "5 pairs of a picture and its control (landmarks)" in (tmp_path / "faces" / "README.md").read_text()
    assert options.read(tmp_path / "faces" / "training.toml")["lr"] == profiles.POCKET.recipes["control"].lr


@pytest.mark.parametrize("method", ["oft", "lora", "custom", "control"])
def test_in_half_precision_as_on_a_gpu(method, train, monkeypatch, tiny):
    """The frozen weights in bf16, what is trained in float32, as `profiles` chooses on a GPU; here on the CPU."""
    half = torch.float32 if method in profiles.WHOLE_PRECISION else torch.bfloat16
    monkeypatch.setattr(profiles, "weights_dtype", lambda *_: half)
    folder = train(method, "--precision", "bf16", "--warmup", 2)
    assert options.read(folder / "training.toml")["precision"] == "bf16"
    pipe = models.load(str(tiny), "cpu", half)
    weights.put(pipe, folder)
    [file] = folder.glob("*.safetensors")
    learned = load_file(file)
    assert all(t.isfinite().all() and t.dtype == torch.float32 for t in learned.values())
    assert sum(t.abs().sum() for t in learned.values()) > 0
