"""Foreign files, proved by reloading in the other library and comparing outputs; and damaged ones, which change
nothing."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from tutorial_lib import formats, oft
from tutorial_lib.orthogonal import cayley, skew_symmetric, upper_triangle

UNET = Path(__file__).resolve().parent.parent / "data" / "pocket-sd" / "unet"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 32, bias=False), nn.Tanh(), nn.Linear(32, 8))


def turned(model, scale=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in oft.parameters(model):
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def x():
    return torch.randn(9, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def unet():
    return UNet2DConditionModel.from_pretrained(UNET).float()


@pytest.fixture(scope="module")
def inputs(unet):
    generator = torch.Generator().manual_seed(2)
    text = torch.randn(1, 9, unet.config.cross_attention_dim, generator=generator)
    return torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([400]), text


def in_peft(model, folder):
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return PeftModel.from_pretrained(model, folder)


def by_peft(model, folder, scale=0.1, **options):
    """An adapter that peft made and saved; returns peft's model."""
    from peft import OFTConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = get_peft_model(model, OFTConfig(**{"use_cayley_neumann": False} | options))
        generator = torch.Generator().manual_seed(3)
        for key, parameter in made.named_parameters():
            if "oft_R" in key:
                parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        made.save_pretrained(folder)
    return made


def edit_config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# ------------------------------------------------------------------ to peft and back


@pytest.mark.parametrize("share", [False, True])
def test_peft_reads_ours(tmp_path, x, share):
    model = small()
    oft.attach(model, ["0", "2", "4"], 8, block_share=share)
    expected = turned(model)(x).detach()
    oft.save(model, tmp_path)
    base = small()
    theirs = in_peft(base, tmp_path)
    torch.testing.assert_close(theirs(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs.merge_and_unload()(x), expected, atol=1e-5, rtol=0)
    assert (small()(x) - expected).abs().max() > 0.1
    keys = load_file(tmp_path / "adapter_model.safetensors")
    assert keys["base_model.model.2.oft_R.weight"].shape == (1 if share else 2, 28)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["use_cayley_neumann"] is False and config["peft_version"]


def test_peft_reads_the_attention_of_the_pocket_unet(tmp_path, unet, inputs):
    oft.attach(unet, ATTENTION, 16)
    with torch.no_grad():
        expected = turned(unet)(*inputs).sample
        oft.save(unet, tmp_path)
        oft.activate(unet, None)
        base = unet(*inputs).sample
        oft.remove(unet)
        fresh = UNet2DConditionModel.from_pretrained(UNET).float()
        torch.testing.assert_close(in_peft(fresh, tmp_path)(*inputs).sample, expected, atol=2e-5, rtol=1e-5)
    assert (expected - base).abs().max() > 0.05


@pytest.mark.parametrize(
    "options", [{"oft_block_size": 8}, {"r": 2, "oft_block_size": 0}, {"oft_block_size": 4, "block_share": True}]
)
def test_we_read_peft(tmp_path, x, options):
    expected = by_peft(small(), tmp_path, target_modules=["0", "2"], **options)(x)
    model = small()
    assert oft.load(model, tmp_path) == ["default"]
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
    oft.save(model, tmp_path / "again")
    torch.testing.assert_close(in_peft(small(), tmp_path / "again")(x), expected, atol=1e-5, rtol=0)


def test_peft_coft_files_are_projected_as_peft_does(tmp_path, x):
    made = by_peft(small(), tmp_path, target_modules=["0"], oft_block_size=8, coft=True, eps=0.5)
    expected = made(x)
    model = small()
    oft.load(model, tmp_path)
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


def test_what_peft_has_no_field_for_survives(tmp_path, x):
    model = small()
    oft.attach(model, ["0", "2"], 8, eps=0.05, name="style")
    turned(model)
    oft.set_strength(model, -0.5)
    oft.attach(model, "4", 4, block_share=True)
    turned(model, seed=4)
    oft.attach(model, "4", 16, name="other")
    turned(model, seed=5)
    oft.refit_magnitudes(model)
    turned(model, scale=1.0, seed=6)
    oft.activate(model, "style")
    outputs = {}
    for name in ("style", "default", "other"):
        oft.activate(model, name)
        outputs[name] = model(x).detach()
    oft.activate(model, "style")
    with pytest.warns(UserWarning, match="strength"):
        oft.save(model, tmp_path)
    assert sorted(p.parent.name for p in tmp_path.glob("*/adapter_model.safetensors")) == ["other", "style"]
    fresh = small()
    assert sorted(oft.load(fresh, tmp_path)) == ["default", "other", "style"]
    assert torch.equal(fresh(x), outputs["style"])
    assert fresh._oft.settings["style"].eps == 0.05 and fresh._oft.settings["style"].strength == -0.5
    for name, expected in outputs.items():
        oft.activate(fresh, name)
        assert torch.equal(fresh(x), expected)
    one = small()
    assert oft.load(one, tmp_path / "style") == ["style"]
    assert oft.load(one, tmp_path / "style", name="copy") == ["copy"]
    assert torch.equal(one(x), outputs["style"])
    with pytest.raises(ValueError, match="holds 3 adapters"):
        oft.load(small(), tmp_path, name="copy")


def test_saving_again_replaces_and_keeps_no_old_magnitudes(tmp_path, x):
    model = small()
    oft.attach(model, "0", 8)
    oft.refit_magnitudes(turned(model))
    with pytest.warns(UserWarning):
        oft.save(model, tmp_path)
    oft.remove(model)
    oft.attach(model, "0", 4)
    turned(model, seed=8)
    oft.save(model, tmp_path)
    fresh = small()
    oft.load(fresh, tmp_path)
    assert torch.equal(fresh(x), model(x))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_another_methods_adapter_is_not_overwritten(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    model = small()
    oft.attach(model, "0", 8)
    with pytest.raises(FileExistsError, match="holds a LORA adapter"):
        oft.save(model, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["adapter_config.json"]


def test_convolutions_round_trip_and_peft_merges_them(tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 5, 1))

    ours, picture = model(), torch.randn(1, 4, 7, 7)
    oft.attach(ours, ["0"], 9)
    expected = turned(ours, 0.3)(picture).detach()
    with pytest.warns(UserWarning, match="merge_and_unload"):
        oft.save(ours, tmp_path)
    fresh = model()
    oft.load(fresh, tmp_path)
    assert torch.equal(fresh(picture), expected)
    theirs = in_peft(model(), tmp_path)
    assert (theirs(picture) - expected).abs().max() > 0.1  # their forward pass is wrong ...
    torch.testing.assert_close(
        theirs.merge_and_unload()(picture), expected, atol=1e-5, rtol=0
    )  # ... their merge is right


def test_a_convolution_that_peft_trained_is_refused(tmp_path):
    conv = nn.Sequential(nn.Conv2d(4, 6, 3))
    by_peft(nn.Sequential(nn.Conv2d(4, 6, 3)), tmp_path, target_modules=["0"], oft_block_size=9)
    with pytest.raises(ValueError, match="forward pass that is no rotation"):
        oft.load(conv, tmp_path)
    assert type(conv[0]) is nn.Conv2d and not hasattr(conv, "_oft")


# ------------------------------------------------------------------ Cayley-Neumann


def test_a_neumann_file_that_is_nearly_orthogonal_is_converted(tmp_path, x):
    made = by_peft(small(), tmp_path, scale=0.02, target_modules=["0", "2"], oft_block_size=8, use_cayley_neumann=True)
    model = small()
    with pytest.warns(UserWarning, match="replaced by the nearest one"):
        oft.load(model, tmp_path)
    torch.testing.assert_close(model(x), made(x), atol=1e-4, rtol=0)
    assert (small()(x) - made(x)).abs().max() > 0.05


def test_a_neumann_file_that_left_the_rotations_is_refused_with_the_reason(tmp_path):
    by_peft(small(), tmp_path, scale=0.1, target_modules=["0", "2"], oft_block_size=8, use_cayley_neumann=True)
    model = small()
    with pytest.raises(ValueError, match=r"Cayley-Neumann.*\|\|R R\^T - I\|\| is \d.*merge_and_unload"):
        oft.load(model, tmp_path)
    assert not hasattr(model, "_oft")
    edit_config(tmp_path, use_cayley_neumann=False)
    oft.load(model, tmp_path)


# ------------------------------------------------------------------ the paper's repository


def originals(which: str) -> tuple[dict, dict]:
    """A checkpoint as a branch of the repository writes it, and R by diffusers' path, by that branch's formula."""
    generator = torch.Generator().manual_seed(5)
    tensors, rotations = {}, {}
    share = which.endswith("shared")
    for attention, n in (("attn1", 320), ("attn2", 320)):
        for name, path in (("to_q", "to_q"), ("to_out", "to_out.0")):
            P = 0.05 * torch.randn(*(() if share else (4,)), n // 4, n // 4, generator=generator)
            S, eye = (P - P.mT) / 2, torch.eye(n // 4)
            plus = which in ("oft-db", "oft-db shared", "oft-control shared")
            R = (eye + S) @ torch.inverse(eye - S) if plus else (eye - S) @ torch.inverse(eye + S)
            block = f"transformer_blocks.0.{attention}"
            rotations[f"up_blocks.1.attentions.2.{block}.{path}"] = R.expand(4, -1, -1)
            if "control" in which:
                key = f"model.diffusion_model.output_blocks.5.1.{block}.{path}"
                tensors |= {f"{key}.R": P, f"{key}.OFT.weight": torch.zeros(2, 2)}
            else:
                key = f"up_blocks.1.attentions.2.{block}.processor.{name}_oft"
                tensors |= {f"{key}.R": P, f"{key}.hidden_size": torch.tensor(n)}
                if "t2i" in which:
                    tensors[f"{key}.oft_is_coft"] = torch.tensor(True)
    return tensors, rotations


@pytest.mark.parametrize(
    "which", ["oft-db", "oft-db shared", "oft-t2i", "oft-t2i shared", "oft-control", "oft-control shared"]
)
@pytest.mark.parametrize("kind", ["safetensors", "bin", "ckpt"])
def test_original_checkpoints(tmp_path, which, kind):
    tensors, rotations = originals(which)
    file = tmp_path / f"pytorch_lora_weights.{kind}"
    if kind == "safetensors":
        save_file(tensors, file)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if kind == "ckpt" else tensors, file)
    adapter = formats.read_original(file)
    assert set(adapter.vectors) == set(rotations) and adapter.block_share == which.endswith("shared")
    for path, R in rotations.items():
        ours = cayley(skew_symmetric(adapter.vectors[path], 80))
        torch.testing.assert_close(ours.expand(4, -1, -1), R, atol=1e-5, rtol=0)


def test_an_original_checkpoint_on_a_model(tmp_path):
    """The pocket U-Net's attention, in the keys that the repository would write for it."""
    unet = UNet2DConditionModel.from_pretrained(UNET).float()
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
    P = 0.1 * torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
    save_file(
        {"mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_oft.R": P}, tmp_path / "a.safetensors"
    )
    oft.load(unet, tmp_path / "a.safetensors", name="paper")
    S = (P - P.mT) / 2
    R = torch.block_diag(*((torch.eye(64) + S) @ torch.inverse(torch.eye(64) - S)))
    expected = unet.get_submodule(path).weight @ R.T
    torch.testing.assert_close(oft.effective_weights(unet)[path], expected, atol=1e-5, rtol=0)


def test_magnitudes_of_the_rescaled_variant(tmp_path):
    key = "model.diffusion_model.{}.1.transformer_blocks.0.attn1.to_q"
    tensors = {}
    for block in ("input_blocks.1", "input_blocks.8", "middle_block", "output_blocks.11"):
        tensors[f"{key.format(block)}.R"] = torch.zeros(4, 80, 80)
        tensors[f"{key.format(block)}.OFT.weight"] = torch.zeros(3, 3)
        tensors[f"{key.format(block)}.scaling_factors"] = torch.full((320, 1), 1.5)
    tensors["model.diffusion_model.out.2.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "a.safetensors")
    adapter = formats.read_original(tmp_path / "a.safetensors")
    blocks = [
        "down_blocks.0.attentions.0",
        "down_blocks.2.attentions.1",
        "mid_block.attentions.0",
        "up_blocks.3.attentions.2",
    ]
    assert sorted(adapter.magnitudes) == [f"{block}.transformer_blocks.0.attn1.to_q" for block in blocks]
    assert all(m.shape == (320,) and (m == 1.5).all() for m in adapter.magnitudes.values())


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"x": Evil()}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="objects that would run code"):
        formats.read_original(tmp_path / "a.bin")
    assert "never" not in capsys.readouterr().out


# ------------------------------------------------------------------ damaged and foreign files


def saved(folder) -> None:
    model = small()
    oft.attach(model, ["0", "2"], 8)
    oft.save(turned(model), folder)


def truncate(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-200])


def truncate_config(folder):
    file = folder / "adapter_config.json"
    file.write_text(file.read_text()[:40])


def rewrite(change):
    def damage(folder):
        file = folder / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return damage


def key(path):
    return f"base_model.model.{path}.oft_R.weight"


DAMAGE = {
    "cut off": (truncate, "damaged or cut off"),
    "config cut off": (truncate_config, "damaged or cut off"),
    "config a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "expected an object, got list"),
    "lora": (lambda f: edit_config(f, peft_type="LORA"), "is a LORA adapter: expected peft_type OFT"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "is no adapter directory"),
    "empty": (rewrite(lambda t: {}), "holds no rotations"),
    "bias": (rewrite(lambda t: t | {"base_model.model.0.bias": torch.zeros(3)}), "more than rotations.*model.0.bias"),
    "old peft": (rewrite(lambda t: {k.replace("oft_R.weight", "oft_r.default"): v for k, v in t.items()}), "more than"),
    "nan": (rewrite(lambda t: t | {key(0): t[key(0)] * float("nan")}), "not finite"),
    "no triangle": (rewrite(lambda t: t | {key(0): torch.zeros(3, 29)}), "29 numbers a block are no triangle"),
    "flat": (
        rewrite(lambda t: t | {key(0): torch.zeros(28)}),
        r"expected the shape \(blocks, b\(b-1\)/2\), got \(28,\)",
    ),
    "other width": (
        rewrite(lambda t: t | {key(2): torch.zeros(3, 28)}),
        "another model: 2 has 16 inputs here.*3 blocks of 8",
    ),
    "other path": (rewrite(lambda t: t | {key("to_q"): torch.zeros(3, 28)}), "another model: no layer .* 'to_q'"),
    "no layer": (rewrite(lambda t: t | {key(1): torch.zeros(3, 28)}), "1 is a Tanh"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_and_foreign_adapters_change_nothing(tmp_path, damage, message):
    saved(tmp_path)
    damage(tmp_path)
    model = small()
    keys = list(model.state_dict())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        oft.load(model, tmp_path)
    assert list(model.state_dict()) == keys and not hasattr(model, "_oft")
    assert all(type(layer) in (nn.Linear, nn.Tanh) for layer in model)
    assert all(p.requires_grad for p in model.parameters())


def test_one_bad_adapter_among_several_loads_none(tmp_path):
    saved(tmp_path)
    model = small()
    oft.attach(model, "4", 8, name="second")
    oft.save(model, tmp_path)
    (tmp_path / "second" / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        oft.load(small(), tmp_path)
    fresh = small()
    with pytest.raises(ValueError, match="'default' is on this model already"):
        saved(tmp_path / "good")
        oft.load(fresh, tmp_path / "good")
        oft.load(fresh, tmp_path / "good")
    assert list(fresh._oft.settings) == ["default"]


def test_a_peft_training_with_checkpoints_below_it_is_one_adapter(tmp_path):
    by_peft(small(), tmp_path, target_modules=["0"], oft_block_size=8)
    by_peft(small(), tmp_path / "checkpoint-500", target_modules=["0"], oft_block_size=8)
    assert [adapter.name for adapter in formats.read_peft_all(tmp_path)] == ["default"]


@pytest.mark.parametrize(
    "content, message",
    [
        ({"a": torch.zeros(3)}, "no rotations of the original OFT repository.*got a"),
        ({"b.processor.to_q_oft.R": torch.zeros(4, 8, 7)}, "expected full squares"),
        ({"b.processor.to_q_oft.R": torch.full((4, 8, 8), float("inf"))}, "not finite"),
        (
            {
                f"model.diffusion_model.input_blocks.1.0.in_layers.2.{k}": torch.zeros(4, 9, 9)
                for k in ("R", "OFT.weight")
            },
            "no layer of an attention block.*not read",
        ),
    ],
)
def test_foreign_checkpoints(tmp_path, content, message):
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        formats.read_original(tmp_path / "a.safetensors")
    (tmp_path / "b.ckpt").write_bytes(b"PK no checkpoint")
    with pytest.raises(ValueError, match="damaged, cut off"):
        formats.read_original(tmp_path / "b.ckpt")
    with pytest.raises(FileNotFoundError):
        formats.read_original(tmp_path / "c.ckpt")


def test_adapters_of_mixed_shapes_do_not_fit_pefts_format(tmp_path):
    vectors = {"a": torch.zeros(4, 28), "b": torch.zeros(3, 6)}
    with pytest.raises(ValueError, match=r"sizes \[4, 8\] and the numbers \[3, 4\]"):
        formats.write_peft(formats.Adapter(vectors), tmp_path, {"a": 32, "b": 12})
    assert not list(tmp_path.iterdir())


def test_the_upper_triangle_of_a_full_square_ignores_its_symmetric_part():
    P = torch.randn(2, 5, 5)
    S = (P - P.mT) / 2
    torch.testing.assert_close(formats._vector_of_square(P + P.mT + P), upper_triangle(S))
