"""The benchmark of subjects: what it runs, what its figures mean, and that a row can be made again."""

import copy
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from tutorial_lib import baselines, models, oft, results, sampling
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.judge import Reading, ThingReading
from tutorial_lib.pocket.scene import caption, held_out_pairs


@pytest.fixture(scope="module")
def bench_file():
    import subject_driven

    return subject_driven


@pytest.fixture(scope="module")
def judge():
    return pocket_judge.load()


@pytest.fixture(scope="module")
def clip():
    return models.load_clip()


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket", device="cpu")


def a_row(module, seed=0, method="OFT", rate=0.005, part="main", model="abc", **changes):
    values = {f.name: {"int": 3, "float": 0.5, "str": "0 0.25"}[f.type] for f in dataclasses.fields(module.Row)}
    values |= {"part": part, "method": method, "subject": "heart-mug", "seed": seed, "rate": rate, "model": model}
    return module.Row(**(values | {"command": "python, with a comma"} | changes))


def a_table(module, folder):
    return results.Table(folder / "subject.csv", module.Row, module.KEY, "abc")


# ------------------------------------------------------------------ which runs


def test_runs_wait_for_the_search_and_take_its_best_rate(bench_file, tmp_path):
    table = a_table(bench_file, tmp_path)
    search = list(bench_file.runs(table, "search", bench_file.SUBJECTS, [0], ["OFT"]))
    assert [run.rate for run in search] == list(bench_file.METHODS["OFT"].rates)
    assert {run.seed for run in search}.isdisjoint(bench_file.SEEDS)
    with pytest.raises(SystemExit, match="search lacks OFT"):
        list(bench_file.runs(table, "main", ["heart-mug"], [0], ["OFT"]))
    for rate, likeness, others in zip(bench_file.METHODS["OFT"].rates, (0.5, 0.7, 0.9), (1.0, 0.9, 0.2)):
        table.add(a_row(bench_file, 0, "OFT", rate, "search", subject_similarity=likeness, context=1.0, others=others))
    middle = bench_file.METHODS["OFT"].rates[1]
    table.add(a_row(bench_file, 1, "OFT", middle))
    left = list(bench_file.runs(table, "main", ["heart-mug"], [0, 1, 2], ["OFT", bench_file.BASE]))
    assert [(run.method, run.seed, run.rate) for run in left] == [
        ("OFT", 0, middle), (bench_file.BASE, 0, 0.0), (bench_file.BASE, 1, 0.0), ("OFT", 2, middle),
        (bench_file.BASE, 2, 0.0),
    ]  # fmt: skip
    *_, rescaled = bench_file.runs(table, "search", [], [], [bench_file.RESCALED])
    assert rescaled.rotation_rate == middle != rescaled.rate


def test_the_report_has_every_part(bench_file):
    rows = [a_row(bench_file, seed, part=part) for part in bench_file.PARTS for seed in (0, 1)]
    rows = [dataclasses.replace(row, orthogonality=float("nan")) for row in rows]  # as of a method without rotations
    text = "\n".join(bench_file.report(rows))
    assert all(name in text for name in bench_file.COLUMNS) and "0.5 ± 0" in text
    assert text.count("search  OFT") == 2 and text.count("long  OFT") == 2


# ------------------------------------------------------------------ what is asked for


def test_prompts_ask_for_what_the_model_knows(bench_file, pocket):
    words = {bench_file.ALL_SUBJECTS[slug].class_word for slug in bench_file.ALL_SUBJECTS}
    for word in words:
        prompts = [bench_file.subject_prompt(word, *context) for context in bench_file.CONTEXTS]
        assert all(sampling.unknown_words(pocket.tokenizer, prompt) == [] for prompt in prompts)
        others = bench_file.other_scenes(word)
        assert len(others) == bench_file.MANY_OTHERS
        assert all(thing.kind != word for scene in others for thing in scene.things)
        assert {scene.things[0].kind for scene in bench_file.class_scenes(word)} == {word}
    assert not any(held_out_pairs(scene) for scene in bench_file.OTHERS)
    assert len({caption(scene) for scene in bench_file.OTHERS}) == len(bench_file.OTHERS)


def test_the_subjects_prompt_with_and_without_its_token(bench_file):
    assert bench_file.subject_prompt("mug", "pixel art", "city") == "pixel art of a sks mug in a city"
    assert bench_file.subject_prompt("cat", "watercolor", "night", "") == "a watercolor of a cat at night"


def test_context_counts_style_place_and_kind(bench_file):
    readings = [
        Reading("photo", "night", (ThingReading("mug", "red"),), None),
        Reading("photo", "snow", (ThingReading("mug", "red"), ThingReading("ball", "red")), None),
        Reading("photo", "beach", (ThingReading("teapot", "red"),), None),
    ]
    bench = SimpleNamespace(judge=SimpleNamespace(read=lambda images: readings))
    asked = [("photo", "night"), ("watercolor", "snow"), ("photo", "city")]
    found = bench_file.Bench.context(bench, [None] * 3, asked, "mug")
    assert found == pytest.approx((3 + 1 + 1) / 9)


# ------------------------------------------------------------------ a run


@pytest.fixture
def small_bench(bench_file, judge, clip, pocket, small_unet, tmp_path, monkeypatch):
    """A bench whose UNet is small and untrained, with few and short looks."""
    for name, value in {"STEPS": 4, "BATCH": 2, "LOOKS": (2, 4), "PRIOR": 2, "SAMPLING": 2, "REPEATS": 2}.items():
        monkeypatch.setattr(bench_file, name, value)
    monkeypatch.setattr(bench_file, "CONTEXTS", bench_file.CONTEXTS[:2])
    monkeypatch.setattr(bench_file, "MANY_OTHERS", 2)
    monkeypatch.setattr(bench_file, "FEW_OTHERS", 1)
    monkeypatch.setattr(bench_file, "BLOCK", 4)
    pipe = copy.copy(pocket)
    pipe.unet = small_unet.requires_grad_(False)
    return bench_file.Bench(pipe, judge, clip, a_table(bench_file, tmp_path), "command")


@pytest.mark.parametrize("method", ["full", "LoRA", "OFT", "COFT", "re-scaled OFT"])
def test_a_run_trains_by_its_method_and_leaves_the_model_alone(bench_file, small_bench, method):
    before = {name: value.clone() for name, value in small_bench.pipe.unet.state_dict().items()}
    row = bench_file.Run("main", method, "heart-mug", 1, 0.01, 4, rotation_rate=0.02).done(small_bench)
    after = small_bench.pipe.unet.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert row.looks == "0 2 4" and len(row.similarity_at.split()) == len(row.others_at.split()) == 3
    assert row.parameters > 0 and row.seconds > 0 and row.moved > 0
    turned = "OFT" in method
    assert math.isnan(row.orthogonality) != turned
    assert (row.energy_change < 1e-6) == turned
    small_bench.table.add(row)
    (again,) = small_bench.table.rows()
    for field in dataclasses.fields(row):
        value, read = getattr(row, field.name), getattr(again, field.name)
        assert value == read or value == pytest.approx(read, rel=1e-5, nan_ok=True)


def test_the_model_as_it_was_is_judged_without_training(bench_file, small_bench):
    row = bench_file.Run("main", bench_file.BASE, "heart-mug", 1, 0.0, 0).done(small_bench)
    assert (row.parameters, row.moved, row.energy_change, row.looks) == (0, 0.0, 0.0, "0")


def test_a_run_is_the_same_again_and_all_methods_start_from_one_look(bench_file, small_bench):
    first, second = (bench_file.Run("main", "OFT", "heart-mug", 0, 0.01, 4).done(small_bench) for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(second, seconds=0.0)
    other = bench_file.Run("main", "OFT", "heart-mug", 0, 0.02, 4).done(small_bench)
    assert other.similarity_at.split()[0] == first.similarity_at.split()[0]
    assert other.moved > first.moved


def test_weights_are_read_alike_whatever_holds_them(bench_file, small_bench):
    unet = small_bench.pipe.unet
    plain = bench_file.effective_weights(unet)
    data, _ = small_bench.encoded("heart-mug")
    baselines.lora(small_bench.pipe, data, 2, targets=bench_file.TARGETS)
    adapted = bench_file.effective_weights(unet)
    assert adapted.keys() == plain.keys() and all(torch.equal(adapted[path], plain[path]) for path in plain)
    for ending in ("to_v", "conv2"):
        path = next(path for path in plain if path.endswith(ending))
        layer = unet.get_submodule(path)
        A, B = layer.lora_A["lora"].weight, layer.lora_B["lora"].weight
        with torch.no_grad():
            B.copy_(torch.randn(B.shape))
        expected = plain[path] + (B.flatten(1) @ A.flatten(1)).view_as(plain[path])
        assert torch.allclose(bench_file.effective_weights(unet)[path], expected, atol=1e-5)
    baselines.remove_lora(small_bench.pipe)
    oft.attach(unet, list(bench_file.TARGETS), 4)
    assert bench_file.effective_weights(unet).keys() == plain.keys()


def test_a_row_of_the_results_comes_out_the_same(bench_file, judge, clip, pocket):
    """The untouched model's row, whose pictures take seconds, is drawn and judged again."""
    table = results.Table(bench_file.RESULTS, bench_file.Row, bench_file.KEY, results.model_hash())
    expected = next(row for row in table.rows() if row.method == bench_file.BASE)
    bench = bench_file.Bench(pocket, judge, clip, table)
    row = bench_file.Run("main", bench_file.BASE, expected.subject, expected.seed, 0.0, 0).done(bench)
    for name in ("subject_similarity", "clip_image", "clip_text", "diversity", "class_likeness"):
        assert getattr(row, name) == pytest.approx(getattr(expected, name), abs=0.01), name
    assert row.others == pytest.approx(expected.others, abs=0.05)
