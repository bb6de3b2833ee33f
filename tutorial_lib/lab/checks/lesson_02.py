"""Checks of lesson 02, Embedding interpolation."""

from __future__ import annotations

import math

import torch

from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor

T = 1000  # timesteps that the model was trained with


def _alphas() -> torch.Tensor:
    """ᾱ of Stable Diffusion, (1000,)."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, T) ** 2, 0)


# ------------------------------------------------------------------ add_noise


@check
def add_noise(answer):
    """Both shares are square roots, so their squares add up to 1 and the result keeps the size that the UNet knows."""
    x0, eps, alpha = randn(2, 4, 3, 5), randn(2, 4, 3, 5, seed=1), torch.tensor(0.7)
    given = tensor(answer(x0, eps, alpha), (2, 4, 3, 5))
    a, b = alpha.sqrt(), (1 - alpha).sqrt()
    compare(
        given,
        a * x0 + b * eps,
        {
            "The square roots are missing: alpha and 1 - alpha are shares of the variance, and x is multiplied by "
            "their roots.": alpha * x0 + (1 - alpha) * eps,
            "The two shares are swapped: alpha is what is left of the picture, 1 - alpha belongs to the noise.": (
                b * x0 + a * eps
            ),
            "The noise got the share 1 - √ᾱ. It needs √(1 - ᾱ): the squares of the two shares add up to 1.": (
                a * x0 + (1 - a) * eps
            ),
            "The picture kept its full size and the noise was put on top. Multiply x0 by √ᾱ, or the sum outgrows what "
            "the UNet was trained on.": x0 + b * eps,
            "The noise was added whole. It has a share too: √(1 - ᾱ).": a * x0 + eps,
            "The noise was subtracted. The forward process adds it.": a * x0 - b * eps,
        },
    )


@add_noise.right
def _add_noise_by_powers(x0, eps, alpha):
    return x0 * alpha**0.5 + eps * (1 - alpha) ** 0.5


@add_noise.right
def _add_noise_as_an_angle(x0, eps, alpha):
    angle = math.acos(math.sqrt(float(alpha)))
    return math.cos(angle) * x0 + math.sin(angle) * eps


@add_noise.wrong("square roots are missing")
def _add_noise_no_roots(x0, eps, alpha):
    return alpha * x0 + (1 - alpha) * eps


@add_noise.wrong("two shares are swapped")
def _add_noise_swapped(x0, eps, alpha):
    return (1 - alpha).sqrt() * x0 + alpha.sqrt() * eps


@add_noise.wrong("the squares of the two shares")
def _add_noise_linear(x0, eps, alpha):
    return alpha.sqrt() * x0 + (1 - alpha.sqrt()) * eps


@add_noise.wrong("kept its full size")
def _add_noise_on_top(x0, eps, alpha):
    return x0 + (1 - alpha).sqrt() * eps


@add_noise.wrong("added whole")
def _add_noise_whole(x0, eps, alpha):
    return alpha.sqrt() * x0 + eps


@add_noise.wrong("in place")
def _add_noise_in_place(x0, eps, alpha):
    x0 *= alpha.sqrt()
    return x0 + (1 - alpha).sqrt() * eps


@add_noise.wrong("the numbers are not")
def _add_noise_of_its_own(x0, eps, alpha):
    return alpha.sqrt() * x0 + (1 - alpha).sqrt() * torch.randn_like(x0)


@add_noise.wrong("returned nothing")
def _add_noise_no_return(x0, eps, alpha):
    alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps


# ------------------------------------------------------------------ epsilon_loss


class _Model:
    """A model with one weight, whose estimate is easy to recompute, and which remembers what it was asked."""

    def __init__(self):
        self.weight = torch.tensor(0.7, requires_grad=True)

    def __call__(self, x, t):
        self.x, self.t = x, t
        return self.estimate(x, t)

    def estimate(self, x, t):
        return torch.tanh(self.weight * x) + 0.1 * x.flip(1) - 0.3 * torch.as_tensor(t).float().reshape(-1, 1) / T


@check
def epsilon_loss(answer):
    """The model sees noisy points and their timesteps, and is asked for the noise that you mixed in."""
    alphas, model = _alphas(), _Model()
    x0, eps, t = randn(5, 2, seed=2), randn(5, 2, seed=3), torch.tensor([10, 200, 500, 800, 990])
    result = answer(model, x0, t, eps, alphas)
    given = tensor(result, (), {(5, 2): "Average the squares: .mean()."})
    alpha = alphas[t][:, None]
    x_t = alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps
    if not hasattr(model, "x"):
        raise Mistake("The model was never asked: its estimate is model(x_t, t).")
    _check_question(model, x0, t, x_t, alpha * x0 + (1 - alpha) * eps)
    error = model.estimate(x_t, t).detach() - eps
    compare(
        given,
        error.square().mean(),
        {
            "The estimate was compared with x0. This model estimates the noise: compare with eps.": (
                (model.estimate(x_t, t).detach() - x0).square().mean()
            ),
            "The estimate was compared with the noisy x_t. Compare with the noise eps that is in it.": (
                (model.estimate(x_t, t).detach() - x_t).square().mean()
            ),
            "The squares were added up. Take their mean, or the loss depends on the number of points.": (
                error.square().sum()
            ),
            "This is the mean absolute error. The ε-loss takes squares: it is then lowest at the mean of all noises "
            "that are possible.": error.abs().mean(),
            "This is the root of the loss. Leave it out: only the mean of squares is meant.": (
                error.square().mean().sqrt()
            ),
        },
    )
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        raise Mistake(
            "The number is right, but nothing can be trained with it: it is cut off from its gradient (as .item(), "
            ".detach() and torch.no_grad() do). Return the tensor itself."
        )


def _check_question(model: _Model, x0, t, x_t, without_roots) -> None:
    """Mistake unless the model was asked about x_t at t."""
    if tuple(model.x.shape) != (5, 2):
        raise Mistake(
            f"The model was given points of shape {tuple(model.x.shape)} instead of (5, 2): each point has an ᾱ of its "
            "own, and alphas_cumprod[t][:, None], of shape (5, 1), puts it beside its point."
        )
    if torch.allclose(model.x, x0):
        raise Mistake("The model was shown the clean points x0. It must be shown noisy ones: mix in eps first.")
    if torch.allclose(model.x, without_roots, atol=1e-5):
        raise Mistake("The points that the model saw were mixed without the square roots of ᾱ and 1 - ᾱ.")
    if not torch.allclose(model.x, x_t, atol=1e-4):
        raise Mistake("The noisy points that the model saw are not √ᾱ x0 + √(1 - ᾱ) eps, with ᾱ = alphas_cumprod[t].")
    if not torch.equal(torch.as_tensor(model.t).flatten().float(), t.float()):
        raise Mistake("The model was not told the timesteps t themselves: call model(x_t, t).")


@epsilon_loss.right
def _epsilon_loss_by_torch(model, x0, t, eps, alphas_cumprod):
    alpha = alphas_cumprod[t].unsqueeze(-1)
    return torch.nn.functional.mse_loss(model(alpha**0.5 * x0 + (1 - alpha) ** 0.5 * eps, t), eps)


@epsilon_loss.right
def _epsilon_loss_point_by_point(model, x0, t, eps, alphas_cumprod):
    rows = []
    for point, noise, time in zip(x0, eps, t, strict=True):
        a = alphas_cumprod[time]
        rows.append(a.sqrt() * point + (1 - a).sqrt() * noise)
    return ((model(torch.stack(rows), t) - eps) ** 2).sum() / eps.numel()


@epsilon_loss.wrong("cut off from its gradient")
def _epsilon_loss_as_number(model, x0, t, eps, alphas_cumprod):
    return _epsilon_loss_by_torch(model, x0, t, eps, alphas_cumprod).item()


@epsilon_loss.wrong("in place")
def _epsilon_loss_in_place(model, x0, t, eps, alphas_cumprod):
    alpha = alphas_cumprod[t][:, None]
    x0 *= alpha.sqrt()
    return (model(x0 + (1 - alpha).sqrt() * eps, t) - eps).square().mean()


@epsilon_loss.wrong("compared with x0")
def _epsilon_loss_for_x0(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t) - x0).square().mean()


@epsilon_loss.wrong("compared with the noisy x_t")
def _epsilon_loss_for_x_t(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    return (model(x_t, t) - x_t).square().mean()


@epsilon_loss.wrong("were added up")
def _epsilon_loss_summed(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t) - eps).square().sum()


@epsilon_loss.wrong("mean absolute error")
def _epsilon_loss_absolute(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t) - eps).abs().mean()


@epsilon_loss.wrong("clean points")
def _epsilon_loss_on_clean_points(model, x0, t, eps, alphas_cumprod):
    return (model(x0, t) - eps).square().mean()


@epsilon_loss.wrong("mixed without the square roots")
def _epsilon_loss_no_roots(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    return (model(a * x0 + (1 - a) * eps, t) - eps).square().mean()


@epsilon_loss.wrong("Average the squares")
def _epsilon_loss_not_averaged(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t) - eps).square()


@epsilon_loss.wrong("timesteps t themselves")
def _epsilon_loss_scaled_time(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t][:, None]
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t / 1000) - eps).square().mean()


@epsilon_loss.wrong("Your code stopped with RuntimeError")
def _epsilon_loss_no_axis(model, x0, t, eps, alphas_cumprod):
    a = alphas_cumprod[t]
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t) - eps).square().mean()


# ------------------------------------------------------------------ ddim_step


@check
def ddim_step(answer):
    """The estimate of the picture first, then as much of the same noise again as belongs to the next timestep."""
    x, eps = randn(2, 4, 3, 5, seed=4), randn(2, 4, 3, 5, seed=5)
    a, b = torch.tensor(0.3), torch.tensor(0.55)
    given = tensor(answer(x, eps, a, b), (2, 4, 3, 5))
    x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    compare(given, b.sqrt() * x0 + (1 - b).sqrt() * eps, _ddim_mistakes(x, eps, a, b, x0))


def _ddim_mistakes(x, eps, a, b, x0) -> dict[str, torch.Tensor]:
    reverse = (x - (1 - b).sqrt() * eps) / b.sqrt()
    plus = (x + (1 - a).sqrt() * eps) / a.sqrt()
    rootless = (x - (1 - a) * eps) / a
    return {
        "This is the estimate of the picture, x̂0: half of the step. Mix the noise back in, with alpha_prev.": x0,
        "alpha and alpha_prev are swapped: this step goes back towards the noise.": (
            a.sqrt() * reverse + (1 - a).sqrt() * eps
        ),
        "The noise that you mix back in has the size of the old timestep. In the second half both roots take "
        "alpha_prev.": b.sqrt() * x0 + (1 - a).sqrt() * eps,
        "x̂0 was multiplied by √alpha, which only undoes the division. It takes √alpha_prev.": (
            a.sqrt() * x0 + (1 - b).sqrt() * eps
        ),
        "In x̂0 the noise was added. It is in x already: subtract it.": b.sqrt() * plus + (1 - b).sqrt() * eps,
        "The square roots are missing: each alpha enters by a root.": b * rootless + (1 - b) * eps,
        "No noise was mixed back in: √alpha_prev x̂0 alone is too clean for the next timestep.": b.sqrt() * x0,
        "x̂0 entered whole. It takes the share √alpha_prev.": x0 + (1 - b).sqrt() * eps,
        "In x̂0 the division by √alpha is missing.": (b.sqrt() * (x - (1 - a).sqrt() * eps) + (1 - b).sqrt() * eps),
    }


@ddim_step.right
def _ddim_in_one_line(x, eps, alpha, alpha_prev):
    return (alpha_prev / alpha) ** 0.5 * (x - (1 - alpha) ** 0.5 * eps) + (1 - alpha_prev) ** 0.5 * eps


@ddim_step.right
def _ddim_as_a_difference(x, eps, alpha, alpha_prev):
    slope = ((1 - alpha_prev) / alpha_prev).sqrt() - ((1 - alpha) / alpha).sqrt()
    return alpha_prev.sqrt() * (x / alpha.sqrt() + slope * eps)


@ddim_step.wrong("half of the step")
def _ddim_only_x0(x, eps, alpha, alpha_prev):
    return (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()


@ddim_step.wrong("alpha and alpha_prev are swapped")
def _ddim_swapped(x, eps, alpha, alpha_prev):
    x0 = (x - (1 - alpha_prev).sqrt() * eps) / alpha_prev.sqrt()
    return alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps


@ddim_step.wrong("size of the old timestep")
def _ddim_old_noise(x, eps, alpha, alpha_prev):
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_prev.sqrt() * x0 + (1 - alpha).sqrt() * eps


@ddim_step.wrong("In x̂0 the noise was added")
def _ddim_wrong_sign(x, eps, alpha, alpha_prev):
    x0 = (x + (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_prev.sqrt() * x0 + (1 - alpha_prev).sqrt() * eps


@ddim_step.wrong("each alpha enters by a root")
def _ddim_no_roots(x, eps, alpha, alpha_prev):
    x0 = (x - (1 - alpha) * eps) / alpha
    return alpha_prev * x0 + (1 - alpha_prev) * eps


@ddim_step.wrong("No noise was mixed back in")
def _ddim_no_noise(x, eps, alpha, alpha_prev):
    return alpha_prev.sqrt() * (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()


@ddim_step.wrong("division by √alpha is missing")
def _ddim_undivided(x, eps, alpha, alpha_prev):
    x0 = x - (1 - alpha).sqrt() * eps
    return alpha_prev.sqrt() * x0 + (1 - alpha_prev).sqrt() * eps


@ddim_step.wrong("in place")
def _ddim_in_place(x, eps, alpha, alpha_prev):
    x -= (1 - alpha).sqrt() * eps
    x /= alpha.sqrt()
    return alpha_prev.sqrt() * x + (1 - alpha_prev).sqrt() * eps


@ddim_step.wrong("the numbers are not")
def _ddim_new_noise(x, eps, alpha, alpha_prev):
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_prev.sqrt() * x0 + (1 - alpha_prev).sqrt() * torch.randn_like(x)


# ------------------------------------------------------------------ slerp


@check
def slerp(answer):
    """It follows the arc: halfway between two noises it is as long as they are."""
    a, b = randn(4, 3, 5, seed=6), 1.3 * randn(4, 3, 5, seed=7)
    b = b + 0.5 * a  # about 60 degrees apart: not square to each other, and of two lengths
    for t in (0.3, 0.0):
        given = tensor(answer(a, b, t), (4, 3, 5), {(): "A number came back instead of a point between a and b."})
        if given.isnan().any():
            raise Mistake(
                "The result holds NaN: arccos takes numbers from -1 to 1, and the scalar product of two noises is far "
                "larger. Divide it by both lengths first."
            )
        compare(given, _arc(a, b, t, _angle(a, b)), _slerp_mistakes(a, b, t))


def _angle(a, b, dim=None) -> torch.Tensor:
    """Ω between the two as one vector each, or between their rows along `dim`."""
    a, b = (x.flatten() if dim is None else x for x in (a, b))
    return torch.arccos(torch.nn.functional.cosine_similarity(a, b, dim=-1)).unsqueeze(-1)


def _arc(a, b, t, angle) -> torch.Tensor:
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def _slerp_mistakes(a, b, t) -> dict[str, torch.Tensor]:
    angle, straight = _angle(a, b), (1 - t) * a + t * b
    size = (1 - t) * a.norm() + t * b.norm()
    undivided = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    return {
        "This is lerp, the straight line: between two noises it gets too short.": straight,
        "This is lerp, made longer again. It lies on the sphere and is close, and yet not the point at the share t of "
        "the angle: the shares are sin((1-t)Ω)/sin Ω and sin(tΩ)/sin Ω.": straight / straight.norm() * size,
        "t = 0 must give a, and t = 1 must give b: the two shares are swapped.": _arc(b, a, t, angle),
        "The division by sin Ω is missing, so t = 0 does not give a back.": undivided,
        "Ω was used in degrees. torch.sin takes radians, as torch.arccos gives them.": _arc(
            a, b, t, torch.rad2deg(angle)
        ),
        "Ω was taken between rows (the last axis). One noise is one vector: use all its numbers together.": _arc(
            a, b, t, _angle(a, b, -1)
        ),
        "The arccos is missing: Ω here is the cosine itself.": _arc(a, b, t, torch.cos(angle)),
        "You returned a point of length 1: a and b were divided by their lengths and the lengths lost. Use the unit "
        "vectors for Ω only.": _arc(a / a.norm(), b / b.norm(), t, angle),
    }


@slerp.right
def _slerp_with_cosine_similarity(a, b, t):
    angle = torch.acos(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
    return torch.sin((1 - t) * angle) / torch.sin(angle) * a + torch.sin(t * angle) / torch.sin(angle) * b


@slerp.right
def _slerp_by_rotating(a, b, t):
    u, v = a / a.norm(), b / b.norm()
    side = v - (u * v).sum() * u
    side = side / side.norm()
    angle = math.atan2((v * side).sum().item(), (u * v).sum().item())
    share_b = math.sin(t * angle) / math.sin(angle)
    share_a = math.cos(t * angle) - share_b * math.cos(angle)
    return share_a * a + share_b * b


@slerp.wrong("in place")
def _slerp_in_place(a, b, t):
    angle = _angle(a, b)
    b *= torch.sin(t * angle) / torch.sin(angle)
    return torch.sin((1 - t) * angle) / torch.sin(angle) * a + b


@slerp.wrong("the straight line")
def _slerp_lerp(a, b, t):
    return (1 - t) * a + t * b


@slerp.wrong("made longer again")
def _slerp_normalised_lerp(a, b, t):
    straight = (1 - t) * a + t * b
    return straight / straight.norm() * ((1 - t) * a.norm() + t * b.norm())


@slerp.wrong("must give b")
def _slerp_swapped(a, b, t):
    return _arc(b, a, t, _angle(a, b))


@slerp.wrong("division by sin Ω is missing")
def _slerp_undivided(a, b, t):
    angle = _angle(a, b)
    return torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b


@slerp.wrong("degrees")
def _slerp_in_degrees(a, b, t):
    return _arc(a, b, t, torch.rad2deg(_angle(a, b)))


@slerp.wrong("between rows")
def _slerp_by_row(a, b, t):
    return _arc(a, b, t, _angle(a, b, -1))


@slerp.wrong("arccos is missing")
def _slerp_no_arccos(a, b, t):
    return _arc(a, b, t, (a * b).sum() / a.norm() / b.norm())


@slerp.wrong("holds NaN")
def _slerp_not_normalised(a, b, t):
    return _arc(a, b, t, torch.arccos((a * b).sum()))


@slerp.wrong("lengths lost")
def _slerp_of_unit_vectors(a, b, t):
    return _arc(a / a.norm(), b / b.norm(), t, _angle(a, b))


# ------------------------------------------------------------------ word_maps


@check
def word_maps(answer):
    """Each place shares one unit of attention out among the words; the map of a word is its share at every place."""
    Q, K = 2 * randn(3, 16, 6, seed=8), 2 * randn(3, 7, 6, seed=9)  # 3 heads, 4 x 4 places, 7 tokens
    shapes = {
        (3, 7, 4, 4): "Average over the heads, axis 0.",
        (3, 16, 7): "Average over the heads, then give each token a map of its own.",
        (16, 7): "These are shares by place. Give each token a map: swap the two axes, then make 16 places 4 x 4.",
        (7, 16): "The 16 places are still a line. They are the picture's rows one after the other: 4 x 4.",
        (4, 4, 7): "The tokens come last here. They come first: one map of 4 x 4 for each token.",
    }
    given = tensor(answer(Q, K), (7, 4, 4), shapes)
    scores = Q @ K.transpose(1, 2)
    right = _as_maps((scores / 6**0.5).softmax(-1).mean(0))
    compare(
        given,
        right,
        {
            "The scores were not divided by √d (d is the last axis of Q), so the attention is too sharp.": _as_maps(
                scores.softmax(-1).mean(0)
            ),
            "The scores were divided by d. Divide by its root.": _as_maps((scores / 6).softmax(-1).mean(0)),
            "The softmax ran over the places. Each place shares itself out among the tokens: softmax over the tokens, "
            "the last axis of Q Kᵀ.": _as_maps((scores / 6**0.5).softmax(1).mean(0)),
            "The softmax ran over the heads. It runs over the tokens, the last axis of Q Kᵀ.": _as_maps(
                (scores / 6**0.5).softmax(0).mean(0)
            ),
            "The heads were averaged before the softmax. Each head decides by itself: softmax first, then the mean.": (
                _as_maps((scores / 6**0.5).mean(0).softmax(-1))
            ),
            "These are the scores. A softmax over the tokens makes shares of them.": _as_maps(
                (scores / 6**0.5).mean(0)
            ),
            "The maps are mirrored at the diagonal: places are counted row by row, so reshape to (rows, columns) "
            "and do not swap them.": right.transpose(1, 2),
            "The numbers were reshaped without swapping the axes first: (places, tokens) became (tokens, rows, "
            "columns) with everything in the wrong place. Use .T before you reshape.": (
                (scores / 6**0.5).softmax(-1).mean(0).reshape(7, 4, 4)
            ),
        },
    )


def _as_maps(A: torch.Tensor) -> torch.Tensor:
    return A.T.reshape(-1, 4, 4)  # (places, tokens) -> (tokens, rows, columns)


@word_maps.right
def _word_maps_by_einsum(Q, K):
    A = torch.einsum("hpd,htd->htp", Q, K).div(Q.shape[-1] ** 0.5).softmax(1)
    side = int(A.shape[-1] ** 0.5)
    return A.mean(0).reshape(-1, side, side)


@word_maps.right
def _word_maps_head_by_head(Q, K):
    maps = 0
    for q, k in zip(Q, K, strict=True):
        e = torch.exp(q @ k.T / math.sqrt(q.shape[1]))
        maps = maps + (e / e.sum(1, keepdim=True)).T
    return (maps / len(Q)).unflatten(1, (math.isqrt(Q.shape[1]), -1))


@word_maps.wrong("in place")
def _word_maps_in_place(Q, K):
    Q /= Q.shape[-1] ** 0.5
    return _as_maps((Q @ K.transpose(1, 2)).softmax(-1).mean(0))


@word_maps.wrong("not divided by √d")
def _word_maps_no_scale(Q, K):
    return _as_maps((Q @ K.transpose(1, 2)).softmax(-1).mean(0))


@word_maps.wrong("Divide by its root")
def _word_maps_divided_by_d(Q, K):
    return _as_maps((Q @ K.transpose(1, 2) / Q.shape[-1]).softmax(-1).mean(0))


@word_maps.wrong("ran over the places")
def _word_maps_softmax_over_places(Q, K):
    return _as_maps((Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).softmax(1).mean(0))


@word_maps.wrong("before the softmax")
def _word_maps_mean_first(Q, K):
    return _as_maps((Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).mean(0).softmax(-1))


@word_maps.wrong("These are the scores")
def _word_maps_no_softmax(Q, K):
    return _as_maps((Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).mean(0))


@word_maps.wrong("mirrored at the diagonal")
def _word_maps_mirrored(Q, K):
    return _as_maps((Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).softmax(-1).mean(0)).transpose(1, 2)


@word_maps.wrong("without swapping the axes")
def _word_maps_reshaped_only(Q, K):
    return (Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).softmax(-1).mean(0).reshape(7, 4, 4)


@word_maps.wrong("Average over the heads, axis 0")
def _word_maps_every_head(Q, K):
    return (Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).softmax(-1).transpose(1, 2).reshape(3, 7, 4, 4)


@word_maps.wrong("tokens come last")
def _word_maps_tokens_last(Q, K):
    return (Q @ K.transpose(1, 2) / Q.shape[-1] ** 0.5).softmax(-1).mean(0).reshape(4, 4, 7)
