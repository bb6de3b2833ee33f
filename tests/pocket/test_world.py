"""The pocket world: the same picture every time, and a ground truth that agrees with the pixels."""

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from tutorial_lib.pocket import world
from tutorial_lib.pocket.canvas import RGB
from tutorial_lib.pocket.world import Person, Scene, Thing

NEUTRAL = Person("light", "brown", "short", "blue", size=0.9)


def pixels(scene):
    return np.asarray(world.draw(scene), float)


def alone(kind, colour="red", background="snow", style="photo", **more):
    return Scene(style, background, (Thing(kind, colour, y=0.58 if kind == "moon" else 0.88, **more),), seed=7)


def scenes(count, seed, held_out=False):
    rng = np.random.default_rng(seed)
    return [world.sample_scene(rng, held_out) for _ in range(count)]


def test_same_scene_same_bytes_and_other_seed_other_picture():
    for scene in scenes(20, 1):
        assert world.draw(scene).tobytes() == world.draw(scene).tobytes()
        assert world.draw(scene).tobytes() != world.draw(replace(scene, seed=scene.seed + 1)).tobytes()
    picture = world.draw(scenes(1, 1)[0])
    assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_draw_many_in_processes_equals_draw():
    some = scenes(world.CHUNK + 5, 2)
    drawn = world.draw_many(some, workers=2, progress=False)
    assert (drawn.shape, drawn.dtype) == ((len(some), 64, 64, 3), np.uint8)
    assert all(np.array_equal(drawn[k], np.asarray(world.draw(some[k]))) for k in (0, 60, len(some) - 1))
    assert world.draw_many([], progress=False).shape == (0, 64, 64, 3)


def test_caption_names_what_the_scene_holds():
    for scene in scenes(60, 3):
        words = world.caption(scene)
        assert scene.style in words and world.BACKGROUNDS[scene.background] in words
        for thing in scene.things:
            if isinstance(thing, Person):
                assert f"{thing.hair_colour} hair" in words
            else:
                assert f"{thing.colour} {thing.kind}" in words
        assert set(words.replace(",", "").split()) <= world.caption_words()


@pytest.mark.parametrize("kind", world.OBJECTS)
@pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow", "white", "black"])
def test_colour_under_the_mask_is_the_things_colour(kind, colour):
    scene = alone(kind, colour)
    within = binary_erosion(world.mask(scene))  # without the outline
    under = np.median(pixels(scene)[within], axis=0)
    nearest = min(RGB, key=lambda name: np.abs(np.array(RGB[name]) - under).sum())
    assert nearest == colour


@pytest.mark.parametrize("style", world.STYLES)
def test_mask_is_the_segmentations_class_and_has_a_sane_area(style):
    for k, kind in enumerate(world.OBJECTS):
        scene = alone(kind, background=list(world.BACKGROUNDS)[k % 6], style=style)
        found, classes = world.mask(scene), world.segmentation(scene)
        assert np.array_equal(found, classes == world.CLASSES.index(kind))
        assert 0.05 < found.mean() < 0.4
    person = Scene(style, "city", (NEUTRAL,), seed=3)
    assert np.array_equal(world.mask(person), world.segmentation(person) == world.CLASSES.index("person"))
    assert 0.3 < world.mask(person).mean() < 0.7


@pytest.mark.parametrize("kind", world.OBJECTS)
def test_recolouring_a_thing_changes_its_own_pixels_only(kind):
    scene = alone(kind, "red")
    other = replace(scene, things=(replace(scene.things[0], colour="green"),))
    changed = np.abs(pixels(scene) - pixels(other)).max(axis=-1) > 0
    near = binary_dilation(world.mask(scene), iterations=5 if kind == "moon" else 2)  # the moon has a glow
    assert changed.any() and not (changed & ~near).any()
    assert changed[world.mask(scene)].mean() > 0.6


def test_two_things_are_left_and_right():
    pairs = [scene for scene in scenes(120, 4) if len(scene.things) == 2]
    assert len(pairs) > 10
    for scene in pairs:
        left, right = world.mask(scene, 0), world.mask(scene, 1)
        assert not (left & right).any() and min(left.sum(), right.sum()) > 60
        assert np.nonzero(left)[1].mean() < 29 and np.nonzero(right)[1].mean() > 35


def test_worn_things_count_to_their_wearer_and_show():
    for kind in world.ANIMALS:
        bare, dressed = alone(kind), alone(kind, worn=("glasses", "hat"))
        assert world.mask(dressed).sum() > world.mask(bare).sum()
        changed = np.abs(pixels(bare) - pixels(dressed)).max(axis=-1) > 40
        assert changed.sum() > 50 and world.mask(dressed)[changed].mean() > 0.9


@pytest.mark.parametrize(
    "person", [NEUTRAL, Person("dark", "white", "long", "pink", ("beard", "smile"), x=0.3, size=0.6)]
)
def test_landmarks_lie_in_the_person_left_before_right(person):
    scene = Scene("photo", "beach", (person,), seed=1)
    points = world.landmarks(scene)
    assert points.shape == (5, 2)
    columns, rows = points.astype(int).T
    assert world.mask(scene)[rows, columns].all()
    assert columns[0] < columns[2] < columns[1] and columns[3] < columns[4]
    assert rows[0] < rows[2] < rows[3]
    assert world.landmarks(alone("mug")) is None


def test_a_smile_changes_the_mouth_and_nothing_else():
    plain, smiling = (Scene("photo", "city", (replace(NEUTRAL, extras=e),), 5) for e in ((), ("smile",)))
    changed = np.abs(pixels(plain) - pixels(smiling)).max(axis=-1) > 0
    rows, columns = np.nonzero(changed)
    left, right = world.landmarks(smiling)[3:]
    assert columns.min() >= left[0] - 2 and columns.max() <= right[0] + 2
    assert rows.min() >= left[1] - 2 and rows.max() <= left[1] + 9
    assert right[0] - left[0] >= 14 and len(set(rows)) >= 6


def test_every_extra_changes_many_pixels_of_the_face():
    for extra in world.EXTRAS:
        with_extra = Scene("photo", "city", (replace(NEUTRAL, extras=(extra,)),), 5)
        change = np.abs(pixels(with_extra) - pixels(Scene("photo", "city", (NEUTRAL,), 5))).max(axis=-1)
        assert (change > 40).sum() > 40, extra


def test_edges_are_thin_and_follow_the_mask():
    scene = alone("house", background="table")
    found, inside = world.edges(scene), world.mask(scene)
    border = inside & ~np.roll(inside, -1, axis=1)
    assert found.dtype == bool and 0.02 < found.mean() < 0.3
    assert found[border].all()


def test_held_out_pairs_are_never_sampled_unless_asked_for():
    assert not any(world.held_out_pairs(scene) for scene in scenes(300, 5))
    assert all(world.held_out_pairs(scene) for scene in scenes(60, 6, held_out=True))


def test_decorate_changes_the_things_but_not_the_caption():
    rng = np.random.default_rng(0)
    for scene in scenes(40, 7):
        decorated = world.decorate(scene, rng)
        assert world.caption(decorated) == world.caption(scene)
        for thing in decorated.things:
            assert thing.second_colour != (thing.shirt if isinstance(thing, Person) else thing.colour)
        assert world.draw(decorated).tobytes() != world.draw(scene).tobytes()
        assert np.array_equal(world.segmentation(decorated), world.segmentation(scene))


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (alone("mgu"), "'mgu'.*did you mean 'mug'"),
        (alone("mug", "rde"), "'rde'.*did you mean 'red'"),
        (alone("mug", background="beech"), "'beech'.*did you mean 'beach'"),
        (alone("mug", style="foto"), "'foto'.*did you mean 'photo'"),
        (alone("mug", worn=("hat",)), "only fish and cat wear"),
        (alone("cat", worn=("scarf",)), "'scarf'.*known: glasses, hat"),
        (alone("cat", pattern="dot"), "'dot'.*dots"),
        (alone("mug", variant="collar"), "variant of a mug 'collar'"),
        (Scene("photo", "city", (Person(hair_colour="blonde"),)), "'blonde'.*blond"),
        (Scene("photo", "city", (Person(extras=("smiles",)),)), "'smiles'.*smile"),
    ],
)
def test_unknown_words_raise(scene, message):
    with pytest.raises(ValueError, match=message):
        world.draw(scene)


def test_mask_of_a_thing_that_is_not_there_raises():
    with pytest.raises(ValueError, match="1 thing"):
        world.mask(alone("mug"), 1)


def test_print_the_drawing_time():
    some = scenes(100, 8)
    start = time.process_time()
    for scene in some:
        world.draw(scene)
    print(f"\ndrawing: {(time.process_time() - start) * 10:.1f} ms a picture")
