"""A panel on which a reader composes an edge map, of shapes or of a drawing, and gets a picture for it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from tutorial_lib.lab.plots import GAP, Shown, enlarged
from tutorial_lib.lab.widgets import Panel
from tutorial_lib.pocket import conditions, world
from tutorial_lib.pocket.scene import BACKGROUNDS, OBJECTS, Scene, Thing

SHAPES, DRAWING = "the shapes below", "my drawing"
NOTHING = "nothing"
SHOWN = 256  # pixels along a side of each of the two pictures


def edges(things: list[Thing], background: str | None = None) -> Image.Image:
    """Canny edges of things drawn by the world, white on black; of the things alone where there is no background.

    Raises ValueError when there is neither a thing nor a background.
    """
    if not things and background is None:
        raise ValueError("there is nothing to draw: choose a shape or a background.")
    scene = Scene("photo", background or "snow", tuple(things))
    found = conditions.canny(world.draw(scene))
    if background is None:
        found &= np.any([_grown(world.mask(scene, k)) for k in range(len(things))], axis=0)
    return conditions.edge_picture(found)


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its neighbours: the edge of a thing may lie one pixel outside of it."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)


def uploaded(value) -> bytes | None:
    """The bytes in a FileUpload's value, None while there are none: a dict in ipywidgets 7, a tuple in 8."""
    files = list(value.values()) if isinstance(value, dict) else list(value)
    return bytes(files[-1]["content"]) if files else None


def drawing(value) -> Image.Image:
    """The uploaded drawing as an edge map. Raises ValueError, in words for the reader, where it cannot be used."""
    content = uploaded(value)
    if content is None:
        raise ValueError("there is no drawing yet: upload a square PNG or JPEG with dark lines on a light ground.")
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError("this file is no picture that can be read: upload a PNG or a JPEG.") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "control picture resized")  # a drawing always is
        return conditions.of_drawing(picture)


def panel(paint: Callable, prompt: str = "", still: Shown | None = None) -> Panel:
    """The panel. `paint(prompt, control, scale, seed)` returns the picture for a control picture."""

    def control_of(source, drawing_file, around, first, second):
        if source == DRAWING:
            return drawing(drawing_file)
        return edges([thing for thing in (first, second) if thing], None if around == NOTHING else around)

    def draw(prompt, source, drawing_file, around, scale, seed, **shapes):
        control = control_of(source, drawing_file, around, _thing(shapes, "1"), _thing(shapes, "2"))
        return _side_by_side(control, paint(prompt, control, scale, seed))

    def describe(prompt, source, scale, seed, **_):
        said = f"“{prompt}”" if prompt else "no prompt"
        return f"left the edges ({source}), right the picture: {said}, strength {scale:g}, seed {seed}"

    return Panel(_controls(prompt), draw, describe, 2 * SHOWN + GAP, still)


def _controls(prompt: str) -> dict:
    import ipywidgets as w

    wide = {"style": {"description_width": "110px"}, "layout": w.Layout(width="480px")}
    slide = {"continuous_update": False, **wide}
    controls = {
        "prompt": w.Text(prompt, description="prompt", continuous_update=False, **wide),
        "source": w.Dropdown(options=(SHAPES, DRAWING), description="edges of", **wide),
        "drawing_file": w.FileUpload(accept="image/*", multiple=False, description="upload a drawing"),
        "around": w.Dropdown(options=(NOTHING, *BACKGROUNDS), description="background", **wide),
    }
    for number, kind, x in (("1", "house", 0.35), ("2", NOTHING, 0.75)):
        controls |= {
            f"kind{number}": w.Dropdown(options=(NOTHING, *OBJECTS), value=kind, description=f"shape {number}", **wide),
            f"x{number}": w.FloatSlider(value=x, min=0, max=1, step=0.05, description="from the left", **slide),
            f"y{number}": w.FloatSlider(value=0.85, min=0.3, max=1, step=0.05, description="its foot at", **slide),
            f"size{number}": w.FloatSlider(value=0.5, min=0.2, max=0.9, step=0.05, description="size", **slide),
        }
    controls["scale"] = w.FloatSlider(value=1, min=0, max=2, step=0.25, description="strength", **slide)
    controls["seed"] = w.IntSlider(value=0, min=0, max=99, description="seed", **slide)
    return controls


def _thing(shapes: dict, number: str) -> Thing | None:
    kind, x, y, size = (shapes[f"{name}{number}"] for name in ("kind", "x", "y", "size"))
    return None if kind == NOTHING else Thing(kind, "red", x, y, size)


def _side_by_side(control: Image.Image, picture: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (2 * SHOWN + GAP, SHOWN), "white")
    sheet.paste(enlarged(control, SHOWN), (0, 0))
    sheet.paste(enlarged(picture, SHOWN), (SHOWN + GAP, 0))
    return sheet
