"""Settings for each model and GPU: counted numbers are right, plans fit, and what cannot be had is said."""

import pytest
import torch

from tutorial_lib import baselines, control, custom_diffusion, models, oft, profiles
from tutorial_lib.profiles import GPU, POCKET, STABLE_DIFFUSION

T4, L4, A100 = GPU(15.8, "fp16"), GPU(23.6, "bf16"), GPU(42.5, "bf16")  # as CUDA reports them


@pytest.fixture(scope="module")
def sd15():
    """Stable Diffusion 1.5's UNet in full size, without memory."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):  # diffusers' defaults but for three
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def millions(parameters) -> float:
    return sum(p.numel() for p in parameters) / 1e6


def test_the_counted_numbers_are_those_of_the_model(sd15):
    from diffusers import ControlNetModel

    assert millions(sd15.parameters()) == pytest.approx(profiles.UNET, abs=0.05)
    with torch.device("meta"):
        branch = ControlNetModel.from_unet(sd15, load_weights_from_unet=False)
    assert millions(branch.parameters()) == pytest.approx(profiles.BRANCH, abs=0.05)
    keys = [layer.weight for layer in custom_diffusion.keys_and_values(sd15).values()]
    assert len(keys) == 32 and millions(keys) == pytest.approx(profiles.TRAINED["custom"], abs=0.05)


def test_the_block_size_and_the_rank_fit_every_attention(sd15):
    assert STABLE_DIFFUSION.layers == baselines.ATTENTION == profiles.ATTENTION
    paths = oft.attach(sd15, list(STABLE_DIFFUSION.layers), STABLE_DIFFUSION.block_size)
    trained = oft.parameters(sd15)
    oft.remove(sd15)
    assert len(paths) == 128
    assert millions(trained) == pytest.approx(profiles.TRAINED["oft"], abs=0.05)
    layers = [sd15.get_submodule(path).weight.shape for path in paths]
    lora = STABLE_DIFFUSION.rank * sum(out + into for out, into in layers) / 1e6
    assert lora == pytest.approx(profiles.TRAINED["lora"], abs=0.05)


def test_the_text_encoder_and_the_vae_are_counted_too():
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig(**text))
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **levels)
    assert millions(encoder.parameters()) + millions(vae.parameters()) == pytest.approx(profiles.REST, abs=0.2)


# ------------------------------------------------------------------ plans


@pytest.mark.parametrize("method", profiles.METHODS)
@pytest.mark.parametrize("gpu", [None, T4, L4, A100])
@pytest.mark.parametrize("profile", [POCKET, STABLE_DIFFUSION])
def test_every_plan_takes_as_many_pictures_as_the_recipe_says(method, gpu, profile):
    recipe = profile.recipes[method]
    plan = profiles.plan(profile, method, gpu, prior=recipe.prior > 0)
    assert plan.batch_size * plan.accumulation == recipe.batch and (plan.lr, plan.steps) == (recipe.lr, recipe.steps)
    assert plan.precision == (gpu.half if gpu and profile is STABLE_DIFFUSION else "no")
    if gpu and profile is STABLE_DIFFUSION and (method, gpu) != ("dreambooth", T4):
        rows = plan.batch_size * (2 if recipe.prior else 1)
        assert profiles.memory_needed(method, rows, plan.gradient_checkpointing) < gpu.memory


def test_smaller_gpus_get_smaller_steps_first_and_checkpoints_then():
    whole, smaller, least = (profiles.plan(STABLE_DIFFUSION, "control", g) for g in (A100, L4, GPU(11, "fp16")))
    assert (whole.batch_size, whole.gradient_checkpointing) == (4, False)
    assert whole.batch_size >= smaller.batch_size >= 1 and not smaller.gradient_checkpointing
    assert least.gradient_checkpointing
    assert profiles.memory_needed("dreambooth", 2, True) > T4.memory  # full fine-tuning needs more than a T4


def test_the_estimate_agrees_with_a_published_measurement():
    """Full fine-tuning of one picture on a T4, checkpointed, without the text encoder and the VAE: 15.79 GB."""
    estimate = profiles.memory_needed("dreambooth", 1, True) - profiles.REST * 4 / 1000
    assert estimate == pytest.approx(15.79, rel=0.03)


def test_several_processes_share_the_pictures_of_a_step():
    assert profiles.plan(STABLE_DIFFUSION, "control", A100, processes=2).batch_size == 2
    assert profiles.plan(STABLE_DIFFUSION, "oft", A100, processes=2).batch_size == 1  # less than one there is not


def test_each_rung_of_the_ladder_needs_less_and_the_last_says_so():
    plan = profiles.Plan("control", 1e-5, 100, 6, 2, "fp16")
    rungs = profiles.ladder(plan)
    assert rungs[0] == plan and len(rungs) == len(set(rungs))
    assert all(rung.batch_size * rung.accumulation == 12 for rung in rungs)
    seen = []
    while True:
        said = profiles.when_out_of_memory(plan)
        seen.append(said)
        if "smallest setting" in said:
            break
        plan = profiles.ladder(plan)[1]
        assert f"--batch-size {plan.batch_size} --accumulation {plan.accumulation}" in said
    assert [("--gradient-checkpointing" in words) for words in seen] == [False, False, True, False]
    assert "`lora` or `oft`" in seen[-1]


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="unknown method 'hypernetwork': expected one of oft"):
        profiles.plan(POCKET, "hypernetwork")


# ------------------------------------------------------------------ what can be had


def test_without_a_gpu_or_a_hub_it_says_so_and_stays_on_pocket(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert profiles.usable("pocket") == "pocket" and profiles.usable(str(tmp_path)) == str(tmp_path)
    assert capsys.readouterr().out == ""
    assert profiles.usable("sd15") == "pocket"
    assert "needs a GPU, and this machine has none: staying on the pocket model" in capsys.readouterr().out
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert profiles.usable("sd15") == "pocket"
    assert "cannot be reached" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown profile"):
        profiles.usable("sd-15")


def test_the_pocket_profile_goes_with_the_pocket_model(small_unet):
    pipe = models.load("pocket", device="cpu")
    assert profiles.of(pipe) is POCKET
    attached = oft.attach(pipe.unet, list(POCKET.layers), POCKET.block_size)
    layers = [p for p, m in pipe.unet.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    assert 0.9 < len(attached) / len(layers) < 1, "nearly all layers"
    oft.remove(pipe.unet)
    oft.attach(pipe.unet, list(control.adapters.TARGETS), POCKET.block_size)


@pytest.mark.parametrize(
    ("method", "precision", "expected"),
    [("lora", None, None), ("lora", "no", torch.float32), ("oft", "fp16", torch.float16),
     ("custom", "bf16", torch.float32), ("dreambooth", None, torch.float32)],
)  # fmt: skip
def test_what_is_trained_itself_is_loaded_in_float32(method, precision, expected):
    assert profiles.weights_dtype(method, "sd15", "cuda", precision) is expected
    assert profiles.weights_dtype(method, "sd15", "cpu", precision) is torch.float32


def test_the_pocket_models_control_is_trained_as_lesson_08_does():
    recipe, edges = POCKET.recipes["control"], control.EDGES
    assert (recipe.lr, recipe.batch, recipe.steps) == (edges.lr, edges.batch_size, edges.steps)
    assert (POCKET.hint_encoder, POCKET.noisier) == (edges.hint_encoder, edges.noisier)
