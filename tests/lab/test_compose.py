"""The panel on which an edge map is composed, driven without a browser and without a model."""

import datetime
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tutorial_lib.lab import compose
from tutorial_lib.pocket import conditions, world
from tutorial_lib.pocket.scene import Scene, Thing

NOW = datetime.datetime(2024, 1, 1)
HOUSE = Thing("house", "red", 0.35, 0.85, 0.5)


def edge_pixels(picture) -> np.ndarray:
    return conditions.edge_map(picture)


@pytest.fixture
def painted():
    """What was asked of the model, and a paint function that notes it."""
    asked = []

    def paint(prompt, control, scale, seed):
        asked.append({"prompt": prompt, "control": control, "scale": scale, "seed": seed})
        return Image.new("RGB", (64, 64), (seed, 0, 0))

    return asked, paint


def png(picture) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def a_drawing(size=128) -> Image.Image:
    picture = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(picture).rectangle((size // 4, size // 4, 3 * size // 4, 3 * size // 4), outline="black", width=4)
    return picture


def test_edges_of_a_thing_alone_lie_around_the_thing():
    alone = edge_pixels(compose.edges([HOUSE]))
    mask = world.mask(Scene("photo", "snow", (HOUSE,)))
    rows, columns = mask.nonzero()
    found_rows, found_columns = alone.nonzero()
    assert alone.sum() > 40
    assert rows.min() - 1 <= found_rows.min() and found_rows.max() <= rows.max() + 1
    assert columns.min() - 1 <= found_columns.min() and found_columns.max() <= columns.max() + 1


def test_with_a_background_they_are_what_a_branch_is_trained_on():
    scene = Scene("photo", "city", (HOUSE,))
    assert np.array_equal(edge_pixels(compose.edges([HOUSE], "city")), edge_pixels(conditions.of_scene("edges", scene)))
    assert edge_pixels(compose.edges([], "city")).any()


def test_nothing_at_all_is_refused():
    with pytest.raises(ValueError, match="choose a shape or a background"):
        compose.edges([])


def test_moving_a_slider_moves_the_edges_and_paints_again(painted):
    asked, paint = painted
    panel = compose.panel(paint, "a photo of a house")
    before = edge_pixels(asked[-1]["control"]).nonzero()[1].mean()
    panel.controls["x1"].value = 0.7
    after = edge_pixels(asked[-1]["control"]).nonzero()[1].mean()
    assert len(asked) == 2 and after - before == pytest.approx(0.35 * 64, abs=3)
    panel.controls["seed"].value = 7
    panel.controls["scale"].value = 1.5
    panel.controls["kind2"].value = "cat"
    assert (asked[-1]["seed"], asked[-1]["scale"], asked[-1]["prompt"]) == (7, 1.5, "a photo of a house")
    assert edge_pixels(asked[-1]["control"]).sum() > edge_pixels(asked[-2]["control"]).sum()
    shown = Image.open(io.BytesIO(panel.picture.value))
    assert shown.size == (2 * compose.SHOWN + compose.GAP, compose.SHOWN)
    assert "strength 1.5, seed 7" in panel.message.value


@pytest.mark.parametrize("version", [7, 8])
def test_an_upload_is_read_from_both_generations_of_the_widget(version):
    content = png(a_drawing())
    seven = {"house.png": {"metadata": {"name": "house.png"}, "content": content}}
    eight = ({"name": "house.png", "content": memoryview(content)},)
    assert compose.uploaded(seven if version == 7 else eight) == content
    assert compose.uploaded({} if version == 7 else ()) is None
    found = edge_pixels(compose.drawing(seven if version == 7 else eight))
    assert found.shape == (64, 64) and 60 < found.sum() < 200  # a square of 32 pixels, its lines one pixel wide


def test_an_uploaded_drawing_takes_the_place_of_the_shapes(painted):
    asked, paint = painted
    panel = compose.panel(paint)
    with pytest.raises(ValueError, match="no drawing yet"):
        panel.controls["source"].value = compose.DRAWING
    assert "no drawing yet" in panel.message.value and len(asked) == 1
    panel.controls["drawing_file"].value = ({"name": "a.png", "type": "image/png", "size": 9, "last_modified": NOW,
                                             "content": memoryview(png(a_drawing()))},)  # fmt: skip
    with pytest.warns(UserWarning, match="resized"):
        expected = conditions.of_drawing(a_drawing())
    assert np.array_equal(edge_pixels(asked[-1]["control"]), edge_pixels(expected))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a picture", "no picture that can be read"),
        (png(Image.new("RGB", (128, 128), "white")), "the drawing is empty"),
        (png(Image.new("RGB", (128, 64), "white")), "crop or pad it to a square"),
    ],
)
def test_drawings_that_cannot_be_used_are_refused_in_plain_words(content, message):
    with pytest.raises(ValueError, match=message):
        compose.drawing(({"name": "a", "content": content},))
