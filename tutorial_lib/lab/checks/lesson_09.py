"""Checks of lesson 09, Control, compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean

import numpy as np
import torch

from tutorial_lib import metrics
from tutorial_lib.lab import ranking
from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor


def _number(value) -> torch.Tensor:
    return torch.tensor(float(value))


# ------------------------------------------------------------------ mIoU


def _map_case() -> tuple[np.ndarray, np.ndarray]:
    """Two pictures of 4x6 with classes 0 to 5; 3 is in neither map, 4 is only seen, 5 only asked for."""
    asked = np.zeros((2, 4, 6), dtype=np.int64)
    asked[0, 2:], asked[0, 1:4, 2:4], asked[1, :, 3:], asked[1, 3, 0] = 1, 2, 1, 5
    seen = asked.copy()
    seen[0, 1:3, 3:5], seen[1, 0:2, 3], seen[1, 3, :2], seen[0, 0, 0] = 2, 0, 1, 4
    return seen, asked


def _confusion(seen, asked) -> np.ndarray:
    """(asked class, seen class) -> pixels."""
    return np.bincount((asked * 6 + seen).ravel(), minlength=36).reshape(6, 6)


def _ious(seen, asked, classes) -> list[float]:
    return [((seen == k) & (asked == k)).sum() / ((seen == k) | (asked == k)).sum() for k in classes]


@check
def mean_iou(answer):
    """Every class has the same weight, the small ones too, and classes that nobody shows have none."""
    seen, asked = _map_case()
    classes = {(6,): "That is one IoU for each class. Take their mean."}
    given = tensor(answer(torch.from_numpy(seen), torch.from_numpy(asked)), (), classes)
    right = _number(metrics.segmentation_scores(seen, asked)["mIoU"])
    compare(given, right, _wrong_ious(seen, asked), "The number is wrong.")


def _wrong_ious(seen, asked) -> dict[str, torch.Tensor]:
    table = _confusion(seen, asked)
    hits, shown, said = np.diag(table), table.sum(1), table.sum(0)
    there = shown + said > 0
    smaller = np.minimum(shown, said)
    by_picture = mean(metrics.segmentation_scores(s, a)["mIoU"] for s, a in zip(seen, asked))
    messages = {
        "This is the share of right pixels (aAcc). A large sky hides there that a small mug is missing.": (
            hits.sum() / shown.sum()
        ),
        "You divided by the pixels that were asked for: that is the accuracy of each class (mAcc). The union also has "
        "those that were only seen.": np.mean(hits[shown > 0] / shown[shown > 0]),
        "A class that is in neither map counts as 0 with you. It has no union: leave it out of the mean.": (
            np.sum(hits[there] / (shown + said - hits)[there]) / 6
        ),
        "You left out classes that only one of the maps shows. Their IoU is 0, and it counts: something was drawn that "
        "nobody asked for, or is missing.": np.mean(_ious(seen, asked, [0, 1, 2])),
        "You took the mean over pictures of each picture's mIoU. Count intersection and union of a class over the "
        "pixels of all pictures, then divide.": by_picture,
        "The pixels of the intersection are counted twice in your union: |A| + |B| - |A ∩ B|.": np.mean(
            hits[there] / (shown + said)[there]
        ),
        "This is the sum of all intersections over that of all unions: large classes have more say. Divide class by "
        "class, then take the mean.": hits.sum() / (shown + said - hits).sum(),
        "You divided by the smaller of the two areas, not by their union.": np.mean(
            hits[there] / np.maximum(smaller[there], 1)
        ),
    }
    return {message: _number(value) for message, value in messages.items()}


@mean_iou.right
def _iou_by_confusion(seen, asked):
    table = _confusion(seen.numpy(), asked.numpy())
    union = table.sum(0) + table.sum(1) - np.diag(table)
    return (np.diag(table)[union > 0] / union[union > 0]).mean()


@mean_iou.right
def _iou_by_masks(seen, asked):
    found = []
    for k in torch.cat([seen.unique(), asked.unique()]).unique():
        a, b = seen == k, asked == k
        found.append((a & b).sum() / (a | b).sum())
    return torch.stack(found).mean()


@mean_iou.wrong("share of right pixels")
def _pixel_accuracy(seen, asked):
    return (seen == asked).float().mean()


@mean_iou.wrong("accuracy of each class")
def _class_accuracy(seen, asked):
    return torch.stack([((seen == k) & (asked == k)).sum() / (asked == k).sum() for k in asked.unique()]).mean()


@mean_iou.wrong("counts as 0 with you")
def _empty_counts(seen, asked):
    return (
        sum(((seen == k) & (asked == k)).sum() / ((seen == k) | (asked == k)).sum().clamp(min=1) for k in range(6)) / 6
    )


@mean_iou.wrong("only one of the maps shows")
def _shared_classes(seen, asked):
    return np.mean(
        _ious(seen.numpy(), asked.numpy(), sorted(set(seen.unique().tolist()) & set(asked.unique().tolist())))
    )


@mean_iou.wrong("mean over pictures")
def _picture_by_picture(seen, asked):
    return torch.stack([_iou_by_masks(s, a) for s, a in zip(seen, asked)]).mean()


@mean_iou.wrong("counted twice in your union")
def _double_union(seen, asked):
    classes = torch.cat([seen.unique(), asked.unique()]).unique()
    areas = [((seen == k) & (asked == k)).sum() / ((seen == k).sum() + (asked == k).sum()) for k in classes]
    return torch.stack(areas).mean()


@mean_iou.wrong("large classes have more say")
def _pooled(seen, asked):
    classes = torch.cat([seen.unique(), asked.unique()]).unique()
    return (seen == asked).sum() / sum(((seen == k) | (asked == k)).sum() for k in classes)


@mean_iou.wrong("one IoU for each class")
def _all_classes(seen, asked):
    return torch.zeros(6)


# ------------------------------------------------------------------ two controls at once


def _sum_case() -> tuple[list[list[torch.Tensor]], list[float]]:
    """Three branches with outputs of three sizes, each with its own strength."""
    shapes = ((2, 3, 4, 4), (2, 3, 2, 2), (2, 5, 2, 2))
    return [[randn(*shape, seed=10 * i + k) for k, shape in enumerate(shapes)] for i in range(3)], [0.8, 0.5, -0.3]


@check
def sum_of_controls(answer):
    """The decoder receives one list of residuals, whoever they come from: strengths first, then the sum."""
    outputs, scales = _sum_case()
    result = answer(outputs, scales)
    if isinstance(result, torch.Tensor) or not isinstance(result, (list, tuple)) or len(result) != 3:
        raise Mistake("Return a list of three residuals: as many as a single branch has, one for each place.")
    for place, given in enumerate(result):
        own = [branch[place] for branch in outputs]
        wide = tuple(torch.cat(own, 1).shape)
        stacked = "You put the branches side by side. The decoder adds residuals, so their shapes stay as they are."
        given = tensor(given, tuple(own[0].shape), {wide: stacked, (6, *own[0].shape[1:]): stacked})
        right = sum(scale * residual for scale, residual in zip(scales, own))
        compare(given, right, _wrong_sums(own, scales), f"The residual number {place} is wrong.")


def _wrong_sums(own: list[torch.Tensor], scales: list[float]) -> dict[str, torch.Tensor]:
    right = sum(scale * residual for scale, residual in zip(scales, own))
    return {
        "The strengths are not used.": sum(own),
        "This is the mean. Each branch was trained to be added whole: with the mean two controls would each have half "
        "of their strength.": right / 3,
        "All branches got the strength of the first one. Each has its own.": scales[0] * sum(own),
        "Only the last branch is left: add up, instead of assigning anew.": scales[-1] * own[-1],
        "The weights were divided by their sum. Strengths need not sum to 1.": right / sum(scales),
    }


@sum_of_controls.right
def _sum_by_loops(outputs, scales):
    total = [scales[0] * residual for residual in outputs[0]]
    for scale, own in zip(scales[1:], outputs[1:]):
        total = [a + scale * b for a, b in zip(total, own)]
    return total


@sum_of_controls.right
def _sum_by_einsum(outputs, scales):
    return tuple(torch.einsum("b,b...->...", torch.tensor(scales), torch.stack(own)) for own in zip(*outputs))


@sum_of_controls.wrong("strengths are not used")
def _unscaled(outputs, scales):
    return [sum(own) for own in zip(*outputs)]


@sum_of_controls.wrong("This is the mean")
def _mean_of_branches(outputs, scales):
    return [sum(s * r for s, r in zip(scales, own)) / len(scales) for own in zip(*outputs)]


@sum_of_controls.wrong("strength of the first one")
def _one_scale(outputs, scales):
    return [scales[0] * sum(own) for own in zip(*outputs)]


@sum_of_controls.wrong("Only the last branch is left")
def _overwritten(outputs, scales):
    for scale, own in zip(scales, outputs):
        total = [scale * residual for residual in own]
    return total


@sum_of_controls.wrong("side by side")
def _concatenated(outputs, scales):
    return [torch.cat([s * r for s, r in zip(scales, own)], 1) for own in zip(*outputs)]


@sum_of_controls.wrong("as many as a single branch has")
def _chained(outputs, scales):
    return [scale * residual for scale, own in zip(scales, outputs) for residual in own]


@sum_of_controls.wrong("changed its input outputs")
def _summed_in_place(outputs, scales):
    total = outputs[0]
    for residual in total:
        residual *= scales[0]
    for scale, own in zip(scales[1:], outputs[1:]):
        for residual, other in zip(total, own):
            residual += scale * other
    return total


# ------------------------------------------------------------------ carried over to another model

_SHAPES = {"conv_in.weight": (4, 3, 3, 3), "mid.weight": (5, 4)}


def _carry_case() -> tuple[dict, dict, dict]:
    """Weights of a branch (with a zero convolution of its own), of the base it was trained on, and of a tuned base."""
    base = {name: randn(*shape, seed=k) for k, (name, shape) in enumerate(_SHAPES.items())}
    base["up.weight"] = randn(2, 2, seed=7)  # of the decoder, which a branch does not copy
    tuned = {name: weight + 0.3 * randn(*weight.shape, seed=20 + k) for k, (name, weight) in enumerate(base.items())}
    branch = {name: base[name] + 0.2 * randn(*shape, seed=30 + k) for k, (name, shape) in enumerate(_SHAPES.items())}
    return branch | {"zero.weight": randn(4, 4, seed=40)}, base, tuned


@check
def carried_over(answer):
    """What the branch has learned is kept, and what the base has learned since is added to its copy."""
    branch, base, tuned = _carry_case()
    given = answer(branch, base, tuned)
    if not isinstance(given, dict):
        raise Mistake(f"Return a dict of weights by name, got {type(given).__name__}.")
    if "up.weight" in given:
        raise Mistake("up.weight is of the decoder: the branch has no such layer. Go through the branch's own names.")
    if missing := set(branch) - set(given):
        raise Mistake(
            f"{', '.join(sorted(missing))} is missing. What only the branch has (zero convolutions, hint encoder) "
            "stays as it is."
        )
    for name in branch:
        weight = tensor(given[name], tuple(branch[name].shape))
        right = branch[name] + (tuned[name] - base[name] if name in base else 0)
        known = _wrong_weights(branch[name], base.get(name), tuned.get(name))
        compare(weight, right, known, f"{name} is wrong.")


def _wrong_weights(own, base, tuned) -> dict[str, torch.Tensor]:
    if base is None:
        return {"A layer that only the branch has was changed: neither base knows it.": 2 * own}
    return {
        "You took over the branch as it was: its copy still belongs to the old base.": own,
        "These are the tuned base's own weights: what the branch had learned is lost.": tuned,
        "The difference has the wrong sign: tuned less base is what the base has learned.": own + base - tuned,
        "You added the tuned weights whole. Add only what they differ from the old base.": own + tuned,
        "This is the mean of branch and tuned base: half of each is lost.": (own + tuned) / 2,
        "This is the difference alone: add it to the branch's own weights.": tuned - base,
    }


@carried_over.right
def _carried_by_loop(branch, base, tuned):
    made = {}
    for name, weight in branch.items():
        made[name] = weight.clone()
        if name in base:
            made[name] += tuned[name] - base[name]
    return made


@carried_over.right
def _carried_from_the_other_side(branch, base, tuned):
    return {name: tuned[name] + (w - base[name]) if name in tuned else w for name, w in branch.items()}


@carried_over.wrong("still belongs to the old base")
def _as_it_was(branch, base, tuned):
    return dict(branch)


@carried_over.wrong("had learned is lost")
def _tuned_alone(branch, base, tuned):
    return {name: tuned.get(name, weight) for name, weight in branch.items()}


@carried_over.wrong("wrong sign")
def _wrong_sign(branch, base, tuned):
    return {n: w + base[n] - tuned[n] if n in base else w for n, w in branch.items()}


@carried_over.wrong("added the tuned weights whole")
def _added_whole(branch, base, tuned):
    return {n: w + tuned[n] if n in base else w for n, w in branch.items()}


@carried_over.wrong("half of each is lost")
def _averaged(branch, base, tuned):
    return {n: (w + tuned[n]) / 2 if n in base else w for n, w in branch.items()}


@carried_over.wrong("is missing")
def _shared_only(branch, base, tuned):
    return {n: w + tuned[n] - base[n] for n, w in branch.items() if n in base}


@carried_over.wrong("of the decoder")
def _all_of_the_base(branch, base, tuned):
    return {n: branch.get(n, 0) + tuned[n] - base[n] for n in base} | {"zero.weight": branch["zero.weight"]}


@carried_over.wrong("changed its input branch")
def _carried_in_place(branch, base, tuned):
    for name in base:
        if name in branch:
            branch[name] += tuned[name] - base[name]
    return branch


# ------------------------------------------------------------------ average human ranking

VOTES = {
    "ada": [["full", "lite", "OFT", "none"], ["full", "OFT", "lite", "none"], ["lite", "full", "OFT", "none"]],
    "ben": [["OFT", "none", "full", "lite"]],
    "cleo": [["full", "OFT", "none", "lite"], ["OFT", "full", "none", "lite"]],
}
METHODS = ("full", "lite", "OFT", "none")


def _points(votes: Mapping, of) -> torch.Tensor:
    """`of` takes each voter's list of lists of points (one list a ranking, by METHODS) to one row; their mean."""
    rows = [of([[len(r) - r.index(method) for method in METHODS] for r in own]) for own in votes.values()]
    return torch.tensor(rows, dtype=torch.float32)


@check
def average_ranking(answer):
    """Each person has one voice, however many pictures they ranked; more points are better."""
    given = answer(VOTES)
    if not isinstance(given, dict) or set(given) != set(METHODS):
        raise Mistake(f"Return a dict with a number for each of {', '.join(METHODS)}, got {given!r}.")
    row = tensor([float(given[method]) for method in METHODS], (4,))
    ballots = [ranking.Ballot(v, str(k), tuple(r)) for v, own in VOTES.items() for k, r in enumerate(own)]
    right = ranking.average(ballots)
    known = _wrong_averages()
    compare(row, torch.tensor([right[method].mean for method in METHODS]), known, "The numbers are wrong.")


def _wrong_averages() -> dict[str, torch.Tensor]:
    means = _points(VOTES, lambda own: np.mean(own, 0).tolist())
    everything = torch.cat([_points({voter: own}, lambda own: own)[0] for voter, own in VOTES.items()])
    return {
        "The best one has 1 with you. In the paper it has the most points: n of n methods, the worst 1.": (
            5 - means.mean(0)
        ),
        "You count from 0: the worst of an item gets 1 point, the best n.": means.mean(0) - 1,
        "Everything was averaged at once, so who ranked more pictures has more say. First the mean of each person, "
        "then the mean of these.": everything.mean(0),
        "These are sums. With more people they grow: divide by their number.": means.sum(0),
        "The places are counted from 0, the best first: turn them round, and start at 1.": 4 - means.mean(0),
    }


@average_ranking.right
def _average_by_points(votes):
    found = {method: [] for ranked in votes.values() for method in ranked[0]}
    for ranked in votes.values():
        for method, own in found.items():
            own.append(mean(len(r) - r.index(method) for r in ranked))
    return {method: mean(own) for method, own in found.items()}


@average_ranking.right
def _average_by_numpy(votes):
    rows = [np.mean([[r[::-1].index(m) + 1 for m in METHODS] for r in own], axis=0) for own in votes.values()]
    return dict(zip(METHODS, np.mean(rows, axis=0)))


def _turned(change):
    return lambda votes: {method: change(value) for method, value in _average_by_points(votes).items()}


@average_ranking.wrong("best one has 1 with you")
def _best_is_one(votes):
    return _turned(lambda value: 5 - value)(votes)


@average_ranking.wrong("count from 0")
def _from_zero(votes):
    return _turned(lambda value: value - 1)(votes)


@average_ranking.wrong("turn them round")
def _places(votes):
    return _turned(lambda value: 4 - value)(votes)


@average_ranking.wrong("has more say")
def _all_at_once(votes):
    every = [r for own in votes.values() for r in own]
    return {method: mean(len(r) - r.index(method) for r in every) for method in METHODS}


@average_ranking.wrong("These are sums")
def _summed(votes):
    return _turned(lambda value: 3 * value)(votes)


@average_ranking.wrong("in place")
def _reversed_in_place(votes):
    for own in votes.values():
        for r in own:
            r.reverse()
    return {m: mean(mean(r.index(m) + 1 for r in own) for own in votes.values()) for m in METHODS}


# ------------------------------------------------------------------ better than a coin?


@check
def coin(answer):
    """A fair coin is this often as far from half: a small number means that it was hardly a coin."""
    for right, count in ((9, 12), (2, 9), (7, 7), (5, 10)):
        given = tensor(answer(right, count), ())
        if not 0 <= given <= 1 + 1e-5:
            raise Mistake(f"For {right} of {count} you return {given:g}: a probability lies between 0 and 1.")
        wanted = _number(ranking.told_apart(right, count).p)
        compare(given, wanted, _wrong_coins(right, count), f"Wrong for {right} right answers of {count}.")


def _tail(count: int, wanted) -> float:
    return sum(math.comb(count, k) for k in range(count + 1) if wanted(k)) / 2**count


def _wrong_coins(right: int, count: int) -> dict[str, torch.Tensor]:
    z = abs(right - count / 2) / math.sqrt(count / 4)
    values = {
        "One side only: getting nearly all wrong is as unlikely for a coin as getting nearly all right. Count both.": (
            _tail(count, lambda k: k >= right)
        ),
        "This is the chance of exactly so many right answers. All results that are as far from half, or further, "
        "belong to it.": _tail(count, lambda k: k == right),
        "The result itself is left out: as far from half *or further*.": _tail(
            count, lambda k: abs(2 * k - count) > abs(2 * right - count)
        ),
        "This is the share of right answers, not how likely a coin gets it.": right / count,
        "This is the normal approximation. With few answers it is too rough: add up binomial coefficients.": math.erfc(
            z / math.sqrt(2)
        ),
        "You return 1 - p: how often a coin is nearer to half.": _tail(
            count, lambda k: abs(2 * k - count) < abs(2 * right - count)
        ),
    }
    return {message: _number(value) for message, value in values.items()}


@coin.right
def _coin_by_counting(right, count):
    return sum(math.comb(count, k) for k in range(count + 1) if abs(k - count / 2) >= abs(right - count / 2)) / 2**count


@coin.right
def _coin_by_doubling(right, count):
    low = min(right, count - right)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(low + 1)) / 2**count)


@coin.wrong("One side only")
def _one_side(right, count):
    return _tail(count, lambda k: k >= right)


@coin.wrong("exactly so many")
def _exactly(right, count):
    return math.comb(count, right) / 2**count


@coin.wrong("result itself is left out")
def _further(right, count):
    return _tail(count, lambda k: abs(2 * k - count) > abs(2 * right - count))


@coin.wrong("share of right answers, not")
def _share(right, count):
    return right / count


@coin.wrong("normal approximation")
def _normal(right, count):
    return math.erfc(abs(right - count / 2) / math.sqrt(count / 4) / math.sqrt(2))


@coin.wrong("nearer to half")
def _complement(right, count):
    return 1 - _coin_by_counting(right, count)


@coin.wrong("lies between 0 and 1")
def _not_divided(right, count):
    return float(sum(math.comb(count, k) for k in range(right, count + 1)))
