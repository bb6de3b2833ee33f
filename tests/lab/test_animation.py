import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import animation


def _pictures(count=10, shape=(6, 8)):
    """Flat pictures from dark to light red, not square."""
    return [np.full((*shape, 3), [20 * i + 20, 0, 0], dtype=np.uint8) for i in range(count)]


def _opened(shown):
    return Image.open(io.BytesIO(shown.png))


def _frame(shown, i):
    opened = _opened(shown)
    opened.seek(i)
    return np.asarray(opened.convert("RGB")).astype(int)


def test_every_picture_is_a_frame_in_order_and_runs_for_ever():
    shown = animation.animate(_pictures(), alt="a red square that gets lighter", size=24, milliseconds=70)
    opened = _opened(shown)
    assert opened.format == "PNG" and opened.n_frames == 10 and opened.info["loop"] == 0
    assert opened.info["duration"] == 70
    for i in range(10):
        frame = _frame(shown, i)
        centre = frame[animation.MARGIN + 8, frame.shape[1] // 2]
        assert np.abs(centre - [20 * i + 20, 0, 0]).max() <= 4, i
        assert (frame[: animation.MARGIN] == 255).all()


def test_the_first_frame_alone_shows_the_whole_sequence():
    shown = animation.animate(_pictures(), alt="a red square that gets lighter", size=24, keys=5)
    frame = _frame(shown, 0)
    row = frame[animation.MARGIN + 18 + 3 * animation.GAP + 20]
    reds = [row[animation.MARGIN + i * (animation.STRIP + animation.GAP) + 30][0] for i in range(5)]
    assert np.abs(np.subtract(reds, [20, 60, 100, 140, 180])).max() <= 4


def test_the_mark_moves_to_the_right_and_stays_inside():
    shown = animation.animate(_pictures(), alt="a red square that gets lighter", size=24, keys=5)
    colour = [int(animation.COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)]
    marks = [np.nonzero((np.abs(_frame(shown, i) - colour).max(-1) < 12).any(0))[0] for i in range(10)]
    starts = [mark.min() for mark in marks]
    assert starts == sorted(set(starts)) and starts[0] == animation.MARGIN
    assert max(mark.max() for mark in marks) < _frame(shown, 0).shape[1] - animation.MARGIN


def test_pictures_without_flat_areas_stay_small():
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(20)]
    shown = animation.animate(noisy, alt="twenty pictures of noise", size=64, keys=2)
    assert len(shown.png) < 0.4 * sum(picture.nbytes for picture in noisy)


def test_one_picture_is_no_animation():
    with pytest.raises(ValueError, match="two pictures or more"):
        animation.animate(_pictures(1), alt="one picture")
