"""Merging: each concept's words keep their meaning, ordinary captions change little; bad input."""

import numpy as np
import pytest
import torch

from tutorial_lib import custom_diffusion
from tutorial_lib.pocket import world

WORDS = ("cat", "mug", "teapot", "car")


@pytest.fixture(scope="module")
def captions() -> list[str]:
    rng = np.random.default_rng(0)
    return [world.caption(world.sample_scene(rng), rng) for _ in range(40)]


def features(pipe, prompt: str) -> torch.Tensor:
    """(tokens up to the end of the text, d)."""
    ids = pipe.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    end = ids[0].tolist().index(pipe.tokenizer.eos_token_id)
    with torch.no_grad():
        return pipe.text_encoder(ids)[0][0, : end + 1].double()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_concepts_words_mean_what_its_own_delta_makes_of_them(pipe, trained, captions, count):
    deltas = [trained(k, WORDS[k]) for k in range(count)]
    merged, report = custom_diffusion.merge(pipe, deltas, captions)
    custom_diffusion.load_into(pipe, merged)
    for k, delta in enumerate(deltas):
        c = features(pipe, f"photo of a <new{k}> {WORDS[k]}")[-3:]  # V*, its class, the end
        for path in delta.matrices:
            wanted = c @ delta.matrix(path).double().T
            error = (c @ merged.matrix(path).double().T - wanted).norm() / wanted.norm()
            assert error < 1e-4  # rounded to float32
    assert report.constraint < 1e-8 and report.stationarity < 1e-8
    assert report.rank == report.rows == 9 * count
    assert report.rounded < 1e-4


def test_the_first_words_are_left_to_the_captions(pipe, trained, captions):
    """ "photo of a" is the same for all concepts: no single W could treat it as two of them do."""
    merged, _ = custom_diffusion.merge(pipe, [trained(1), trained(2)], captions)
    c = features(pipe, "photo of a cat")[1:4]
    path = next(iter(merged.matrices))
    single, both = (c @ delta.matrix(path).double().T for delta in (trained(1), merged))
    assert (both - single).norm() > 0.1 * single.norm()


def test_it_is_the_least_drift_of_all_that_satisfy_the_words(pipe, trained, captions):
    """Of one concept, its own delta satisfies its words as well: the merge must drift less."""
    delta = trained(1)
    merged, report = custom_diffusion.merge(pipe, [delta], captions)
    assert report.drift < 0.9 * report.drifts[0]
    assert report.drift == pytest.approx(custom_diffusion.drift(pipe, merged, captions), rel=1e-4)
    assert report.drifts[0] == pytest.approx(custom_diffusion.drift(pipe, delta, captions), rel=1e-6)


def test_drift_is_the_relative_change_of_keys_and_values(pipe, trained, captions):
    delta = trained(1)
    C = torch.cat([_all_features(pipe, caption) for caption in captions])
    base = {p: pipe.unet.get_submodule(p).weight.detach().double() for p in delta.matrices}
    changed = sum((C @ delta.matrix(p).double().T).square().sum() for p in base)
    whole = sum((C @ base[p].T).square().sum() for p in base)
    assert custom_diffusion.drift(pipe, delta, captions) == pytest.approx((changed / whole).sqrt().item(), rel=1e-5)


def _all_features(pipe, caption: str) -> torch.Tensor:
    ids = pipe.tokenizer(caption, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        return pipe.text_encoder(ids)[0][0].double()


def test_the_pipeline_is_left_as_it_is(pipe, trained, captions):
    weights = {k: v.clone() for k, v in pipe.text_encoder.state_dict().items()}
    length = len(pipe.tokenizer)
    custom_diffusion.merge(pipe, [trained(1), trained(2)], captions)
    assert len(pipe.tokenizer) == length
    assert all(torch.equal(value, weights[key]) for key, value in pipe.text_encoder.state_dict().items())


def test_the_pipeline_may_have_learned_one_of_them_itself(fresh, trained, captions):
    """W0 is the base model, not what the pipeline has now."""
    used = fresh()
    custom_diffusion.load_into(used, trained(1))
    first, _ = custom_diffusion.merge(used, [trained(1), trained(2)], captions)
    second, _ = custom_diffusion.merge(fresh(), [trained(1), trained(2)], captions)
    for path in first.matrices:
        torch.testing.assert_close(first.matrix(path), second.matrix(path), atol=1e-5, rtol=1e-4)


def test_captions_said_twice_and_prompts_said_twice_change_nothing_of_the_words(pipe, trained, captions):
    prompts = {"<new1>": ["photo of a <new1> cat"] * 2, "<new2>": ["<new2>", "a <new2>"]}
    merged, report = custom_diffusion.merge(pipe, [trained(1), trained(2)], captions + captions, prompts=prompts)
    assert report.rows == 3 + 2 * 2 and report.constraint < 1e-8
    assert set(merged.tokens) == {"<new1>", "<new2>"}


def test_a_delta_of_two_concepts_can_be_merged_with_a_third(pipe, trained, captions):
    joint = custom_diffusion.add([trained(1), trained(2, "mug")])
    merged, report = custom_diffusion.merge(pipe, [joint, trained(3, "car")], captions)
    assert list(merged.class_words.items()) == [("<new1>", "cat"), ("<new2>", "mug"), ("<new3>", "car")]
    assert report.rows == 27 and report.constraint < 1e-8


def test_too_few_captions_need_a_ridge_which_is_reported(pipe, trained):
    with pytest.raises(ValueError, match="span only .* of 64 directions.*ridge="):
        custom_diffusion.merge(pipe, [trained(1, None)], ["a"], prompts={"<new1>": ["<new1>"]})
    _, report = custom_diffusion.merge(pipe, [trained(1, None)], ["a"], ridge=0.01, prompts={"<new1>": ["<new1>"]})
    assert report.ridge == 0.01 and report.constraint < 1e-8 and report.stationarity < 1e-8
    assert "ridge 0.01" in str(report)


def test_a_ridge_keeps_the_change_small_where_it_does_nothing(pipe, trained, captions):
    """A small bias in the last norm leaves all features nearly in a plane: across it a change is free, and large."""
    norm = next(m for n, m in pipe.text_encoder.named_modules() if n.endswith("final_layer_norm"))
    with torch.no_grad():
        norm.bias.mul_(0.1)
    deltas = [trained(1), trained(2, "mug")]
    (free, report), (held, reported) = (custom_diffusion.merge(pipe, deltas, captions, ridge) for ridge in (0, 0.01))
    path = next(iter(free.matrices))
    largest = torch.linalg.svd(free.matrix(path).double()).Vh[0]
    across = (1 / norm.weight.detach().double()).div((1 / norm.weight.detach()).norm())
    assert (largest @ across).abs() > 0.99
    assert free.matrix(path).norm() > 10 * held.matrix(path).norm()
    assert reported.constraint < 1e-8 and reported.drift < 1.1 * report.drift


def test_concepts_with_equal_tokens_contradict_one_another(pipe, fresh, captions):
    deltas = []
    for k, token in enumerate(("<new1>", "<new2>")):
        other = fresh()
        custom_diffusion.add_concept(other, token, "ktn", "cat")  # both as ktn, and only K and V differ
        with torch.no_grad():
            for layer in custom_diffusion.keys_and_values(other.unet).values():
                layer.weight += 0.1 * (k + 1)
        deltas.append(custom_diffusion.delta(other))
    with pytest.raises(ValueError, match="contradict one another"):
        custom_diffusion.merge(pipe, deltas, captions)


def test_adding_adds_the_differences(trained):
    first, second = trained(1), trained(2, "mug")
    both = custom_diffusion.add([first, custom_diffusion.compress(second, 1.0)])
    for path in both.matrices:
        torch.testing.assert_close(both.matrix(path), first.matrix(path) + second.matrix(path), atol=1e-5, rtol=1e-4)
    assert both.class_words == {"<new1>": "cat", "<new2>": "mug"}


def test_bad_input(pipe, trained, captions):
    with pytest.raises(ValueError, match="captions is empty"):
        custom_diffusion.merge(pipe, [trained(1)], [])
    with pytest.raises(ValueError, match="nothing to merge"):
        custom_diffusion.merge(pipe, [], captions)
    with pytest.raises(ValueError, match="two concepts have the same token '<new1>'"):
        custom_diffusion.merge(pipe, [trained(1), trained(2, token="<new1>")], captions)
    with pytest.raises(ValueError, match="'photo of a cat' for '<new1>' does not contain that token"):
        custom_diffusion.merge(pipe, [trained(1)], captions, prompts={"<new1>": ["photo of a cat"]})


def test_deltas_of_different_base_models_are_refused(pipe, fresh, trained, captions):
    other = fresh()
    with torch.no_grad():
        other.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v.weight[0, 0] += 1
    custom_diffusion.add_concept(other, "<new2>", "pll", "mug")
    foreign = custom_diffusion.delta(other)
    with pytest.raises(ValueError, match="delta 1 and delta 2 belong to different base models"):
        custom_diffusion.merge(pipe, [trained(1), foreign], captions)
    with pytest.raises(ValueError, match="the deltas and the pipeline belong to different base models"):
        custom_diffusion.merge(pipe, [foreign], captions)
    with pytest.raises(ValueError, match="belong to different base models"):
        custom_diffusion.add([trained(1), foreign])
