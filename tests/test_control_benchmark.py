"""The benchmark of control: which runs are left, what its figures mean, and that a run can be made again."""

import copy
import dataclasses
import math

import pytest
import torch

from tutorial_lib import control, models, results
from tutorial_lib.pocket import world


@pytest.fixture(scope="module")
def bench_file():
    import control as module  # benchmarks/control.py, not the library's package

    return module


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket", device="cpu")


def a_row(module, regime="none", measure="F1", seed=0, **changes):
    values = {f.name: {"int": 3, "float": 0.5, "str": "0 0.25"}[f.type] for f in dataclasses.fields(module.Row)}
    values |= dict(zip(module.KEY, module.Run("edges", "full", seed).key(regime, measure), strict=True)) | {
        "model": "abc"
    }
    return module.Row(**(values | {"command": "python, with a comma"} | changes))


def a_table(module, folder):
    return results.Table(folder / "control.csv", module.Row, module.KEY, "abc")


def test_a_run_is_left_until_all_of_its_rows_are_there(bench_file, tmp_path):
    table = a_table(bench_file, tmp_path)
    edges = ["edges"]
    assert [run.seed for run in bench_file.runs(table, edges, [2, 0])] == [2, 0]
    names = [(regime, measure) for regime in bench_file.REGIMES for measure in bench_file.MEASURES]
    for regime, measure in names[:-1]:
        table.add(a_row(bench_file, regime, measure, seed=2))
    assert [run.seed for run in bench_file.runs(table, edges, [2, 0])] == [2, 0]
    table.add(a_row(bench_file, *names[-1], seed=2))
    assert [run.seed for run in bench_file.runs(table, edges, [2, 0])] == [0]
    left = [(run.method, run.seed) for run in bench_file.runs(table, list(bench_file.PARTS), [2])]
    assert left == [("gaussian", 2), ("lite", 2)]


def test_the_report_has_shares_of_the_ceiling(bench_file):
    rows = [a_row(bench_file, seed=seed, value=value, ceiling=0.8) for seed, value in ((0, 0.4), (1, 0.8))]
    text = list(bench_file.report(rows))
    assert "0.50" in text[1] and "1.00" in text[2]
    assert text[-1] == "full, F1, prompts none: 0.75 ± 0.35 of the ceiling, 2 seeds"


@pytest.fixture
def small_bench(bench_file, pocket, small_unet, tmp_path, monkeypatch):
    """A bench whose UNet is small and untrained, with few and short looks and a short recipe."""
    for name, value in {"TESTED": 4, "WATCHED": 2, "LOOKS": 2, "SAMPLING": 2}.items():
        monkeypatch.setattr(bench_file, name, value)
    monkeypatch.setattr(control, "EDGES", dataclasses.replace(control.EDGES, pairs=3, steps=4, batch_size=2))
    pipe = copy.copy(pocket)
    pipe.unet = small_unet.requires_grad_(False)
    return bench_file.Bench(pipe, a_table(bench_file, tmp_path), "command")


@pytest.mark.parametrize("method", ["full", "gaussian", "lite"])
def test_a_run_trains_the_branch_and_leaves_the_model_alone(bench_file, small_bench, method):
    before = {name: value.clone() for name, value in small_bench.pipe.unet.state_dict().items()}
    part = "edges" if method == "full" else "ablations"
    rows = bench_file.Run(part, method, 1).done(small_bench)
    assert all(torch.equal(value, before[name]) for name, value in small_bench.pipe.unet.state_dict().items())
    names = [(row.regime, row.measure) for row in rows]
    assert sorted(names) == sorted((r, m) for r in bench_file.REGIMES for m in bench_file.MEASURES)
    for row in rows:
        followed = row.regime in bench_file.FOLLOWED
        assert row.looks == ("0 2 4" if followed else "") and len(row.curve.split()) == 3 * followed
        assert 0 <= row.value <= 1 and 0 < row.ceiling <= 1 and row.seconds > 0 and row.parameters > 1000
        assert math.isnan(row.jump_share) or row.jump_share > 0
        small_bench.table.add(row)
    assert method not in [run.method for run in bench_file.runs(small_bench.table, [part], [1])]
    again = bench_file.Run(part, method, 1).done(small_bench)
    for first, second in zip(rows, again, strict=True):
        assert repr(dataclasses.replace(first, seconds=0.0)) == repr(dataclasses.replace(second, seconds=0.0))


def test_seeds_differ_in_weights_and_noise(bench_file, small_bench):
    first, second = (bench_file.Run("edges", "full", seed).done(small_bench) for seed in (0, 1))
    assert [row.start for row in first] != [row.start for row in second]


def test_conflicting_prompts_name_nothing_of_the_scene(bench_file, pocket, tmp_path):
    bench = bench_file.Bench(pocket, a_table(bench_file, tmp_path))
    prompts = bench.prompts("conflicting", bench_file.TESTED)
    for scene, prompt in zip(bench.scenes, prompts, strict=True):
        other = bench.scenes[bench.captions.index(prompt)]
        assert not {thing.kind for thing in scene.things} & {thing.kind for thing in other.things}
        assert not any(f" {kind} " in f" {prompt} " for kind in bench_file.kinds(scene))


def test_the_judge_finds_everything_in_the_true_pictures(bench_file, pocket, tmp_path):
    bench = bench_file.Bench(pocket, a_table(bench_file, tmp_path))
    true = [world.draw(scene) for scene in bench.scenes]
    assert bench.scores(true) == {"F1": 1, "IoU": 1, "things": 1}
    assert bench.scores(true[1:] + true[:1])["things"] < 0.5


def test_without_prompts_the_words_make_no_difference(bench_file, small_bench):
    branch = control.from_unet(small_bench.pipe.unet, "full", 4)
    found = small_bench.look(branch, bench_file.REGIMES, 2, 0)
    small_bench.captions = ["a photo of a red mug on a beach"] * 4
    other = small_bench.look(branch, bench_file.REGIMES, 2, 0)
    assert all(found[key] == other[key] for key in found if key[0] == "none")


def test_a_row_of_the_results_comes_out_the_same(bench_file, pocket):
    """The untrained model's pictures without prompts, drawn and scored again."""
    table = results.Table(bench_file.RESULTS, bench_file.Row, bench_file.KEY, results.model_hash())
    rows = [row for row in table.rows() if row.part == "edges" and row.regime == "none" and row.seed == 0]
    bench = bench_file.Bench(pocket, table)
    branch = control.from_unet(pocket.unet, "full", 4)
    found = bench.look(branch, ["none"], bench_file.TESTED, 0)
    for row in rows:
        assert row.start == pytest.approx(found["none", row.measure], abs=0.01)
        assert row.ceiling == pytest.approx(bench.ceiling[row.measure], abs=0.01)
