"""Checks of lesson 08, ControlNet."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import torch
from torch import nn

from tutorial_lib import metrics
from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor

# ------------------------------------------------------------------ the gradient of a zero convolution


@check
def zero_convolution_gradients(answer):
    """The weights' gradient needs x and not w, so it is there although w is 0. What needs w is 0: dL/dx."""
    x, g = randn(3, 4, 5, 2, seed=1), randn(3, 6, 5, 2, seed=2)
    given = answer(x, g)
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise Mistake(f"Return three tensors, dL/dw, dL/db and dL/dx; got {type(given).__name__}.")
    _check_weight(given[0], x, g)
    bias = tensor(given[1], (6,), {(3, 6): "Every picture of the batch uses the same b: sum over the batch too."})
    mean = "dL/db is a mean. Each place adds its own share, so it is a sum."
    compare(bias, g.sum((0, 2, 3)), {mean: g.mean((0, 2, 3))}, "dL/db is the sum of g over pictures and places.")
    _check_input(given[2], x, g)


def _check_weight(given, x: torch.Tensor, g: torch.Tensor) -> None:
    shapes = {
        (4, 6): "It is transposed: row o of dL/dw belongs to the output channel o, as row o of w does.",
        (3, 6, 4): "The same w serves every picture of the batch: their shares are summed up.",
        (6, 4, 5, 2): "The same w serves every place: their shares are summed up.",
    }
    weight = tensor(given, (6, 4), shapes)
    if (weight == 0).all():
        raise Mistake(
            "Your dL/dw is 0. That is the usual worry, and it is wrong: y = wx + b changes when w does, wherever x is "
            "not 0. The derivative by w_oi is x_i, without any w in it."
        )
    right = torch.einsum("nohw,nihw->oi", g, x)
    apart = torch.outer(g.sum((0, 2, 3)), x.sum((0, 2, 3)))
    known = {
        "dL/dw is a mean. Each place adds its own share, so it is a sum.": right / (3 * 5 * 2),
        "dL/dw is a mean over the batch. Each picture adds its own share, so it is a sum.": right / 3,
        "The sign is wrong: this is the direction of the step, -dL/dw. Return the gradient.": -right,
        "You summed g and x apart and multiplied then. First multiply place by place, then sum.": apart,
    }
    compare(weight, right, known, "dL/dw has the right shape and wrong numbers.")


def _check_input(given, x: torch.Tensor, g: torch.Tensor) -> None:
    shapes = {tuple(g.shape): "dL/dx has x's channels, not y's."} if g.shape != x.shape else {}
    gradient = tensor(given, tuple(x.shape), shapes)
    if (gradient != 0).any():
        raise Mistake(
            "Your dL/dx is not 0. What comes back to x is wᵀg, and w is 0: as long as w is 0, nothing in front of the "
            "zero convolution learns."
        )


@zero_convolution_gradients.right
def _by_autograd(x, g):
    x = x.clone().requires_grad_()
    layer = nn.Conv2d(x.shape[1], g.shape[1], 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    (layer(x) * g).sum().backward()
    return layer.weight.grad[:, :, 0, 0], layer.bias.grad, x.grad


@zero_convolution_gradients.right
def _as_a_matrix_product(x, g):
    columns = x.transpose(0, 1).flatten(1)  # (n, c, h, w) -> (c, n·h·w)
    rows = g.transpose(0, 1).flatten(1)
    return rows @ columns.T, rows.sum(1), torch.zeros_like(x)


def _with_weight(change):
    """An answer that is right but for dL/dw."""
    return lambda x, g: (change(x, g), g.sum((0, 2, 3)), torch.zeros_like(x))


def _right_weight(x, g):
    return torch.einsum("nohw,nihw->oi", g, x)


@zero_convolution_gradients.wrong("usual worry")
def _nothing_learns(x, g):
    return _with_weight(lambda x, g: torch.zeros(6, 4))(x, g)


@zero_convolution_gradients.wrong("It is transposed")
def _transposed(x, g):
    return _with_weight(lambda x, g: _right_weight(x, g).T)(x, g)


@zero_convolution_gradients.wrong("dL/dw is a mean. Each place")
def _mean(x, g):
    return _with_weight(lambda x, g: _right_weight(x, g) / x[:, 0].numel())(x, g)


@zero_convolution_gradients.wrong("mean over the batch")
def _mean_over_batch(x, g):
    return _with_weight(lambda x, g: _right_weight(x, g) / len(x))(x, g)


@zero_convolution_gradients.wrong("every picture of the batch: their shares")
def _batch_kept(x, g):
    return _with_weight(lambda x, g: torch.einsum("nohw,nihw->noi", g, x))(x, g)


@zero_convolution_gradients.wrong("serves every place")
def _places_kept(x, g):
    return _with_weight(lambda x, g: torch.einsum("nohw,nihw->oihw", g, x))(x, g)


@zero_convolution_gradients.wrong("The sign is wrong")
def _downhill(x, g):
    return _with_weight(lambda x, g: -_right_weight(x, g))(x, g)


@zero_convolution_gradients.wrong("You summed g and x apart")
def _sums_first(x, g):
    return _with_weight(lambda x, g: torch.outer(g.sum((0, 2, 3)), x.sum((0, 2, 3))))(x, g)


@zero_convolution_gradients.wrong("dL/db is a mean")
def _mean_bias(x, g):
    return _right_weight(x, g), g.mean((0, 2, 3)), torch.zeros_like(x)


@zero_convolution_gradients.wrong("sum over the batch too")
def _bias_of_each(x, g):
    return _right_weight(x, g), g.sum((2, 3)), torch.zeros_like(x)


@zero_convolution_gradients.wrong("Your dL/dx is not 0")
def _as_if_it_were_the_identity(x, g):
    return _right_weight(x, g), g.sum((0, 2, 3)), g[:, : x.shape[1]].clone()


# ------------------------------------------------------------------ the controlled block


class _Block(nn.Module):
    """A block of an encoder that keeps its channels: linear over the channels, and bent, so that places matter."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(x))


def _frozen_block(channels: int) -> _Block:
    block = _Block(channels)
    with torch.no_grad():
        for k, parameter in enumerate(block.parameters()):
            parameter.copy_(0.5 * randn(*parameter.shape, seed=k))
    return block.requires_grad_(False)


@check
def control_block(answer):
    """A trainable copy between two zero convolutions: at first it adds nothing, and the block itself stays as it is."""
    if not inspect.isclass(answer) or not issubclass(answer, nn.Module):
        answer(None, 0)  # lets a stub or a wrong kind of answer speak for itself
        raise Mistake("Give the check your class ControlBlock itself.")
    block = _frozen_block(5)
    before = copy.deepcopy(block.state_dict())
    own = answer(block, 5)
    x, c = randn(2, 5, 4, 3, seed=3), randn(2, 5, 4, 3, seed=4)
    _check_parts(own, block)
    _check_silent(own, block, x, c)
    _check_learns(own, block, x, c)
    if any(not torch.equal(value, before[name]) for name, value in block.state_dict().items()):
        raise Mistake("The frozen block's weights changed: the copy must have tensors of its own (copy.deepcopy).")


def _check_parts(own: nn.Module, block: nn.Module) -> None:
    for name in ("trainable_copy", "zero_in", "zero_out"):
        if not isinstance(getattr(own, name, None), nn.Module):
            raise Mistake(f"Your block has no layer called {name}. Make it in __init__: self.{name} = ...")
    theirs = dict(own.trainable_copy.named_parameters())
    if theirs.keys() != dict(block.named_parameters()).keys():
        raise Mistake("trainable_copy is not a copy of the block: copy.deepcopy(block) makes one.")
    for name, parameter in block.named_parameters():
        if theirs[name] is parameter:
            raise Mistake(
                "trainable_copy *is* the frozen block: training it would change the model that you wanted to keep. "
                "Use copy.deepcopy."
            )
        if not torch.equal(theirs[name], parameter):
            raise Mistake("The copy's weights differ from the block's. It starts from what the model knows.")
    if not all(parameter.requires_grad for parameter in theirs.values()):
        raise Mistake(
            "The copy cannot learn: it was copied from a frozen block, requires_grad=False included. Call "
            ".requires_grad_(True) on it."
        )
    for name in ("zero_in", "zero_out"):
        layer = getattr(own, name)
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1):
            raise Mistake(f"{name} should be a 1x1 convolution, nn.Conv2d(channels, channels, 1).")
        if any((parameter != 0).any() for parameter in layer.parameters()):
            raise Mistake(f"{name} is not zero: nn.Conv2d begins with random numbers. Set its weight and bias to 0.")


def _check_silent(own: nn.Module, block: nn.Module, x: torch.Tensor, c: torch.Tensor) -> None:
    with torch.no_grad():
        added = tensor(own(x.clone(), c.clone()), tuple(x.shape))
        if torch.allclose(added, block(x)):
            raise Mistake(
                "forward returns all of y_c. Return only what is added to the frozen block's output: the UNet adds it."
            )
    if (added != 0).any():
        raise Mistake("At the start your block adds something that is not 0: the last thing must be zero_out.")


def _check_learns(own: nn.Module, block: nn.Module, x: torch.Tensor, c: torch.Tensor) -> None:
    z_in, z_out = randn(5, 5, 1, 1, seed=5), randn(5, 5, 1, 1, seed=6)
    with torch.no_grad():
        own.zero_in.weight.copy_(z_in)
        own.zero_out.weight.copy_(z_out)
        given = tensor(own(x.clone(), c.clone()), tuple(x.shape))

        def z(w, value):
            return nn.functional.conv2d(value, w)

        known = {
            "The control never reaches the copy: it should see x + zero_in(c).": z(z_out, block(x)),
            "The copy sees the control alone. It should see x + zero_in(c).": z(z_out, block(z(z_in, c))),
            "The control is added behind the copy. It goes in front: copy(x + zero_in(c)).": z(
                z_out, block(x) + z(z_in, c)
            ),
            "zero_in was not used: the raw c went into the copy, and at the start it would disturb it.": z(
                z_out, block(x + c)
            ),
            "zero_in was applied to x + c. Only the control goes through it: x + zero_in(c).": z(
                z_out, block(z(z_in, x + c))
            ),
            "The frozen block's output was taken away or added once more. Return zero_out(copy(...)) alone.": block(x)
            + z(z_out, block(x + z(z_in, c))),
        }
        compare(given, z(z_out, block(x + z(z_in, c))), known, "With weights that are not 0 the output is wrong.")


def _block_class(forward, zero=True, keep=copy.deepcopy, train=True):
    """A student's class that differs in one thing."""

    class Answer(nn.Module):
        def __init__(self, block: nn.Module, channels: int):
            super().__init__()
            self.trainable_copy = keep(block).requires_grad_(train)
            self.zero_in, self.zero_out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
            for parameter in [*self.zero_in.parameters(), *self.zero_out.parameters()] if zero else []:
                nn.init.zeros_(parameter)

        def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return forward(self, x, c)

    return Answer


def _named(name: str, made: type) -> type:
    made.__name__ = name
    return made


def _as_in_the_paper(self, x, c):
    return self.zero_out(self.trainable_copy(x + self.zero_in(c)))


class _Plain(nn.Module):
    def __init__(self, block: nn.Module, channels: int):
        super().__init__()
        self.trainable_copy = copy.deepcopy(block)
        for parameter in self.trainable_copy.parameters():
            parameter.requires_grad = True
        self.zero_in = self._zero(channels)
        self.zero_out = self._zero(channels)

    def _zero(self, channels):
        layer = nn.Conv2d(channels, channels, 1)
        with torch.no_grad():
            layer.weight.mul_(0)
            layer.bias.mul_(0)
        return layer

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        seen = self.zero_in(c) + x
        return self.zero_out(self.trainable_copy(seen))


control_block.right(_Plain)
control_block.right(_named("_made_in_a_loop", _block_class(_as_in_the_paper)))

for _name, _phrase, _made in (
    ("_same_block", "*is* the frozen block", _block_class(_as_in_the_paper, keep=lambda block: block)),
    ("_frozen_copy", "The copy cannot learn", _block_class(_as_in_the_paper, train=False)),
    ("_random_convolutions", "is not zero: nn.Conv2d", _block_class(_as_in_the_paper, zero=False)),
    (
        "_new_block",
        "weights differ from the block's",
        _block_class(_as_in_the_paper, keep=lambda block: type(block)(block.conv.in_channels)),
    ),
    ("_whole_output", "forward returns all of y_c", _block_class(lambda self, x, c: self.trainable_copy(x))),
    (
        "_no_zero_behind",
        "adds something that is not 0",
        _block_class(lambda self, x, c: self.trainable_copy(x + self.zero_in(c)) + c),
    ),
    (
        "_control_alone",
        "sees the control alone",
        _block_class(lambda self, x, c: self.zero_out(self.trainable_copy(self.zero_in(c)))),
    ),
    (
        "_control_forgotten",
        "never reaches the copy",
        _block_class(lambda self, x, c: self.zero_out(self.trainable_copy(x))),
    ),
    (
        "_control_behind",
        "added behind the copy",
        _block_class(lambda self, x, c: self.zero_out(self.trainable_copy(x) + self.zero_in(c))),
    ),
    (
        "_raw_control",
        "the raw c went into the copy",
        _block_class(lambda self, x, c: self.zero_out(self.trainable_copy(x + c))),
    ),
    (
        "_everything_through_zero",
        "applied to x + c",
        _block_class(lambda self, x, c: self.zero_out(self.trainable_copy(self.zero_in(x + c)))),
    ),
):
    control_block.wrong(_phrase)(_named(_name, _made))


# ------------------------------------------------------------------ dropping prompts


@check
def drop_prompts(answer):
    """Each prompt is dropped by a coin of its own; what is left sees the hint and the noise, and no words."""
    captions = [f"a photo of thing {k}" for k in range(2000)]
    given = answer(captions, 0.3, np.random.default_rng(0))
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
    if isinstance(given, str) or not isinstance(given, (list, tuple)):
        raise Mistake(f"Expected a list of captions, got {type(given).__name__}.")
    if len(given) != len(captions):
        raise Mistake(
            f"{len(captions)} captions went in, {len(given)} came out. A picture keeps its place: drop the words, and "
            'put "" there.'
        )
    _check_dropped(list(given), captions)
    _check_shares(answer, captions)


def _check_dropped(given: list, captions: list[str]) -> None:
    changed = [(new, old) for new, old in zip(given, captions) if new != old]
    if wrong := [new for new, _ in changed if new != ""]:
        raise Mistake(f'A dropped prompt is the empty string "", not {wrong[0]!r}.')
    share = len(changed) / len(captions)
    if share in (0, 1):
        raise Mistake("All captions met the same fate: one coin was thrown for all. Throw one for each caption.")
    runs = sum((a == "") != (b == "") for a, b in zip(given, given[1:]))
    if runs <= 2:
        raise Mistake(
            "The dropped captions stand side by side: the same ones each time. Throw a coin for each caption."
        )
    if abs(share - 0.7) < 0.05:
        raise Mistake(f"With share 0.3 you dropped {share:.2f} of them: the comparison is the wrong way round.")
    if abs(share - 0.5) < 0.05:
        raise Mistake(f"With share 0.3 you dropped {share:.2f} of them: share is not used.")
    if abs(share - 0.3) > 0.05:
        raise Mistake(f"With share 0.3 about 0.3 of the prompts should be dropped; you dropped {share:.2f}.")


def _check_shares(answer, captions: list[str]) -> None:
    if any(new == "" for new in answer(captions, 0.0, np.random.default_rng(1))):
        raise Mistake("With share 0 nothing should be dropped.")
    if any(new != "" for new in answer(captions, 1.0, np.random.default_rng(1))):
        raise Mistake("With share 1 everything should be dropped.")
    first, second = (list(answer(captions, 0.3, np.random.default_rng(seed))) for seed in (1, 2))
    if first == second:
        raise Mistake("Two generators with different seeds drop the same prompts: draw from the `rng` that is given.")
    if first != list(answer(captions, 0.3, np.random.default_rng(1))):
        raise Mistake("The same seed dropped other prompts the second time: draw from the `rng` that is given.")
    alone = [answer(captions[:1], 0.3, np.random.default_rng(seed))[0] == "" for seed in range(200)]
    if not any(alone):
        raise Mistake(
            "An exact share of each batch is dropped, so of a batch of one nothing ever is. Throw a coin for each "
            "caption."
        )


@drop_prompts.right
def _one_by_one(captions, share, rng):
    return ["" if rng.random() < share else caption for caption in captions]


@drop_prompts.right
def _all_coins_at_once(captions, share, rng):
    return tuple("" if coin else caption for caption, coin in zip(captions, rng.random(len(captions)) < share))


@drop_prompts.wrong("one coin was thrown for all")
def _one_coin(captions, share, rng):
    return [""] * len(captions) if rng.random() < share else list(captions)


@drop_prompts.wrong("the wrong way round")
def _other_way_round(captions, share, rng):
    return ["" if rng.random() > share else caption for caption in captions]


@drop_prompts.wrong("share is not used")
def _always_half(captions, share, rng):
    return ["" if rng.random() < 0.5 else caption for caption in captions]


@drop_prompts.wrong("A picture keeps its place")
def _left_out(captions, share, rng):
    return [caption for caption in captions if rng.random() >= share]


@drop_prompts.wrong('the empty string ""')
def _none(captions, share, rng):
    return [None if rng.random() < share else caption for caption in captions]


@drop_prompts.wrong("in place")
def _in_place(captions, share, rng):
    for k in range(len(captions)):
        if rng.random() < share:
            captions[k] = ""
    return captions


@drop_prompts.wrong("stand side by side")
def _the_first_ones(captions, share, rng):
    n = int(share * len(captions))
    return [""] * n + list(captions[n:])


@drop_prompts.wrong("An exact share of each batch")
def _exact_share(captions, share, rng):
    dropped = set(rng.choice(len(captions), round(share * len(captions)), replace=False))
    return ["" if k in dropped else caption for k, caption in enumerate(captions)]


@drop_prompts.wrong("Two generators with different seeds")
def _own_generator(captions, share, rng):
    return _one_by_one(captions, share, np.random.default_rng(0))


@drop_prompts.wrong("second time")
def _global_chance(captions, share, rng):
    return ["" if np.random.random() < share else caption for caption in captions]


# ------------------------------------------------------------------ F1 of edges


@check
def edge_f1(answer):
    """Precision: of the drawn edges, how many were asked for. Recall: of those asked for, how many were drawn."""
    found, asked = _edge_case()
    for tolerance in (1, 2, 0):
        given = tensor(answer(found, asked, tolerance), ())
        right = torch.tensor(metrics.edge_f1(found.numpy(), asked.numpy(), tolerance))
        compare(given, right, _wrong_f1(found, asked, tolerance), f"Wrong at a tolerance of {tolerance}.")


def _edge_case() -> tuple[torch.Tensor, torch.Tensor]:
    """A corner of lines, and the same one pixel lower with a piece missing and stray pixels: bool (11, 14)."""
    asked, found = torch.zeros(11, 14, dtype=torch.bool), torch.zeros(11, 14, dtype=torch.bool)
    asked[4, 1:11] = asked[4:10, 10] = True
    found[5, 1:8] = found[6:9, 11] = found[9, 10] = found[4, 9] = True
    found[0, 0:5] = found[1, 13] = found[9, 2] = True
    found[3, 13] = True
    return found, asked


def _near(edges: torch.Tensor, tolerance: int, plus: bool = False) -> torch.Tensor:
    """Where an edge is at most `tolerance` away; with `plus`, only along rows and columns."""
    grown = edges[None, None].float()
    size, pool = 2 * tolerance + 1, nn.functional.max_pool2d
    if plus:
        grown = torch.maximum(pool(grown, (size, 1), 1, (tolerance, 0)), pool(grown, (1, size), 1, (0, tolerance)))
    else:
        grown = pool(grown, size, 1, tolerance)
    return grown[0, 0] > 0


def _harmonic(p: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return 2 * p * r / (p + r).clamp(min=1e-12)


def _shares(found, asked, tolerance: int) -> tuple[torch.Tensor, torch.Tensor]:
    p = (found & _near(asked, tolerance)).sum() / found.sum()
    r = (asked & _near(found, tolerance)).sum() / asked.sum()
    return p, r


def _wrong_f1(found, asked, tolerance: int) -> dict[str, torch.Tensor]:
    p, r = _shares(found, asked, tolerance)
    exact = _harmonic(*_shares(found, asked, 0))
    both = (_near(found, tolerance) & _near(asked, tolerance)).sum()
    grown = _harmonic(both / _near(found, tolerance).sum(), both / _near(asked, tolerance).sum())
    hits = (found & _near(asked, tolerance)).sum()
    return {
        "The tolerance is not used: you count only pixels that lie exactly upon one another.": exact,
        "This is the precision alone. A model that draws one right pixel and nothing else would be perfect.": p,
        "This is the recall alone. A model that makes every pixel an edge would be perfect.": r,
        "This is the plain mean of precision and recall. F1 is the harmonic one, 2pr / (p + r).": (p + r) / 2,
        "F1 is 2pr / (p + r): the factor 2 is missing.": _harmonic(p, r) / 2,
        "Both maps were widened before they were compared, so twice the tolerance counts. Widen only the other one, "
        "and count pixels of the thin one.": grown,
        "The hits of the precision are counted for the recall too. Recall counts pixels of `asked`, near to `found`.": (
            2 * hits / (found.sum() + asked.sum())
        ),
        "This is the share of equal pixels. Most pixels are no edge in either map, so it is high for any two.": (
            found == asked
        )
        .float()
        .mean(),
        "This is the intersection over union. It is a good measure too, but another one.": (
            (found & asked).sum() / (found | asked).sum()
        ),
        "Neighbours along the diagonal count as one step away too; you looked along rows and columns only.": _harmonic(
            (found & _near(asked, tolerance, True)).sum() / found.sum(),
            (asked & _near(found, tolerance, True)).sum() / asked.sum(),
        ),
    }


@edge_f1.right
def _by_pooling(found, asked, tolerance):
    return _harmonic(*_shares(found, asked, tolerance))


@edge_f1.right
def _by_loops(found, asked, tolerance):
    def share(edges, others):
        hits = 0
        for i, j in edges.nonzero().tolist():
            window = others[max(0, i - tolerance) : i + tolerance + 1, max(0, j - tolerance) : j + tolerance + 1]
            hits += bool(window.any())
        return hits / int(edges.sum())

    p, r = share(found, asked), share(asked, found)
    return 2 / (1 / p + 1 / r) if p and r else 0.0


@edge_f1.wrong("tolerance is not used")
def _exactly(found, asked, tolerance):
    return _by_pooling(found, asked, 0)


@edge_f1.wrong("precision alone")
def _precision(found, asked, tolerance):
    return _shares(found, asked, tolerance)[0]


@edge_f1.wrong("recall alone")
def _recall(found, asked, tolerance):
    return _shares(found, asked, tolerance)[1]


@edge_f1.wrong("plain mean of precision and recall")
def _plain_mean(found, asked, tolerance):
    return sum(_shares(found, asked, tolerance)) / 2


@edge_f1.wrong("factor 2 is missing")
def _without_two(found, asked, tolerance):
    p, r = _shares(found, asked, tolerance)
    return p * r / (p + r)


@edge_f1.wrong("Both maps were widened")
def _both_wide(found, asked, tolerance):
    wide = _near(found, tolerance), _near(asked, tolerance)
    both = (wide[0] & wide[1]).sum()
    return _harmonic(both / wide[0].sum(), both / wide[1].sum())


@edge_f1.wrong("hits of the precision are counted")
def _one_kind_of_hit(found, asked, tolerance):
    return 2 * (found & _near(asked, tolerance)).sum() / (found.sum() + asked.sum())


@edge_f1.wrong("share of equal pixels")
def _accuracy(found, asked, tolerance):
    return (found == asked).float().mean()


@edge_f1.wrong("intersection over union")
def _iou(found, asked, tolerance):
    return (found & asked).sum() / (found | asked).sum()


@edge_f1.wrong("along rows and columns only")
def _plus_shaped(found, asked, tolerance):
    p = (found & _near(asked, tolerance, True)).sum() / found.sum()
    r = (asked & _near(found, tolerance, True)).sum() / asked.sum()
    return _harmonic(p, r)


# ------------------------------------------------------------------ guess mode


def _guess_case() -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Residuals of four sizes, ε without control, and what each residual adds to ε."""
    residuals = [randn(2, 3, 4, 4, seed=k) for k in range(4)]
    return residuals, randn(2, 3, 4, 4, seed=9), [randn(2, 3, 4, 4, seed=20 + k) for k in range(4)]


@check
def guess_mode(answer):
    """One half of guidance has no control, so what guidance strengthens is the control, and no words are needed."""
    residuals, plain, mixing = _guess_case()

    def predict(given):
        if not isinstance(given, (list, tuple)) or len(given) != 4:
            raise Mistake(
                "Hand `predict` a list of as many residuals as you were given, zeros where there is no control."
            )
        return plain + sum(m * torch.tanh(r) for m, r in zip(mixing, given))

    given = tensor(answer(predict, residuals, 3.0), tuple(plain.shape))
    scales = torch.logspace(-1, 0, 4)
    compare(given, _guided(predict, residuals, scales), _wrong_guesses(predict, residuals), "The numbers are wrong.")


def _guided(predict, residuals, scales, guidance: float = 3.0, other=0.0) -> torch.Tensor:
    """Guidance between the residuals at these scales and the residuals times `other`."""
    with_control = predict([s * r for s, r in zip(scales, residuals)])
    without = predict([other * s * r for s, r in zip(scales, residuals)])
    return without + guidance * (with_control - without)


def _wrong_guesses(predict, residuals) -> dict[str, torch.Tensor]:
    scales = torch.logspace(-1, 0, 4)
    controlled, nothing = _guided(predict, residuals, scales, 1.0), _guided(predict, residuals, scales, 0.0)
    return {
        "Both halves see the control, so their difference is 0 and guidance does nothing. The half without must get "
        "zeros.": _guided(predict, residuals, scales, other=1.0),
        "The scales run the wrong way: 0.1 for the first, finest residual, and 1 for the last, the middle block's.": (
            _guided(predict, residuals, scales.flip(0))
        ),
        "The residuals were not scaled: all of them have the same say.": _guided(predict, residuals, torch.ones(4)),
        "The scales rise in equal steps. They rise by equal factors, from 0.1 to 1: torch.logspace(-1, 0, n).": _guided(
            predict, residuals, torch.linspace(0.1, 1, 4)
        ),
        "The halves are swapped: start from the one without control and go towards the one with it.": controlled
        + 3.0 * (nothing - controlled),
        "You started from the controlled half: without + w (with - without).": controlled
        + 3.0 * (controlled - nothing),
        "The half without control is missing: this is guidance times the difference.": 3.0 * (controlled - nothing),
        "The exponents themselves are the scales. 10 ** exponent is meant.": _guided(
            predict, residuals, torch.linspace(-1, 0, 4)
        ),
    }


@guess_mode.right
def _by_numpy(predict, residuals, guidance):
    scales = np.logspace(-1, 0, len(residuals))
    zeros = [torch.zeros_like(residual) for residual in residuals]
    with_control = predict([float(s) * r for s, r in zip(scales, residuals)])
    return (1 - guidance) * predict(zeros) + guidance * with_control


@guess_mode.right
def _by_powers(predict, residuals, guidance):
    n = len(residuals)
    scaled = [residual * 0.1 ** ((n - 1 - k) / (n - 1)) for k, residual in enumerate(residuals)]
    without = predict([0 * residual for residual in residuals])
    return without + guidance * (predict(scaled) - without)


@guess_mode.wrong("Both halves see the control")
def _control_in_both(predict, residuals, guidance):
    return _guided(predict, residuals, torch.logspace(-1, 0, len(residuals)), guidance, other=1.0)


@guess_mode.wrong("run the wrong way")
def _falling_scales(predict, residuals, guidance):
    return _guided(predict, residuals, torch.logspace(0, -1, len(residuals)), guidance)


@guess_mode.wrong("were not scaled")
def _unscaled(predict, residuals, guidance):
    return _guided(predict, residuals, torch.ones(len(residuals)), guidance)


@guess_mode.wrong("rise in equal steps")
def _linear_scales(predict, residuals, guidance):
    return _guided(predict, residuals, torch.linspace(0.1, 1, len(residuals)), guidance)


@guess_mode.wrong("halves are swapped")
def _swapped_halves(predict, residuals, guidance):
    return _guided(predict, residuals, torch.logspace(-1, 0, len(residuals)), 1 - guidance)


@guess_mode.wrong("started from the controlled half")
def _from_the_other_end(predict, residuals, guidance):
    return _guided(predict, residuals, torch.logspace(-1, 0, len(residuals)), 1 + guidance)


@guess_mode.wrong("half without control is missing")
def _difference_alone(predict, residuals, guidance):
    n = len(residuals)
    return _guided(predict, residuals, torch.logspace(-1, 0, n), guidance) - predict([0 * r for r in residuals])


@guess_mode.wrong("exponents themselves")
def _exponents(predict, residuals, guidance):
    return _guided(predict, residuals, torch.linspace(-1, 0, len(residuals)), guidance)


@guess_mode.wrong("as many residuals as you were given")
def _nothing_for_no_control(predict, residuals, guidance):
    scaled = [s * r for s, r in zip(torch.logspace(-1, 0, len(residuals)), residuals)]
    return predict([]) + guidance * (predict(scaled) - predict([]))


@guess_mode.wrong("changed its input residuals")
def _scaled_in_place(predict, residuals, guidance):
    for scale, residual in zip(torch.logspace(-1, 0, len(residuals)), residuals):
        residual *= scale
    return _guided(predict, residuals, torch.ones(len(residuals)), guidance)
