"""Widgets, driven without a browser: setting a control's value is what moving it does."""

import base64
import io

import ipywidgets
import pytest
from PIL import Image

from tutorial_lib.lab import widgets
from tutorial_lib.lab.plots import Shown, png


def _grey_panel():
    def draw(level):
        if level > 200:
            raise ValueError("level <b>too high</b>")
        return Image.new("RGB", (4, 4), (level, level, level))

    control = ipywidgets.IntSlider(value=10, min=0, max=255)
    return widgets.Panel({"level": control}, draw, lambda level: f"a grey square of level {level}")


def _text(shown):
    return shown._repr_mimebundle_()["text/plain"]


def _pixel(png: bytes):
    return Image.open(io.BytesIO(png)).getpixel((0, 0))


def test_moving_a_control_redraws_the_picture():
    panel = _grey_panel()
    assert _pixel(panel.picture.value) == (10, 10, 10)
    panel.controls["level"].value = 77
    assert _pixel(panel.picture.value) == (77, 77, 77)
    assert panel.message.value == "a grey square of level 77"


def test_an_error_reaches_the_caller_and_the_reader_and_can_be_left_again():
    panel = _grey_panel()
    with pytest.raises(ValueError, match="too high"):
        panel.controls["level"].value = 250
    assert "&lt;b&gt;too high" in panel.message.value
    assert _pixel(panel.picture.value) == (10, 10, 10)
    panel.controls["level"].value = 20
    assert _pixel(panel.picture.value) == (20, 20, 20)


def test_a_warning_is_seen_below_the_picture_as_often_as_it_comes(recwarn):
    import warnings

    def draw(level):
        if level > 20:
            warnings.warn("never saw <dragons>", stacklevel=2)
        warnings.warn("nobody needs to act", DeprecationWarning, stacklevel=2)
        return Image.new("RGB", (4, 4))

    control = ipywidgets.IntSlider(value=10, min=0, max=255)
    panel = widgets.Panel({"level": control}, draw, lambda level: f"level {level}")
    for level in (30, 31):
        control.value = level
        assert panel.message.value == f"level {level}<br><b>Note:</b> never saw &lt;dragons&gt;"
    control.value = 5
    assert panel.message.value == "level 5" and not recwarn.list


def test_a_panel_holds_the_live_widget_and_a_picture_for_pages_without_a_kernel():
    panel = _grey_panel()
    panel.controls["level"].value = 30
    data, metadata = panel._repr_mimebundle_()
    assert data[widgets.VIEW]["model_id"] == panel.widget.model_id
    assert _pixel(base64.b64decode(data["image/png"])) == (30, 30, 30)
    assert data["text/plain"] == metadata["image/png"]["alt"] == "a grey square of level 30"


def _squares(levels):
    return [
        Shown(png(Image.new("RGB", (6, 4), (level, level, level))), f"a square of level {level}") for level in levels
    ]


def test_browse_shows_the_frame_that_the_slider_stands_at():
    strip = Shown(png(Image.new("RGB", (9, 2))), "a strip of both squares")
    panel = widgets.browse(_squares([10, 90, 200]), "step", ["first", "second", "third"], strip, start=1)
    assert _pixel(panel.picture.value) == (90, 90, 90)
    panel.controls["frame"].value = 2
    assert _pixel(panel.picture.value) == (200, 200, 200)
    assert panel.message.value == "a square of level 200" and panel.controls["frame"].label == "third"
    assert int(panel.picture.width) == 6


def test_browse_shows_the_strip_where_no_kernel_runs():
    strip = Shown(png(Image.new("RGB", (9, 2))), "a strip of both squares")
    data, metadata = widgets.browse(_squares([10, 90]), "step", ["a", "b"], strip)._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (9, 2)
    assert data["text/plain"] == metadata["image/png"]["alt"] == "a strip of both squares" and widgets.VIEW in data


def test_prompt_box_hands_its_controls_to_generate(monkeypatch):
    calls = []

    def generate(pipe, prompts, seed, num_inference_steps, guidance_scale, progress):
        calls.append((pipe, prompts, seed, num_inference_steps, guidance_scale))
        return [Image.new("RGB", (64, 64), (seed, 0, 0))]

    monkeypatch.setattr(widgets, "generate", generate)
    box = widgets.prompt_box("the pipe", "a red mug", steps=7, guidance=3.0, seed=5)
    assert calls == [("the pipe", ["a red mug"], 5, 7, 3.0)]
    box.controls["seed"].value = 6
    box.controls["prompt"].value = "a blue mug"
    assert calls[-1] == ("the pipe", ["a blue mug"], 6, 7, 3.0)
    assert _pixel(box.picture.value) == (6, 0, 0)
    assert Image.open(io.BytesIO(box.picture.value)).size == (320, 320)


def test_an_outcome_is_set_against_the_guess():
    prediction = widgets.predict("Which is larger?", ["this", "that"])
    assert prediction.guess is None
    assert _text(prediction.outcome("that", "3 > 2")) == "Measured. that: 3 > 2."
    prediction.choice.value = "this"
    assert _text(prediction.outcome("that", "3 > 2")) == "You guessed otherwise: this.\nMeasured: that: 3 > 2."
    assert _text(prediction.outcome("this", "3 < 2")) == "You guessed right. this: 3 < 2."


def test_an_outcome_that_is_no_option_is_an_error():
    with pytest.raises(ValueError, match="one of the options"):
        widgets.predict("Which?", ["this", "that"]).outcome("neither", "")


def test_a_prediction_can_be_read_without_a_kernel():
    data = widgets.predict("Is 1 < 2?", ["yes", "no"])._repr_mimebundle_()
    assert "<li>yes</li>" in data["text/html"] and "1 &lt; 2" in data["text/html"]
    assert "  - no" in data["text/plain"]
