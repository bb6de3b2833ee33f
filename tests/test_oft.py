"""OFT layers: laws (identity, merge, strength, energy), both sides of the product, COFT, several adapters, peft beside
us where it is right and where it is not, and bad input, after which the model must be untouched."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn

from tutorial_lib import oft, sphere
from tutorial_lib.orthogonal import cayley, cayley_neumann, orthogonality_error, skew_symmetric
from tutorial_lib.rotated import RotatedConv2d, RotatedLinear, rotate

CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 4},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": 2, "padding_mode": "reflect"},
    "all": {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 4), "dilation": (1, 2), "groups": 2, "bias": False},
    "1x1": {"kernel_size": 1},
    "patches": {"kernel_size": 4, "stride": 4},
}


class Net(nn.Module):
    """Layers of several shapes, called one after the other."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"wide": nn.Linear(24, 40), "narrow": nn.Linear(40, 12, bias=False)})
        self.conv = nn.Conv2d(8, 6, 3, padding=1)
        self.norm = nn.LayerNorm(24)

    def forward(self, x):
        picture = self.conv(x.view(-1, 8, 3, 1).repeat(1, 1, 1, 3)).mean((2, 3))
        return self.inner["narrow"](torch.tanh(self.inner["wide"](self.norm(x)))).flatten(0, -2)[:, :6] + picture


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x():
    return torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))


def small_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=48,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def unet_inputs():
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([3, 700]),
        torch.randn(2, 7, 48, generator=generator),
    )


def turn(model, scale=0.2, seed=0):
    """Random rotations, as if trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in oft.parameters(model):
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def wrap(layer) -> nn.Module:
    return nn.ModuleDict({"layer": layer})


def snapshot(model) -> dict:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_untouched(model, before, classes):
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert [type(module) for module in model.modules()] == classes
    assert not hasattr(model, "_oft") and not model._forward_hooks and not model._forward_pre_hooks
    assert all(parameter.requires_grad for parameter in model.parameters())


# ------------------------------------------------------------------ what a rotation does


def test_a_linear_layer_computes_with_w_r_transposed(net, x):
    oft.attach(net, "inner.wide", 8)
    turn(net)
    R = torch.block_diag(*oft.rotations(net)["inner.wide"])
    layer = net.inner["wide"]
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight @ R.T, layer.bias), atol=1e-5, rtol=0)
    torch.testing.assert_close(R, torch.block_diag(*cayley(skew_symmetric(oft.parameters(net)[0].detach(), 8))))
    assert (R - torch.eye(24)).norm() > 1


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("block", [4, 24])
def test_turning_the_weight_and_turning_the_input_agree(share, block):
    """The same rows, few at a time (the input is turned) and all at once (the weight is): outputs and gradients."""
    torch.manual_seed(0)
    model = wrap(nn.Linear(24, 40).double())
    oft.attach(model, "layer", block, block_share=share)
    turn(model)
    rows = torch.randn(90, 24, dtype=torch.float64)
    targets = torch.randn(90, 40, dtype=torch.float64)

    def run(size):
        inputs = rows.clone().requires_grad_()
        parts = [model["layer"](part) for part in inputs.split(size)]
        used = {type(part.grad_fn).__name__ for part in parts}
        model.zero_grad()
        (torch.cat(parts) * targets).sum().backward()
        return torch.cat(parts).detach(), inputs.grad, oft.parameters(model)[0].grad.clone(), used

    few, many = run(30), run(90)
    assert few[3] == {"AddmmBackward0"} and many[3] == {"_RotatedProductBackward"}
    for one, other in zip(few[:3], many[:3]):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)  # vectors are float32


@pytest.mark.parametrize("rows", [1, 7, 200])
def test_gradients_are_those_of_the_definition(rows):
    """Also of the base weight and bias, for whoever makes them trainable again."""
    torch.manual_seed(0)
    model = wrap(nn.Linear(12, 20))
    oft.attach(model, "layer", 4)
    turn(model)
    layer, (vector,) = model["layer"], oft.parameters(model)
    model.requires_grad_(True)
    x = torch.randn(rows, 12, requires_grad=True)
    weights = torch.randn(rows, 20)
    R = torch.block_diag(*cayley(skew_symmetric(vector, 4)))
    wanted = (x, layer.weight, layer.bias, vector)
    ours = torch.autograd.grad((layer(x) * weights).sum(), wanted)
    defined = torch.autograd.grad((F.linear(x, layer.weight @ R.T, layer.bias) * weights).sum(), wanted)
    for mine, theirs in zip(ours, defined):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_rotate_by_blocks_is_the_block_diagonal_product():
    x = torch.randn(3, 2, 12)
    R = cayley(skew_symmetric(torch.randn(3, 6), 4))
    torch.testing.assert_close(rotate(x, R), x @ torch.block_diag(*R))
    torch.testing.assert_close(rotate(x, R[:1]), x @ torch.block_diag(*[R[0]] * 3))


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("share", [False, True])
def test_convolutions(options, share):
    """Identity at the start, W R^T of the flattened filters afterwards, merged as unmerged, for each kind."""
    torch.manual_seed(0)
    model = wrap(nn.Conv2d(8, 12, **options))
    conv, picture = model["layer"], torch.randn(2, 8, 13, 16)
    base, n = conv(picture), conv.weight[0].numel()
    block = next(b for b in (9, 6, 4) if n % b == 0)
    oft.attach(model, "layer", block, block_share=share)
    assert (conv(picture) - base).abs().max() <= 1e-6
    turn(model, 0.4)
    R = oft.rotations(model)["layer"]
    R = torch.block_diag(*(R.expand(n // block, -1, -1)))
    turned = (conv.weight.flatten(1) @ R.T).view_as(conv.weight)
    torch.testing.assert_close(conv(picture), conv._conv_forward(picture, turned, conv.bias), atol=1e-5, rtol=0)
    assert (conv(picture) - base).abs().max() > 0.05
    unmerged = conv(picture)
    oft.merge(model)
    torch.testing.assert_close(model["layer"](picture), unmerged, atol=1e-5, rtol=0)
    assert type(conv) is nn.Conv2d


def test_a_block_of_k_squared_is_one_channels_kernel():
    model = wrap(nn.Conv2d(3, 5, 3))
    oft.attach(model, "layer", 9)
    (vector,) = oft.parameters(model)
    with torch.no_grad():
        vector[1] = 0.3  # the second channel only
    change = (model["layer"].effective_weight() - model["layer"].weight).abs().amax((0, 2, 3))
    assert change[0] == 0 and change[2] == 0 and change[1] > 0.05


# ------------------------------------------------------------------ a whole model


def test_identity_at_the_start_training_and_remove(net, x):
    before, classes, base = snapshot(net), [type(m) for m in net.modules()], net(x).detach()
    paths = oft.attach(net, ["wide", "inner.narrow", "conv"], 4)
    assert paths == ["inner.wide", "inner.narrow", "conv"]
    assert (net(x) - base).abs().max() <= 1e-6
    assert [p for p, _ in net.named_parameters() if p in before] == list(before)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in oft.parameters(net)}
    assert sum(p.numel() for p in trained) == (24 + 40 + 72) * 3 // 2
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (net(x) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert (net(x) - base).abs().max() > 1e-2
    oft.remove(net)
    assert torch.equal(net(x), base)
    assert_untouched(net, before, classes)


def test_merged_equals_unmerged_on_a_unet_and_saves_as_plain_diffusers(tmp_path):
    unet = small_unet()
    inputs = unet_inputs()
    keys, base = list(unet.state_dict()), unet(*inputs).sample.detach()
    oft.attach(unet, ["to_q", "to_k", "to_v", "to_out.0", "conv1"], 16)
    turn(unet, 0.1)
    turned = unet(*inputs).sample.detach()
    assert (turned - base).abs().max() > 0.05
    oft.merge(unet)
    torch.testing.assert_close(unet(*inputs).sample, turned, atol=1e-5, rtol=0)
    assert list(unet.state_dict()) == keys
    unet.save_pretrained(tmp_path)
    torch.testing.assert_close(
        UNet2DConditionModel.from_pretrained(tmp_path)(*inputs).sample, turned, atol=1e-5, rtol=0
    )


def test_energy_stays_under_large_rotations_and_moves_with_an_additive_change():
    torch.manual_seed(0)
    layer = nn.Linear(48, 64)
    with torch.no_grad():  # structured, not random: random directions are spread out already
        layer.weight.copy_(torch.randn(64, 6) @ torch.randn(6, 48) + 0.3 * torch.randn(64, 48) + 0.5)
    model = wrap(layer)
    before = sphere.hyperspherical_energy(layer.weight.double())
    oft.attach(model, "layer", 16)
    optimiser = torch.optim.Adam(oft.parameters(model), lr=0.02)
    x, y = torch.randn(100, 48), torch.randn(100, 64)
    for _ in range(60):
        optimiser.zero_grad()
        (model["layer"](x) - y).square().mean().backward()
        optimiser.step()
    R = oft.rotations(model)["layer"]
    assert ((R - torch.eye(16)).flatten(1).norm(dim=1) >= 1).all()
    assert orthogonality_error(R) < 2e-5
    after = sphere.hyperspherical_energy(oft.effective_weights(model)["layer"].double())
    assert abs(after / before - 1) < 1e-5
    oft.remove(model)
    with torch.no_grad():
        layer.weight += 0.05 * torch.randn(64, 48)
    assert abs(sphere.hyperspherical_energy(layer.weight.double()) / before - 1) > 1e-4


def test_strength_is_a_rotation_at_every_value(net, x):
    base = net(x).detach()
    oft.attach(net, ["wide", "conv"], 8)
    turn(net)
    full = {path: R.clone() for path, R in oft.rotations(net).items()}
    for s in (-3.0, -1.0, 0.4, 1.0, 7.0):
        oft.set_strength(net, s)
        for path, R in oft.rotations(net).items():
            assert orthogonality_error(R) < 2e-5
            expected = {1.0: full[path], -1.0: full[path].mT}.get(s)
            if expected is not None:
                torch.testing.assert_close(R, expected, atol=2e-6, rtol=0)
    oft.set_strength(net, 0)
    assert torch.equal(net(x), base)
    oft.set_strength(net, 0.5)
    half = net(x).detach()
    vectors = {path: cayley(skew_symmetric(0.5 * p.detach(), 8)) for path, p in zip(full, oft.parameters(net))}
    torch.testing.assert_close(oft.rotations(net), vectors)
    oft.merge(net)
    torch.testing.assert_close(net(x), half, atol=1e-5, rtol=0)


def test_several_adapters_on_one_model(net, x):
    base = net(x).detach()
    oft.attach(net, ["wide", "conv"], 8, name="one")
    turn(net, seed=1)
    one = net(x).detach()
    oft.attach(net, ["wide", "narrow"], 4, name="two", block_share=True)
    turn(net, seed=2)
    two = net(x).detach()
    assert len(oft.parameters(net)) == 2 and oft.parameters(net)[0].shape == (1, 6)
    for name, expected in (("one", one), (None, base), ("two", two), ("one", one)):
        oft.activate(net, name)
        assert torch.equal(net(x).detach(), expected)
    assert all(not p.requires_grad for key, p in net.named_parameters() if "rotations.two" in key)
    oft.set_strength(net, 0.3)
    oft.activate(net, "two")
    assert torch.equal(net(x).detach(), two)  # the strength is each adapter's own
    with pytest.raises(ValueError, match=r"other adapters, \['one'\]"):
        oft.merge(net)
    oft.remove(net, "one")
    assert torch.equal(net(x).detach(), two) and type(net.conv) is nn.Conv2d
    oft.activate(net, None)
    with pytest.raises(ValueError, match=r"no adapter is active: choose one of \['two'\]"):
        oft.parameters(net)
    oft.remove(net)
    assert torch.equal(net(x).detach(), base)


def test_magnitudes_are_refitted_with_the_rotation_frozen(net, x, tmp_path):
    base = net(x).detach()
    oft.attach(net, ["wide", "conv"], 8)
    turn(net)
    rotated = net(x).detach()
    vectors = [p.detach().clone() for p in oft.parameters(net)]
    oft.refit_magnitudes(net)
    assert torch.equal(net(x).detach(), rotated)
    assert [tuple(p.shape) for p in oft.parameters(net)] == [(40,), (6,)]
    optimiser = torch.optim.SGD(oft.parameters(net), lr=0.5)
    (net(x) - 1).square().mean().backward()
    optimiser.step()
    fitted = net(x).detach()
    assert (fitted - rotated).abs().max() > 1e-3
    layer = net.inner["wide"]
    scaled = oft.effective_weights(net)["inner.wide"].norm(dim=1) / layer.weight.norm(dim=1)
    torch.testing.assert_close(scaled, oft.parameters(net)[0].detach())
    assert all(
        torch.equal(net.state_dict()[f"{p}.rotations.default.vector"], v)
        for p, v in zip(("inner.wide", "conv"), vectors)
    )
    with pytest.warns(UserWarning, match="peft"):
        oft.save(net, tmp_path)
    oft.set_strength(net, 0)
    assert torch.equal(net(x).detach(), base)
    oft.set_strength(net, 1)
    oft.merge(net)
    torch.testing.assert_close(net(x), fitted, atol=1e-5, rtol=0)
    torch.manual_seed(0)
    fresh = Net()
    oft.load(fresh, tmp_path)
    assert torch.equal(fresh(x).detach(), fitted)


# ------------------------------------------------------------------ COFT


@pytest.mark.parametrize("block", [4, 12])
@pytest.mark.parametrize("share", [False, True])
def test_coft_trains_stays_in_its_ball_and_moves_no_further_than_two_eps(net, x, block, share, tmp_path):
    eps = 0.03
    oft.attach(net, "wide", block, eps=eps, block_share=share)
    optimiser = torch.optim.Adam(oft.parameters(net), lr=0.05)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = (net(x) - 1).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    radius = eps * block**0.5
    raw = torch.linalg.matrix_norm(skew_symmetric(oft.parameters(net)[0].detach(), block))
    assert raw.max() > radius  # the optimiser has just stepped out, and yet:
    oft.save(net, tmp_path)
    saved = copy.deepcopy(net)
    oft.remove(saved)
    oft.load(saved, tmp_path)
    norm = torch.linalg.matrix_norm(skew_symmetric(oft.parameters(saved)[0].detach().double(), block))
    assert (norm <= radius).all() and norm.max() > 0.99 * radius
    assert saved._oft.settings["default"].eps == eps
    assert torch.equal(net(x), saved(x))
    R = oft.rotations(net)["inner.wide"]
    assert ((R - torch.eye(block)).flatten(1).norm(dim=1) / block**0.5).max() <= 2 * eps


def test_coft_can_come_back_from_the_surface(net, x):
    """The parameters themselves are projected: a block that was pushed against the bound returns at once."""
    oft.attach(net, "wide", 8, eps=0.02)
    turn(net, 5.0)
    (vector,) = oft.parameters(net)
    net(x)
    outward = vector.detach().clone()
    optimiser = torch.optim.SGD([vector], lr=1.0)
    optimiser.zero_grad()
    (vector * outward).sum().backward()  # as a loss that wants smaller turns
    vector.grad *= 0.5
    optimiser.step()
    net(x)
    torch.testing.assert_close(vector.detach(), 0.5 * outward)


# ------------------------------------------------------------------ one solve for the whole model


def test_the_model_solves_once_a_forward_and_layers_alone_agree(net, x, monkeypatch):
    from tutorial_lib import rotated

    calls = []
    monkeypatch.setattr(rotated, "cayley", lambda Q: calls.append(len(Q)) or cayley(Q))
    oft.attach(net, ["wide", "narrow", "conv"], 4)
    turn(net)
    net(x)
    assert calls == [24 // 4 + 40 // 4 + 72 // 4]
    alone = net.inner["wide"](x)
    assert calls[1:] == [6]
    oft.activate(net, "default")
    R = oft.rotations(net)["inner.wide"]
    torch.testing.assert_close(
        alone, F.linear(x, rotate(net.inner["wide"].weight, R.mT), net.inner["wide"].bias), atol=1e-5, rtol=0
    )


def test_sampling_solves_once_until_something_changes(net, x, monkeypatch):
    from tutorial_lib import rotated

    calls = []
    monkeypatch.setattr(rotated, "cayley", lambda Q: calls.append(len(Q)) or cayley(Q))
    oft.attach(net, ["wide", "conv"], 8)
    turn(net)
    with torch.no_grad():
        first = net(x)
        assert torch.equal(net(x), first) and len(calls) == 1
        oft.parameters(net)[0].data[0, 0] += 0.5  # .data: a write that no version counter sees
        second = net(x)
        assert len(calls) == 2 and not torch.equal(second, first)
        oft.set_strength(net, 0.5)
        assert not torch.equal(net(x), second)
    with torch.inference_mode():
        net(x)
    net(x).sum().backward()
    assert oft.parameters(net)[0].grad.abs().sum() > 0


def test_one_backward_for_each_of_two_forwards(net, x):
    """The rotations of one forward pass may be needed by several backward passes."""
    oft.attach(net, ["wide", "conv"], 8)
    turn(net)
    (vector, _) = oft.parameters(net)
    (net(x).sum() + net(x).square().sum()).backward()
    together = vector.grad.clone()
    vector.grad = None
    first, second = net(x).sum(), net(x).square().sum()
    second.backward()
    first.backward()
    torch.testing.assert_close(vector.grad, together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    unet, (latents, steps, text) = small_unet(), unet_inputs()
    oft.attach(unet, ["to_q", "to_v", "conv2"], 8)
    turn(unet, 0.1)
    latents.requires_grad_()

    def gradients():
        unet.zero_grad()
        unet(latents, steps, text).sample.square().mean().backward()
        return [p.grad.clone() for p in oft.parameters(unet)]

    unet.train()
    plain = gradients()
    unet.enable_gradient_checkpointing(
        lambda module, *args: torch.utils.checkpoint.checkpoint(module, *args, use_reentrant=reentrant)
    )
    for one, other in zip(plain, gradients()):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_failed_forward_leaves_nothing_behind(net, x):
    oft.attach(net, "wide", 8)
    with pytest.raises(RuntimeError):
        net(x[..., :5])
    turn(net)
    alone = net.inner["wide"](x)
    R = oft.rotations(net)["inner.wide"]
    torch.testing.assert_close(alone, F.linear(rotate(x, R), net.inner["wide"].weight, net.inner["wide"].bias))


def test_copies_and_state_dicts(net, x):
    oft.attach(net, ["wide", "conv"], 8)
    turn(net)
    net(x).sum().backward()
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), net(x))
    turn(twin, seed=5)
    assert not torch.equal(twin(x), net(x))
    net.load_state_dict(twin.state_dict())
    assert torch.equal(twin(x), net(x))
    oft.remove(twin)
    assert isinstance(net.conv, RotatedConv2d) and isinstance(net.inner["wide"], RotatedLinear)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype):
    torch.manual_seed(0)
    model = wrap(nn.Linear(32, 48))
    x = torch.randn(100, 32)
    oft.attach(model, "layer", 8)
    turn(model)
    exact = model["layer"](x)
    with torch.autocast("cpu", dtype=dtype):
        for rows in (x, x[:5]):
            out = model["layer"](rows)
            assert out.dtype == dtype
            torch.testing.assert_close(out.float(), exact[: len(rows)], atol=0.05, rtol=0)
            out.float().square().mean().backward()
    (vector,) = oft.parameters(model)
    assert vector.grad.dtype == torch.float32 and torch.isfinite(vector.grad).all()
    half = wrap(nn.Linear(32, 48)).to(dtype)
    half.load_state_dict({"layer.weight": model["layer"].weight, "layer.bias": model["layer"].bias})
    oft.attach(half, "layer", 8)
    assert oft.parameters(half)[0].dtype == torch.float32
    assert torch.equal(half["layer"](x.to(dtype)), F.linear(x.to(dtype), half["layer"].weight, half["layer"].bias))


# ------------------------------------------------------------------ peft, where it is right and where it is not


def peft_twin(net, **options):
    from peft import OFTConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(copy.deepcopy(net), OFTConfig(**{"use_cayley_neumann": False} | options))


def peft_weights(twin) -> list:
    return [p for key, p in twin.named_parameters() if "oft_R" in key]


@pytest.mark.parametrize("share", [False, True])
def test_equal_to_peft_exact_forward_and_gradients(net, x, share):
    twin = peft_twin(net, target_modules=["wide", "narrow"], oft_block_size=8, block_share=share)
    oft.attach(net, ["wide", "narrow"], 8, block_share=share)
    turn(net)
    for mine, theirs in zip(oft.parameters(net), peft_weights(twin)):
        theirs.data = -mine.detach()  # the other sign: their R is our inverse for the same vector
    torch.testing.assert_close(net(x), twin(x), atol=1e-5, rtol=0)
    net(x).square().sum().backward()
    twin(x).square().sum().backward()
    for mine, theirs in zip(oft.parameters(net), peft_weights(twin)):
        torch.testing.assert_close(mine.grad, -theirs.grad, atol=1e-5, rtol=1e-5)


def test_peft_convolution_is_no_identity_at_the_start_and_ours_is():
    """A flat picture becomes k^2 times as bright inside; a real one is also scrambled, as its patches are put back
    with their axes in another order."""
    torch.manual_seed(0)
    conv = wrap(nn.Conv2d(4, 6, 3, padding=1))
    turned = peft_twin(conv, target_modules=["layer"], oft_block_size=9).base_model.model["layer"].oft_R["default"]
    flat, picture = torch.ones(1, 4, 9, 9), torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(turned(flat)[..., 2:-2, 2:-2], 9 * flat[..., 2:-2, 2:-2])
    assert (turned(picture) - 9 * picture)[..., 2:-2, 2:-2].abs().max() > 1
    base = conv["layer"](picture)
    oft.attach(conv, "layer", 9)
    assert (conv["layer"](picture) - base).abs().max() <= 1e-6


def test_peft_series_loses_orthogonality_and_ours_does_not():
    torch.manual_seed(0)
    model = wrap(nn.Linear(32, 32))
    twin = peft_twin(model, target_modules=["layer"], oft_block_size=32, use_cayley_neumann=True)
    oft.attach(model, "layer", 32)
    turn(model, 0.1)
    (weight,) = peft_weights(twin)
    weight.data = oft.parameters(model)[0].detach().clone()
    R = twin.base_model.model["layer"].oft_R["default"].get_weight().detach()
    torch.testing.assert_close(R, cayley_neumann(skew_symmetric(weight.detach(), 32), 5)[0], atol=1e-4, rtol=1e-4)
    assert orthogonality_error(R) > 0.5
    assert orthogonality_error(oft.rotations(model)["layer"]) < 2e-5


def test_peft_flag_turns_the_other_way():
    model = wrap(nn.Linear(16, 16))
    vector = 0.05 * torch.randn(2, 28, generator=torch.Generator().manual_seed(0))
    R = {}
    for neumann in (False, True):
        twin = peft_twin(model, target_modules=["layer"], oft_block_size=8, use_cayley_neumann=neumann)
        peft_weights(twin)[0].data = vector.clone()
        R[neumann] = twin.base_model.model["layer"].oft_R["default"].get_weight().detach()
    assert (R[False] - R[True]).abs().max() > 0.1
    torch.testing.assert_close(R[False], R[True].mT, atol=2e-3, rtol=0)


def test_peft_coft_is_frozen_at_its_default_and_ours_learns_at_the_papers(net, x):
    """The same data and steps. The paper's eps' = 6e-5 is our eps' b^1.5 / sqrt(r)."""
    twin = peft_twin(net, target_modules=["wide"], oft_block_size=12, coft=True)
    oft.attach(net, "wide", 12, eps=6e-5 * 12**1.5 / 2**0.5)
    moved = {}
    for model, parameters in ((net, oft.parameters(net)), (twin, peft_weights(twin))):
        optimiser = torch.optim.Adam(parameters, lr=1e-2)
        for _ in range(20):
            optimiser.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimiser.step()
        model(x)  # projects
        moved[model] = torch.linalg.matrix_norm(skew_symmetric(parameters[0].detach(), 12)).max()
    assert moved[twin] < 5e-5 < 5e-3 < moved[net]


# ------------------------------------------------------------------ bad input


BAD = {
    "unknown, nearly": (["inner.wode"], 8, {}, "Did you mean 'inner.wide'"),
    "unknown": (["zzzz"], 8, {}, "Layers here end in conv"),
    "one of several": (["wide", "to_q"], 8, {}, "no layer .* is called 'to_q'"),
    "empty": ([], 8, {}, "targets are empty"),
    "norm": (["norm"], 8, {}, "norm is a LayerNorm: only torch's Linear and Conv2d"),
    "container": (["inner"], 8, {}, "inner is a ModuleDict.*inner.wide, inner.narrow"),
    "size": (["wide", "conv"], 16, {}, "16 does not divide the 24 inputs of inner.wide.* 2, 3, 4, 6, 8, 12, 24"),
    "second size": (["wide", "narrow"], 12, {}, "12 does not divide the 40 inputs of inner.narrow.*: 2, 4, 8"),
    "size one": (["wide"], 1, {}, "1 does not divide"),
    "fraction": (["wide"], 8.0, {}, "whole number"),
    "nan": (["wide"], 8, {"eps": float("nan")}, "eps must be a positive number.*nan"),
    "zero": (["wide"], 8, {"eps": 0.0}, "eps must be a positive number"),
    "dot": (["wide"], 8, {"name": "a.b"}, "'a.b' cannot name an adapter"),
    "keyword": (["wide"], 8, {"name": "training"}, "'training' cannot name an adapter"),
}


@pytest.mark.parametrize("targets, block, options, message", BAD.values(), ids=BAD)
def test_bad_input_changes_nothing(net, targets, block, options, message):
    before, classes = snapshot(net), [type(m) for m in net.modules()]
    with pytest.raises(ValueError, match=message):
        oft.attach(net, targets, block, **options)
    assert_untouched(net, before, classes)


def test_a_name_that_is_taken_leaves_the_adapter_as_it_was(net, x):
    oft.attach(net, "wide", 8)
    turn(net)
    before, out = snapshot(net), net(x)
    with pytest.raises(ValueError, match=r"'default' is on this model already.*oft.remove\(model, 'default'\)"):
        oft.attach(net, ["conv"], 8)
    assert list(snapshot(net)) == list(before) and torch.equal(net(x), out) and type(net.conv) is nn.Conv2d
    with pytest.raises(ValueError, match=r"no adapter 'other'.*\['default'\]"):
        oft.activate(net, "other")
    with pytest.raises(ValueError, match="finite"):
        oft.set_strength(net, float("nan"))


def test_layers_whose_weight_is_read_without_calling_them_are_refused():
    model = nn.ModuleDict({"encoder": nn.TransformerEncoderLayer(16, 2, 32), "attention": nn.MultiheadAttention(16, 2)})
    with pytest.raises(ValueError, match="reads the weight without calling the layer"):
        oft.attach(model, "linear1", 8)
    with pytest.raises(ValueError, match="only torch's Linear and Conv2d"):  # a subclass of Linear
        oft.attach(model, "attention.out_proj", 8)


def test_what_needs_an_adapter_says_so(net, tmp_path):
    for call in (oft.merge, oft.remove, oft.parameters, oft.rotations, lambda m: oft.save(m, tmp_path / "a")):
        with pytest.raises(ValueError, match="has no OFT adapter: use oft.attach or oft.load"):
            call(net)
    assert not (tmp_path / "a").exists()
    with pytest.raises(TypeError, match="such as pipe.unet, got str"):
        oft.attach("unet", "to_q", 8)


def test_a_part_that_was_adapted_through_the_whole_is_refused(net):
    oft.attach(net, "wide", 8)
    with pytest.raises(ValueError, match="adapted through another model"):
        oft.attach(net.inner, "wide", 8, name="second")


def test_merge_refuses_numbers_that_are_not_finite(net):
    oft.attach(net, ["wide", "conv"], 8)
    turn(net)
    before = snapshot(net)
    with torch.no_grad():
        oft.parameters(net)[1][0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite in conv: nothing was merged"):
        oft.merge(net)
    assert torch.equal(net.inner["wide"].weight, before["inner.wide.weight"])


def test_only_what_was_trainable_becomes_trainable_again(net):
    net.norm.requires_grad_(False)
    oft.attach(net, "wide", 8)
    oft.attach(net, "conv", 8, name="second")
    oft.remove(net)
    assert [k for k, p in net.named_parameters() if not p.requires_grad] == ["norm.weight", "norm.bias"]
