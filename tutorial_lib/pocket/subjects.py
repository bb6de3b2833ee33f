"""The subjects: particular things that pretraining never sees, five pictures of each.

`python -m tutorial_lib.pocket.subjects` writes them as a user's photo folders would look:
`data/subjects/<slug>/0.png` with the caption beside it in `0.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tutorial_lib.pocket.scene import BACKGROUNDS, Person, Scene, Thing
from tutorial_lib.pocket.world import draw

FOLDER = Path(__file__).parents[2] / "data" / "subjects"
# Where the five pictures are taken: background, x, foot, size; people are larger, and stand on the lower edge.
SHOTS = (
    ("beach", 0.46, 0.88, 0.58),
    ("forest", 0.56, 0.9, 0.5),
    ("snow", 0.5, 0.86, 0.62),
    ("city", 0.42, 0.89, 0.54),
    ("table", 0.55, 0.87, 0.56),
)


@dataclass(frozen=True)
class Subject:
    """One particular thing: a name, the word for its class, and the scenes that show it."""

    slug: str
    name: str
    class_word: str
    scenes: tuple[Scene, ...]

    def caption(self, index: int) -> str:
        """A plain caption that names the class and the place alone: "a photo of a cat on a beach"."""
        return f"a photo of a {self.class_word} {BACKGROUNDS[self.scenes[index].background]}"


def _shots(thing: Thing | Person, seed: int) -> tuple[Scene, ...]:
    scenes = []
    for k, (background, x, foot, size) in enumerate(SHOTS):
        if isinstance(thing, Person):
            placed = replace(thing, x=0.5 + (x - 0.5) * 0.6, size=size + 0.32)
        else:
            placed = replace(thing, x=x, y=foot, size=size, flip=k % 2 == 1)
        scenes.append(Scene("photo", background, (placed,), seed=100 * seed + k))
    return tuple(scenes)


def _subject(seed: int, slug: str, name: str, thing: Thing | Person) -> Subject:
    return Subject(slug, name, thing.kind, _shots(thing, seed))


_ALL = (
    _subject(1, "two-tone-cat", "two-tone cat with a collar",
             Thing("cat", "orange", pattern="two-tone", second_colour="white", variant="collar")),
    _subject(2, "polka-dot-teapot", "polka-dot teapot",
             Thing("teapot", "blue", pattern="dots", second_colour="yellow")),
    _subject(3, "heart-mug", "heart mug", Thing("mug", "white", pattern="heart", second_colour="red")),
    _subject(4, "striped-car", "striped car", Thing("car", "yellow", pattern="stripes", second_colour="purple")),
    _subject(5, "moon-gate", "moon gate", Thing("gate", "red", variant="moon")),
    _subject(6, "freckled-person", "one particular person",
             Person("light", "red", "short", "white", ("glasses",), pattern="stripes", second_colour="blue",
                    variant="freckles")),
    _subject(7, "star-ball", "star ball", Thing("ball", "purple", pattern="star", second_colour="yellow")),
)  # fmt: skip
SUBJECTS = {subject.slug: subject for subject in _ALL}


def write_subjects(folder: Path = FOLDER) -> None:
    """Write every subject's pictures and captions below the folder."""
    for subject in SUBJECTS.values():
        place = folder / subject.slug
        place.mkdir(parents=True, exist_ok=True)
        for k, scene in enumerate(subject.scenes):
            draw(scene).save(place / f"{k}.png")
            (place / f"{k}.txt").write_text(subject.caption(k) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_subjects()
    print(f"{len(SUBJECTS)} subjects written to {FOLDER}")
