"""The benchmark of several concepts: what is asked, how a concept is found again, what a run changes and what not."""

import math

import numpy as np
import pytest
import torch

from tutorial_lib import models, results
from tutorial_lib.lab import several_concepts as several
from tutorial_lib.lab.several_concepts import BALL, CAT, PERSON, Seen
from tutorial_lib.pocket import judge as pocket_judge
from tutorial_lib.pocket.judge import ThingReading


@pytest.fixture(scope="module")
def module():
    import several_concepts

    return several_concepts


@pytest.fixture(scope="module")
def judge():
    return pocket_judge.load()


def test_prompts_name_the_concepts_in_order():
    assert several.prompt([PERSON.name, CAT.name], "snow") == (
        "a photo of a <new1> person and a <new2> cat in the snow"
    )
    assert several.prompt([CAT.rare_name], "night") == "a photo of a pll cat at night"


def test_every_pair_is_asked_for_in_both_orders():
    two = several.orders((PERSON, CAT), ("snow", "city"))
    assert two == [((PERSON, CAT), "snow"), ((CAT, PERSON), "snow"), ((PERSON, CAT), "city"), ((CAT, PERSON), "city")]
    three = several.orders((PERSON, CAT, BALL), ("snow", "city"))
    assert len(three) == len(set(three)) == 6 and {pair for pair, _ in three} == {
        pair for one, other in ((PERSON, CAT), (PERSON, BALL), (CAT, BALL)) for pair in ((one, other), (other, one))
    }


@pytest.mark.parametrize("concept", [PERSON, CAT, BALL])
def test_captions_have_one_place_for_the_name(concept):
    images, captions = several.photos(concept)
    assert len(images) == len(captions) == 5
    assert all(c.count("{}") == 1 and concept.word not in c for c in captions)
    assert captions[0].format(concept.name) == f"a photo of a {concept.name} on a beach"


def test_windows_go_from_left_to_right_and_do_not_stretch(judge):
    image = several.drawn((PERSON, CAT), "snow", 0)
    left, right = (np.asarray(part, dtype=float) for part in several.windows(image, 2))
    whole = np.asarray(image, dtype=float)
    assert left.shape == right.shape == whole.shape
    assert abs(left.mean() - whole[26:62, :36].mean()) < 3 and abs(right.mean() - whole[26:62, 28:].mean()) < 3
    assert len(several.windows(image, 3)) == 3


def test_drawn_subjects_are_recognised_in_their_own_half_and_other_things_are_not(judge):
    for pair, absent in (((PERSON, CAT), BALL), ((CAT, BALL), PERSON)):
        images = [several.drawn(pair, place, k) for k, place in enumerate(("snow", "city", "table", "forest"))]
        for side, concept in enumerate(pair):
            near = several.likenesses(images, concept, judge)
            assert near.shape == (2, 4) and (near[side] > near[1 - side]).all()
            assert (near[side] >= several.RECOGNISED).float().mean() >= 0.75
        assert (several.likenesses(images, absent, judge) < several.RECOGNISED).all()
        figures = several.shares(several.look(images, [pair] * 4, judge))
        assert figures["recognised"] > 0.8 and figures["whole"] >= 0.75 and figures["mixed"] == 0


def test_what_is_asked_for_and_not_drawn_is_omitted(judge):
    images = [several.drawn((CAT, BALL), place, k) for k, place in enumerate(("snow", "city", "table"))]
    found = several.look(images, [(PERSON, BALL)] * 3, judge)
    assert [seen.word for seen in found[0]] == ["person", "ball"]
    assert not any(picture[0].recognised for picture in found) and all(picture[1].there for picture in found)
    assert several.shares(found)["whole"] == 0


@pytest.mark.parametrize(
    ("thing", "others", "expected"),
    [
        (("cat", "grey", ("glasses",)), (PERSON,), True),
        (("cat", "orange", ("hat",)), (PERSON,), False),
        (("cat", "purple", ()), (PERSON, BALL), True),
        (("cat", "orange", ()), (BALL,), False),
        (("ball", "orange", ()), (CAT,), True),
        (("ball", "red", ()), (PERSON,), None),  # balls wear no glasses
        (("person", None, ()), (CAT,), None),  # of a person beside something the judge reads no looks
    ],
)
def test_marks_of_another_concept(thing, others, expected):
    assert several.mixed(ThingReading(*thing), others) is expected


def test_shares_are_those_of_concepts_and_pictures():
    found = [
        [Seen("person", 0.5, True, None, False), Seen("cat", 0.6, True, True, True)],
        [Seen("cat", 0.2, True, False, False), Seen("person", 0.1, False, None, True)],
        [Seen("cat", 0.7, True, False, False), Seen("person", 0.9, True, None, True)],
    ]
    figures = several.shares(found)
    assert figures["likeness"] == pytest.approx(0.5) and figures["recognised"] == pytest.approx(4 / 6)
    assert figures["omitted"] == pytest.approx(1 / 6) and figures["mixed"] == pytest.approx(1 / 3)
    assert (figures["mixed_first"], figures["mixed_last"]) == (0, 1)
    assert figures["whole"] == pytest.approx(1 / 3)  # the first is mixed, in the second nobody is recognised
    assert math.isnan(several.shares([[Seen("person", 0.5, True, None, True)]])["mixed"])


def test_only_missing_runs_are_made_and_shards_cover_everything_once(module, tmp_path):
    table = results.Table(tmp_path / "a.csv", module.Row, module.KEY, "abc")
    whole = list(module.runs(table, module.SEEDS, module.COMBINATIONS, module.METHODS))
    assert len(whole) == len(set(whole)) == 3 * (3 * len(module.METHODS) + len(module.RATIOS))
    shards = [list(module.runs(table, [seed], module.COMBINATIONS, module.METHODS)) for seed in module.SEEDS]
    assert sum(shards, []) == whole
    values = dict.fromkeys(module.Row.__dataclass_fields__, 0.5) | {"parameters": 3, "model": "abc", "command": "x"}
    table.add(module.Row(**values | {name: getattr(whole[4], name) for name in module.KEY}))
    assert list(module.runs(table, module.SEEDS, module.COMBINATIONS, module.METHODS)) == whole[:4] + whole[5:]


class Words:
    """CLIP's part in choosing pictures of a class: the real one is tested elsewhere."""

    def text_embeds(self, texts):
        return torch.ones(len(texts), 2) / 2**0.5


@pytest.fixture(scope="module")
def bench(module, judge):
    return module.Bench(models.load("pocket", device="cpu"), judge, Words())


@pytest.fixture
def small(module, bench, monkeypatch):
    for name, value in {"STEPS": 1, "BATCH": 2, "PRIOR": 2, "SAMPLING": 1, "PLACES": ("snow", "city")}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(bench, "captions", bench.captions[:60])


def test_every_method_makes_a_row_and_leaves_the_benchs_model_alone(module, bench, small, tmp_path):
    before = {k: v.clone() for k, v in bench.pipe.unet.state_dict().items()}
    vocabulary = len(bench.pipe.tokenizer)
    table = results.Table(tmp_path / "a.csv", module.Row, module.KEY, "abc")
    for method in module.METHODS:
        table.add(module.Run(method, "person+cat", 0).row(bench, "abc", "python x"))
    table.add(module.Run("merge", "person+cat", 0, 0.4).row(bench, "abc", "python x"))
    assert all(torch.equal(v, before[k]) for k, v in bench.pipe.unet.state_dict().items())
    assert len(bench.pipe.tokenizer) == vocabulary
    rows = {(row.method, row.ratio): row for row in table.rows()}
    unet = sum(v.numel() for v in before.values())
    keys_and_values = sum(v.numel() for k, v in before.items() if "attn2.to_k" in k or "attn2.to_v" in k)
    width = bench.pipe.text_encoder.config.hidden_size
    for method in ("merge", "addition", "joint"):
        assert rows[method, 1.0].parameters == keys_and_values + 2 * width
    assert rows["DreamBooth", 1.0].parameters == unet and rows["merge", 0.4].parameters < keys_and_values / 2
    assert rows["merge", 1.0].drift > 0 and math.isnan(rows["DreamBooth", 1.0].drift)
    assert rows["before", 1.0].class_change == 0 and rows["joint", 1.0].class_change > 0
    assert rows["drawn", 1.0].recognised > 0.7 and math.isnan(rows["apart", 1.0].likeness)
    assert all(math.isnan(row.three_omitted) for row in rows.values())


def test_addition_is_the_sum_and_the_merge_keeps_each_concepts_words(module, bench, small):
    singles = [bench.single(concept, 0)[0] for concept in (PERSON, CAT)]
    added, _ = bench.combined("addition", (PERSON, CAT), 0)
    merged, seconds = bench.combined("merge", (PERSON, CAT), 0)
    assert seconds > 0 and set(merged.tokens) == {"<new1>", "<new2>"}
    path = next(iter(added.matrices))
    assert torch.allclose(added.matrix(path), singles[0].matrix(path) + singles[1].matrix(path))
    pipe = bench.with_delta(merged)
    ids = pipe.tokenizer(f"photo of a {CAT.name}", return_tensors="pt").input_ids
    c = pipe.text_encoder(ids)[0][0, 4:7].double()  # V*, its class, the end
    wanted = c @ singles[1].matrix(path).double().T
    assert (c @ merged.matrix(path).double().T - wanted).norm() < 1e-3 * wanted.norm()


def test_a_row_of_the_results_comes_out_the_same(module, bench):
    table = results.Table(module.RESULTS, module.Row, module.KEY, results.model_hash())
    row = next(row for row in table.rows() if row.method == "before" and row.concepts == "person+cat")
    concepts = module.COMBINATIONS[row.concepts]
    asked = several.orders(concepts, module.PLACES)
    found = several.shares(bench.seen(bench.pipe, asked, row.seed, {c: c.word for c in concepts}))
    for name in ("likeness", "omitted", "mixed"):
        assert found[name] == pytest.approx(getattr(row, name), abs=0.05)
