"""The helpers of lesson 10: the folder, what is cut away, a training to watch."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutorial_lib import pictures
from tutorial_lib.lab import own_pictures

SUBJECT = Path(__file__).parents[2] / "data" / "subjects" / "two-tone-cat"


@pytest.fixture
def folder(tmp_path):
    return own_pictures.untidy(SUBJECT, tmp_path / "photos")


def test_five_of_the_untidy_folder_are_used_and_each_other_file_has_its_reason(folder):
    images, report = pictures.load_folder(folder, 64)
    tidy, _ = pictures.load_folder(SUBJECT, 64)
    assert len(report.used) == 5 and len({row.caption for row in report.used}) == 5
    reasons = {row.file: row.note for row in report.skipped}
    assert set(reasons) == {"IMG_0007.png", "thumbnail.png", "broken.jpg", "IMG_0004.HEIC", "Thumbs.db",
                            ".untidy", "ideas.txt"}  # fmt: skip
    assert "same picture" in reasons["IMG_0007.png"] and "too small" in reasons["thumbnail.png"]
    by_caption = {row.caption: image for row, image in zip(report.used, images)}
    original = {(SUBJECT / f"{k}.txt").read_text().strip(): image for k, image in enumerate(tidy)}
    for caption, image in by_caption.items():  # turned upright, cropped and converted they are the subject's own
        inner = (slice(20, 44), slice(20, 44))
        apart = np.abs(np.subtract(np.asarray(image)[inner], np.asarray(original[caption])[inner], dtype=float))
        assert apart.mean() < 12, caption


def test_untidy_replaces_what_it_made_and_nothing_else(folder, tmp_path):
    (folder / "IMG_0001.jpg").unlink()
    own_pictures.untidy(SUBJECT, folder)
    assert (folder / "IMG_0001.jpg").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="choose another folder"):
        own_pictures.untidy(SUBJECT, mine)
    assert (mine / "holiday.jpg").read_bytes() == b"precious"
    with pytest.raises(ValueError, match="five PNG pictures or more, found 0"):
        own_pictures.untidy(mine, tmp_path / "other")


def test_crops_show_each_used_picture_and_mark_the_middle(folder):
    _, report = pictures.load_folder(folder, 64)
    shown = own_pictures.crops(report)
    assert all(row.file in shown.alt for row in report.used)
    wide = own_pictures._marked(Image.new("RGB", (400, 200), (200, 0, 0)))
    assert wide.size == (256, 128)
    pixels = np.asarray(wide)
    assert tuple(pixels[64, 128]) == (200, 0, 0), "inside as it is"
    assert pixels[64, 10, 1] > 100, "outside pale"
    assert (pixels[64, 64] == pixels[64, 191]).all() and pixels[64, 64, 1] not in (0, pixels[64, 10, 1]), "the frame"


def test_a_command_that_fails_says_its_last_words(tmp_path):
    arguments = ["train", "lora", "--pictures", tmp_path / "nowhere", "--output", tmp_path / "out"]
    with pytest.raises(RuntimeError, match="there is no folder"):
        own_pictures.follow(arguments, tmp_path / "out" / "samples")


def test_sheets_are_in_the_order_of_their_steps_and_a_half_written_one_is_left(tmp_path):
    for step in (100, 25):
        Image.new("RGB", (8, 4), (step, 0, 0)).save(tmp_path / f"step_{step:06d}.png")
    (tmp_path / "step_000150.png").write_bytes((tmp_path / "step_000100.png").read_bytes()[:30])
    assert [(step, sheet.getpixel((0, 0))[0]) for step, sheet in own_pictures.sheets(tmp_path)] == [
        (25, 25),
        (100, 100),
    ]


def test_the_choice_is_the_most_alike_within_the_limits():
    rows = [("a", 0.5, 0.9, 10.0), ("b", 0.7, 0.8, 10.0), ("c", 0.9, 0.9, 60.0)]
    methods = [dict(zip(("method", "likeness", "kept", "MB"), row)) for row in rows]
    limits = [(0.5, 100), (0.5, 10), (0.85, 10), (0.95, 100), (0.5, 9)]
    assert [own_pictures.choose(methods, *limit) for limit in limits] == ["c", "b", "a", None, None]
