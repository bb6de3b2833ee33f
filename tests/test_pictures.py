import os

import numpy as np
import pytest
from PIL import Image

from tutorial_lib import pictures
from tutorial_lib.pocket.subjects import FOLDER


def scene(width: int, height: int) -> Image.Image:
    """Red left, green right, a blue strip along the top: tells how a picture was turned and cropped."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 1] = 255
    pixels[: height // 4] = (0, 0, 255)
    return Image.fromarray(pixels)


def colour(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    return image.getpixel((int(x * (image.width - 1)), int(y * (image.height - 1))))


def near(found, expected, tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, expected, strict=True))


def only(folder, size: int = 32, **options):
    """The folder's single picture and its row."""
    images, report = pictures.load_folder(folder, size, **options)
    assert len(images) == 1 == len(report.used)
    return images[0], report.used[0]


def test_the_pocket_subjects_are_such_folders():
    images, report = pictures.load_folder(FOLDER / "two-tone-cat", 64)
    assert [image.size for image in images] == [(64, 64)] * 5 and {image.mode for image in images} == {"RGB"}
    assert report.captions[1] == "a photo of a cat in a forest" and report.skipped == []
    with Image.open(FOLDER / "two-tone-cat" / "3.png") as file:
        assert np.array_equal(np.asarray(images[3]), np.asarray(file.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_however_the_phone_was_held(orientation, tmp_path):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what the camera did, as Pillow numbers its transpositions
    upright = scene(96, 64)
    turned = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    image, row = only(tmp_path)
    assert row.original == (96, 64)
    assert near(colour(image, 0.5, 0), (0, 0, 255)) and near(colour(image, 0, 1), (255, 0, 0))
    assert near(colour(image, 1, 1), (0, 255, 0))


def test_the_middle_is_kept_and_nothing_is_squashed(tmp_path):
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 40:80] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image, row = only(tmp_path)
    assert np.asarray(image).min() > 190
    assert row.original == (120, 40) and row.note == "67% cut away at the ends"


def test_every_kind_of_colours_becomes_rgb(tmp_path):
    plain = scene(48, 48)
    plain.convert("L").save(tmp_path / "a-grey.png")
    plain.convert("CMYK").save(tmp_path / "b-cmyk.jpg", quality=95)
    scene(52, 48).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "c-palette.gif")
    plain.convert("1", dither=Image.Dither.NONE).save(tmp_path / "d-bits.png")
    ramp = (np.linspace(0, 65535, 48)[None] * np.ones((48, 1))).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "e-deep.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "f-deep.tif")
    images, report = pictures.load_folder(tmp_path, 48)
    assert {image.mode for image in images} == {"RGB"} and len(images) == 5
    assert [row.note for row in report.skipped] == ["the same picture as e-deep.png"]
    grey, cmyk, palette, bits, deep = images
    assert near(colour(grey, 0, 1), (76, 76, 76)) and near(colour(cmyk, 0, 1), (255, 0, 0))
    assert near(colour(palette, 1, 1), (0, 255, 0)) and colour(bits, 1, 1) == (255, 255, 255)
    assert np.array_equal(np.asarray(deep)[7, :, 1], ramp[7] // 257)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(mode, tmp_path):
    layer = scene(64, 64).convert("RGBA")
    layer.paste((255, 0, 0, 0), (0, 32, 64, 64))  # clear red, which a plain conversion would uncover
    layer.paste((0, 0, 0, 128), (0, 0, 64, 16))
    if mode == "P":
        layer = layer.quantize(8, method=Image.Quantize.FASTOCTREE)
    else:
        layer = layer.convert(mode)
    layer.save(tmp_path / "clear.png")
    image, _ = only(tmp_path, 64)
    assert colour(image, 0.2, 0.9) == (255, 255, 255)
    assert near(colour(image, 0.2, 0.1), (127, 127, 127), 4)


def test_files_that_are_no_pictures_are_named_with_the_reason(tmp_path):
    scene(64, 64).save(tmp_path / "good.PNG")
    scene(64, 64).save(tmp_path / ".hidden.png")
    scene(64, 64).save(tmp_path / "zwin.webp", lossless=True)
    scene(20, 300).save(tmp_path / "tiny.png")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "notes.md").write_text("what I saw")
    (tmp_path / "lonely.txt").write_text("a photo of nothing")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "album").mkdir()
    scene(64, 65).save(tmp_path / "torn.jpg")
    torn = (tmp_path / "torn.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(torn[: len(torn) // 2])
    before = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    images, report = pictures.load_folder(tmp_path, 64)
    reasons = {row.file: row.note for row in report.skipped}
    assert [row.file for row in report.used] == ["good.PNG"] and len(images) == 1
    assert {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == before
    assert reasons[".hidden.png"] == reasons[".DS_Store"] == "a hidden file"
    assert "operating system" in reasons["Thumbs.db"]
    assert reasons["zwin.webp"] == "the same picture as good.PNG"
    assert reasons["tiny.png"] == "too small: 20x300 pixels, the shorter side must have at least 32"
    assert reasons["notes.md"] == reasons["page.eps"] == "not a picture"
    assert reasons["lonely.txt"] == "a caption without a picture"
    assert reasons["empty.jpg"].startswith("damaged") and "truncated" in reasons["torn.jpg"].lower()
    assert "save it as JPEG" in reasons["IMG_1.HEIC"] and "folder" in reasons["album"]
    assert len(reasons) == len(before) - 1
    assert all(name in str(report) and reasons[name] in str(report) for name in reasons)


def test_of_moving_pictures_the_first_frame_is_taken(tmp_path):
    scene(64, 64).save(tmp_path / "moving.gif", save_all=True, append_images=[scene(64, 64).rotate(90)])
    image, row = only(tmp_path, 64)
    assert row.note == "the first of 2 frames" and near(colour(image, 0.5, 0), (0, 0, 255))


def test_small_pictures_are_enlarged_and_huge_ones_read(tmp_path, recwarn):
    scene(20, 30).save(tmp_path / "small.png")
    Image.new("L", (9600, 9600), 90).save(tmp_path / "huge.png")  # Pillow warns of such numbers of pixels
    images, report = pictures.load_folder(tmp_path, 32)
    assert [image.size for image in images] == [(32, 32)] * 2 and len(recwarn) == 0
    assert {row.file: row.note for row in report.used} == {"huge.png": "", "small.png": "enlarged from 20 pixels"}


def test_captions_come_from_files_or_from_the_template(tmp_path):
    folder = tmp_path / "my-red_mug"
    folder.mkdir()
    for k, name in enumerate(["a", "b", "c", "two-words"]):
        scene(64 + k, 64).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("a photo of\n  a mug \n", encoding="utf-8-sig")
    (folder / "b.txt").write_text(" \n")
    (folder / "c.txt").write_bytes(b"caf\xe9")
    _, report = pictures.load_folder(folder, 64, caption="{name} of {folder}")
    assert report.captions == ["a photo of a mug", "b of my red mug", "c of my red mug", "two words of my red mug"]
    assert [row.note for row in report.used] == ["", "b.txt is empty", "c.txt is not text in UTF-8", ""]
    assert pictures.load_folder(folder, 64)[1].captions[3] == "a photo of a my red mug"
    for template in ("a photo of a {class}", "{", "{0}"):
        with pytest.raises(ValueError, match="{folder} and {name} may stand in it"):
            pictures.load_folder(folder, 64, caption=template)


def test_the_report_has_a_table(tmp_path):
    scene(80, 64).save(tmp_path / "a.png")
    (tmp_path / "b.md").touch()
    _, report = pictures.load_folder(tmp_path, 64, caption="a mug")
    assert report.table() == [
        {"file": "a.png", "used": True, "width": 80, "height": 64, "caption": "a mug", "note": ""},
        {"file": "b.md", "used": False, "width": None, "height": None, "caption": "", "note": "not a picture"},
    ]
    assert str(report).splitlines() == [
        f"{tmp_path}: 1 picture, 64x64",
        '  a.png  80x64  "a mug"',
        "not used:",
        "  b.md: not a picture",
    ]


def test_a_folder_without_pictures_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="is empty: put pictures into it"):
        pictures.load_folder(tmp_path, 64)
    (tmp_path / "notes.md").touch()
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(ValueError, match="no picture in .* can be used .*notes.md: not a picture.*name the folder"):
        pictures.load_folder(tmp_path, 64)


def test_wrong_folders_and_sizes_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        pictures.load_folder(tmp_path / "nowhere", 64)
    (tmp_path / "a.png").touch()
    with pytest.raises(NotADirectoryError, match="got the file .*a.png: name the folder it is in"):
        pictures.load_folder(tmp_path / "a.png", 64)
    for size in (0, -64, 64.0, True, None):
        with pytest.raises(ValueError, match="size: expected the pictures' side in pixels"):
            pictures.load_folder(tmp_path, size)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_picture_that_may_not_be_read_is_named(tmp_path):
    scene(64, 64).save(tmp_path / "good.png")
    scene(64, 72).save(tmp_path / "locked.png")
    (tmp_path / "locked.png").chmod(0)
    _, report = pictures.load_folder(tmp_path, 64)
    assert "cannot be read" in report.skipped[0].note
