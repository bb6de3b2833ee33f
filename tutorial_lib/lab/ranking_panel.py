"""Two blind panels for a class: rank the pictures of several methods, and tell which of two pictures is the real one.

Nobody sees which method drew which picture: the letters are dealt anew for each item and each name. Answers go to a
CSV file of `tutorial_lib.lab.ranking`, one line an answer; who comes back goes on where they stopped.
"""

from __future__ import annotations

import html
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tutorial_lib.lab import ranking
from tutorial_lib.lab.plots import Shown, grid, png
from tutorial_lib.lab.ranking import STAND_IN, Ballot, Choice
from tutorial_lib.lab.widgets import VIEW

LETTERS = "ABCDEFGH"
SIZE = 128  # pixels along a side of a picture


@dataclass(frozen=True)
class Item:
    """What is shown at a time: the hint, the words that were said to the model, and each method's picture."""

    name: str
    hint: Image.Image
    words: str
    pictures: Mapping[str, Image.Image]

    def __post_init__(self):
        if not 2 <= len(self.pictures) <= len(LETTERS):
            raise ValueError(f"{self.name}: expected 2 to {len(LETTERS)} pictures, got {len(self.pictures)}")

    def dealt(self, voter: str) -> dict[str, str]:
        """{letter: method} in an order that depends on item and voter alone."""
        methods = sorted(self.pictures)
        random.Random(f"{self.name}|{voter}").shuffle(methods)
        return dict(zip(LETTERS, methods))


class Blind:
    """What both panels share: a name, one item after the other, and a file that the answers go to."""

    answer: type
    question: str

    def __init__(self, items: Sequence[Item], file: Path | str):
        import ipywidgets

        if not items or len({item.name for item in items}) < len(items):
            raise ValueError("expected one item or more, each with a name of its own")
        self.items, self.file, self.place = list(items), Path(file), 0
        self.picture = ipywidgets.Image(format="png")
        self.title, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        self.voter = ipywidgets.Text(description="your name", continuous_update=False)
        self.voter.observe(self._named, names="value")
        self.buttons = {name: ipywidgets.Button(description=name) for name in self._names()}
        for button in self.buttons.values():
            button.on_click(lambda pressed: self.press(pressed.description))
        keys = ipywidgets.HBox(list(self.buttons.values()))
        self.widget = ipywidgets.VBox([self.voter, self.title, self.picture, keys, self.message])
        self._show()

    def _names(self) -> list[str]:
        """What stands on the buttons."""
        raise NotImplementedError

    def press(self, name: str) -> None:
        """What a click on the button of this name does."""
        raise NotImplementedError

    @property
    def item(self) -> Item | None:
        """The item that is shown; None after the last."""
        return self.items[self.place] if self.place < len(self.items) else None

    @property
    def dealt(self) -> dict[str, str]:
        return self.item.dealt(self.voter.value.strip())

    def sheet(self) -> Shown:
        """The item as it is shown: hint first, then the pictures by letter."""
        letters, item = self.dealt, self.item
        return grid(
            [item.hint, *(item.pictures[method] for method in letters.values())],
            labels=["the hint", *letters],
            columns=1 + len(letters),
            size=SIZE,
            alt=f"{self.question} The hint, and {len(letters)} pictures for it named {', '.join(letters)}; "
            f"the model was told {item.words}",
        )

    def _named(self, change) -> None:
        """Another name: the letters are dealt anew, and what this person has done already is left out."""
        self.place, self.message.value = 0, ""
        try:
            self._skip_done()
        except ValueError as error:
            self._say(f"Nothing will be saved: {error}")
        self._show()

    def _skip_done(self) -> None:
        done = set()
        if self.file.exists():
            answers = ranking.read(self.file, kind=self.answer)
            done = {answer.item for answer in answers if answer.voter == self.voter.value.strip()}
        while self.item and self.item.name in done:
            self.place += 1

    def _show(self) -> None:
        if self.item is None:
            self.title.value = f"<b>That was the last one, thank you.</b> {html.escape(self._told())}"
            return
        said = f"{self.place + 1} of {len(self.items)}. {self.question} The model was told {self.item.words}."
        self.title.value = html.escape(said)
        shown = self.sheet()
        self.picture.value = shown.png
        self.picture.width = Image.open(io.BytesIO(shown.png)).width

    def _save(self, answer_of) -> bool:
        """Writes the answer and goes on to the next item; False, with a sentence, where that cannot be."""
        voter = self.voter.value.strip()
        if self.item is None:
            return self._say("Every item is done.")
        if not voter or voter == STAND_IN:
            return self._say("Write your name above first: any word will do, but a person's own.")
        try:
            ranking.add(self.file, answer_of(voter, self.item))
        except (ValueError, OSError) as error:
            return self._say(f"This was not saved: {error}")
        self.place += 1
        self._skip_done()
        self._say(f"Saved in {self.file.name}.")
        return True

    def _say(self, words: str) -> bool:
        self.message.value = html.escape(words)
        return False

    def summary(self) -> str:
        """What the file says so far, in words; ValueError where its answers do not belong together."""
        raise NotImplementedError

    def _told(self) -> str:
        try:
            return self.summary()
        except ValueError as error:
            return f"The file cannot be summed up: {error}"

    def _repr_mimebundle_(self, include=None, exclude=None):
        still = self.sheet() if self.item else Shown(png(Image.new("RGB", (SIZE, SIZE), "white")), self._told())
        data, metadata = still._repr_mimebundle_()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {VIEW: view, **data}, metadata


class RankingPanel(Blind):
    """Press the letters from the best picture to the worst; the last press saves, and the next item appears."""

    answer = Ballot
    question = "Press the letters, the best picture first."
    AGAIN = "start again"

    def __init__(self, items: Sequence[Item], file: Path | str):
        if len({frozenset(item.pictures) for item in items}) > 1:
            raise ValueError("every item needs pictures of the same methods")
        self.pressed: list[str] = []
        super().__init__(items, file)

    def _names(self) -> list[str]:
        return [*LETTERS[: len(self.items[0].pictures)], self.AGAIN]

    def press(self, name: str) -> None:
        if name == self.AGAIN or self.item is None:
            self.pressed = []
        elif name not in self.pressed:
            self.pressed.append(name)
        self._say(ranking.BETTER.join(self.pressed))
        if self.item and len(self.pressed) == len(self.item.pictures):
            letters, order = self.dealt, self.pressed
            self.pressed = []
            if self._save(lambda voter, item: Ballot(voter, item.name, tuple(letters[name] for name in order))):
                self._show()

    def _named(self, change) -> None:
        self.pressed = []
        super()._named(change)

    def summary(self) -> str:
        found = ranking.average(ranking.read(self.file))
        return "Average ranking so far: " + ", ".join(
            f"{method} {average.mean:.2f}" for method, average in found.items()
        )


class PairPanel(Blind):
    """Press the letter of the picture that you take for `wanted`: one press saves, and the next item appears."""

    answer = Choice

    def __init__(self, items: Sequence[Item], file: Path | str, wanted: str):
        if wrong := [item.name for item in items if len(item.pictures) != 2 or wanted not in item.pictures]:
            raise ValueError(f"each item needs two pictures, one of them {wanted!r}: not so in {', '.join(wrong)}")
        self.wanted, self.question = wanted, f"Which of the two is {wanted}?"
        super().__init__(items, file)

    def _names(self) -> list[str]:
        return list(LETTERS[:2])

    def press(self, name: str) -> None:
        right = self.item is not None and self.dealt[name] == self.wanted
        if self._save(lambda voter, item: Choice(voter, item.name, right)):
            self._show()

    def summary(self) -> str:
        answers = [choice.right for choice in ranking.read(self.file, kind=Choice)]
        told = ranking.told_apart(sum(answers), len(answers))
        interval = f"{told.low:.0%} to {told.high:.0%}"
        return f"So far {told.share:.0%} of {told.count} answers were right; with 95 % confidence {interval}"
