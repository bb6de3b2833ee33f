"""Things to move and to answer: a panel that redraws a picture, a prompt box, a prediction.

They run on ipywidgets 7.7.1 (Colab) and 8. A picture is PNG bytes in a `widgets.Image`, which changes without
flicker. What is shown holds the live widget and, beside it, a picture or text for pages without a kernel.
"""

from __future__ import annotations

import html
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tutorial_lib.lab.notes import GOOD, note
from tutorial_lib.lab.plots import Shown, enlarged, png
from tutorial_lib.sampling import DEFAULT_GUIDANCE, DEFAULT_STEPS, generate

VIEW = "application/vnd.jupyter.widget-view+json"


def _view(widget) -> dict:
    return {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}


class Panel:
    """Controls above a picture that is drawn again whenever one of them changes.

    `draw(**values)` returns a PIL image; `describe(**values)` says in words what it shows. A warning in `draw` is
    written below the picture, where it is seen: JupyterLab hides what a control prints. So is an error, and it is
    raised to whoever moved the control. `still`: what pages without a kernel show;
    default the picture as it stands.
    """

    def __init__(
        self, controls: Mapping, draw: Callable, describe: Callable, width: int = 320, still: Shown | None = None
    ):
        import ipywidgets

        self.controls, self._draw, self._describe = dict(controls), draw, describe
        self._still = still
        self.picture = ipywidgets.Image(format="png", width=width)
        self.message = ipywidgets.HTML()
        self.widget = ipywidgets.VBox([*self.controls.values(), self.picture, self.message])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.update()

    @property
    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def update(self) -> None:
        """Draws the picture for the controls as they stand."""
        self.message.value = "drawing ..."
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                self.picture.value = png(self._draw(**self.values))
        except Exception as error:
            self.message.value = f"<b>Could not draw this:</b> {html.escape(str(error))}"
            raise
        told = [f"<b>Note:</b> {html.escape(str(w.message))}" for w in caught if w.category is UserWarning]
        self.message.value = "<br>".join([html.escape(self._describe(**self.values)), *dict.fromkeys(told)])

    def _changed(self, change) -> None:
        self.update()

    def _repr_mimebundle_(self, include=None, exclude=None):
        still = self._still or Shown(self.picture.value, self._describe(**self.values))
        data, metadata = still._repr_mimebundle_()
        return {VIEW: _view(self.widget), **data}, metadata


def browse(frames: Sequence[Shown], name: str, labels: Sequence[str], still: Shown, start: int = 0) -> Panel:
    """A slider called `name` through pictures that are drawn already; `labels` say where it stands.

    `still` is what pages without a kernel show: best a strip of all the frames.
    """
    import ipywidgets
    from PIL import Image

    pictures = [Image.open(io.BytesIO(frame.png)) for frame in frames]
    slider = ipywidgets.SelectionSlider(
        options=[(label, i) for i, label in enumerate(labels)],
        value=start,
        description=name,
        style={"description_width": "80px"},
        layout=ipywidgets.Layout(width="480px"),
    )
    return Panel(
        {"frame": slider},
        lambda frame: pictures[frame],
        lambda frame: frames[frame].alt,
        max(picture.width for picture in pictures),
        still,
    )


def prompt_box(
    pipe, prompt: str, steps: int = DEFAULT_STEPS, guidance: float = DEFAULT_GUIDANCE, seed: int = 0
) -> Panel:
    """A line for the prompt, sliders for steps, guidance and seed, and the picture that `pipe` makes of them."""
    import ipywidgets

    wide = {"style": {"description_width": "80px"}, "layout": ipywidgets.Layout(width="480px")}
    slider = {"continuous_update": False, **wide}
    controls = {
        "prompt": ipywidgets.Text(prompt, description="prompt", continuous_update=False, **wide),
        "steps": ipywidgets.IntSlider(steps, 1, 50, description="steps", **slider),
        "guidance": ipywidgets.FloatSlider(value=guidance, min=0, max=12, step=0.5, description="guidance", **slider),
        "seed": ipywidgets.IntSlider(seed, 0, 99, description="seed", **slider),
    }

    def draw(prompt, steps, guidance, seed):
        pictures = generate(
            pipe, [prompt], seed=seed, num_inference_steps=steps, guidance_scale=guidance, progress=False
        )
        return enlarged(pictures[0], 320)

    def describe(prompt, steps, guidance, seed):
        return f"“{prompt}”, {steps} steps, guidance {guidance:g}, seed {seed}"

    return Panel(controls, draw, describe)


class Prediction:
    """A question answered before the experiment; `outcome` later sets the guess against what was measured."""

    def __init__(self, question: str, options: Sequence[str]):
        import ipywidgets

        self.question, self.options = question, tuple(options)
        self.choice = ipywidgets.RadioButtons(
            options=self.options, value=None, layout=ipywidgets.Layout(width="max-content")
        )
        title = ipywidgets.HTML(f"<b>Your guess:</b> {html.escape(question)}")
        self.widget = ipywidgets.VBox([title, self.choice])

    @property
    def guess(self) -> str | None:
        """The chosen option, None so far."""
        return self.choice.value

    def outcome(self, option: str, because: str) -> Outcome:
        """What was measured: one of the options, and the numbers that say so."""
        if option not in self.options:
            raise ValueError(f"the outcome is one of the options {self.options}, not {option!r}")
        return Outcome(self.guess, option, because)

    def _repr_mimebundle_(self, include=None, exclude=None):
        items = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        page = f"<p><b>Your guess:</b> {html.escape(self.question)}</p><ul>{items}</ul>"
        text = "\n".join([f"Your guess: {self.question}", *(f"  - {option}" for option in self.options)])
        return {VIEW: _view(self.widget), "text/html": page, "text/plain": text}


@dataclass(frozen=True)
class Outcome:
    """A guess beside the outcome."""

    guess: str | None
    option: str
    because: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        measured = f"{self.option}: {self.because}."
        if self.guess is None:
            return note("Measured.", measured)
        if self.guess == self.option:
            return note("You guessed right.", measured, GOOD)
        return note("You guessed otherwise:", f"{self.guess}.\nMeasured: {measured}")


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Asks for a guess before an experiment. Nobody has to answer: without a guess the lesson goes on."""
    return Prediction(question, options)
