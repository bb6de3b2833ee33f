"""For lesson 10: a folder in the state that folders are in, a look at what is cut away, a training to watch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from tutorial_lib import pictures
from tutorial_lib.lab import plots
from tutorial_lib.lab.session import ROOT

ORIENTATION, LEFT = 0x0112, 6  # a note in a photo: the camera was held with its left side up
HEIGHT = 128  # of a preview in pixels
POLL = 1.0  # seconds between two looks at what a training has drawn


# ------------------------------------------------------------------ a folder as they are


def untidy(source: Path | str, folder: Path | str) -> Path:
    """Copies a tidy folder of five pictures with captions, and makes of it what a phone, a scanner and time would.

    Whatever was in `folder` is replaced; it must be a folder that this function made before, or new.
    """
    source, folder = Path(source), Path(folder)
    files = sorted(source.glob("*.png"))
    if len(files) < 5:
        raise ValueError(f"expected a folder with five PNG pictures or more, found {len(files)} in {source}")
    if folder.exists() and not (folder / ".untidy").exists():
        raise FileExistsError(f"{folder} holds something that was not made here: choose another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / ".untidy").touch()
    turned, wide, scan, cut, plain = (Image.open(file).convert("RGB").resize((256, 256)) for file in files[:5])
    _save_turned(turned, folder / "IMG_0001.jpg")
    _on_canvas(wide, (480, 256)).save(folder / "IMG_0002.png")
    scan.convert("CMYK").save(folder / "scan.jpg", quality=95)
    _cut_out(cut).save(folder / "cut-out.png")
    plain.save(folder / "IMG_0003.png")
    for name, file in zip(("IMG_0001", "IMG_0002", "scan", "cut-out", "IMG_0003"), files):
        shutil.copy(file.with_suffix(".txt"), folder / f"{name}.txt")
    _add_trouble(folder, plain)
    return folder


def _save_turned(picture: Image.Image, file: Path) -> None:
    note = Image.Exif()
    note[ORIENTATION] = LEFT
    picture.rotate(90).save(file, exif=note, quality=95)


def _on_canvas(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """In the middle of a wider picture whose sides repeat its own edges."""
    left = (size[0] - picture.width) // 2
    wide = Image.new("RGB", size)
    for x, column in ((0, 0), (left + picture.width, picture.width - 1)):
        wide.paste(picture.crop((column, 0, column + 1, picture.height)).resize((left, picture.height)), (x, 0))
    wide.paste(picture, (left, 0))
    return wide


def _cut_out(picture: Image.Image) -> Image.Image:
    """With transparent corners."""
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *picture.size), radius=48, fill=255)
    picture.putalpha(mask)
    return picture


def _add_trouble(folder: Path, picture: Image.Image) -> None:
    """What should not end a training an hour later."""
    shutil.copy(folder / "IMG_0003.png", folder / "IMG_0007.png")
    picture.resize((20, 20)).save(folder / "thumbnail.png")
    whole = (folder / "scan.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "IMG_0004.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "ideas.txt").write_text("a photo of what I wanted to photograph", encoding="utf-8")


# ------------------------------------------------------------------ what is cut away


def crops(report: pictures.Report) -> plots.Shown:
    """Each used picture upright and whole, with the square that training sees marked in it."""
    made = [_marked(pictures.read(report.folder / row.file)[0]) for row in report.used]
    width = max(picture.width for picture in made)
    tiles = []
    for picture in made:
        tile = Image.new("RGB", (width, HEIGHT), "white")
        tile.paste(picture, ((width - picture.width) // 2, 0))
        tiles.append(tile)
    names = ", ".join(row.file for row in report.used)
    alt = f"{len(tiles)} pictures in full, each with the square in its middle that is used: {names}"
    return plots.grid(tiles, labels=[row.file for row in report.used], columns=3, size=width, alt=alt)


def _marked(picture: Image.Image) -> Image.Image:
    """Of the preview's height; what lies outside of the square is pale."""
    picture = picture.resize((max(1, round(picture.width * HEIGHT / picture.height)), HEIGHT))
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    pale = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.6)
    box = (left, top, left + side, top + side)
    pale.paste(picture.crop(box), box)
    ImageDraw.Draw(pale).rectangle((left, top, left + side - 1, top + side - 1), outline=plots.COLOURS[1], width=2)
    return pale


# ------------------------------------------------------------------ a training to watch


def choose(methods: Sequence[dict], least_kept: float, most_mb: float) -> str | None:
    """The method that is most like the subject among those that keep enough in a small enough file; None if none is.

    methods: rows with "method", "likeness", "kept" and "MB".
    """
    allowed = [row for row in methods if row["kept"] >= least_kept and row["MB"] <= most_mb]
    return max(allowed, key=lambda row: row["likeness"])["method"] if allowed else None


def follow(arguments: Sequence[str], samples: Path | str) -> list[tuple[int, Image.Image]]:
    """Runs `python -m tutorial_lib` in a process of its own and shows its newest sample pictures as they come.

    Returns each sheet of samples with its step. Raises RuntimeError with the command's last words if it fails.
    """
    from IPython.display import display

    log = Path(samples).parent.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = None
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tutorial_lib", *map(str, arguments)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
        )
        try:
            while True:
                ended = process.poll() is not None
                if found := sheets(samples):
                    shown = _newest(*found[-1])
                    handle = display(shown, display_id=True) if handle is None else handle.update(shown) or handle
                if ended:
                    break
                time.sleep(POLL)
        finally:
            process.terminate()  # when the cell is interrupted; nothing where it has ended
            process.wait()
    if process.returncode:
        raise RuntimeError(f"the command failed:\n{_last_words(log)}")
    return sheets(samples)


def sheets(samples: Path | str) -> list[tuple[int, Image.Image]]:
    """The sheets that a training has drawn so far, by step; one that is being written is left for the next look."""
    found = []
    for file in sorted(Path(samples).glob("step_*.png")):
        try:
            with Image.open(file) as opened:
                found.append((int(file.stem.partition("_")[2]), opened.convert("RGB")))
        except OSError:
            continue
    return found


def _newest(step: int, sheet: Image.Image) -> plots.Shown:
    return plots.Shown(plots.png(plots.enlarged(sheet, 2 * sheet.width)), f"sample pictures after {step} steps")


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "%|" not in line]
    return "\n".join(lines[-5:])
