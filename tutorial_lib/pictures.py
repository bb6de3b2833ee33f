"""A user's folder of pictures, made ready for training, with a report of what was used, what was not, and why.

    images, report = pictures.load_folder("photos/my-cat", size=512, caption="a photo of a sks cat")
    print(report)

Phones turn pictures by a note in the file, screenshots are transparent, scans are grey or CMYK, and folders hold what
nobody put there. None of it should end a training an hour later.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")  # EPS and the like start programs
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
BY_SYSTEMS = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r")
LARGE_CROP = 0.5  # of a picture's area: worth a word in the report


class UnusableError(ValueError):
    """A file that training cannot use; the message is the reason, as the report gives it."""


@dataclass(frozen=True)
class Row:
    """One file of the folder: used or not, and what there is to say of it."""

    file: str
    used: bool
    note: str = ""
    caption: str = ""
    original: tuple[int, int] | None = None  # width and height as seen upright


@dataclass(frozen=True)
class Report:
    """What became of each file. Print it before training; `table()` has the same in rows."""

    folder: Path
    size: int
    rows: tuple[Row, ...]

    @property
    def used(self) -> list[Row]:
        return [row for row in self.rows if row.used]

    @property
    def skipped(self) -> list[Row]:
        return [row for row in self.rows if not row.used]

    @property
    def captions(self) -> list[str]:
        """One for each picture, in the same order."""
        return [row.caption for row in self.used]

    def table(self) -> list[dict]:
        """A dict for each file: file, used, width, height, caption, note."""
        sizes = [row.original or (None, None) for row in self.rows]
        return [
            {"file": r.file, "used": r.used, "width": w, "height": h, "caption": r.caption, "note": r.note}
            for r, (w, h) in zip(self.rows, sizes)
        ]

    def __str__(self) -> str:
        count = len(self.used)
        lines = [f"{self.folder}: {count} picture{'s' * (count != 1)}, {self.size}x{self.size}"]
        for row in self.used:
            width, height = row.original
            note = f"  ({row.note})" if row.note else ""
            lines.append(f'  {row.file}  {width}x{height}  "{row.caption}"{note}')
        if self.skipped:
            lines += ["not used:", *(f"  {row.file}: {row.note}" for row in self.skipped)]
        return "\n".join(lines)


def load_folder(folder, size: int, caption: str = "a photo of a {folder}") -> tuple[list[Image.Image], Report]:
    """RGB pictures of size x size pixels (the middle of each, resized), and a report; files stay as they are.

    A picture's caption is in a .txt file of its name beside it; where there is none, `caption` is used, in which
    {folder} and {name} stand for the folder's and the file's name in words. Files are taken in the order of their
    names; folders inside are not entered. A picture whose shorter side is below half of `size` is not used.
    Raises FileNotFoundError or NotADirectoryError for a wrong folder, ValueError where no picture can be used.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 8:
        raise ValueError(f"size: expected the pictures' side in pixels, 8 or more, got {size!r}")
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}: make it and put pictures into it, or correct its name")
    if not folder.is_dir():
        raise NotADirectoryError(f"expected a folder of pictures, got the file {folder}: name the folder it is in")
    files = sorted((f for f in folder.iterdir() if not _is_caption(f)), key=lambda f: (f.name.lower(), f.name))
    images, rows, seen = [], [], {}
    for file in files:
        image, row = _load(file, size, caption, seen)
        rows.append(row)
        images += [image] if row.used else []
    report = Report(folder, size, tuple(rows + _lonely_captions(folder)))
    if not images:
        raise ValueError(_nothing(report))
    return images, report


def _load(file: Path, size: int, template: str, seen: dict[str, str]) -> tuple[Image.Image | None, Row]:
    """The picture and its row; `seen` has the name of each picture so far by its pixels."""
    original = None
    try:
        image, notes = read(file)
        original = image.size
        notes += _check_size(image, size)
        pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        if pixels in seen:
            raise UnusableError(f"the same picture as {seen[pixels]}")
    except UnusableError as reason:
        return None, Row(file.name, False, str(reason), original=original)
    seen[pixels] = file.name
    text, caption_notes = _caption(file, template)
    square = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return square, Row(file.name, True, "; ".join(notes + caption_notes), text, original)


def read(file: Path) -> tuple[Image.Image, list[str]]:
    """The picture upright, in RGB, transparent parts white, and notes of what was done. Raises UnusableError."""
    if file.is_dir():
        raise UnusableError("a folder; pictures inside it are not looked for")
    if file.name.startswith("."):
        raise UnusableError("a hidden file")
    if file.name.lower() in BY_SYSTEMS:
        raise UnusableError("made by the operating system, not a picture")
    if file.suffix.lower() in (".heic", ".heif"):
        raise UnusableError("HEIC, which cannot be read here: save it as JPEG, on iPhones by sharing it as a copy")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata; errors still come
            Image.init()  # makes all formats known, not only the most common
            with Image.open(file, formats=[f for f in FORMATS if f in Image.OPEN]) as opened:
                frames = getattr(opened, "n_frames", 1) if opened.format != "MPO" else 1  # MPO: a phone's JPEG
                image = ImageOps.exif_transpose(opened)
                image.load()
    except UnidentifiedImageError:
        known = file.suffix.lower() in SUFFIXES
        raise UnusableError("damaged, or not what its name says" if known else "not a picture") from None
    except Exception as error:  # damaged files raise whatever their format's reader does
        raise UnusableError(f"cannot be read: {error}") from error
    return _rgb(image), [f"the first of {frames} frames"] if frames > 1 else []


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode in RGB; transparency on white."""
    if image.mode == "F":
        raise UnusableError("its pixels are decimal numbers of unknown range: save it with 8 bits a colour")
    if image.mode.startswith("I"):  # 16 bits
        image = image.point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _check_size(image: Image.Image, size: int) -> list[str]:
    """Notes on the picture's size. Raises UnusableError for a tiny one."""
    width, height = image.size
    short, long = min(image.size), max(image.size)
    if 2 * short < size:
        raise UnusableError(f"too small: {width}x{height} pixels, the shorter side must have at least {-(-size // 2)}")
    notes = [f"enlarged from {short} pixels"] if short < size else []
    if 1 - short / long > LARGE_CROP:
        notes.append(f"{1 - short / long:.0%} cut away at the ends")
    return notes


def _is_caption(file: Path) -> bool:
    return file.suffix.lower() == ".txt" and not file.name.startswith(".") and file.is_file()


def _caption(file: Path, template: str) -> tuple[str, list[str]]:
    """The caption of a picture, and a note if its .txt file was of no use."""
    beside = file.with_suffix(".txt")
    if not beside.is_file():
        return _filled(template, file), []
    try:
        text = " ".join(beside.read_text(encoding="utf-8-sig").split())
    except (UnicodeDecodeError, OSError):
        return _filled(template, file), [f"{beside.name} is not text in UTF-8"]
    return (text, []) if text else (_filled(template, file), [f"{beside.name} is empty"])


def _filled(template: str, file: Path) -> str:
    words = {"folder": file.absolute().parent.name, "name": file.stem}
    try:
        return template.format(**{k: v.replace("_", " ").replace("-", " ") for k, v in words.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"caption: {{folder}} and {{name}} may stand in it, got {template!r}") from error


def _lonely_captions(folder: Path) -> list[Row]:
    """Rows for .txt files that have no picture of their name beside them."""
    texts = sorted(f for f in folder.iterdir() if _is_caption(f))
    stems = {f.stem for f in folder.iterdir() if not _is_caption(f)}
    return [Row(f.name, False, "a caption without a picture") for f in texts if f.stem not in stems]


def _nothing(report: Report) -> str:
    """The message where no picture can be used: what is there instead, and what to do."""
    if not report.rows:
        return f"the folder {report.folder} is empty: put pictures into it (JPEG, PNG, WebP, ...)"
    reasons = "; ".join(f"{row.file}: {row.note}" for row in report.skipped[:5])
    more = len(report.skipped) - 5
    kinds = Counter(Path(row.file).suffix.lower() or "no suffix" for row in report.skipped)
    return (
        f"no picture in {report.folder} can be used ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}): "
        f"{reasons}{f'; and {more} more' if more > 0 else ''}. Put pictures into it (JPEG, PNG, WebP, ...), or name "
        "the folder that has them."
    )
