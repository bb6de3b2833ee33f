"""Checks of lesson 03, Disentanglement."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor

# ------------------------------------------------------------------ mix


@check
def mix(answer):
    """One mixture for each step; and since nothing cuts the weights off, they may leave the range from 0 to 1."""
    neutral, styled = randn(4, 3, seed=1), randn(4, 3, seed=2)  # as many tokens as steps, to catch a wrong axis
    weights = torch.tensor([1.0, 0.7, -0.2, 1.3])
    shapes = {
        (4, 3): "There is one mixture for every step, and each has all tokens: give the weights two more axes, as "
        "weights[:, None, None].",
        (3, 4, 4): "The steps are the first axis.",
    }
    given = tensor(answer(neutral, styled, weights), (4, 4, 3), shapes)
    w = weights[:, None, None]
    mixed = w * neutral + (1 - w) * styled
    cut = w.clamp(0, 1)
    soft = w.sigmoid()
    compare(
        given,
        mixed,
        {
            "The two prompts are swapped: weight 1 is neutral, weight 0 is styled.": (1 - w) * neutral + w * styled,
            "The styled prompt was added whole. Its share is 1 - w, so that the two shares add up to 1.": (
                w * neutral + styled
            ),
            "The sign of the second share is wrong: 1 - w, not w - 1.": w * neutral + (w - 1) * styled,
            "You cut the weights off at 0 and 1. The paper's weights are free: beyond 1 and below 0 they push away "
            "from a prompt.": cut * neutral + (1 - cut) * styled,
            "You put the weights through a sigmoid. The weights are the shares as they stand.": (
                soft * neutral + (1 - soft) * styled
            ),
            "Each token got a weight. Each *step* has one, for all tokens alike: the weights belong on the first of "
            "three axes.": (weights[:, None] * neutral + (1 - weights[:, None]) * styled).expand(4, 4, 3),
            "You mixed along the arc (slerp) or gave the mixture another length. The formula is a plain sum.": (
                F.normalize(mixed, dim=-1) * neutral.norm(dim=-1, keepdim=True)
            ),
        },
    )


@mix.right
def _mix_from_the_styled_end(neutral, styled, weights):
    return styled + weights.view(-1, 1, 1) * (neutral - styled)


@mix.right
def _mix_step_by_step(neutral, styled, weights):
    return torch.stack([w * neutral + (1 - w) * styled for w in weights])


@mix.right
def _mix_by_einsum(neutral, styled, weights):
    shares = torch.stack([weights, 1 - weights], dim=1)
    return torch.einsum("sk,ktw->stw", shares, torch.stack([neutral, styled]))


@mix.wrong("prompts are swapped")
def _mix_swapped(neutral, styled, weights):
    w = weights[:, None, None]
    return (1 - w) * neutral + w * styled


@mix.wrong("added whole")
def _mix_added(neutral, styled, weights):
    return weights[:, None, None] * neutral + styled


@mix.wrong("not w - 1")
def _mix_sign(neutral, styled, weights):
    w = weights[:, None, None]
    return w * neutral + (w - 1) * styled


@mix.wrong("cut the weights off")
def _mix_clamped(neutral, styled, weights):
    w = weights.clamp(0, 1)[:, None, None]
    return w * neutral + (1 - w) * styled


@mix.wrong("through a sigmoid")
def _mix_sigmoid(neutral, styled, weights):
    w = weights.sigmoid()[:, None, None]
    return w * neutral + (1 - w) * styled


@mix.wrong("one mixture for every step")
def _mix_one_axis(neutral, styled, weights):
    return weights[:, None] * neutral + (1 - weights[:, None]) * styled


@mix.wrong("Each token got a weight")
def _mix_by_token(neutral, styled, weights):
    return (weights[:, None] * neutral + (1 - weights[:, None]) * styled).repeat(len(weights), 1, 1)


@mix.wrong("in place")
def _mix_in_place(neutral, styled, weights):
    neutral -= styled
    return weights[:, None, None] * neutral + styled


# ------------------------------------------------------------------ switch_weights


@check
def switch_weights(answer):
    """Neutral for t* steps, then the late value: the paper's start, and at late = 0 a plain switch of the prompt."""
    for steps, t_star, late in ((7, 2, 0.0), (7, 2, -0.2), (5, 0, 0.25), (5, 5, 0.0)):
        given = tensor(answer(steps, t_star, late), (steps,), {(steps + 1,): "There is one weight for each step."})
        right = torch.cat([torch.ones(t_star), torch.full((steps - t_star,), late)])
        known = {
            "The order is turned round: the first t* steps are neutral (1), and the late ones styled. The plan of the "
            "picture is made early, and that is what the neutral prompt must decide.": right.flip(0),
            "The values are swapped: neutral is the weight 1, styled is 0.": 1 - right,
            "One step too many is neutral: the steps 0 to t* - 1 are, which makes t* of them.": _switched(
                steps, t_star + 1, late
            ),
            "One step too few is neutral: the steps 0 to t* - 1 are, which makes t* of them.": _switched(
                steps, max(0, t_star - 1), late
            ),
            "t* was counted from the end. It counts from the first step.": _switched(steps, steps - t_star, late),
            "The late value was ignored: after t* the weight is `late`, which need not be 0.": _switched(
                steps, t_star, 0.0
            ),
            "This is a ramp. The paper starts from a jump: 1 up to t*, then `late` at once.": torch.linspace(
                1, late, steps
            ),
        }
        compare(given, right, known)


def _switched(steps: int, t_star: int, late: float) -> torch.Tensor:
    return torch.tensor([1.0 if k < t_star else late for k in range(steps)])


@switch_weights.right
def _switch_weights_by_list(steps, t_star, late):
    return _switched(steps, t_star, late)


@switch_weights.right
def _switch_weights_by_where(steps, t_star, late):
    return torch.where(torch.arange(steps) < t_star, 1.0, late)


@switch_weights.wrong("order is turned round")
def _switch_weights_reversed(steps, t_star, late):
    return _switched(steps, t_star, late).flip(0)


@switch_weights.wrong("values are swapped")
def _switch_weights_swapped(steps, t_star, late):
    return 1 - _switched(steps, t_star, late)


@switch_weights.wrong("One step too many")
def _switch_weights_one_more(steps, t_star, late):
    return torch.tensor([1.0 if k <= t_star else late for k in range(steps)])


@switch_weights.wrong("One step too few")
def _switch_weights_counted_from_one(steps, t_star, late):
    return torch.tensor([1.0 if k + 1 < t_star else late for k in range(steps)])


@switch_weights.wrong("counted from the end")
def _switch_weights_from_the_end(steps, t_star, late):
    return _switched(steps, steps - t_star, late)


@switch_weights.wrong("late value was ignored")
def _switch_weights_zeros(steps, t_star, late):
    return torch.cat([torch.ones(t_star), torch.zeros(steps - t_star)])


@switch_weights.wrong("This is a ramp")
def _switch_weights_ramp(steps, t_star, late):
    return torch.linspace(1, late, steps)


# ------------------------------------------------------------------ last_switch

AFTER = (0, 2, 3, 5, 8, 10)
CASES = ((1.0, 0.9, 0.2, 0.7, 0.4, 0.0), (0.5, 0.3, 0.1, 0.0, 0.0, 0.0), (0.4, 0.75, 1.0, 0.5, 0.25, 0.0))


@check
def last_switch(answer):
    """The last step at which it is not yet too late to ask. An attribute that never gets a majority has none."""
    given = []
    for shares in CASES:
        one = answer(AFTER, shares)
        given.append(None if one is None else int(tensor(one, (), {(): ""}).item()))
    if all(one is None for one in given):
        raise Mistake("Your function returned nothing, not even where most pictures show the attribute.")
    right = [5, None, 3]
    if given == right:
        return
    for message, wrong in {
        "You returned the place in the list. Wanted is the number of the step that stands there: after[k].": [
            3,
            None,
            2,
        ],
        "You stopped at the first switch that fails. A share may dip and rise again: wanted is the *last* switch that "
        "still works.": [2, None, None],
        "You returned the first switch that works. Wanted is the last one.": [0, None, 2],
        "You returned the first switch that no longer works. Wanted is the last one that does.": [8, 0, 5],
        "You returned the switch that works best. Wanted is the last one that still works in most pictures.": [0, 0, 3],
        "Half of the pictures are not most of them: the share must be above 0.5.": [5, 0, 5],
        "None of the shares of the second case is above 0.5: the answer is then None, and not a step. Step 0 would say "
        "that the new prompt works from the start.": [5, 0, 3],
        "You counted any picture at all. More than half of them must show the attribute.": [8, 3, 8],
    }.items():
        if given == wrong:
            raise Mistake(message)
    wrong = next(k for k, (a, b) in enumerate(zip(given, right, strict=True)) if a != b)
    raise Mistake(f"For after = {AFTER} and shares = {CASES[wrong]} expected {right[wrong]}, got {given[wrong]}.")


@last_switch.right
def _last_switch_backwards(after, shares):
    for step, share in zip(reversed(after), reversed(shares), strict=True):
        if share > 0.5:
            return step
    return None


@last_switch.right
def _last_switch_by_max(after, shares):
    return max((step for step, share in zip(after, shares, strict=True) if share > 0.5), default=None)


@last_switch.wrong("place in the list")
def _last_switch_index(after, shares):
    return max((k for k, share in enumerate(shares) if share > 0.5), default=None)


@last_switch.wrong("stopped at the first switch that fails")
def _last_switch_first_gap(after, shares):
    found = None
    for step, share in zip(after, shares, strict=True):
        if share <= 0.5:
            break
        found = step
    return found


@last_switch.wrong("returned the first switch that works")
def _last_switch_earliest(after, shares):
    return next((step for step, share in zip(after, shares, strict=True) if share > 0.5), None)


@last_switch.wrong("works best")
def _last_switch_argmax(after, shares):
    return after[max(range(len(after)), key=lambda k: shares[k])]


@last_switch.wrong("Half of the pictures are not most")
def _last_switch_half(after, shares):
    return max((step for step, share in zip(after, shares, strict=True) if share >= 0.5), default=None)


@last_switch.wrong("the answer is then None")
def _last_switch_zero(after, shares):
    return max((step for step, share in zip(after, shares, strict=True) if share > 0.5), default=0)


@last_switch.wrong("any picture at all")
def _last_switch_any(after, shares):
    return max((step for step, share in zip(after, shares, strict=True) if share > 0), default=None)


# ------------------------------------------------------------------ directional_loss


@check
def directional_loss(answer):
    """Only directions count: how far the picture moved makes no difference, and where it started makes none either."""
    before, after = (F.normalize(randn(5, 8, seed=s), dim=1) for s in (3, 4))
    neutral, styled = (F.normalize(randn(5, 8, seed=s), dim=1) for s in (5, 6))
    shapes = {
        (): "Give one loss for each picture: the cosine runs over the last axis only.",
        (8,): "The cosine ran over the pictures. It runs over the numbers of an embedding, the last axis (dim=1).",
        (5, 5): "Each picture was compared with all texts. Row i belongs to row i only.",
        (5, 8): "The products of an embedding's numbers must be added up: one number for each picture.",
    }
    given = tensor(answer(before, after, neutral, styled), (5,), shapes)
    moved, asked = after - before, styled - neutral
    cosine = F.cosine_similarity(moved, asked, dim=1)
    compare(
        given,
        1 - cosine,
        {
            "This is the cosine itself: largest for the best edit. A loss goes down: 1 - cosine.": cosine,
            "This is minus the cosine. It has its least value in the same place, but the loss is 1 - cosine, from 0 "
            "to 2.": -cosine,
            "One of the two directions is turned round: both go from the neutral to the styled, from before to "
            "after.": 1 + cosine,
            "You compared the edited picture with the styled text. That is the global CLIP loss: a picture may change "
            "everything to please it. Compare the *ways*: after - before with styled - neutral.": (
                1 - F.cosine_similarity(after, styled, dim=1)
            ),
            "The edited picture was compared with the direction of the text. The picture too needs a direction: "
            "after - before.": 1 - F.cosine_similarity(after, asked, dim=1),
            "The two directions must be divided by their lengths: their product alone grows with the size of the "
            "edit.": 1 - (moved * asked).sum(1),
            "You took the distance of the two directions. Wanted is 1 minus the cosine of the angle between them.": (
                (moved - asked).norm(dim=1)
            ),
        },
    )


@directional_loss.right
def _directional_by_unit_vectors(before, after, neutral, styled):
    moved, asked = F.normalize(after - before, dim=-1), F.normalize(styled - neutral, dim=-1)
    return 1 - (moved * asked).sum(-1)


@directional_loss.right
def _directional_by_half_distance(before, after, neutral, styled):
    moved, asked = F.normalize(after - before, dim=-1), F.normalize(styled - neutral, dim=-1)
    return (moved - asked).square().sum(-1) / 2


@directional_loss.wrong("in place")
def _directional_in_place(before, after, neutral, styled):
    after -= before
    styled -= neutral
    return 1 - F.cosine_similarity(after, styled, dim=1)


@directional_loss.wrong("largest for the best edit")
def _directional_cosine(before, after, neutral, styled):
    return F.cosine_similarity(after - before, styled - neutral, dim=1)


@directional_loss.wrong("turned round")
def _directional_turned(before, after, neutral, styled):
    return 1 - F.cosine_similarity(after - before, neutral - styled, dim=1)


@directional_loss.wrong("global CLIP loss")
def _directional_global(before, after, neutral, styled):
    return 1 - F.cosine_similarity(after, styled, dim=1)


@directional_loss.wrong("picture too needs a direction")
def _directional_of_the_picture(before, after, neutral, styled):
    return 1 - F.cosine_similarity(after, styled - neutral, dim=1)


@directional_loss.wrong("divided by their lengths")
def _directional_product(before, after, neutral, styled):
    return 1 - ((after - before) * (styled - neutral)).sum(1)


@directional_loss.wrong("cosine ran over the pictures")
def _directional_wrong_axis(before, after, neutral, styled):
    return 1 - F.cosine_similarity(after - before, styled - neutral, dim=0)


@directional_loss.wrong("one loss for each picture")
def _directional_mean(before, after, neutral, styled):
    return (1 - F.cosine_similarity(after - before, styled - neutral, dim=1)).mean()


# ------------------------------------------------------------------ background_change


def _pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two pictures (3, 5, 6) and where each shows the person (5, 6); the two places overlap in part."""
    before, after = torch.sigmoid(randn(3, 5, 6, seed=7)), torch.sigmoid(randn(3, 5, 6, seed=8))
    rows, columns = torch.arange(5)[:, None], torch.arange(6)[None]
    return before, after, (rows > 1) & (columns < 3), (rows > 2) & (columns > 1)


@check
def background_change(answer):
    """Only what is background in both pictures counts: where the person comes or goes, pixels must change."""
    before, after, inside_before, inside_after = _pictures()
    given = tensor(
        answer(before, after, inside_before, inside_after),
        (),
        {
            (3,): "The colour channels are still apart: take the mean over them too.",
            (5, 6): "These are the differences at every pixel. Take their mean over the background.",
        },
    )
    difference = (after - before).abs()
    outside = ~inside_before & ~inside_after
    compare(
        given,
        difference[:, outside].mean(),
        {
            "This is the mean over the whole picture. Leave out what is person in either picture.": difference.mean(),
            "This is the change of the person. The background is what is `~inside`.": (
                difference[:, inside_before | inside_after].mean()
            ),
            "You divided by the number of all pixels. Divide by that of the background's: the mean is over them "
            "alone.": (difference * outside).mean(),
            "You used one picture's mask only. A place is background where *neither* picture shows the person.": (
                difference[:, ~inside_before].mean()
            ),
            "You used the edited picture's mask only. A place is background where *neither* picture shows the "
            "person.": difference[:, ~inside_after].mean(),
            "You kept every place that is background in at least one picture. It must be background in both: use & "
            "between the two ~masks.": difference[:, ~inside_before | ~inside_after].mean(),
            "Darker and brighter pixels cancel out: take the absolute value before the mean.": (
                (after - before)[:, outside].mean()
            ),
            "You squared the differences. Wanted is the mean of their absolute values.": (
                (after - before)[:, outside].square().mean()
            ),
            "The differences were added up. Take their mean, or large backgrounds look worse.": (
                difference[:, outside].sum()
            ),
            "You divided by the number of places. Each has three colour values: the mean is over them as well.": (
                difference[:, outside].sum() / outside.sum()
            ),
        },
    )


@background_change.right
def _background_by_sums(before, after, inside_before, inside_after):
    outside = (~(inside_before | inside_after)).float()
    return ((before - after).abs() * outside).sum() / (3 * outside.sum())


@background_change.right
def _background_pixel_by_pixel(before, after, inside_before, inside_after):
    total, count = 0.0, 0
    for y in range(before.shape[1]):
        for x in range(before.shape[2]):
            if not inside_before[y, x] and not inside_after[y, x]:
                total, count = total + float((after[:, y, x] - before[:, y, x]).abs().mean()), count + 1
    return total / count


@background_change.wrong("whole picture")
def _background_everything(before, after, inside_before, inside_after):
    return (after - before).abs().mean()


@background_change.wrong("change of the person")
def _background_person(before, after, inside_before, inside_after):
    return (after - before).abs()[:, inside_before | inside_after].mean()


@background_change.wrong("number of all pixels")
def _background_divided_by_all(before, after, inside_before, inside_after):
    return ((after - before).abs() * ~(inside_before | inside_after)).mean()


@background_change.wrong("one picture's mask only")
def _background_first_mask(before, after, inside_before, inside_after):
    return (after - before).abs()[:, ~inside_before].mean()


@background_change.wrong("at least one picture")
def _background_either(before, after, inside_before, inside_after):
    return (after - before).abs()[:, ~(inside_before & inside_after)].mean()


@background_change.wrong("cancel out")
def _background_signed(before, after, inside_before, inside_after):
    return (after - before)[:, ~(inside_before | inside_after)].mean()


@background_change.wrong("You squared")
def _background_squared(before, after, inside_before, inside_after):
    return (after - before)[:, ~(inside_before | inside_after)].square().mean()


@background_change.wrong("differences were added up")
def _background_summed(before, after, inside_before, inside_after):
    return (after - before)[:, ~(inside_before | inside_after)].abs().sum()


# ------------------------------------------------------------------ weight_gradients


def _step(x, weight, k):
    """A step of a small chain that mixes, bends and differs from step to step."""
    return torch.tanh((1 + 0.3 * k) * x) + weight * torch.sin(x.roll(1)) - 0.2 * weight**2


def _chain() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """What goes into each of four steps, the weights, and the gradient at the end."""
    weights, xs = torch.tensor([0.9, -0.4, 0.6, 0.3]), [randn(5, seed=9)]
    for k, weight in enumerate(weights):
        xs.append(_step(xs[-1], weight, k))
    return xs[:-1], weights, randn(5, seed=10)


def _walked(passed_on: bool = True, order=(3, 2, 1, 0), place=lambda k: k) -> torch.Tensor:
    """The right gradients of `_chain`, or those of some mistakes."""
    xs, weights, gradient = _chain()
    found = torch.zeros(4)
    for k in order:
        x, weight = xs[place(k)].requires_grad_(True), weights[k].clone().requires_grad_(True)
        at_x, found[k] = torch.autograd.grad(_step(x, weight, k), (x, weight), gradient)
        gradient = at_x if passed_on else gradient
    return found


@check
def weight_gradients(answer):
    """A whole chain's gradient, with the inner numbers of one step at a time in memory: what `mixing.sample` does."""
    xs, weights, gradient = _chain()
    calls = []

    def step(x, weight, k):
        calls.append(int(k))
        return _step(x, weight, k)

    shapes = {(5,): "These are the gradients at x. Collect those of the weights, one for each step."}
    given = tensor(answer(step, xs, weights, gradient), (4,), shapes)
    right = _walked()
    compare(
        given,
        right,
        {
            "Your steps are in the right places, but their gradients stand in the order in which you found them: last "
            "step first. Turn them round.": right.flip(0),
            "Every step got the gradient of the end. After each step, go on with the gradient at *its* x: that is the "
            "chain rule.": _walked(passed_on=False),
            "You walked from the first step to the last. The gradient comes from the end: last step first.": _walked(
                order=(0, 1, 2, 3)
            ),
            "You used the x that comes out of a step, or that of another step. Step k goes from xs[k].": _walked(
                place=lambda k: min(k + 1, 3)
            ),
        },
    )
    if len(calls) > len(xs):
        raise Mistake(
            f"The gradients are right, but you ran a step {len(calls)} times for {len(xs)} steps: you recomputed the "
            "chain again and again. xs holds what goes into each step, so each is run once."
        )
    if calls != sorted(calls, reverse=True):
        raise Mistake(
            f"The gradients are right, but you ran the steps in the order {calls}, so the inner numbers of all of them "
            "were kept until the end. xs holds what goes into each step: run the last step, take its gradients, then "
            "the one before it."
        )


@weight_gradients.right
def _gradients_by_backward(step, xs, weights, gradient):
    found = torch.zeros_like(weights)
    for k in range(len(weights) - 1, -1, -1):
        x, weight = xs[k].detach().clone().requires_grad_(True), weights[k].detach().clone().requires_grad_(True)
        step(x, weight, k).backward(gradient)
        gradient, found[k] = x.grad, weight.grad
    return found


@weight_gradients.right
def _gradients_by_vjp(step, xs, weights, gradient):
    found = []
    for k, (x, weight) in reversed(list(enumerate(zip(xs, weights, strict=True)))):
        _, (gradient, at_weight) = torch.autograd.functional.vjp(lambda x, w, k=k: step(x, w, k), (x, weight), gradient)
        found.insert(0, at_weight)
    return torch.stack(found)


def _naive(step, xs, weights, gradient, order, passed_on=True, shift=0):
    found = {}
    for k in order:
        x = xs[min(k + shift, len(xs) - 1)].detach().clone().requires_grad_(True)
        weight = weights[k].detach().clone().requires_grad_(True)
        at_x, found[k] = torch.autograd.grad(step(x, weight, k), (x, weight), gradient)
        gradient = at_x if passed_on else gradient
    return found


@weight_gradients.wrong("Turn them round")
def _gradients_in_found_order(step, xs, weights, gradient):
    return torch.stack(list(_naive(step, xs, weights, gradient, (3, 2, 1, 0)).values()))


@weight_gradients.wrong("the chain rule")
def _gradients_not_passed_on(step, xs, weights, gradient):
    found = _naive(step, xs, weights, gradient, (3, 2, 1, 0), passed_on=False)
    return torch.stack([found[k] for k in range(4)])


@weight_gradients.wrong("walked from the first step")
def _gradients_forwards(step, xs, weights, gradient):
    return torch.stack(list(_naive(step, xs, weights, gradient, (0, 1, 2, 3)).values()))


@weight_gradients.wrong("comes out of a step")
def _gradients_at_the_next_x(step, xs, weights, gradient):
    found = _naive(step, xs, weights, gradient, (3, 2, 1, 0), shift=1)
    return torch.stack([found[k] for k in range(4)])


@weight_gradients.wrong("again and again")
def _gradients_of_the_whole_chain_each_time(step, xs, weights, gradient):
    found = []
    for k in range(len(xs)):
        w = weights.clone().requires_grad_(True)
        x = xs[k]
        for j in range(k, len(xs)):
            x = step(x, w[j], j)
        found.append(torch.autograd.grad(x, w, gradient)[0][k])
    return torch.stack(found)


@weight_gradients.wrong("gradients at x")
def _gradients_at_x(step, xs, weights, gradient):
    for k in reversed(range(len(xs))):
        x = xs[k].detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(step(x, weights[k], k), x, gradient)
    return gradient
