"""The benchmark of edits: its table grows row by row, its judging is strict, and a row can be made again."""

from types import SimpleNamespace

import pytest
import torch

from tutorial_lib import models, results, sampling
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.judge import PersonReading, Reading, ThingReading


@pytest.fixture(scope="module")
def edits():
    import mixing_edits

    return mixing_edits


def a_row(edits, seed, edit="hat", method="new prompt", model="abc", **changes):
    values = {"target": True, "kept": False, "lost": "shirt", "region": "background", "difference": "0.0310"}
    values |= {"weights": "", "steps": edits.STEPS, "command": "python, with a comma"} | changes
    return edits.Row(method, edit, seed, model=model, **values)


def a_table(edits, file):
    return results.Table(file, edits.Row, edits.KEY, "abc")


def test_the_benchmark_knows_what_is_missing_and_which_weights_were_learned(edits, tmp_path):
    table = a_table(edits, tmp_path / "edits.csv")
    rows = [a_row(edits, 1), a_row(edits, 2, weights="1.0000 0.5000", kept=True)]
    for row in rows:
        table.add(row)
    assert table.rows() == rows
    assert edits.missing(table, "new prompt", "hat", [1, 2, 3]) == [3]
    assert edits.missing(table, "optimised", "hat", [1]) == [1]
    assert edits.learned_weights(table, "new prompt", "hat", 2).tolist() == [1.0, 0.5]
    assert edits.learned_weights(table, "new prompt", "hat", 9) is None


def test_rows_of_another_number_of_steps_are_refused(edits, monkeypatch, tmp_path):
    file = tmp_path / "edits.csv"
    results.Table(file, edits.Row, edits.KEY, results.model_hash()).add(
        a_row(edits, 1, model=results.model_hash(), steps=edits.STEPS + 1)
    )
    monkeypatch.setattr("sys.argv", ["mixing_edits.py", "--out", str(file)])
    with pytest.raises(SystemExit, match=f"rows of .*{edits.STEPS + 1}.* steps, now {edits.STEPS}: move it away"):
        edits.main()


def reading(extras=(), shirt="blue", background="beach", kind="person"):
    person = PersonReading("tan", "brown", "long", shirt, tuple(extras)) if kind == "person" else None
    return Reading("photo", background, (ThingReading(kind, None),), person)


@pytest.mark.parametrize(
    ("after", "target", "lost"),
    [
        (reading(["hat"]), True, ""),
        (reading(["hat"], shirt="red", background="snow"), True, "background shirt"),
        (reading(["glasses", "hat"]), True, "glasses"),
        (reading(), False, ""),
        (reading(kind="cat"), False, "background beard glasses hair_colour hair_length shirt skin smile style"),
    ],
)
def test_an_edit_succeeds_only_if_all_else_is_kept(edits, tmp_path, after, target, lost):
    read = iter([[after], [reading()]])
    judge = SimpleNamespace(read=lambda images: next(read), segment=lambda images: torch.zeros(1, 64, 64))
    table = a_table(edits, tmp_path / "edits.csv")
    bench = edits.Bench(None, judge, None, table, [7], 8, "command")
    pictures = torch.rand(2, 1, 3, 64, 64)
    bench.record("new prompt", "hat", [7], *pictures)
    row = table.rows()[0]
    assert (row.target, " ".join(sorted(row.lost.split())), row.seed) == (target, lost, 7)
    assert row.success == (target and not lost)
    assert float(row.difference) == pytest.approx((pictures[0] - pictures[1]).abs().mean().item(), abs=1e-4)


def test_only_pixels_that_both_pictures_leave_alone_are_compared(edits):
    person = edits.CLASSES.index("person")
    before, after = torch.zeros(2, 1, 64, 64)
    before[:, :, :20], after[:, :, 10:30] = person, person  # columns 0-20 and 10-30
    maps = iter([after, before, after, before])
    judge = SimpleNamespace(segment=lambda images: next(maps))
    images, originals = torch.zeros(2, 1, 3, 64, 64)
    images[..., :10], images[..., 10:20], images[..., 30:] = 0.9, 0.3, 0.1
    assert edits.region_difference(images, originals, judge, "background") == pytest.approx([0.1])
    assert edits.region_difference(images, originals, judge, "person") == pytest.approx([0.3])


def test_fine_tuning_learns_the_picture_and_leaves_the_given_model_alone(edits, monkeypatch):
    monkeypatch.setattr(edits, "STEPS", 3)
    monkeypatch.setitem(edits.FINE_TUNING, "steps", 2)
    pipe = models.load("pocket", device="cpu")
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    latents = sampling.noise(pipe, [4])
    originals = edits.make(pipe, edits.NEUTRAL, torch.ones(3), latents)
    tuned = edits._trained_on(pipe, originals, seed=4)
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in tuned.unet.state_dict().items())
    assert not torch.equal(edits.make(tuned, edits.NEUTRAL, torch.ones(3), latents), originals)


def test_a_row_of_the_results_comes_out_the_same(edits):
    table = results.Table(edits.RESULTS, edits.Row, edits.KEY, results.model_hash())
    expected = next(r for r in table.rows() if (r.method, r.edit) == ("switch at 0.6", "glasses"))
    pipe, judge = models.load("pocket", device="cpu"), pocket_judge.load()
    latents = sampling.noise(pipe, [expected.seed])
    originals = edits.make(pipe, edits.NEUTRAL, torch.ones(edits.STEPS), latents)
    images = edits.make(pipe, edits.EDITS["glasses"].styled, edits.switch(0.6), latents)
    difference = edits.region_difference(images, originals, judge, "background")[0]
    assert difference == pytest.approx(float(expected.difference), abs=0.002)
    read = edits.answers(judge.read(images)[0])
    assert (read.get("glasses") == "yes") == expected.target
