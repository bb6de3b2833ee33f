"""The benchmark of control: which runs are left, what its figures mean, and that a run can be made again."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import control, models, results
from tutorial_lib.pocket import conditions, judge, world


@pytest.fixture(scope="module")
def bench_file():
    import control as module  # benchmarks/control.py, not the library's package

    return module


@pytest.fixture(scope="module")
def exam_file():
    import control_exam as module

    return module


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket", device="cpu")


@pytest.fixture(scope="module")
def eyes():
    """The judge and CLIP."""
    return judge.load(), models.load_clip()


def a_row(module, regime="none", measure="F1", seed=0, part="edges", method="full", **changes):
    values = {f.name: {"int": 3, "float": 0.5, "str": "0 0.25"}[f.type] for f in dataclasses.fields(module.Row)}
    values |= dict(zip(module.KEY, module.Run(part, method, seed).key(regime, measure), strict=True))
    return module.Row(**(values | {"model": "abc", "command": "python, with a comma"} | changes))


def a_table(module, folder):
    return results.Table(folder / "control.csv", module.Row, module.KEY, "abc")


# ------------------------------------------------------------------ which runs are left


def labels(found):
    return [(run.method, run.pairs, run.seed) for run in found]


def test_a_run_is_left_until_all_of_its_rows_are_there(bench_file, exam_file, tmp_path):
    table = a_table(bench_file, tmp_path)
    assert labels(bench_file.runs(table, ["edges"], [2, 1])) == [("full", 1000, 2), ("full", 1000, 1)]
    names = [(regime, measure) for regime in exam_file.REGIMES for measure in bench_file.MEASURES["edges"]]
    for regime, measure in names[:-1]:
        table.add(a_row(bench_file, regime, measure, seed=2))
    assert len(labels(bench_file.runs(table, ["edges"], [2, 1]))) == 2
    table.add(a_row(bench_file, *names[-1], seed=2))
    assert labels(bench_file.runs(table, ["edges"], [2, 1])) == [("full", 1000, 1)]
    left = labels(bench_file.runs(table, ["edges", "ablations", "pairs"], [2]))
    assert left == [("gaussian", 1000, 2), ("lite", 1000, 2), ("full", 100, 2), ("full", 10_000, 2)]


def test_the_first_seed_is_left_until_its_sheet_is_there(bench_file, exam_file, tmp_path):
    table = a_table(bench_file, tmp_path)
    for regime in exam_file.REGIMES:
        for measure in bench_file.MEASURES["edges"]:
            for seed in (0, 1):
                table.add(a_row(bench_file, regime, measure, seed))
    assert labels(bench_file.runs(table, ["edges"], [0, 1])) == [("full", 1000, 0)]
    (tmp_path / "control_full.png").write_bytes(b"")
    assert labels(bench_file.runs(table, ["edges"], [0, 1])) == []


def test_adapters_wait_for_the_search_and_take_its_best_rate(bench_file, tmp_path):
    table = a_table(bench_file, tmp_path)
    searched = list(bench_file.runs(table, ["search"], [0, 1]))
    assert {run.seed for run in searched} == {bench_file.SEARCH_SEED}
    assert [(run.method, run.rate) for run in searched] == [
        (method, rate) for method, rates in bench_file.RATES.items() for rate in rates
    ]
    with pytest.raises(SystemExit, match="the search lacks OFT at .*--parts search first"):
        list(bench_file.runs(table, ["adapters"], [1]))
    for k, run in enumerate(searched):
        for measure in ("F1", "IoU", "things"):
            value = [0.5, 0.7, 0.6][k % 3] if measure == "F1" else 0.1 * k
            row = dataclasses.replace(a_row(bench_file), value=value)
            table.add(dataclasses.replace(row, **dict(zip(bench_file.KEY, run.key("none", measure), strict=True))))
    assert list(bench_file.runs(table, ["search"], [0])) == []
    rates = {run.method: run.rate for run in bench_file.runs(table, ["adapters"], [1])}
    middle = {method: bench_file.RATES[method][1] for method in ("OFT", "LoRA")}
    assert rates == middle | {"COFT": middle["OFT"]}
    (collapsing,) = bench_file.runs(table, ["collapse"], [1])
    assert (collapsing.method, collapsing.rate) == ("LoRA", bench_file.COLLAPSING)


@pytest.mark.parametrize(("scores", "place"), [((0.5, 0.7, 0.6), 1), ((0.695, 0.7, 0.2), 0), ((0.5, 0.6, 0.7), 2)])
def test_of_rates_that_are_about_as_good_the_smallest_is_taken(bench_file, scores, place):
    rates = bench_file.RATES["LoRA"]
    rows = [
        dataclasses.replace(a_row(bench_file, part="search"), method=f"LoRA at {rate:g}", value=score)
        for rate, score in zip(rates, scores, strict=True)
    ]
    assert bench_file.best_rate(rows, "LoRA") == rates[place]


def test_the_report_has_shares_of_the_ceiling_and_none_where_less_is_better(bench_file):
    rows = [a_row(bench_file, seed=seed, value=value, ceiling=0.8) for seed, value in ((0, 0.4), (1, 0.8))]
    text = list(bench_file.report(rows))
    assert "0.50" in text[1] and "1.00" in text[2]
    assert text[-1] == "edges, 1000 pairs, full, F1, prompts none: 0.75 ± 0.35 of the ceiling, 2 seeds"
    error = a_row(bench_file, measure="error", part="landmarks", value=3.0, ceiling=0.0)
    assert list(bench_file.report([error]))[-1].endswith(
        "error, prompts none: 3.000 ± 0.000, true pictures 0.000, 1 seeds"
    )


def test_a_falling_error_jumps_where_it_falls(bench_file):
    history = type("History", (), {"watched_at": [0, 10, 20, 30], "watched": {"none error": [9.0, 8.8, 2.0, 1.9]}})
    found = bench_file.on_the_way(history, "none", "error")
    assert 10 <= found["jump"] <= 20 and found["jump_share"] > 0.5 and found["curve"] == "9 8.8 2 1.9"
    assert math.isnan(bench_file.on_the_way(history, "perfect", "error")["jump"])


# ------------------------------------------------------------------ a run


@pytest.fixture
def small_bench(bench_file, exam_file, pocket, small_unet, tmp_path, monkeypatch):
    """A bench whose UNet is small and untrained, with few and short looks and a short recipe."""
    import control_parts

    for module, values in (
        (exam_file, {"TESTED": 4, "SAMPLING": 2, "PICTURED": 3}),
        (bench_file, {"WATCHED": 2, "LOOKS": 2}),
        (control_parts, {"BLOCK": 8, "RANK": 2, "TARGETS": ("to_q", "to_v")}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(control, "EDGES", dataclasses.replace(control.EDGES, pairs=3, steps=4, batch_size=2))
    pipe = copy.copy(pocket)
    pipe.unet = small_unet.requires_grad_(False)
    return bench_file.Bench(pipe, a_table(bench_file, tmp_path), "command")


RUNS = [
    ("edges", "full"),
    ("ablations", "lite"),
    ("adapters", "COFT"),
    ("adapters", "LoRA"),
    ("search", "OFT"),
    ("segmentation", "full"),
    ("landmarks", "LoRA"),
]


@pytest.mark.parametrize(("part", "method"), RUNS)
def test_a_run_trains_the_control_and_leaves_the_model_alone(bench_file, small_bench, part, method):
    before = {name: value.clone() for name, value in small_bench.pipe.unet.state_dict().items()}
    run = bench_file.Run(part, method, 1, pairs=3)
    asked, measures = run.asked, bench_file.MEASURES[run.asked.control]
    rows = run.done(small_bench)
    after = small_bench.pipe.unet.state_dict()
    assert set(after) == set(before) and all(torch.equal(value, before[name]) for name, value in after.items())
    assert sorted((row.regime, row.measure) for row in rows) == sorted((r, m) for r in asked.regimes for m in measures)
    for row in rows:
        followed = row.regime in asked.followed
        assert row.looks == ("0 2 4" if followed else "") and len(row.curve.split()) == 3 * followed
        assert math.isfinite(row.value) and math.isfinite(row.start) and row.seconds > 0 and row.parameters > 1000
        assert math.isnan(row.jump_share) or row.jump_share > 0
        small_bench.table.add(row)
    assert not run.left(small_bench.table)
    if part == "search":
        for first, second in zip(rows, run.done(small_bench), strict=True):
            assert repr(dataclasses.replace(first, seconds=0.0)) == repr(dataclasses.replace(second, seconds=0.0))


def test_an_adapter_learns_beside_its_hint_encoder(bench_file, small_bench):
    from control_parts import begin

    pipe, model = begin("LoRA", small_bench.pipe, 1)
    encoder = sum(parameter.numel() for parameter in model.parameters())
    rows = bench_file.Run("adapters", "LoRA", 1, pairs=3).done(small_bench)
    assert rows[0].parameters == encoder + sum(p.numel() for p in control.adapter_parameters(pipe.unet).values())
    assert pipe.unet is not small_bench.pipe.unet


def test_seeds_differ_in_weights_and_noise(bench_file, small_bench):
    first, second = (bench_file.Run("search", "OFT", seed, pairs=3).done(small_bench) for seed in (0, 1))
    assert [row.start for row in first] != [row.start for row in second]


@pytest.mark.parametrize(
    ("part", "name"), [("adapters", "control_LoRA.png"), ("landmarks", "control_landmarks_LoRA.png")]
)
def test_the_first_seed_leaves_a_sheet_of_pictures(bench_file, small_bench, part, name):
    run = bench_file.Run(part, "LoRA", bench_file.PICTURED_SEED, pairs=3)
    run.done(small_bench)
    rows = len(run.asked.regimes)
    with Image.open(small_bench.table.file.parent / name) as sheet:
        assert sheet.size == (64 * 3, 64 * rows)
        tiles = np.asarray(sheet).reshape(rows, 64, 3, 64, 3).swapaxes(1, 2)  # (regimes, scenes, h, w, colours)
    assert len({tile.tobytes() for row in tiles for tile in row}) == 3 * rows
    assert not list(small_bench.table.file.parent.glob("*.partial"))


# ------------------------------------------------------------------ the exam


@pytest.fixture(scope="module")
def exams(exam_file, pocket, eyes):
    """Of twelve scenes each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exam_file, "TESTED", 12)
        return {kind: exam_file.Exam(pocket, kind, *eyes) for kind in exam_file.MEASURES}


def test_conflicting_prompts_name_nothing_of_the_scene(exam_file, exams):
    exam = exams["edges"]
    prompts = exam.prompts("conflicting", 12)
    for scene, prompt in zip(exam.scenes, prompts, strict=True):
        other = exam.scenes[exam.captions.index(prompt)]
        assert not {thing.kind for thing in scene.things} & {thing.kind for thing in other.things}
        assert not any(f" {kind} " in f" {prompt} " for kind in exam_file.kinds(scene))


def test_true_pictures_pass_and_those_of_other_scenes_do_not(exams):
    true = {kind: [world.draw(scene) for scene in exam.scenes] for kind, exam in exams.items()}
    assert exams["edges"].scores(true["edges"]) == {"F1": 1, "IoU": 1, "things": 1}
    assert exams["edges"].scores(true["edges"][1:] + true["edges"][:1])["things"] < 0.5
    good, bad = (exams["segmentation"].scores(p) for p in (true["segmentation"], true["segmentation"][::-1]))
    for measure in ("mIoU", "mAcc", "aAcc", "CLIP-T"):
        assert good[measure] > bad[measure] + 0.1
    assert good["KID"] == pytest.approx(bad["KID"], abs=1e-6), "which picture is whose does not matter to KID"
    assert exams["landmarks"].scores(true["landmarks"])["error"] < 1.5
    assert exams["landmarks"].scores(true["landmarks"][::-1])["error"] > 1.5


def test_landmarks_are_asked_of_one_person_alone(exam_file, exams):
    assert all([thing.kind for thing in scene.things] == ["person"] for scene in exams["landmarks"].scenes)
    assert exam_file.scenes("landmarks", control.TEST, 3) == exams["landmarks"].scenes[:3]
    hints = conditions.hints(exams["landmarks"].controls)
    assert torch.equal(
        hints, conditions.hints([conditions.of_scene("landmarks", s) for s in exams["landmarks"].scenes])
    )


def test_distributions_are_compared_with_pictures_of_other_scenes(exams):
    exam = exams["segmentation"]
    asked = {world.draw(scene).tobytes() for scene in exam.scenes}
    assert len(exam.real) == len(exam.scenes) and not asked & {picture.tobytes() for picture in exam.real}


def test_without_prompts_the_words_make_no_difference(exam_file, small_bench, bench_file):
    exam = bench_file.Exam(small_bench.pipe, "edges", small_bench.judge, small_bench.clip)
    branch = control.from_unet(small_bench.pipe.unet, "full", 4)
    found = exam.look(small_bench.pipe, branch, exam_file.REGIMES, 2, 0)
    exam.captions = ["a photo of a red mug on a beach"] * 4
    other = exam.look(small_bench.pipe, branch, exam_file.REGIMES, 2, 0)
    assert all(found[key] == other[key] for key in found if key[0] == "none")


def test_a_row_of_the_results_comes_out_the_same(bench_file, exam_file, pocket, eyes):
    """The untrained model's pictures without prompts, drawn and scored again."""
    table = results.Table(bench_file.RESULTS, bench_file.Row, bench_file.KEY, results.model_hash())
    rows = [row for row in table.rows() if row.part == "edges" and row.regime == "none" and row.seed == 0]
    exam = exam_file.Exam(pocket, "edges", *eyes)
    branch = control.from_unet(pocket.unet, "full", 4)
    found = exam.look(pocket, branch, ["none"], exam_file.TESTED, 0)
    for row in rows:
        assert row.start == pytest.approx(found["none", row.measure], abs=0.01)
        assert row.ceiling == pytest.approx(exam.ceiling[row.measure], abs=0.01)
