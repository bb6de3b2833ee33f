"""Checks of lesson 05, Subject-driven generation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from tutorial_lib.lab.checks import Mistake, check


def _refuse_nothing(given) -> None:
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")


def _number(given) -> float:
    """The answer as a plain number; a Mistake if it is anything else."""
    _refuse_nothing(given)
    if isinstance(given, torch.Tensor) and given.numel() != 1:
        raise Mistake(f"Expected one number, got a tensor of shape {tuple(given.shape)}: a mean is missing.")
    try:
        return float(given.detach() if isinstance(given, torch.Tensor) else given)
    except (TypeError, ValueError):
        raise Mistake(f"Expected a number, got {type(given).__name__}.") from None


def _diagnosed(given: float, right: float, known: Mapping[str, float], relative: float = 1e-5) -> None:
    """Passes the right number; a Mistake names what leads to exactly this wrong one."""
    if math.isclose(given, right, rel_tol=relative, abs_tol=relative):
        return
    for message, value in known.items():
        if math.isclose(given, value, rel_tol=relative, abs_tol=relative):
            raise Mistake(message)
    raise Mistake(f"Expected {right:.6g} for this test case, got {given:.6g}.")


# ------------------------------------------------------------------ a rare word

_CAPTIONS = ["a photo of a red mug", "a watercolor of a cat in a forest", "pixel art of a mug at night"]
_PIECES = {"zwxq": ["z", "w", "x", "q"], "teacup": ["tea", "cup"]}
_CANDIDATES = ["sks", "cat", "zwxq", "ed", "mug", "teacup", "ktn"]
_RARE = ["sks", "ed", "ktn"]


def _tokenize(word: str) -> list[str]:
    """A small tokenizer: the words of the captions and a few more are whole, others fall into pieces."""
    return [f"{piece}</w>" for piece in _PIECES.get(word, [word])]  # CLIP's marks the ends of words, too


@check
def rare_words(answer):
    """A rare word is one token, so it has a vector of its own, and no caption has given that vector a meaning."""
    given = answer(_CANDIDATES, _tokenize, _CAPTIONS)
    _refuse_nothing(given)
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise Mistake(f"Expected a list of words, got {type(given).__name__}.")
    given = list(given)
    if given and all(isinstance(word, bool) for word in given):
        raise Mistake("You returned True and False. Return the suitable words themselves.")
    if given != _RARE:
        raise Mistake(_rare_mistake(given))


def _rare_mistake(given: list) -> str:
    fallen, said = [word for word in given if word in _PIECES], [w for w in given if w in ("cat", "mug")]
    if sorted(map(str, given)) == sorted(set(_CANDIDATES) - set(_RARE)):
        return "These are the unsuitable words, and the suitable ones are missing: a condition is the wrong way round."
    if fallen and said:
        return f"Nothing was left out: {fallen[0]!r} is several tokens, and {said[0]!r} is a word that the model knows."
    if fallen:
        return (
            f"{fallen[0]!r} falls into the pieces {_PIECES[fallen[0]]}: it has no vector of its own, and its pieces "
            "are parts of other words. Ask for exactly one piece."
        )
    if said == ["mug"] or said == ["cat"]:
        return (
            f"{said[0]!r} is in the captions, but not in every one of them. One caption is enough to give it a meaning."
        )
    if said:
        return (
            f"{said[0]!r} is a word of the captions: the model has a meaning for it, and training would fight with it."
        )
    if "ed" not in given:
        return (
            "You left out 'ed', which is no word of any caption: it is only a part of 'red'. Compare with the "
            "caption's words (caption.split()), not with its letters."
        )
    if sorted(map(str, given)) == sorted(_RARE):
        return f"The right words, but in another order: keep that of the candidates, {_RARE}."
    return f"Expected {_RARE} for the candidates {_CANDIDATES}, got {given}."


@rare_words.right
def _rare_by_sets(candidates, tokenize, captions):
    known = set(" ".join(captions).split())
    return [word for word in candidates if word not in known and len(tokenize(word)) == 1]


@rare_words.right
def _rare_by_loop(candidates, tokenize, captions):
    found = []
    for word in candidates:
        if len(tokenize(word)) < 2 and not any(word in caption.split() for caption in captions):
            found.append(word)
    return tuple(found)


@rare_words.wrong("falls into the pieces")
def _any_length(candidates, tokenize, captions):
    return [word for word in candidates if not any(word in caption.split() for caption in captions)]


@rare_words.wrong("the model has a meaning for it")
def _any_word(candidates, tokenize, captions):
    return [word for word in candidates if len(tokenize(word)) == 1]


@rare_words.wrong("only a part of 'red'")
def _by_letters(candidates, tokenize, captions):
    return [word for word in candidates if len(tokenize(word)) == 1 and word not in " ".join(captions)]


@rare_words.wrong("One caption is enough")
def _first_caption_only(candidates, tokenize, captions):
    return [word for word in candidates if len(tokenize(word)) == 1 and word not in captions[0].split()]


@rare_words.wrong("wrong way round")
def _unsuitable(candidates, tokenize, captions):
    return [w for w in candidates if len(tokenize(w)) != 1 or any(w in caption.split() for caption in captions)]


@rare_words.wrong("in another order")
def _sorted_words(candidates, tokenize, captions):
    return sorted(_rare_by_sets(candidates, tokenize, captions))


@rare_words.wrong("True and False")
def _truths(candidates, tokenize, captions):
    return [len(tokenize(word)) == 1 for word in candidates]


@rare_words.wrong("Nothing was left out")
def _all_of_them(candidates, tokenize, captions):
    return candidates


# ------------------------------------------------------------------ prior preservation


def _loss_case() -> tuple[torch.Tensor, torch.Tensor, int, float]:
    """One picture of the subject, four of the class; the errors of the class are larger."""
    generator = torch.Generator().manual_seed(0)
    predicted, noise = torch.randn(2, 5, 4, 3, 2, generator=generator)
    predicted[1:] *= 2
    return predicted, noise, 1, 0.3


@check
def prior_preservation_loss(answer):
    """Each term is a mean over its own pictures, and only the second one has the weight."""
    predicted, noise, n, weight = _loss_case()
    leaf = predicted.clone().requires_grad_()
    result = answer(leaf, noise, n, weight)
    given = _number(result)
    squares = (predicted - noise).square()
    subject, prior = squares[:n].mean().item(), squares[n:].mean().item()
    _diagnosed(given, subject + weight * prior, _loss_mistakes(predicted - noise, n, weight))
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        raise Mistake("The number is right, but it is cut off from its gradient: return the tensor, without .item().")


def _loss_mistakes(error: torch.Tensor, n: int, weight: float) -> dict[str, float]:
    squares = error.square()
    subject, prior = squares[:n].mean().item(), squares[n:].mean().item()
    three_two, two_three = ([part.mean().item() for part in squares.split(cut)] for cut in ((3, 2), (2, 3)))
    absolute = error[:n].abs().mean().item() + weight * error[n:].abs().mean().item()
    return {
        "This is the plain mean over all pictures: subject and class must be averaged apart.": squares.mean().item(),
        "The weight is missing: both terms count alike.": subject + prior,
        "The weight is on the subject's term. It belongs to the term of the class.": weight * subject + prior,
        "The two parts are mixed up: the first n_subject rows are the subject.": squares[-n:].mean().item()
        + weight * squares[:-n].mean().item(),
        "You cut the batch in the middle. It is cut at n_subject, and the parts may differ in size.": three_two[0]
        + weight * three_two[1],
        "You cut the batch at len // 2. It is cut at n_subject, and the parts may differ in size.": two_three[0]
        + weight * two_three[1],
        "These are sums, not means: the loss would grow with the size of the pictures.": squares[:n].sum().item()
        + weight * squares[n:].sum().item(),
        "You took absolute differences. The loss has squares.": absolute,
        "You divided by 2. The loss is a sum of two terms, not their mean.": (subject + weight * prior) / 2,
        "Only the subject's term is there.": subject,
    }


@prior_preservation_loss.right
def _loss_by_function(predicted, noise, n_subject, prior_weight):
    mse = torch.nn.functional.mse_loss
    return mse(predicted[:n_subject], noise[:n_subject]) + prior_weight * mse(predicted[n_subject:], noise[n_subject:])


@prior_preservation_loss.right
def _loss_by_weights(predicted, noise, n_subject, prior_weight):
    each = (predicted - noise).square().flatten(1).mean(1)
    weights = torch.full_like(each, prior_weight / (len(each) - n_subject))
    weights[:n_subject] = 1 / n_subject
    return (weights * each).sum()


@prior_preservation_loss.wrong("plain mean over all pictures")
def _one_mean(predicted, noise, n_subject, prior_weight):
    return (predicted - noise).square().mean()


@prior_preservation_loss.wrong("weight is missing")
def _no_weight(predicted, noise, n_subject, prior_weight):
    return _loss_by_function(predicted, noise, n_subject, 1.0)


@prior_preservation_loss.wrong("weight is on the subject's term")
def _weight_on_subject(predicted, noise, n_subject, prior_weight):
    squares = (predicted - noise).square()
    return prior_weight * squares[:n_subject].mean() + squares[n_subject:].mean()


@prior_preservation_loss.wrong("mixed up")
def _class_first(predicted, noise, n_subject, prior_weight):
    squares = (predicted - noise).square()
    return squares[-n_subject:].mean() + prior_weight * squares[:-n_subject].mean()


@prior_preservation_loss.wrong("cut the batch in the middle")
def _halves(predicted, noise, n_subject, prior_weight):
    first, second = (predicted - noise).square().chunk(2)
    return first.mean() + prior_weight * second.mean()


@prior_preservation_loss.wrong("at len // 2")
def _smaller_half(predicted, noise, n_subject, prior_weight):
    squares, half = (predicted - noise).square(), len(noise) // 2
    return squares[:half].mean() + prior_weight * squares[half:].mean()


@prior_preservation_loss.wrong("sums, not means")
def _sums(predicted, noise, n_subject, prior_weight):
    squares = (predicted - noise).square()
    return squares[:n_subject].sum() + prior_weight * squares[n_subject:].sum()


@prior_preservation_loss.wrong("absolute differences")
def _absolute(predicted, noise, n_subject, prior_weight):
    errors = (predicted - noise).abs()
    return errors[:n_subject].mean() + prior_weight * errors[n_subject:].mean()


@prior_preservation_loss.wrong("divided by 2")
def _mean_of_terms(predicted, noise, n_subject, prior_weight):
    return _loss_by_function(predicted, noise, n_subject, prior_weight) / 2


@prior_preservation_loss.wrong("cut off from its gradient")
def _plain_number(predicted, noise, n_subject, prior_weight):
    return _loss_by_function(predicted, noise, n_subject, prior_weight).item()


@prior_preservation_loss.wrong("a mean is missing")
def _for_each_picture(predicted, noise, n_subject, prior_weight):
    return (predicted - noise).square().flatten(1).mean(1)


# ------------------------------------------------------------------ how many numbers are trained

_SHAPES = [(8, 8), (12, 4, 3, 3), (20, 16)]
_COUNTED = (200, 90)  # rank 2, blocks of 4


@check
def trained_numbers(answer):
    """LoRA counts both sides of a layer; OFT only its inputs, and smaller blocks are fewer numbers."""
    given = answer(_SHAPES, 2, 4)
    _refuse_nothing(given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise Mistake(f"Return two numbers, LoRA's and OFT's, got {given!r}.")
    lora, oft = (_number(value) for value in given)
    if (lora, oft) == _COUNTED[::-1]:
        raise Mistake("Right numbers in the wrong order: first LoRA's, then OFT's.")
    _diagnosed(lora, _COUNTED[0], _lora_mistakes())
    _diagnosed(oft, _COUNTED[1], _oft_mistakes())


def _sides() -> list[tuple[int, int]]:
    """(neurons, inputs) of each test layer."""
    return [(shape[0], int(torch.Size(shape[1:]).numel())) for shape in _SHAPES]


def _lora_mistakes() -> dict[str, float]:
    return {
        "LoRA has two factors: you counted A (rank x inputs) only.": sum(2 * m for _, m in _sides()),
        "LoRA has two factors: you counted B (neurons x rank) only.": sum(2 * n for n, _ in _sides()),
        "You counted all of W in LoRA's place. A has rank x inputs numbers, B has neurons x rank.": sum(
            n * m for n, m in _sides()
        ),
        "LoRA: of the convolution only the channels are counted. Its inputs are channels x height x width.": sum(
            2 * (shape[0] + shape[1]) for shape in _SHAPES
        ),
    }


def _oft_mistakes() -> dict[str, float]:
    b = 4
    return {
        "OFT: you counted the full squares. Q is skew-symmetric: what lies above its diagonal says everything.": sum(
            m * b for _, m in _sides()
        ),
        "OFT: you counted the diagonal too. It is zero in a skew-symmetric Q.": sum(
            m * (b + 1) / 2 for _, m in _sides()
        ),
        "OFT: this is one block a layer. There are inputs / block_size of them.": 3 * b * (b - 1) / 2,
        "OFT: the blocks were taken along the neurons. R turns the inputs.": sum(n * (b - 1) / 2 for n, _ in _sides()),
        "OFT: of the convolution only the channels are counted. A row has channels x height x width numbers.": sum(
            shape[1] * (b - 1) / 2 for shape in _SHAPES
        ),
        "OFT: block_size was used as the number of blocks. It is the side of one.": sum(
            m * (m / b - 1) / 2 for _, m in _sides()
        ),
        "OFT: numbers above the diagonal of one b x b block are b (b - 1) / 2, you have (b - 1).": sum(
            m / b * (b - 1) for _, m in _sides()
        ),
    }


@trained_numbers.right
def _by_tensors(shapes, rank, block_size):
    lora = oft = 0
    for shape in shapes:
        rows = torch.empty(shape).flatten(1)
        lora += rank * sum(rows.shape)
        oft += rows.shape[1] // block_size * len(torch.triu_indices(block_size, block_size, 1)[0])
    return lora, oft


@trained_numbers.right
def _by_formula(shapes, rank, block_size):
    neurons, inputs = zip(*((s[0], torch.Size(s[1:]).numel()) for s in shapes))
    return [rank * (sum(neurons) + sum(inputs)), sum(inputs) * (block_size - 1) / 2]


def _with_oft(count):
    """An answer that is right about LoRA; `count(neurons, inputs, b)` is its OFT of one layer."""
    return lambda shapes, rank, b: (
        _by_formula(shapes, rank, b)[0],
        sum(count(s[0], torch.Size(s[1:]).numel(), b) for s in shapes),
    )


@trained_numbers.wrong("you counted A")
def _only_a(shapes, rank, block_size):
    return sum(rank * torch.Size(s[1:]).numel() for s in shapes), _by_formula(shapes, rank, block_size)[1]


@trained_numbers.wrong("LoRA: of the convolution only the channels")
def _lora_of_channels(shapes, rank, block_size):
    return sum(rank * (s[0] + s[1]) for s in shapes), _by_formula(shapes, rank, block_size)[1]


@trained_numbers.wrong("all of W")
def _whole_weight(shapes, rank, block_size):
    return sum(torch.Size(s).numel() for s in shapes), _by_formula(shapes, rank, block_size)[1]


@trained_numbers.wrong("full squares")
def _squares(shapes, rank, block_size):
    return _with_oft(lambda n, m, b: m * b)(shapes, rank, block_size)


@trained_numbers.wrong("counted the diagonal too")
def _diagonal(shapes, rank, block_size):
    return _with_oft(lambda n, m, b: m * (b + 1) / 2)(shapes, rank, block_size)


@trained_numbers.wrong("one block a layer")
def _one_block(shapes, rank, block_size):
    return _with_oft(lambda n, m, b: b * (b - 1) / 2)(shapes, rank, block_size)


@trained_numbers.wrong("along the neurons")
def _of_neurons(shapes, rank, block_size):
    return _with_oft(lambda n, m, b: n * (b - 1) / 2)(shapes, rank, block_size)


@trained_numbers.wrong("OFT: of the convolution only the channels")
def _oft_of_channels(shapes, rank, block_size):
    return _by_formula(shapes, rank, block_size)[0], sum(s[1] * (block_size - 1) / 2 for s in shapes)


@trained_numbers.wrong("as the number of blocks")
def _blocks_as_number(shapes, rank, block_size):
    return _with_oft(lambda n, m, b: m * (m / b - 1) / 2)(shapes, rank, block_size)


@trained_numbers.wrong("wrong order")
def _swapped(shapes, rank, block_size):
    return tuple(_by_formula(shapes, rank, block_size)[::-1])


# ------------------------------------------------------------------ how alike are the real pictures?


def _embedding_case() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(4, 6, generator=generator) + 1) * torch.tensor([[1.0], [2.0], [0.5], [3.0]])


@check
def leave_one_out(answer):
    """Each picture was compared with the others, never with itself: this is how alike two real pictures are."""
    rows = _embedding_case()
    given = _number(answer(rows))
    n, unit = len(rows), torch.nn.functional.normalize(rows, dim=1)
    cosines, dots = unit @ unit.T, rows @ rows.T
    off = ~torch.eye(n, dtype=torch.bool)
    nearest = cosines.masked_fill(~off, -2).max(1).values
    known = {
        "Each picture was compared with itself, too: that cosine is always 1 and lifts the mean.": cosines.mean(),
        "You took dot products of vectors that are not of length 1. Divide each row by its length.": dots[off].mean(),
        "Dot products of rows of any length, and each with itself as well: normalise, and leave the diagonal out.": (
            dots.mean()
        ),
        "The diagonal is gone, but you still divide by n x n. There are n (n - 1) pairs left.": cosines[off].sum()
        / n**2,
        "This is half of it: the n (n - 1) / 2 pairs i < j were divided by n (n - 1).": cosines.triu(1).sum()
        / (n * (n - 1)),
        "This is a sum over the pairs. Take the mean.": cosines.triu(1).sum(),
        "This is a distance, 1 - cosine. The similarity is the cosine itself.": 1 - cosines[off].mean(),
        "This takes only the nearest other picture of each. All pairs count.": nearest.mean(),
    }
    _diagnosed(given, cosines[off].mean().item(), {message: value.item() for message, value in known.items()})


@leave_one_out.right
def _by_pairs(embeddings):
    i, j = torch.triu_indices(len(embeddings), len(embeddings), offset=1)
    return torch.nn.functional.cosine_similarity(embeddings[i], embeddings[j]).mean()


@leave_one_out.right
def _one_by_one(embeddings):
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    means = []
    for k in range(len(unit)):
        others = torch.cat([unit[:k], unit[k + 1 :]])
        means.append((others @ unit[k]).mean().item())
    return sum(means) / len(means)


@leave_one_out.wrong("compared with itself, too")
def _with_itself(embeddings):
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    return (unit @ unit.T).mean()


@leave_one_out.wrong("not of length 1")
def _plain_products(embeddings):
    i, j = torch.triu_indices(len(embeddings), len(embeddings), offset=1)
    return (embeddings[i] * embeddings[j]).sum(1).mean()


@leave_one_out.wrong("still divide by n x n")
def _divided_by_all(embeddings):
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    return ((unit @ unit.T).sum() - len(unit)) / len(unit) ** 2


@leave_one_out.wrong("half of it")
def _half(embeddings):
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    return (unit @ unit.T).triu(1).sum() / (len(unit) * (len(unit) - 1))


@leave_one_out.wrong("sum over the pairs")
def _summed(embeddings):
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    return (unit @ unit.T).triu(1).sum()


@leave_one_out.wrong("This is a distance")
def _distance(embeddings):
    return 1 - _by_pairs(embeddings)


@leave_one_out.wrong("only the nearest")
def _nearest(embeddings):
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    return (unit @ unit.T).fill_diagonal_(-1).max(1).values.mean()


@leave_one_out.wrong("a mean is missing")
def _matrix(embeddings):
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    return unit @ unit.T


# ------------------------------------------------------------------ the frontier

# Run 2 is beaten by run 1 alone, at equal likeness; run 7 by run 0 alone, at equal kept; run 5 by run 3 in both.
_LIKENESS = [0.2, 0.5, 0.5, 0.7, 0.9, 0.6, 0.9, 0.1]
_KEPT = [1.0, 0.9, 0.85, 0.8, 0.3, 0.7, 0.3, 1.0]
_FRONTIER = {0, 1, 3, 4, 6}


@check
def frontier(answer):
    """A run is on the frontier if no other run is at least as good in both and better in one."""
    given = answer(_LIKENESS, _KEPT)
    _refuse_nothing(given)
    if isinstance(given, (str, dict)) or not isinstance(given, Iterable):
        raise Mistake(f"Expected a list of indices, got {type(given).__name__}.")
    given = list(given)
    if len(given) == len(_LIKENESS) and all(isinstance(value, bool) for value in given):
        raise Mistake("You returned True and False. Return the numbers of the runs, such as [0, 3].")
    if any(isinstance(value, (tuple, float)) for value in given):
        raise Mistake("You returned the figures of the runs. Return the runs' numbers in the lists, from 0 on.")
    if set(given) != _FRONTIER:
        raise Mistake(_frontier_mistake({int(value) for value in given}))


def _frontier_mistake(given: set[int]) -> str:
    if given in ({0, 4, 6, 7}, {0, 4, 6}, {0, 4}):
        return "These are only the best in one of the two. A run between them may be the best compromise of all."
    if given == {3}:
        return (
            "This is the best by a sum or product: that takes one point of the frontier. All that nobody beats count."
        )
    if given == _FRONTIER | {7}:
        return (
            "Run 7 is beaten by run 0, which keeps as much and is more like the subject. To be beaten, it is enough to "
            "be worse in the first figure and no better in the second."
        )
    if 2 in given and given - {2, 7} == _FRONTIER:
        return (
            "Run 2 is beaten by run 1, which is as like the subject and keeps more. To be beaten, it is enough to be "
            "worse in one and no better in the other."
        )
    if given == {0, 1, 3}:
        return "Runs 4 and 6 are equal, and yours beat each other. Beaten means: nowhere better, and somewhere worse."
    if not given:
        return "No run is left: each was compared with itself, or any run that is better in one of the two beat it."
    if given == set(range(len(_KEPT))) - _FRONTIER:
        return "These are the runs that are beaten: turn the condition round."
    if not given & {4, 6} and 0 not in given or given == {2, 4, 5, 6, 7}:
        return "Less was taken for better: in both figures larger is better."
    return f"Expected the runs {sorted(_FRONTIER)} for likeness {_LIKENESS} and kept {_KEPT}, got {sorted(given)}."


def _better(a, b) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a != b


@frontier.right
def _by_comparison(likeness, kept):
    runs = list(zip(likeness, kept))
    return [i for i, run in enumerate(runs) if not any(_better(other, run) for other in runs)]


@frontier.right
def _by_sorting(likeness, kept):
    order = sorted(range(len(kept)), key=lambda i: (-likeness[i], -kept[i]))
    found, best, at = set(), float("-inf"), None
    for i in order:
        if kept[i] > best or (likeness[i], kept[i]) == at:
            found.add(i)
            best, at = kept[i], (likeness[i], kept[i])
    return found


@frontier.wrong("only the best in one")
def _two_best(likeness, kept):
    return [i for i in range(len(kept)) if likeness[i] == max(likeness) or kept[i] == max(kept)]


@frontier.wrong("by a sum or product")
def _largest_sum(likeness, kept):
    sums = [a + b for a, b in zip(likeness, kept)]
    return [sums.index(max(sums))]


@frontier.wrong("Run 2 is beaten by run 1")
def _strictly(likeness, kept):
    runs = list(zip(likeness, kept))
    return [i for i, a in enumerate(runs) if not any(b[0] > a[0] and b[1] > a[1] for b in runs)]


@frontier.wrong("Run 7 is beaten by run 0")
def _tie_in_the_first_only(likeness, kept):
    runs = list(zip(likeness, kept))
    return [i for i, a in enumerate(runs) if not any(b[0] >= a[0] and b[1] > a[1] for b in runs)]


@frontier.wrong("yours beat each other")
def _equal_beats(likeness, kept):
    runs = list(zip(likeness, kept))
    others = [[b for j, b in enumerate(runs) if j != i] for i in range(len(runs))]
    return [i for i, a in enumerate(runs) if not any(b[0] >= a[0] and b[1] >= a[1] for b in others[i])]


@frontier.wrong("compared with itself")
def _beaten_by_itself(likeness, kept):
    runs = list(zip(likeness, kept))
    return [i for i, a in enumerate(runs) if not any(b[0] >= a[0] and b[1] >= a[1] for b in runs)]


@frontier.wrong("turn the condition round")
def _beaten(likeness, kept):
    return [i for i in range(len(kept)) if i not in _FRONTIER]


@frontier.wrong("larger is better")
def _smaller(likeness, kept):
    runs = [(-a, -b) for a, b in zip(likeness, kept)]
    return [i for i, run in enumerate(runs) if not any(_better(other, run) for other in runs)]


@frontier.wrong("True and False")
def _mask(likeness, kept):
    return [i in _FRONTIER for i in range(len(kept))]


@frontier.wrong("figures of the runs")
def _figures(likeness, kept):
    return [(likeness[i], kept[i]) for i in sorted(_FRONTIER)]
