"""generate, merge and convert: what was trained, used, merged and handed on."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import custom_diffusion, models, oft, training
from tutorial_lib.cli import data, options, weights

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def look(pipe, prompt: str = "a photo of a sks cat") -> torch.Tensor:
    return pipe.unet(LATENTS, torch.tensor([700, 20]), training.embed(pipe, [prompt, prompt])).sample


def with_weights(profile, *paths):
    pipe = models.load(str(profile), "cpu")
    for path in paths:
        weights.put(pipe, path)
    return pipe


# ------------------------------------------------------------------ generate


def test_pictures_a_sheet_and_a_table(train, command, tmp_path):
    folder, out = train("lora"), tmp_path / "out"
    words = ["--weights", folder, "--prompts", "a red mug", "a sks cat", "--count", 3, "--seed", 5]
    code, _, said = command("generate", *words, "--sampling-steps", 2, "--output", out)
    assert code == 0, said
    assert sorted(f.name for f in out.iterdir()) == [f"{k:04d}.png" for k in range(6)] + ["pictures.csv", "sheet.png"]
    with (out / "pictures.csv").open() as stream:
        rows = [(row["prompt"], int(row["seed"])) for row in csv.DictReader(stream)]
    assert rows == [(prompt, seed) for prompt in ("a red mug", "a sks cat") for seed in (5, 6, 7)]
    assert Image.open(out / "0000.png").size == (64, 64)  # on the model that the weights were trained on


def test_weights_change_the_pictures_and_a_config_repeats_them(train, command, tmp_path, tiny):
    file = tmp_path / "draw.toml"
    file.write_text(f'prompts = ["a sks cat"]\ncount = 1\nsampling-steps = 2\nprofile = "{tiny}"\n')
    drawn = []
    for name, words in {"base": [], "again": [], "turned": ["--weights", train("lora")]}.items():
        assert command("generate", "--config", file, "--output", tmp_path / name, *words)[0] == 0
        drawn.append(np.asarray(Image.open(tmp_path / name / "0000.png"), int))
    assert np.array_equal(drawn[0], drawn[1]) and np.abs(drawn[0] - drawn[2]).max() > 0


# ------------------------------------------------------------------ merge


@pytest.mark.parametrize("method", ["oft", "lora", "custom", "textual-inversion"])
def test_a_merged_pipeline_is_a_plain_one(method, train, command, tmp_path, tiny):
    from diffusers import StableDiffusionPipeline

    folder, out = train(method), tmp_path / "plain"
    code, _, said = command("merge", "--weights", folder, "--output", out)
    assert code == 0, said
    plain = StableDiffusionPipeline.from_pretrained(out, local_files_only=True)
    assert {type(m).__module__.split(".")[0] for m in plain.unet.modules()} <= {"torch", "diffusers"}
    prompt = "a photo of a <new1> cat" if method in ("custom", "textual-inversion") else "a photo of a sks cat"
    ours = with_weights(tiny, folder)
    torch.testing.assert_close(look(plain, prompt), look(ours, prompt), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(look(plain, prompt), look(with_weights(tiny), prompt), atol=1e-4)


@pytest.fixture
def two_concepts(train):
    return [train("custom", "--token", f"<new{k}>", "--seed", k, "--no-augment", output=f"c{k}") for k in (1, 2)]


def test_two_concepts_become_one(two_concepts, command, tmp_path, tiny):
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(f"a photo of a {c} {t} on a beach" for c in ("red", "blue") for t in ("mug", "fish")))
    words = ["merge", "--weights", *two_concepts, "--output", tmp_path / "both"]
    code, _, said = command(*words)
    assert code == 2 and "--captions is missing" in said
    code, said, _ = command(*words, "--captions", captions)
    assert code == 0 and "constraint error" in said
    merged = custom_diffusion.load(tmp_path / "both" / "concept.safetensors")
    assert list(merged.tokens) == ["<new1>", "<new2>"]
    both, alone = with_weights(tiny, tmp_path / "both"), with_weights(tiny, two_concepts[1])
    assert options.read(tmp_path / "both" / "training.toml")["profile"] == str(tiny)
    for path, layer in custom_diffusion.keys_and_values(both.unet).items():  # what the closed form promises
        c = training.embed(alone, ["<new2> cat"])[0, 1:4]
        torch.testing.assert_close(layer(c), alone.unet.get_submodule(path)(c), atol=1e-4, rtol=1e-3)


def test_a_control_is_not_merged(train, command, tmp_path):
    folder = train("control", "--branch", "lite")
    code, _, said = command("merge", "--weights", folder, "--output", tmp_path / "out")
    assert code == 2 and "stands beside a pipeline" in said and not (tmp_path / "out").exists()


# ------------------------------------------------------------------ convert


@pytest.mark.parametrize("to", ["diffusers", "original"])
def test_a_concept_goes_there_and_back(to, train, command, tmp_path, tiny):
    folder, there, back = train("custom", "--no-augment"), tmp_path / "there", tmp_path / "back"
    code, _, said = command("convert", "--weights", folder, "--to", to, "--output", there)
    assert code == 0, said
    path = there if to == "diffusers" else there / "delta.bin"
    words = ["--weights", path, "--to", "ours", "--profile", tiny, "--class", "cat", "--output", back]
    assert command("convert", *words)[0] == 0
    first, again = (custom_diffusion.load(f / "concept.safetensors") for f in (folder, back))
    assert again.class_words == first.class_words == {"<new1>": "cat"} and first.base == again.base
    for path in first.matrices:
        torch.testing.assert_close(again.matrix(path), first.matrix(path), atol=1e-6, rtol=0)
    assert torch.equal(first.tokens["<new1>"], again.tokens["<new1>"])


def test_a_checkpoint_of_the_oft_repository_becomes_a_peft_folder(command, tmp_path, tiny):
    """Full squares under the repository's keys turn the layers by what peft's exact branch makes of our file."""
    square = 0.1 * torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0))
    path = "mid_block.attentions.0.transformer_blocks.0.attn1"
    torch.save({f"{path}.processor.to_q_oft.R": square}, tmp_path / "oft.pt")
    words = ["--weights", tmp_path / "oft.pt", "--profile", tiny, "--to", "peft", "--output", tmp_path / "peft"]
    code, _, said = command("convert", *words)
    assert code == 0, said
    from peft import PeftModel

    base = models.load(str(tiny), "cpu").unet
    weight = base.get_submodule(f"{path}.to_q").weight.clone()
    turned = PeftModel.from_pretrained(base, tmp_path / "peft").merge_and_unload()
    Q = (square - square.mT) / 2
    R = torch.block_diag(*(torch.eye(16) + Q) @ torch.linalg.inv(torch.eye(16) - Q))
    torch.testing.assert_close(turned.get_submodule(f"{path}.to_q").weight, weight @ R.T, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_converted_says_why(train, command, tmp_path):
    lora = train("lora")
    code, _, said = command("convert", "--weights", lora, "--to", "peft", "--output", tmp_path / "out")
    assert code == 2 and "already in the format of diffusers" in said
    code, _, said = command("convert", "--weights", train("oft"), "--to", "original", "--output", tmp_path / "out")
    assert code == 2 and "ours, peft" in said and not (tmp_path / "out").exists()


# ------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a cat on a beach", "a photo of a sks cat on a beach"),
        ("a photo of a sks cat", "a photo of a sks cat"),
        ("catalogue of a cat", "catalogue of a sks cat"),
    ],
)
def test_a_caption_names_the_subject(caption, expected):
    assert data.named(caption, "sks", "cat") == expected


def test_control_pictures_are_found_by_name_in_any_format(train, tmp_path, command, brief, tiny):
    folder, hints = tmp_path / "photos", tmp_path / "hints"
    for place in (folder, hints):
        place.mkdir()
    for k in range(2):
        Image.new("RGB", (90, 64), (40 * k, 90, 10)).save(folder / f"p{k}.jpg")
        Image.new("L", (90, 64), 255 * k).save(hints / f"p{k}.png")
    words = ["--profile", tiny, "--steps", 1, "--sampling-steps", 1, "--branch", "oft", "--output"]
    run = ["train", "control", "--pictures", folder, "--controls", hints, *words]
    assert command(*run, tmp_path / "a")[0] == 0
    assert oft.load(models.load(str(tiny), "cpu").unet, tmp_path / "a") == ["control"]
    (hints / "p1.png").unlink()
    code, _, said = command(*run, tmp_path / "b")
    assert code == 2 and "expected one control picture for p1.jpg" in said
