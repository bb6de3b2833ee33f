"""The shipped judge on drawn pictures that it never trained on, and the judge's bad input."""

import numpy as np
import pytest
import torch

from tutorial_lib import metrics
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket import world
from tutorial_lib.pocket.pretrain.data import held_out_scenes
from tutorial_lib.pocket.scene import Person
from tutorial_lib.pocket.subjects import SUBJECTS


@pytest.fixture(scope="module")
def judge():
    return pocket_judge.load()


@pytest.fixture(scope="module")
def drawn():
    scenes = held_out_scenes(250) + held_out_scenes(250, held_out=True)
    return scenes, world.draw_many(scenes, workers=1, progress=False)


def test_reads_held_out_pictures(judge, drawn):
    """Half of them hold pairs that the UNet never saw. Hair is nearly hidden where it is short and under a hat."""
    scenes, pictures = drawn
    shares = metrics.prompt_fidelity(pictures, scenes, judge, absent=True)
    assert {"object", "colour", "background", "style", "smile", "hat", "both objects"} <= set(shares)
    low = {"both objects": 0.94, "both colours": 0.94, "worn": 0.94, "hair colour": 0.93}
    assert {name: s.value for name, s in shares.items() if s.value < low.get(name, 0.97)} == {}


def test_segments_and_finds_landmarks(judge, drawn):
    scenes, pictures = drawn
    labels = np.stack([world.segmentation(s) for s in scenes])
    assert metrics.segmentation_scores(judge.segment(pictures), labels)["aAcc"] > 0.93
    faces = [k for k, s in enumerate(scenes) if len(s.things) == 1 and isinstance(s.things[0], Person)]
    points = np.stack([world.landmarks(scenes[k]) for k in faces])
    assert metrics.landmark_error(judge.landmarks(pictures[faces]), points) < 1.5


def test_embedding_tells_the_subjects_apart(judge):
    """Each picture's nearest other picture is of the same subject; none of them was trained on."""
    pictures = [world.draw(scene) for subject in SUBJECTS.values() for scene in subject.scenes]
    owner = torch.arange(len(SUBJECTS)).repeat_interleave(5)
    rows = judge.embed(pictures)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    nearest = (rows @ rows.T - 2 * torch.eye(len(rows))).argmax(1)
    assert (owner[nearest] == owner).float().mean() >= 0.9


def test_takes_pil_arrays_and_tensors_alike(judge, drawn):
    scenes, pictures = drawn
    as_pil = [world.draw(scene) for scene in scenes[:5]]
    as_tensor = torch.from_numpy(pictures[:5]).permute(0, 3, 1, 2) / 255
    assert judge.read(as_pil) == judge.read(pictures[:5]) == judge.read(as_tensor)


def test_pictures_of_another_size_are_refused(judge):
    with pytest.raises(ValueError, match="64x64"):
        judge.read(np.zeros((2, 32, 32, 3), np.uint8))


def test_pictures_in_other_numbers_are_refused_and_not_misread(judge, drawn):
    _, pictures = drawn
    with pytest.raises(ValueError, match="must be uint8, got float64"):
        judge.read(pictures[:2] / 255)
    with pytest.raises(ValueError, match="floats in .* got torch.uint8"):
        judge.read(torch.from_numpy(pictures[:2]).permute(0, 3, 1, 2))


def test_the_shipped_judge_is_the_one_that_was_made(tmp_path, monkeypatch):
    """One changed byte keeps the file readable: only its hash tells."""
    import shutil

    from tutorial_lib.pocket import files
    from tutorial_lib.pocket import judge as module

    copy = shutil.copytree(files.POCKET, tmp_path / "pocket-sd")
    monkeypatch.setattr(files, "POCKET", copy)
    file = copy / "judge" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"judge.*model.safetensors is damaged or changed"):
        module.load()
