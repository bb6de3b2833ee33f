"""The benchmark of Custom Diffusion: prompts and answers are strict, runs resume, the base model stays as it was."""

from dataclasses import replace

import pytest
import torch

from tutorial_lib import metrics, models, results
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.judge import PersonReading, Reading, ThingReading
from tutorial_lib.pocket.subjects import SUBJECTS


@pytest.fixture(scope="module")
def bench_module():
    import custom_diffusion

    return custom_diffusion


def a_row(module, part="main", method="LoRA", subject="heart-mug", seed=0, rate=1e-3, **changes):
    values = dict.fromkeys(module.Row.__dataclass_fields__, 0.5)
    values |= {"part": part, "method": method, "subject": subject, "seed": seed, "rate": rate, "steps": 80}
    return module.Row(**(values | {"parameters": 3, "model": "abc", "command": "python x"} | changes))


def searched(module):
    """A complete search, in which each method's middle rate is the best."""
    for method, how in module.METHODS.items():
        for rate, likeness in zip(how.rates, (0.2, 0.6, 0.4), strict=True):
            yield a_row(module, "search", method, *module.SEARCH, rate=rate, likeness=likeness)


def test_prompts_are_worded_as_the_model_knows_them(bench_module):
    said = [asked.prompt("<new1> cat") for asked in bench_module.prompts_for("cat")]
    assert "a photo of a <new1> cat at night" in said
    assert "pixel art of a <new1> cat in a city" in said
    assert "a photo of a <new1> cat and a red house in the snow" in said
    assert "a photo of a black <new1> cat on a table" in said
    assert "a photo of a <new1> cat with a hat on a beach" in said
    asked = bench_module.Asked("property", "snow", colour="black")
    assert asked.prompt("<new1> person") == "a photo of a <new1> person with black hair in the snow"
    kinds = {a.kind for a in bench_module.prompts_for("mug")}
    assert kinds == set(bench_module.KINDS) - {"accessory"}


def reading(style="photo", background="snow", things=(("cat", "orange", ()),), person=None):
    return Reading(style, background, tuple(ThingReading(*thing) for thing in things), person)


def somebody(hair="red", extras=()):
    person = PersonReading("light", hair, "short", "white", extras)
    return reading(things=(("person", None, ()),), person=person)


@pytest.mark.parametrize(
    ("asked", "seen", "right"),
    [
        ({}, reading(), [True, True, True]),
        ({"style": "watercolor"}, reading(), [False, True, True]),
        ({}, reading(background="beach", things=(("mug", "red", ()),)), [True, False, False]),
        ({}, reading(things=(("cat", "red", ()), ("mug", "red", ()))), [True, True, False]),
        ({"beside": ("red", "house")}, reading(things=(("house", "red", ()), ("cat", "red", ()))), [True, True, True]),
        ({"beside": ("red", "house")}, reading(), [True, True, False]),
        ({"colour": "black"}, reading(), [True, True, True, False]),
        ({"colour": "orange"}, reading(), [True, True, True, True]),
        ({"hat": True}, reading(things=(("cat", "red", ("glasses",)),)), [True, True, True, False]),
        ({"hat": True}, reading(things=(("cat", "red", ("hat",)),)), [True, True, True, True]),
        ({"hat": True}, reading(things=(("mug", "red", ("hat",)),)), [True, True, False, False]),
    ],
)
def test_a_picture_must_show_all_that_was_asked(bench_module, asked, seen, right):
    assert bench_module.Asked("any", "snow", **asked).answers(seen, "cat") == right


def test_people_are_asked_for_their_hair_and_their_hats(bench_module):
    black, hat = bench_module.Asked("any", "snow", colour="black"), bench_module.Asked("any", "snow", hat=True)
    assert black.answers(somebody("black"), "person")[-1] and not black.answers(somebody("red"), "person")[-1]
    assert hat.answers(somebody(extras=("hat",)), "person")[-1]
    assert not hat.answers(somebody(extras=("glasses",)), "person")[-1]
    assert black.answers(reading(), "person")[-2:] == [False, False]  # a cat is no person, and has no hair to be black


@pytest.mark.parametrize("word", ["cat", "person"])
def test_the_class_is_shown_in_every_place_and_always_alike(bench_module, word):
    scenes = bench_module.class_scenes(word)
    assert scenes == bench_module.class_scenes(word) != bench_module.class_scenes(word, seed=1)
    assert {scene.things[0].kind for scene in scenes} == {word} and {scene.style for scene in scenes} == {"photo"}
    assert len({scene.background for scene in scenes}) == 6
    assert len({str(scene.things[0]) for scene in scenes}) == len(scenes)


def test_the_best_rate_is_searched_and_variants_take_custom_diffusions(bench_module):
    module, rows = bench_module, list(searched(bench_module))
    for method, how in module.METHODS.items():
        assert module.best_rate(rows, method) == how.rates[1]
    assert module.best_rate(rows, "augmentation") == module.METHODS[module.OURS].rates[1]
    with pytest.raises(SystemExit, match="the search lacks LoRA"):
        module.best_rate([row for row in rows if row.method != "LoRA"], "LoRA")


def test_only_missing_runs_are_made_and_shards_cover_everything_once(bench_module, tmp_path):
    module = bench_module
    table = results.Table(tmp_path / "a.csv", module.Row, module.KEY, "abc")
    for row in searched(module):
        table.add(row)
    everything = (module.BEFORE, *module.METHODS, *module.VARIANTS)
    assert list(module.runs(table, "search", module.SUBJECTS, module.SEEDS, everything)) == []
    whole = list(module.runs(table, "main", module.SUBJECTS, module.SEEDS, everything))
    assert len(whole) == len(module.SUBJECTS) * len(module.SEEDS) * (1 + len(module.METHODS)) == len(set(whole))
    shards = [list(module.runs(table, "main", [s], module.SEEDS, everything)) for s in module.SUBJECTS]
    assert set(sum(shards, [])) == set(whole)
    variants = list(module.runs(table, "variants", module.SUBJECTS, module.SEEDS, everything))
    assert {run.seed for run in variants} == set(module.VARIANT_SEEDS)
    assert {run.method for run in variants} == set(module.VARIANTS)
    first = whole[1]
    table.add(a_row(module, first.part, first.method, first.subject, first.seed, first.rate))
    assert set(module.runs(table, "main", module.SUBJECTS, module.SEEDS, everything)) == set(whole) - {first}


def test_the_score_falls_with_each_of_its_parts(bench_module):
    row = a_row(bench_module, likeness=0.8, asked=0.9, class_kept=0.7)
    assert row.score == pytest.approx(0.8 * 0.9 * 0.7)
    assert all(replace(row, **{name: 0.1}).score < row.score for name in ("likeness", "asked", "class_kept"))
    assert replace(row, likeness=-0.2).score == 0


@pytest.fixture(scope="module")
def bench(bench_module):
    class Eyes:  # CLIP's part is played by two numbers a picture: the real one is tested elsewhere
        def image_embeds(self, images):
            return torch.ones(len(images), 2) / 2**0.5

        def text_embeds(self, texts):
            return torch.ones(len(texts), 2) / 2**0.5

    return lambda table: bench_module.Bench(models.load("pocket", device="cpu"), pocket_judge.load(), Eyes(), table)


@pytest.mark.parametrize("method", ["augmentation", "LoRA", "DreamBooth", "textual inversion"])
def test_a_run_trains_what_it_should_and_leaves_the_benchs_model_alone(
    bench_module, bench, tmp_path, monkeypatch, method
):
    module = bench_module
    for name, value in {"SAMPLING": 1, "OF_CLASS": 1, "PRIOR": 2, "BATCH": 2, "PROMPTS": module.PROMPTS[5:9]}.items():
        monkeypatch.setattr(module, name, value)
    table = results.Table(tmp_path / "a.csv", module.Row, module.KEY, "abc")
    ready = bench(table)
    before = {k: v.clone() for k, v in ready.pipe.unet.state_dict().items()}
    vocabulary = len(ready.pipe.tokenizer)
    row = module.Run("main", method, "heart-mug", 0, 1e-3, steps=1).done(ready)
    assert all(torch.equal(v, before[k]) for k, v in ready.pipe.unet.state_dict().items())
    assert len(ready.pipe.tokenizer) == vocabulary
    width = ready.pipe.text_encoder.config.hidden_size
    unet = sum(v.numel() for v in before.values())
    keys_and_values = sum(v.numel() for k, v in before.items() if "attn2.to_k" in k or "attn2.to_v" in k)
    expected = {"DreamBooth": unet, "textual inversion": width}.get(method, keys_and_values + width)
    if method != "LoRA":
        assert row.parameters == expected
    assert row.file_mb == pytest.approx(4e-6 * row.parameters) and row.memory_mb > row.file_mb
    table.add(row)
    back = table.rows()[0]
    assert (back.method, back.likeness) == (method, pytest.approx(row.likeness, abs=1e-4))
    assert back.kid == back.kid and back.accessory != back.accessory  # a mug wears nothing: NaN


def test_captions_of_every_subject_have_a_place_for_the_word(bench_module):
    maker = bench_module.Bench(None, None, None, None)
    for slug in (*bench_module.SUBJECTS, bench_module.SEARCH[0]):
        images, captions = maker.references(slug)
        assert len(images) == len(captions) == 5
        assert all(f"a {{}} {SUBJECTS[slug].class_word} " in caption for caption in captions)


def test_a_row_of_the_results_comes_out_the_same(bench_module, bench):
    module = bench_module
    table = results.Table(module.RESULTS, module.Row, module.KEY, results.model_hash())
    row = next(row for row in table.rows() if (row.part, row.method) == ("main", "textual inversion"))
    ready = bench(table)
    run = module.Run(*(getattr(row, name) for name in module.KEY), row.steps)
    pipe, method = models.load("pocket", device="cpu"), module.METHODS[row.method]
    run.train(method.begin(pipe, ready.lesson(row.subject, row.seed)), run.steps)
    word = SUBJECTS[row.subject].class_word
    plain = [asked for asked in module.PROMPTS if asked.kind == "background"]
    images = ready.draw(pipe, [asked.prompt(f"{module.WORD} {word}") for asked in plain], row.seed)
    likeness = metrics.subject_similarity(images, ready.references(row.subject)[0], ready.judge)
    assert likeness == pytest.approx(row.likeness_background, abs=0.02)
