"""The subjects: five pictures each, on disk as the code draws them."""

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.pocket import world
from tutorial_lib.pocket.subjects import FOLDER, SUBJECTS, write_subjects


def test_six_or_more_subjects_in_five_different_places():
    assert len(SUBJECTS) >= 6
    for subject in SUBJECTS.values():
        assert len({scene.background for scene in subject.scenes}) == 5
        assert {scene.style for scene in subject.scenes} == {"photo"}
        assert {scene.things[0].kind for scene in subject.scenes} == {subject.class_word}
        assert len({scene.things[0].size for scene in subject.scenes}) > 2


def test_captions_name_the_class_and_the_place_alone():
    assert SUBJECTS["two-tone-cat"].caption(0) == "a photo of a cat on a beach"
    for subject in SUBJECTS.values():
        for k in range(5):
            assert set(subject.caption(k).split()) <= world.caption_words()


@pytest.mark.parametrize("slug", SUBJECTS)
def test_a_subject_looks_unlike_its_class(slug):
    """The decoration is there: the same thing without it is another picture, and no sampled thing has one."""
    thing = SUBJECTS[slug].scenes[0].things[0]
    assert thing.pattern is not None or thing.variant is not None
    rng = np.random.default_rng(0)
    sampled = [thing for _ in range(200) for thing in world.sample_scene(rng).things]
    assert all(other.pattern is None and other.variant is None for other in sampled)


@pytest.mark.parametrize("slug", SUBJECTS)
def test_files_are_what_the_code_draws(slug):
    for k, scene in enumerate(SUBJECTS[slug].scenes):
        stored = np.asarray(Image.open(FOLDER / slug / f"{k}.png"))
        assert np.array_equal(stored, np.asarray(world.draw(scene)))
        assert (FOLDER / slug / f"{k}.txt").read_text(encoding="utf-8").strip() == SUBJECTS[slug].caption(k)


def test_write_subjects_writes_a_picture_and_a_caption_each(tmp_path):
    write_subjects(tmp_path)
    assert len(list(tmp_path.glob("*/*.png"))) == len(list(tmp_path.glob("*/*.txt"))) == 5 * len(SUBJECTS)
