import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import plots

RED, GREEN, BLUE = ([255, 0, 0], [0, 160, 0], [0, 0, 255])


def _flat(colour, size=(8, 6)):
    return np.full((*size, 3), colour, dtype=np.uint8)


def _array(shown):
    return np.asarray(Image.open(io.BytesIO(shown.png)).convert("RGB"))


def test_grid_puts_every_pixel_in_its_place_enlarged_and_unblurred():
    sheet = _array(plots.grid([_flat(RED), _flat(GREEN), _flat(BLUE)], columns=2, size=20, alt="three squares"))
    assert sheet.shape == (6 + 24 + 4 + 24 + 6, 6 + 18 + 4 + 18 + 6, 3)
    assert (sheet[6:30, 6:24] == RED).all()
    assert (sheet[6:30, 28:46] == GREEN).all()
    assert (sheet[34:58, 6:24] == BLUE).all()
    assert (sheet[34:58, 28:46] == 255).all()


def test_grid_draws_labels_rows_and_heads_outside_the_pictures():
    pictures = [_flat(RED, (40, 40))] * 4
    plain = _array(plots.grid(pictures, columns=2, size=40, alt="four squares"))
    words = {"labels": list("abcd"), "rows": ["first", "second"], "heads": ["left", "right"]}
    sheet = _array(plots.grid(pictures, columns=2, size=40, alt="four squares", **words))
    assert (sheet == RED).all(-1).sum() == (plain == RED).all(-1).sum() == 4 * 40 * 40
    assert (sheet.max(-1) < 100).sum() > 50 and (plain.max(-1) < 100).sum() == 0


def test_a_sheet_of_few_colours_is_a_smaller_file_of_nearly_the_same_colours():
    rng = np.random.default_rng(0)
    ramp = np.linspace(10, 245, 40 * 40).reshape(40, 40, 1) + rng.integers(-2, 3, (40, 40, 3))
    pictures = [np.roll(ramp, 7 * i, axis=1).astype(np.uint8) for i in range(4)]
    full, few = (plots.grid(pictures, columns=2, size=40, alt="four ramps", colours=c) for c in (None, 64))
    counts = [len(np.unique(_array(sheet).reshape(-1, 3), axis=0)) for sheet in (full, few)]
    assert counts[1] <= 64 < counts[0]
    assert len(few.png) < 0.6 * len(full.png)
    assert np.abs(_array(few).astype(int) - _array(full)).max() <= 10
    assert (_array(few)[: plots.MARGIN - 1] == 255).all()  # above the first outline


def test_large_pictures_are_made_smaller_and_middling_ones_left_alone():
    assert plots.enlarged(_flat(RED, (512, 512)), 128).size == (256, 256)
    assert plots.enlarged(_flat(RED, (200, 200)), 128).size == (200, 200)


def test_a_wide_label_is_wrapped_to_its_picture():
    words = "a watercolor of a red mug on a beach"
    lines = plots.wrap(words, 128).split("\n")
    assert len(lines) > 1 and " ".join(lines) == words
    assert all(plots.font_of(11).getlength(line) <= 140 for line in lines)


@pytest.mark.parametrize(
    ("images", "named", "message"),
    [
        ([], {}, "at least one picture"),
        ([_flat(RED), _flat(RED, (9, 9))], {}, "one size"),
        ([_flat(RED), _flat(RED)], {"labels": ["one"]}, "1 labels for 2 pictures"),
        ([_flat(RED)] * 3, {"rows": ["one"], "columns": 2}, "1 labels for 2 rows"),
    ],
)
def test_grid_explains_bad_input(images, named, message):
    with pytest.raises(ValueError, match=message):
        plots.grid(images, alt="x", **named)


def test_curves_change_no_global_state_and_carry_their_words():
    before = dict(matplotlib.rcParams)
    shown = plots.curves({"one": ([0, 1], [1, 2]), "two": ([0, 1], [2, 1])}, "steps", "loss", alt="two crossing lines")
    assert dict(matplotlib.rcParams) == before
    data, metadata = shown._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == data["text/plain"] == "two crossing lines"
    colours = {tuple(pixel) for pixel in _array(shown).reshape(-1, 3)}
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours


def test_a_heatmap_is_darker_where_the_number_is_larger():
    figure, axes = plots.subplots(width=6, height=3)
    values = np.array([[0.0, 0.5, 1.0], [0.8, 0.2, 0.35]])
    plots.draw_heatmap(axes[0, 0], values, ["a", "b", "c"], ["first", "second"])
    shown = _array(plots.finish(figure, "two rows of three fields")).astype(int)
    left, bottom, right, top = axes[0, 0].get_window_extent().extents  # pixels, counted from below
    down = shown.shape[0] - top + (top - bottom) / 2 * np.array([0.2, 1.2])  # near a field's corner, off its number
    along = left + (right - left) / 3 * np.array([0.2, 1.2, 2.2])
    brightness = shown.sum(-1)[np.ix_(down.astype(int), along.astype(int))]
    order = np.argsort(values, axis=None)
    assert (np.diff(brightness.ravel()[order]) < 0).all()


def test_each_class_of_a_map_has_its_own_colour_in_every_picture():
    map_of_all = plots.tinted(np.arange(21).reshape(3, 7))
    assert len({tuple(colour) for colour in map_of_all.reshape(-1, 3)}) == 21
    assert (plots.tinted(np.array([[14]])) == map_of_all[2, 0]).all()


def test_palette_is_told_apart_in_grey_too():
    grey = [0.299 * int(c[1:3], 16) + 0.587 * int(c[3:5], 16) + 0.114 * int(c[5:], 16) for c in plots.COLOURS[:2]]
    assert abs(grey[0] - grey[1]) > 20
