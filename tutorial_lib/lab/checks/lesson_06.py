"""Checks of lesson 06, Custom Diffusion."""

from __future__ import annotations

import math

import torch

from tutorial_lib.lab.checks import Mistake, check
from tutorial_lib.lab.checks.answers import compare, randn, tensor


def _something(given):
    if given is None:
        raise Mistake("Your function returned nothing. Its last line should be `return ...`.")
    return given


# ------------------------------------------------------------------ relative_change


@check
def relative_change(answer):
    """A layer's change is measured by its own size, so that large layers and small ones can be compared."""
    before = {"to_k": randn(4, 6), "conv": 3 * randn(2, 3, 3, 3, seed=1)}
    moved = {"to_k": 0.3 * randn(4, 6, seed=2), "conv": 0.2 * randn(2, 3, 3, 3, seed=3)}
    after = {name: weight + moved[name] for name, weight in before.items()}
    given = _something(answer(before, after))
    if not isinstance(given, dict) or set(given) != set(before):
        raise Mistake(f"Expected a dict with one number for each of {', '.join(before)}, got {type(given).__name__}.")
    numbers = tensor(list(given.values()), (2,), {})
    values = torch.stack([numbers[list(given).index(name)] for name in before])

    def each(measure) -> torch.Tensor:
        return torch.stack([torch.as_tensor(measure(before[name], after[name])) for name in before])

    compare(
        values,
        each(lambda a, b: (b - a).norm() / a.norm()),
        {
            "The division by the layer's own length is missing: a layer with many or large weights would always seem "
            "to change most.": each(lambda a, b: (b - a).norm()),
            "You divided by the length after training. Divide by the length before it.": each(
                lambda a, b: (b - a).norm() / b.norm()
            ),
            "You compared the two lengths. A matrix can turn and keep its length: take the length of the difference.": (
                each(lambda a, b: (b.norm() - a.norm()).abs() / a.norm())
            ),
            "These are squares. The length is the root of the sum of squares.": each(
                lambda a, b: (b - a).square().sum() / a.square().sum()
            ),
            "You divided number by number and averaged: weights near zero then rule the result. Take the two lengths "
            "first, then divide.": each(lambda a, b: ((b - a) / a).abs().mean()),
        },
    )


@relative_change.right
def _relative_change_by_roots(before, after):
    changed = {}
    for name in before:
        moved = (after[name] - before[name]).square().sum().sqrt()
        changed[name] = float(moved / before[name].square().sum().sqrt())
    return changed


@relative_change.right
def _relative_change_flat(before, after):
    return {n: torch.dist(after[n], w) / torch.linalg.vector_norm(w) for n, w in before.items()}


@relative_change.wrong("division by the layer's own length")
def _relative_change_absolute(before, after):
    return {name: (after[name] - before[name]).norm() for name in before}


@relative_change.wrong("length after training")
def _relative_change_by_after(before, after):
    return {name: (after[name] - before[name]).norm() / after[name].norm() for name in before}


@relative_change.wrong("compared the two lengths")
def _relative_change_of_norms(before, after):
    return {name: (after[name].norm() - before[name].norm()).abs() / before[name].norm() for name in before}


@relative_change.wrong("These are squares")
def _relative_change_squared(before, after):
    return {name: (after[name] - before[name]).square().sum() / before[name].square().sum() for name in before}


@relative_change.wrong("number by number")
def _relative_change_elementwise(before, after):
    return {name: ((after[name] - before[name]) / before[name]).abs().mean() for name in before}


@relative_change.wrong("Expected a dict")
def _relative_change_of_all(before, after):
    return sum((after[name] - before[name]).norm() / before[name].norm() for name in before) / len(before)


# ------------------------------------------------------------------ reads_the_text

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
LAYERS = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
NAMES = (
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    *(f"{BLOCK}.attn1.{layer}" for layer in LAYERS),
    f"{BLOCK}.norm2.weight",
    *(f"{BLOCK}.attn2.{layer}" for layer in LAYERS),
    f"{BLOCK}.ff.net.0.proj.weight",
    *(f"{BLOCK.replace('down_blocks.1', 'mid_block')}.attn2.{layer}" for layer in LAYERS[:3]),
)


@check
def reads_the_text(answer):
    """Keys and values of the cross-attention, and nothing else: the matrices that the text goes through."""
    given = _something(answer(list(NAMES)))
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise Mistake(f"Expected a list of names, got {type(given).__name__}.")
    given = list(given)
    if any(isinstance(name, bool) for name in given):
        raise Mistake("These are True and False. Return the names themselves, those for which it is True.")
    if unknown := [name for name in given if name not in NAMES]:
        raise Mistake(f"Expected some of the names that came in, as they came; got {unknown[0]!r}.")
    _explain_names(set(given))
    if len(given) != len(set(given)):
        raise Mistake("Some names are in your list twice.")


def _explain_names(given: set[str]) -> None:
    """Mistake unless these are the right names."""
    right = {name for name in NAMES if ".attn2.to_k." in name or ".attn2.to_v." in name}
    extra, missing = given - right, right - given
    if any(".attn1." in name for name in extra):
        raise Mistake(
            "Layers of attn1 are among them. attn1 is self-attention: there the picture reads itself, and its keys "
            "and values come from the picture. The text is read in attn2."
        )
    if any(".to_q." in name for name in extra):
        raise Mistake("The queries are among them. A query comes from the picture: it asks, the text answers.")
    if any(".to_out." in name for name in extra):
        raise Mistake("The output layers to_out are among them. They see what was read, and not the text itself.")
    if extra:
        raise Mistake(f"This one does not read the text: {min(extra)}.")
    if not given:
        raise Mistake("Your list is empty: look for 'attn2.to_k' inside the names.")
    if all(".to_v." in name for name in missing) and missing:
        raise Mistake("The values (to_v) are missing. A key decides whether a word is read, the value what is read.")
    if all(".to_k." in name for name in missing) and missing:
        raise Mistake("The keys (to_k) are missing. A value says what a word gives, the key who takes it.")
    if missing:
        raise Mistake(f"Not all are there; for one, {min(missing)} is missing. They are in the middle of the UNet too.")


@reads_the_text.right
def _reads_the_text_by_split(names):
    return [name for name in names if name.split(".")[-3:-1] in (["attn2", "to_k"], ["attn2", "to_v"])]


@reads_the_text.right
def _reads_the_text_by_filter(names):
    return list(filter(lambda name: "attn2" in name and ("to_k" in name or "to_v" in name), names))


@reads_the_text.wrong("attn1 is self-attention")
def _reads_the_text_both_kinds(names):
    return [name for name in names if "to_k" in name or "to_v" in name]


@reads_the_text.wrong("A query comes from the picture")
def _reads_the_text_with_queries(names):
    return [name for name in names if "attn2" in name and "to_out" not in name]


@reads_the_text.wrong("They see what was read")
def _reads_the_text_all_but_queries(names):
    return [name for name in names if "attn2" in name and "to_q" not in name]


@reads_the_text.wrong("values (to_v) are missing")
def _reads_the_text_keys_alone(names):
    return [name for name in names if "attn2.to_k" in name]


@reads_the_text.wrong("keys (to_k) are missing")
def _reads_the_text_values_alone(names):
    return [name for name in names if "attn2.to_v" in name]


@reads_the_text.wrong("True and False")
def _reads_the_text_as_mask(names):
    return ["attn2.to_k" in name or "attn2.to_v" in name for name in names]


@reads_the_text.wrong("in the middle of the UNet too")
def _reads_the_text_of_one_half(names):
    return [n for n in names if n.startswith("down_blocks") and ("attn2.to_k" in n or "attn2.to_v" in n)]


# ------------------------------------------------------------------ only_new_rows


@check
def only_new_rows(answer):
    """Every new word learns, also the last one, and the old words get no gradient at all."""
    gradient, ids = randn(7, 4, seed=4), [5, 2, 6]
    shapes = {
        (3, 4): "These are the new words' rows alone. The table's other rows must stay in their places, as zeros."
    }
    given = tensor(answer(gradient, ids), (7, 4), shapes)

    def only(rows) -> torch.Tensor:
        kept = torch.zeros_like(gradient)
        kept[list(rows)] = gradient[list(rows)]
        return kept

    compare(
        given,
        only(ids),
        {
            "The last new word got no gradient, so it would never learn. (The paper's own program has this mistake "
            "for several concepts.)": only(ids[:-1]),
            "Only the first new word got a gradient. There are several ids.": only(ids[:1]),
            "It is the other way round: the new words' rows became zero, and the old words would be trained.": only(
                [k for k in range(7) if k not in ids]
            ),
            "You kept every row from the first id on. Ids need not stand together, and not in this order.": only(
                range(min(ids), 7)
            ),
            "Nothing was set to zero: all old words would be trained.": gradient,
        },
    )


@only_new_rows.right
def _only_new_rows_by_mask(gradient, new_ids):
    keep = torch.zeros(len(gradient), 1)
    keep[new_ids] = 1
    return gradient * keep


@only_new_rows.right
def _only_new_rows_by_isin(gradient, new_ids):
    new = torch.isin(torch.arange(len(gradient)), torch.tensor(new_ids))
    return torch.where(new[:, None], gradient, 0.0)


@only_new_rows.wrong("last new word got no gradient")
def _only_new_rows_without_last(gradient, new_ids):
    kept = torch.zeros_like(gradient)
    for i in range(len(new_ids) - 1):
        kept[new_ids[i]] = gradient[new_ids[i]]
    return kept


@only_new_rows.wrong("Only the first new word")
def _only_new_rows_first(gradient, new_ids):
    kept = torch.zeros_like(gradient)
    kept[new_ids[0]] = gradient[new_ids[0]]
    return kept


@only_new_rows.wrong("the other way round")
def _only_new_rows_inverted(gradient, new_ids):
    kept = gradient.clone()
    kept[new_ids] = 0
    return kept


@only_new_rows.wrong("in place")
def _only_new_rows_in_place(gradient, new_ids):
    for row in range(len(gradient)):
        if row not in new_ids:
            gradient[row] = 0
    return gradient


@only_new_rows.wrong("rows alone")
def _only_new_rows_selected(gradient, new_ids):
    return gradient[new_ids]


@only_new_rows.wrong("every row from the first id on")
def _only_new_rows_from_first(gradient, new_ids):
    kept = gradient.clone()
    kept[: min(new_ids)] = 0
    return kept


# ------------------------------------------------------------------ masked_error


@check
def masked_error(answer):
    """One mean for each picture, over exactly the numbers that are real: a full mask gives the plain mean."""
    predicted, target = randn(3, 4, 5, 6, seed=5), randn(3, 4, 5, 6, seed=6)
    mask = torch.zeros(3, 1, 5, 6)
    mask[0], mask[1, :, 1:4, 2:5], mask[2, :, :2, :3] = 1, 1, 1
    shapes = {
        (): "Give each picture a mean of its own: sum over axes 1, 2 and 3, and keep axis 0.",
        (3, 4, 5, 6): "These are the squares. Average them for each picture.",
        (3, 1): "Sum over the channels too, axes 1, 2 and 3.",
        (3, 4): "Sum over the channels too, axes 1, 2 and 3.",
    }
    given = tensor(answer(predicted, target, mask), (3,), shapes)
    squares, absolute = (predicted - target).square(), (predicted - target).abs()
    places = mask.sum((1, 2, 3))
    compare(
        given,
        (squares * mask).sum((1, 2, 3)) / (4 * places),
        {
            "Each result is 4 times too large: the mask has 1 channel, the pictures have 4, so a valid place holds 4 "
            "numbers. (Two well-known programs divide like this; their pictures of V* then weigh 4 times as much.)": (
                (squares * mask).sum((1, 2, 3)) / places
            ),
            "You divided by all places, valid or not: a picture with a small valid part would hardly count.": (
                (squares * mask).mean((1, 2, 3))
            ),
            "The mask was not used: the grey border would be learned too.": squares.mean((1, 2, 3)),
            "You divided by the valid places of the whole batch. Each picture has its own.": (
                (squares * mask).sum((1, 2, 3)) / (4 * places.sum())
            ),
            "This is the mean absolute error. The loss takes squares.": (
                (absolute * mask).sum((1, 2, 3)) / (4 * places)
            ),
            "This is the root of the mean. Leave the root out.": (
                ((squares * mask).sum((1, 2, 3)) / (4 * places)).sqrt()
            ),
        },
    )


@masked_error.right
def _masked_error_picture_by_picture(predicted, target, mask):
    return torch.stack([(p - t)[:, m[0] > 0].square().mean() for p, t, m in zip(predicted, target, mask, strict=True)])


@masked_error.right
def _masked_error_expanded(predicted, target, mask):
    whole = mask.expand_as(predicted)
    return ((predicted - target) ** 2 * whole).flatten(1).sum(1) / whole.flatten(1).sum(1)


@masked_error.wrong("4 times too large")
def _masked_error_by_places(predicted, target, mask):
    return ((predicted - target).square() * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))


@masked_error.wrong("all places, valid or not")
def _masked_error_mean(predicted, target, mask):
    return ((predicted - target).square() * mask).mean((1, 2, 3))


@masked_error.wrong("mask was not used")
def _masked_error_unmasked(predicted, target, mask):
    return (predicted - target).square().mean((1, 2, 3))


@masked_error.wrong("whole batch")
def _masked_error_batch(predicted, target, mask):
    return ((predicted - target).square() * mask).sum((1, 2, 3)) / (4 * mask.sum())


@masked_error.wrong("a mean of its own")
def _masked_error_one_number(predicted, target, mask):
    return ((predicted - target).square() * mask).sum() / (4 * mask.sum())


@masked_error.wrong("mean absolute error")
def _masked_error_absolute(predicted, target, mask):
    return ((predicted - target).abs() * mask).sum((1, 2, 3)) / (4 * mask.sum((1, 2, 3)))


@masked_error.wrong("root of the mean")
def _masked_error_root(predicted, target, mask):
    return (((predicted - target).square() * mask).sum((1, 2, 3)) / (4 * mask.sum((1, 2, 3)))).sqrt()


# ------------------------------------------------------------------ valid_cells


@check
def valid_cells(answer):
    """Rows follow from the top, columns from the left, and the edge's cells, which see grey as well, are left out."""
    size, factor = 64, 4
    for left, top, side in ((8, 20, 36), (21, 3, 40), (21, 3, 39)):  # the last: no multiple of the factor
        shapes = {(64, 64): "Count in latent cells, not in pixels: divide by the factor."}
        given = tensor(answer(left, top, side, size, factor), (16, 16), shapes | {(1, 16, 16): "Leave axis 0 out."})

        def mask(x0, x1, y0, y1) -> torch.Tensor:
            cells = torch.zeros(16, 16)
            cells[y0:y1, x0:x1] = 1
            return cells

        x0, x1, y0, y1 = left // factor, (left + side) // factor, top // factor, (top + side) // factor
        right = mask(x0 + 1, x1 - 1, y0 + 1, y1 - 1)
        compare(
            given,
            right,
            {
                "Rows and columns are swapped: the first axis counts rows, which follow from top.": right.T,
                "The cells at the edge are valid in your mask. The VAE looks at neighbours too, so they have seen the "
                "grey canvas: leave out one cell on each side.": mask(x0, x1, y0, y1),
                "Your mask is one cell too wide and too high: a slice ends before its end, so it must end at "
                "(left + side) // factor - 1.": mask(x0 + 1, x1, y0 + 1, y1),
                "It is the other way round: 1 is where the picture is, 0 where the canvas is.": 1 - right,
                "The picture's own place was not used: left and top are missing.": mask(
                    1, side // factor - 1, 1, side // factor - 1
                ),
                "left // factor + side // factor rounds twice, and may be one cell short. Add first: (left + side) // "
                "factor.": mask(
                    x0 + 1, left // factor + side // factor - 1, y0 + 1, top // factor + side // factor - 1
                ),
                "The end is side // factor, as if the picture began at 0. It ends at left + side.": mask(
                    x0 + 1, side // factor - 1, y0 + 1, side // factor - 1
                ),
            },
        )


@valid_cells.right
def _valid_cells_by_comparison(left, top, side, size, factor):
    cells = torch.arange(size // factor)
    columns = (cells > left // factor) & (cells < (left + side) // factor - 1)
    rows = (cells > top // factor) & (cells < (top + side) // factor - 1)
    return (rows[:, None] & columns[None]).float()


@valid_cells.right
def _valid_cells_by_floor(left, top, side, size, factor):
    mask = torch.zeros(size // factor, size // factor, dtype=torch.bool)
    for row in range(math.floor(top / factor) + 1, math.floor((top + side) / factor) - 1):
        for column in range(math.floor(left / factor) + 1, math.floor((left + side) / factor) - 1):
            mask[row, column] = True
    return mask


def _box(size, factor, x, y) -> torch.Tensor:
    mask = torch.zeros(size // factor, size // factor)
    mask[slice(*y), slice(*x)] = 1
    return mask


@valid_cells.wrong("Rows and columns are swapped")
def _valid_cells_swapped(left, top, side, size, factor):
    return _valid_cells_by_comparison(top, left, side, size, factor)


@valid_cells.wrong("The cells at the edge are valid")
def _valid_cells_with_edge(left, top, side, size, factor):
    x, y = ((start // factor, (start + side) // factor) for start in (left, top))
    return _box(size, factor, x, y)


@valid_cells.wrong("one cell too wide")
def _valid_cells_end_included(left, top, side, size, factor):
    x, y = ((start // factor + 1, (start + side) // factor) for start in (left, top))
    return _box(size, factor, x, y)


@valid_cells.wrong("not in pixels")
def _valid_cells_in_pixels(left, top, side, size, factor):
    mask = torch.zeros(size, size)
    mask[top : top + side, left : left + side] = 1
    return mask


@valid_cells.wrong("1 is where the picture is")
def _valid_cells_inverted(left, top, side, size, factor):
    return 1 - _valid_cells_by_comparison(left, top, side, size, factor)


@valid_cells.wrong("own place was not used")
def _valid_cells_at_the_corner(left, top, side, size, factor):
    return _valid_cells_by_comparison(0, 0, side, size, factor)


@valid_cells.wrong("as if the picture began at 0")
def _valid_cells_without_start(left, top, side, size, factor):
    x, y = ((start // factor + 1, side // factor - 1) for start in (left, top))
    return _box(size, factor, x, y)
