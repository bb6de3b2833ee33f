"""Control on small UNets: nothing changes at first, what learns first, equal to diffusers, files that reload.

What needs a whole pipeline (pairs, training, pictures) is in test_control_pocket.py.
"""

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from tutorial_lib import control

FACTOR = 4


def small_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 48),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
    ).eval()


def inputs(n: int = 3, height: int = 12, width: int = 8, factor: int = FACTOR) -> tuple[torch.Tensor, ...]:
    """x_t, t, context and hints: not square, another time step each."""
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(n, 4, height, width, generator=generator)
    context = torch.randn(n, 5, 24, generator=generator)
    hints = torch.rand(n, 3, factor * height, factor * width, generator=generator)
    return x_t, torch.tensor([3, 500, 990, 41, 700][:n]), context, hints


@torch.no_grad()
def stir(model: torch.nn.Module, size: float = 0.05) -> None:
    """Moves every parameter, so that nothing is zero any more."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter += size * torch.randn(parameter.shape, generator=generator)


def gradients(model: torch.nn.Module) -> dict[str, float]:
    """The largest gradient of each parameter; 0 where there is none at all."""
    return {n: 0.0 if p.grad is None else p.grad.abs().max().item() for n, p in model.named_parameters()}


# ------------------------------------------------------------------ hint encoders


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_one_width_more_for_each_halving(factor):
    widths = control.code_widths(factor)
    assert 2 ** (len(widths) - 1) == factor
    assert widths == (16, 32, 96, 256, 256)[: len(widths)]


@pytest.mark.parametrize("factor", [0, 1, 3, 12, -4, 4.5, None])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(ValueError, match="how many pixels one latent is wide.*got"):
        control.code_widths(factor)


@pytest.mark.parametrize("make", [control.HintEncoder, control.PaperHintEncoder])
@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_features_are_as_large_as_the_latents_and_zero_at_first(make, factor):
    encoder = make(12, factor, 2)
    features = encoder(torch.rand(3, 2, 3 * factor, 5 * factor))
    assert features.shape == (3, 12, 3, 5) and (features == 0).all()
    last = encoder.conv_out if make is control.PaperHintEncoder else encoder.encoder.conv_out
    torch.nn.init.ones_(last.weight)
    assert encoder(torch.rand(3, 2, 3 * factor, 5 * factor)).std() > 0


def test_the_codes_encoder_is_diffusers_own():
    from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

    theirs, ours = ControlNetConditioningEmbedding(320), control.HintEncoder(320, 8)
    assert sum(p.numel() for p in ours.parameters()) == 1_086_480  # the number of the official code
    ours.encoder.load_state_dict(theirs.state_dict())
    hints = torch.rand(1, 3, 16, 24)
    assert torch.equal(ours(hints), theirs(hints))


def test_a_zero_convolution_learns_although_it_is_zero():
    """y = wx + b at w = b = 0: dy/dw = x and dy/db = 1, but dy/dx = w = 0."""
    convolution = control.zero(torch.nn.Conv2d(3, 4, 1))
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    target = torch.randn(2, 4, 5, 7)
    y = convolution(x)
    (y * target).sum().backward()
    assert (y == 0).all() and (x.grad == 0).all()
    by_hand = torch.einsum("nohw,nihw->oi", target, x.detach())  # sum over pictures and places of x
    torch.testing.assert_close(convolution.weight.grad[:, :, 0, 0], by_hand)
    torch.testing.assert_close(convolution.bias.grad, target.sum((0, 2, 3)))


def test_at_first_the_papers_encoder_hands_on_far_more_of_the_hint():
    """Default weights shrink the signal in every layer, Gaussian ones of the right width keep it."""
    torch.manual_seed(0)
    hints = (torch.rand(8, 3, 64, 64) < 0.15).float()
    code, paper = control.HintEncoder(64, 4), control.PaperHintEncoder(64, 4)
    seen = {}
    code.encoder.conv_out.register_forward_hook(lambda module, inputs, output: seen.update(code=inputs[0]))
    paper.conv_out.register_forward_hook(lambda module, inputs, output: seen.update(paper=inputs[0]))
    code(hints), paper(hints)
    spread = {name: features.std((0, 2, 3)).mean() for name, features in seen.items()}  # of a channel, over the hints
    assert spread["paper"] > 30 * spread["code"]


def test_the_codes_layers_hand_on_the_hint_with_gaussian_weights():
    torch.manual_seed(0)
    hints = (torch.rand(8, 3, 64, 64) < 0.15).float()
    unet = small_unet()
    spread = {}
    for kind in ("code", "gaussian"):
        encoder = control.from_unet(unet, "full", 4, kind).controlnet_cond_embedding
        handle = encoder.conv_out.register_forward_pre_hook(
            lambda module, inputs, kind=kind: spread.update({kind: inputs[0].std((0, 2, 3)).mean()})
        )
        assert (encoder(hints) == 0).all()  # the zero convolution is left
        handle.remove()
    assert spread["gaussian"] > 30 * spread["code"] and 0.03 < spread["gaussian"] < 3


# ------------------------------------------------------------------ branches

KINDS = [("full", "code"), ("full", "gaussian"), ("full", "paper"), ("lite", "code")]
KINDS += [("gaussian", "code"), ("gaussian", "paper")]
SILENT = [kind for kind in KINDS if kind[0] != "gaussian"]


@pytest.fixture(scope="module")
def unet():
    return small_unet()


def branch_of(unet, kind, **options):
    return control.from_unet(unet, kind[0], FACTOR, kind[1], **options)


def output(unet, branch, **options):
    with torch.no_grad():
        return control.predict(unet, branch, *inputs(), **options)


def base(unet):
    with torch.no_grad():
        return unet(*inputs()[:3]).sample


def loss(unet, branch):
    predicted = control.predict(unet, branch, *inputs())
    return (predicted - torch.randn(predicted.shape, generator=torch.Generator().manual_seed(3))).square().mean()


# ------------------------------------------------------------------ at the start


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_fresh_branch_changes_nothing_at_all(unet, kind, scale):
    assert torch.equal(output(unet, branch_of(unet, kind), scale=scale), base(unet))


@pytest.mark.parametrize("hint_encoder", ["code", "paper"])
def test_a_fresh_gaussian_branch_changes_much(unet, hint_encoder):
    fresh = output(unet, branch_of(unet, ("gaussian", hint_encoder)))
    assert (fresh - base(unet)).abs().mean() > 0.1 * base(unet).abs().mean()


@pytest.mark.parametrize("kind", SILENT)
def test_at_the_first_step_only_the_zero_convolutions_learn(unet, kind):
    branch = branch_of(unet, kind)
    loss(unet, branch).backward()
    zeros = tuple(control.zero_convolutions(branch))
    for name, gradient in gradients(branch).items():
        learns = name.startswith(zeros) and not name.startswith("controlnet_cond_embedding")
        # The hint encoder's own zero convolution sits behind the others: it waits for them.
        assert (gradient > 0) == learns, name


@pytest.mark.parametrize("kind", SILENT)
def test_at_the_second_step_everything_behind_them_learns(unet, kind):
    branch = branch_of(unet, kind)
    for _ in range(2):
        branch.zero_grad()
        loss(unet, branch).backward()
        with torch.no_grad():
            for parameter in branch.parameters():
                parameter -= 0.1 * (parameter.grad if parameter.grad is not None else 0)
    found = gradients(branch)
    silent = [name for name, gradient in found.items() if gradient == 0]
    assert all(name.startswith("controlnet_cond_embedding") and "conv_out" not in name for name in silent)
    assert found["conv_in.weight"] > 0 and found["controlnet_cond_embedding.conv_out.weight"] > 0


def test_gaussian_convolutions_let_the_copy_learn_at_once(unet):
    branch = branch_of(unet, ("gaussian", "code"))
    loss(unet, branch).backward()
    assert min(gradients(branch).values()) > 0
    for name, convolution in control.zero_convolutions(branch).items():
        fan_in = convolution.weight[0].numel()
        assert convolution.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.2), name
        assert (convolution.bias == 0).all()


# ------------------------------------------------------------------ what it is made of


def test_the_copy_is_the_unets_encoder_and_its_own(unet):
    branch = branch_of(unet, ("full", "code"))
    ours, theirs = branch.state_dict(), unet.state_dict()
    copied = [name for name in ours if not name.startswith("controlnet_")]
    assert len(copied) > 100 and all(torch.equal(ours[name], theirs[name]) for name in copied)
    before = {name: value.clone() for name, value in theirs.items()}
    stir(branch)
    assert all(torch.equal(unet.state_dict()[name], before[name]) for name in before)


def test_it_is_what_diffusers_makes_when_told_the_right_widths(unet):
    torch.manual_seed(5)
    theirs = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 96))
    ours = control.from_unet(unet, "full", 4, seed=5)
    assert type(ours) is ControlNetModel and dict(ours.config) == dict(theirs.config)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())


def test_diffusers_default_is_for_another_vae(unet):
    """The reason for vae_factor: by default the hint would have to be 8 times as large as the latents."""
    with pytest.raises(RuntimeError, match="size of tensor"):
        output(unet, ControlNetModel.from_unet(unet))


def test_stable_diffusions_numbers():
    """14 zero convolutions and 361,279,120 parameters, counted without making them."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        branch = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    assert len(control.zero_convolutions(branch)) == 14
    assert sum(p.numel() for p in branch.parameters()) == 361_279_120


def test_zero_convolutions_are_all_that_is_zero(unet):
    branch = branch_of(unet, ("full", "code"))
    stir(unet := small_unet(4))  # biases that are zero by default are no longer
    branch = control.from_unet(unet, "full", 4)
    zeros = control.zero_convolutions(branch)
    encoders = {n for n, p in branch.named_parameters() if (p == 0).all()}
    assert encoders == {f"{name}.{part}" for name in zeros for part in ("weight", "bias")}


def test_lite_is_convolutions_alone_with_the_same_outputs(unet):
    full, lite = branch_of(unet, ("full", "code")), branch_of(unet, ("lite", "code"))
    x_t, t, context, hints = inputs()
    stir(lite)
    with torch.no_grad():
        large, tiny = full(x_t, t, context, hints), lite(x_t, t, context, hints)
        other = lite(x_t, t + 5, -context, hints)
    shapes = [[r.shape for r in (*o.down_block_res_samples, o.mid_block_res_sample)] for o in (large, tiny)]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 10
    assert torch.equal(tiny.mid_block_res_sample, other.mid_block_res_sample)  # no time, no prompt
    copied = [m for m in lite.down_blocks.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(copied) == 3 * 2 + 2  # one a layer, one a downsampler
    layers = {type(m) for m in lite.modules() if not list(m.children()) and list(m.parameters())}
    assert all(issubclass(layer, torch.nn.Conv2d) for layer in layers)
    assert sum(p.numel() for p in lite.parameters()) < 0.5 * sum(p.numel() for p in full.parameters())


# ------------------------------------------------------------------ use


@pytest.mark.parametrize("kind", KINDS)
def test_hint_prompt_and_scale_matter_once_it_is_trained(unet, kind):
    branch = branch_of(unet, kind)
    stir(branch)
    x_t, t, context, hints = inputs()
    with torch.no_grad():
        one = control.predict(unet, branch, x_t, t, context, hints)
        other = control.predict(unet, branch, x_t, t, context, 1 - hints)
    assert (one - other).abs().max() > 1e-4
    assert not torch.equal(one, output(unet, branch, scale=0.5))
    assert torch.equal(output(unet, branch, scale=0.0), base(unet))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_predicts_the_same(unet, kind, tmp_path):
    branch = branch_of(unet, kind)
    stir(branch)
    branch.save_pretrained(tmp_path)
    loaded = control.load(tmp_path)
    assert type(loaded) is type(branch)
    assert torch.equal(output(unet, loaded), output(unet, branch))
    if type(branch) is ControlNetModel:
        plain = ControlNetModel.from_pretrained(tmp_path)
        assert (output(unet, plain) - output(unet, branch)).abs().max() <= 1e-6


def test_a_hint_encoder_is_saved_and_loaded(tmp_path):
    encoder = control.HintEncoder(16, 8)
    stir(encoder)
    encoder.save_pretrained(tmp_path)
    hints = torch.rand(2, 3, 16, 24)
    assert torch.equal(control.load(tmp_path)(hints), encoder(hints))


def test_the_seed_decides_and_nobody_elses_random_numbers_move(unet):
    torch.manual_seed(9)
    expected = torch.randn(3)
    torch.manual_seed(9)
    first, again, other = (control.from_unet(unet, "lite", 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.randn(3), expected)
    names = [name for name, value in first.state_dict().items() if not torch.equal(value, other.state_dict()[name])]
    assert "mid_block.weight" in names and "controlnet_cond_embedding.conv_in.weight" in names
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())


def test_what_is_not_there_is_refused_in_plain_words(unet, tmp_path):
    with pytest.raises(ValueError, match="unknown variant 'light': expected 'full', 'lite', 'gaussian'"):
        control.from_unet(unet, "light")
    with pytest.raises(ValueError, match="unknown hint encoder 'diffusers': expected 'code', 'gaussian' or 'paper'"):
        control.from_unet(unet, hint_encoder="diffusers")
    with pytest.raises(ValueError, match="not with 'lite'"):
        control.from_unet(unet, "lite", hint_encoder="paper")
    with pytest.raises(FileNotFoundError, match="save_pretrained wrote"):
        control.load(tmp_path / "nothing")
    unet.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a UNet2DConditionModel, not a control branch"):
        control.load(tmp_path)


# ------------------------------------------------------------------ adapters in the UNet


class Pipe:
    """The two parts of a pipeline that the adapters look at."""

    def __init__(self):
        self.unet = small_unet()
        self.vae = type("Vae", (), {"config": type("Config", (), {"block_out_channels": (8, 8, 8)})})


ADAPTERS = {"oft": lambda pipe: control.with_oft(pipe, 8), "lora": lambda pipe: control.with_lora(pipe, 4)}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_fresh_adapter_with_its_hint_encoder_changes_nothing(name):
    pipe = Pipe()
    expected = base(pipe.unet)
    assert torch.equal(output(pipe.unet, ADAPTERS[name](pipe)), expected)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_sit_on_attention_and_feed_forward_and_train_alone(name):
    pipe = Pipe()
    ADAPTERS[name](pipe)
    trained = control.adapter_parameters(pipe.unet)
    assert {f"unet.{n}" for n, p in pipe.unet.named_parameters() if p.requires_grad} == set(trained)
    layers = {n.split(".rotations.")[0].split(".lora_")[0] for n in trained}
    # 2 + 2 blocks on the way down, 1 in the middle, 3 + 3 on the way up, each with two attentions and one GEGLU
    assert len(layers) == 11 * (2 * 4 + 1)
    ends = {layer.partition("transformer_blocks.0.")[2] for layer in layers}
    attention = {f"attn{k}.{part}" for k in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")}
    assert ends == attention | {"ff.net.0.proj"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_hint_reaches_the_adapters_after_one_step(name):
    pipe = Pipe()
    encoder = ADAPTERS[name](pipe)
    loss(pipe.unet, encoder).backward()
    learns = {n for n, gradient in gradients(encoder).items() if gradient > 0}
    assert learns == {"encoder.conv_out.weight", "encoder.conv_out.bias"}
    moved = [p for p in control.adapter_parameters(pipe.unet).values() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(moved) > 50
    with torch.no_grad():
        for parameter in (encoder.encoder.conv_out.weight, encoder.encoder.conv_out.bias):
            parameter -= 10 * parameter.grad  # far, since a fresh encoder hands on little of the hint
    x_t, t, context, hints = inputs()
    with torch.no_grad():
        one, other = (control.predict(pipe.unet, encoder, x_t, t, context, h) for h in (hints, hints.flip(0)))
    assert (one - other).abs().max() > 1e-5


def test_an_adapter_may_sit_on_other_layers_and_hear_the_hint_from_the_start():
    loud, quiet = Pipe(), Pipe()
    options = {"targets": ["attn2.to_k"], "seed": 3}
    strong = control.with_oft(loud, 8, hint_encoder="gaussian", **options)
    weak = control.with_oft(quiet, 8, **options)
    assert {name.split(".rotations.")[0][-10:] for name in control.adapter_parameters(loud.unet)} == {"attn2.to_k"}
    arrived = []
    for encoder in (strong, weak):
        encoder.encoder.conv_out.register_forward_pre_hook(lambda module, given: arrived.append(given[0].std().item()))
        encoder(inputs()[3])
    assert arrived[0] > 5 * arrived[1]
    with pytest.raises(ValueError, match="unknown hint encoder 'paper': expected 'code' or 'gaussian'"):
        control.with_lora(Pipe(), 4, hint_encoder="paper")


def test_adapters_of_a_subject_are_left_alone():
    from tutorial_lib import oft

    pipe = Pipe()
    oft.attach(pipe.unet, ["attn1.to_q"], 8, name="subject")
    control.with_oft(pipe, 8)
    oft.activate(pipe.unet, control.adapters.NAME)
    assert all(".rotations.control." in name for name in control.adapter_parameters(pipe.unet))
    oft.activate(pipe.unet, "subject")
    assert control.adapter_parameters(pipe.unet) == {}


def test_features_are_added_once_after_conv_in_and_the_unet_is_as_before():
    unet = small_unet()
    encoder = control.HintEncoder(16, FACTOR)
    stir(encoder)
    x_t, t, context, hints = inputs()
    with torch.no_grad():
        features = encoder(hints)
        with control.hinted(unet, encoder, hints, scale=0.5):
            seen = unet.conv_in(x_t)
            twice = unet.conv_in(torch.cat([x_t, x_t]))  # as guidance does
        plain = unet.conv_in(x_t)
    torch.testing.assert_close(seen, plain + 0.5 * features)
    torch.testing.assert_close(twice, torch.cat([seen, seen]))
    with pytest.raises(RuntimeError), control.hinted(unet, encoder, hints):
        raise RuntimeError("stopped in the middle")
    assert torch.equal(unet.conv_in(x_t), plain) and not unet.conv_in._forward_hooks
