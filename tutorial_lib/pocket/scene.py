"""The pocket world as plain data: what a scene is, how one is sampled, what its caption says.

Nothing here draws. A `Scene` holds everything that decides its picture, so the same scene is the same
picture on every machine. Lengths are in units of the picture's side; x grows to the right, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

STYLES = ("photo", "watercolor", "pencil sketch", "pixel art")
BACKGROUNDS = {
    "beach": "on a beach",
    "forest": "in a forest",
    "night": "at night",
    "snow": "in the snow",
    "table": "on a table",
    "city": "in a city",
}
OBJECTS = ("mug", "teapot", "house", "car", "fish", "cat", "flower", "ball", "tree", "gate", "moon")
ANIMALS = ("fish", "cat")
WEARABLES = ("glasses", "hat")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
SKINS = ("light", "tan", "dark")
HAIR_COLOURS = ("black", "brown", "blond", "red", "white")
HAIR_LENGTHS = ("short", "long")
EXTRAS = {"glasses": "glasses", "hat": "a hat", "beard": "a beard", "smile": "a smile"}
PATTERNS = ("dots", "stripes", "checks", "heart", "star", "two-tone", "band")
RARE_WORDS = ("sks", "ktn", "pll", "ucd")


@dataclass(frozen=True)
class Thing:
    """An object or an animal. (x, y) is the middle of its foot, `size` its height or width, the larger."""

    kind: str
    colour: str
    x: float = 0.5
    y: float = 0.86
    size: float = 0.5
    flip: bool = False
    worn: tuple[str, ...] = ()
    pattern: str | None = None  # a decoration that no caption mentions: subjects and the judge use it
    second_colour: str = "white"
    variant: str | None = None  # a particular build, such as the round "moon gate" of the subjects


@dataclass(frozen=True)
class Person:
    """A person seen from the chest up. (x, y) is the middle of the picture's lower edge of the body."""

    skin: str = "light"
    hair_colour: str = "brown"
    hair_length: str = "short"
    shirt: str = "blue"
    extras: tuple[str, ...] = ()  # of EXTRAS, in that order
    x: float = 0.5
    y: float = 1.0
    size: float = 0.85
    pattern: str | None = None  # on the shirt
    second_colour: str = "white"
    variant: str | None = None  # "freckles": only subjects have them
    kind: str = field(default="person", init=False)


@dataclass(frozen=True)
class Scene:
    """One picture: a style, a background, one thing or two from left to right, a seed for the details."""

    style: str
    background: str
    things: tuple[Thing | Person, ...]
    seed: int = 0  # decides the background's layout and the small accidents of a style


# ------------------------------------------------------------------ pairs that training never sees

HELD_OUT_COLOURS = {kind: COLOURS[(3 * i + 4) % len(COLOURS)] for i, kind in enumerate(OBJECTS)}
HELD_OUT_BACKGROUNDS = {kind: list(BACKGROUNDS)[(5 * i + 1) % len(BACKGROUNDS)] for i, kind in enumerate(OBJECTS)}
HELD_OUT_STYLES = {kind: STYLES[1 + i % 3] for i, kind in enumerate(OBJECTS) if i % 2 == 0}


def held_out_pairs(scene: Scene) -> list[tuple[str, str]]:
    """The (object, colour), (object, background) and (style, object) pairs of the scene never trained on."""
    pairs = []
    for thing in scene.things:
        if thing.kind == "person":
            continue
        if HELD_OUT_COLOURS[thing.kind] == thing.colour:
            pairs.append((thing.kind, thing.colour))
        if HELD_OUT_BACKGROUNDS[thing.kind] == scene.background:
            pairs.append((thing.kind, scene.background))
        if HELD_OUT_STYLES.get(thing.kind) == scene.style:
            pairs.append((scene.style, thing.kind))
    return pairs


# ------------------------------------------------------------------ sampling

STYLE_SHARES = (0.55, 0.15, 0.15, 0.15)
PLAN_SHARES = {"object": 0.38, "person": 0.26, "two objects": 0.25, "person and object": 0.11}
ANIMALS_WEIGHT = 2  # animals are drawn so much oftener than other things: what they wear is hard to learn
WEARING_SHARE = 0.6


def _choose(rng: np.random.Generator, options, p=None):
    options = list(options)
    return options[int(rng.choice(len(options), p=p))]


def _sample_thing(rng: np.random.Generator, kinds=OBJECTS) -> Thing:
    weights = np.array([ANIMALS_WEIGHT if kind in ANIMALS else 1 for kind in kinds])
    kind = _choose(rng, kinds, p=weights / weights.sum())
    worn = ()
    if kind in ANIMALS and rng.random() < WEARING_SHARE:
        worn = _choose(rng, [("glasses",), ("hat",), ("glasses", "hat")], p=(0.45, 0.45, 0.1))
    return Thing(kind, _choose(rng, COLOURS), flip=bool(rng.random() < 0.5), worn=worn)


def _sample_person(rng: np.random.Generator) -> Person:
    return Person(
        skin=_choose(rng, SKINS),
        hair_colour=_choose(rng, HAIR_COLOURS),
        hair_length=_choose(rng, HAIR_LENGTHS),
        shirt=_choose(rng, COLOURS),
        extras=tuple(e for e, p in zip(EXTRAS, (0.3, 0.25, 0.2, 0.45)) if rng.random() < p),
    )


def place(thing: Thing | Person, rng: np.random.Generator, slot: str = "only") -> Thing | Person:
    """The thing at a random place of its slot: "only", "left" or "right"."""
    alone = slot == "only"
    middle = {"only": 0.5, "left": 0.265, "right": 0.735}[slot]
    x = middle + rng.uniform(-1, 1) * (0.12 if alone else 0.025)
    if isinstance(thing, Person):
        size = rng.uniform(0.82, 0.95) if alone else rng.uniform(0.58, 0.64)
        x = middle + (x - middle) * 0.6
        return replace(thing, x=x, y=1.0, size=size)
    size = rng.uniform(0.46, 0.62) if alone else rng.uniform(0.38, 0.44)
    if thing.kind == "moon":
        return replace(thing, x=x, y=rng.uniform(0.54, 0.62) if alone else rng.uniform(0.46, 0.52), size=size * 0.9)
    return replace(thing, x=x, y=rng.uniform(0.84, 0.92), size=size)


def _sample_things(rng: np.random.Generator) -> tuple[Thing | Person, ...]:
    plan = _choose(rng, PLAN_SHARES, p=list(PLAN_SHARES.values()))
    if plan == "object":
        return (place(_sample_thing(rng), rng),)
    if plan == "person":
        return (place(_sample_person(rng), rng),)
    first = _sample_person(rng) if plan == "person and object" else _sample_thing(rng)
    second = _sample_thing(rng, [k for k in OBJECTS if k != first.kind])
    pair = [first, second] if rng.random() < 0.5 else [second, first]
    return (place(pair[0], rng, "left"), place(pair[1], rng, "right"))


def sample_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """A random scene of the training world, or (held_out) one with a pair that training never sees."""
    while True:
        scene = Scene(
            style=_choose(rng, STYLES, p=STYLE_SHARES),
            background=_choose(rng, BACKGROUNDS),
            things=_sample_things(rng),
            seed=int(rng.integers(2**31)),
        )
        if bool(held_out_pairs(scene)) == held_out:
            return scene


# ------------------------------------------------------------------ captions


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """What the scene shows, in words, left to right; with `rng`, some of it is left out at random.

    The whole caption names style, kinds, colours, things worn, background and, of a person alone, hair,
    extras, shirt and skin. Of a person beside something else it names only the hair's colour.
    """
    keep = (lambda share: True) if rng is None else (lambda share: bool(rng.random() < share))
    alone = len(scene.things) == 1
    words = " and ".join(_phrase(thing, alone, keep) for thing in scene.things)
    style = scene.style if keep(0.93) else "picture"
    place_words = f" {BACKGROUNDS[scene.background]}" if keep(0.93) else ""
    return f"{style if style == 'pixel art' else _article(style)} of {words}{place_words}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _phrase(thing: Thing | Person, alone: bool, keep) -> str:
    if isinstance(thing, Person):
        return _person_phrase(thing, alone, keep)
    words = _article(f"{thing.colour} {thing.kind}" if keep(0.93) else thing.kind)
    worn = [EXTRAS[w] for w in thing.worn if keep(0.97)]
    return f"{words} with {' and '.join(worn)}" if worn else words


def _person_phrase(person: Person, alone: bool, keep) -> str:
    if not alone:
        return f"a person with {person.hair_colour} hair" if keep(0.5) else "a person"
    length = f"{person.hair_length} " if keep(0.6) else ""
    features = [f"{length}{person.hair_colour} hair"] if keep(0.7) else []
    features += [f"{person.skin} skin"] if keep(0.45) else []
    features += [EXTRAS[e] for e in person.extras if keep(0.93)]
    words = "a person"
    if features:
        words += " with " + (", ".join(features[:-1]) + " and " if features[:-1] else "") + features[-1]
    return words + (f" wearing {_article(person.shirt + ' shirt')}" if keep(0.5) else "")


def caption_words() -> set[str]:
    """Every word that a caption can hold."""
    phrases = [*STYLES, *BACKGROUNDS.values(), *OBJECTS, *COLOURS, *SKINS, *HAIR_COLOURS, *HAIR_LENGTHS, *EXTRAS]
    frame = "a an picture of and with person hair skin wearing shirt"
    return {word for phrase in [*phrases, frame] for word in phrase.split()}
