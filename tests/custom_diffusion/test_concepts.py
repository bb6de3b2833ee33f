"""What trains and what does not; differences, loading them, compressing them; bad input."""

import copy

import pytest
import torch

from tutorial_lib import custom_diffusion

TOKENS = ("<new1>", "<new2>", "<new3>")


def table(pipe) -> torch.Tensor:
    return pipe.text_encoder.get_input_embeddings().weight


def row(pipe, token: str) -> torch.Tensor:
    return table(pipe)[pipe.tokenizer.convert_tokens_to_ids(token)]


def states(pipe) -> dict[str, torch.Tensor]:
    parts = {"unet": pipe.unet, "text": pipe.text_encoder, "vae": pipe.vae}
    return {f"{n} {k}": v.detach().clone() for n, part in parts.items() for k, v in part.state_dict().items()}


def features(pipe, prompts) -> torch.Tensor:
    ids = pipe.tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
    return pipe.text_encoder(ids)[0]


def steps(pipe, prompts, count: int = 3, weight_decay: float = 0.1) -> None:
    """A few steps of AdamW, with a decay that would be seen, on any loss."""
    optimiser = torch.optim.AdamW(custom_diffusion.trainable(pipe), lr=0.01, weight_decay=weight_decay)
    latents = torch.randn(len(prompts), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(count):
        optimiser.zero_grad()
        pipe.unet(latents, 300, features(pipe, prompts)).sample.square().mean().backward()
        optimiser.step()


# ------------------------------------------------------------------ tokens


def test_a_new_word_starts_as_its_initial_word_and_changes_nothing_else(pipe):
    before = states(pipe)
    custom_diffusion.add_concept(pipe, "<new1>", init="ktn")
    after = states(pipe)
    words = before["text embeddings.token_embedding.weight"]
    ids = pipe.tokenizer("a photo of a <new1> cat", add_special_tokens=False).input_ids
    assert len(ids) == 6 and ids[4] == len(words)
    start = pipe.tokenizer.convert_tokens_to_ids("ktn</w>")
    assert torch.equal(row(pipe, "<new1>"), words[start])
    assert torch.equal(table(pipe)[:-1], words)
    del before["text embeddings.token_embedding.weight"]
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_any_word_of_one_token_may_be_the_start(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", init="cat")
    assert torch.equal(row(pipe, "<new1>"), row(pipe, "cat</w>"))


@pytest.mark.parametrize(
    ("token", "init", "message"),
    [
        ("cat", "ktn", "'cat' is already in the vocabulary"),
        ("<new1>", "hippopotamus", r"'hippopotamus' is \d+ tokens"),
        ("<new1>", "", "is 0 tokens"),
        ("<new1>", "red cat", "is 2 tokens"),
        ("", "ktn", "no blanks"),
        (" <new1>", "ktn", "no blanks"),
    ],
)
def test_a_bad_token_or_initial_word_changes_nothing(pipe, token, init, message):
    before, length = states(pipe), len(pipe.tokenizer)
    with pytest.raises(ValueError, match=message):
        custom_diffusion.add_concept(pipe, token, init)
    assert len(pipe.tokenizer) == length
    assert all(torch.equal(value, before[key]) for key, value in states(pipe).items())


def test_two_concepts_cannot_have_one_token(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    with torch.no_grad():
        row(pipe, "<new1>").fill_(3.0)  # as if trained
    with pytest.raises(ValueError, match="'<new1>' is already in the vocabulary"):
        custom_diffusion.add_concept(pipe, "<new1>", "pll")
    assert torch.equal(row(pipe, "<new1>"), torch.full((64,), 3.0))


# ------------------------------------------------------------------ training


def test_keys_values_and_a_row_a_concept_are_all_that_is_trained(pipe):
    for token, init in zip(TOKENS, ("ktn", "pll", "ucd")):
        custom_diffusion.add_concept(pipe, token, init)
    parameters = custom_diffusion.named_trainable(pipe)
    layers = {k: v for k, v in parameters.items() if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert len(layers) == 8 and sum(p.numel() for p in layers.values()) == 8 * 32 * 64
    assert {k: tuple(p.shape) for k, p in parameters.items() if k not in layers} == dict.fromkeys(TOKENS, (64,))
    learning = [k for m in (pipe.unet, pipe.text_encoder, pipe.vae) for k, p in m.named_parameters() if p.requires_grad]
    assert learning == list(layers)


def test_of_stable_diffusion_it_is_the_papers_share():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    layers = custom_diffusion.keys_and_values(unet)
    assert len(layers) == 32 and sum(layer.weight.numel() for layer in layers.values()) == 19_169_280
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964


@pytest.mark.parametrize("count", [1, 2, 3])
def test_everything_else_is_bit_identical_after_training_with_weight_decay(pipe, count):
    for token, init in zip(TOKENS[:count], ("ktn", "pll", "ucd")):
        custom_diffusion.add_concept(pipe, token, init)
    before = states(pipe)
    steps(pipe, [f"a photo of a {token} cat" for token in TOKENS[:count]])
    after = states(pipe)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    words = "text embeddings.token_embedding.weight"
    assert changed - {words} == {k for k in before if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert torch.equal(before[words][:-count], after[words][:-count])
    moved = (before[words] != after[words]).any(1)
    assert moved[-count:].all()  # every concept's token, the last one too


def test_a_token_learns_only_from_captions_that_hold_it(pipe):
    for token, init in zip(TOKENS[:2], ("ktn", "pll")):
        custom_diffusion.add_concept(pipe, token, init)
    parameters = custom_diffusion.named_trainable(pipe)
    features(pipe, ["a photo of a <new2> cat"]).square().sum().backward()
    assert parameters["<new1>"].grad.count_nonzero() == 0 < parameters["<new2>"].grad.count_nonzero()


def test_the_rows_gradient_is_that_of_a_plain_embedding_table(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    prompts = ["a <new1> cat and a <new1> dog", "a red mug"]
    target = torch.randn(2, 40, 64, generator=torch.Generator().manual_seed(1))
    parameters = custom_diffusion.named_trainable(pipe)
    (features(pipe, prompts) * target).sum().backward()
    ours = parameters["<new1>"].grad
    custom_diffusion.freeze(pipe)
    table(pipe).requires_grad_(True)
    (features(pipe, prompts) * target).sum().backward()
    torch.testing.assert_close(ours, table(pipe).grad[-1])


def test_the_first_positions_keys_and_values_pass_no_gradient_and_keep_their_value(pipe, predict):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    plain = predict(pipe)
    parameters = custom_diffusion.named_trainable(pipe)
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    layer = pipe.unet.get_submodule(path)
    text = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    layer(text).sum().backward()
    assert text.grad[:, 0].count_nonzero() == 0 < text.grad[:, 1:].abs().min()
    expected = text.detach()[:, 1:].sum((0, 1)).expand(32, 64)  # d/dW of sum(W c), without position 0
    torch.testing.assert_close(parameters[f"{path}.weight"].grad, expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(text), text @ layer.weight.T)
    assert torch.equal(predict(pipe), plain)


def test_after_freeze_gradients_reach_the_first_position_again(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    custom_diffusion.trainable(pipe)
    custom_diffusion.freeze(pipe)
    layer = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    text = torch.ones(1, 3, 64, requires_grad=True)
    layer(text).sum().backward()
    assert text.grad[:, 0].count_nonzero() > 0
    assert not any(p.requires_grad for p in pipe.unet.parameters())


def test_half_precision_is_refused(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    pipe.unet.half()
    with pytest.raises(ValueError, match="unet is in torch.float16.*dtype=torch.float32"):
        custom_diffusion.trainable(pipe)


def test_a_pipeline_that_changed_under_the_optimiser_is_an_error(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    custom_diffusion.trainable(pipe)
    pipe.text_encoder.to(torch.float64)
    with pytest.raises(RuntimeError, match="call it again"):
        features(pipe, ["a <new1> cat"])


def test_a_copy_of_a_pipeline_in_training_draws_what_it_draws(pipe, predict):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    steps(pipe, ["a photo of a <new1> cat"])
    assert torch.equal(predict(copy.deepcopy(pipe)), predict(pipe))


# ------------------------------------------------------------------ differences


def test_a_delta_loaded_into_a_fresh_pipeline_gives_its_outputs(pipe, fresh, predict):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn", "cat")
    untrained = predict(pipe)
    steps(pipe, ["a photo of a <new1> cat"])
    delta, other = custom_diffusion.delta(pipe), fresh()
    custom_diffusion.load_into(other, delta)
    assert (predict(pipe) - untrained).abs().max() > 1e-3
    torch.testing.assert_close(predict(other), predict(pipe), atol=1e-6, rtol=1e-6)
    assert torch.equal(row(other, "<new1>"), row(pipe, "<new1>"))


def test_loading_replaces_what_was_loaded_before(trained, pipe, fresh, predict):
    first, second = trained(1), trained(2, "mug")
    for delta in (first, second, first):
        custom_diffusion.load_into(pipe, delta)
    other = fresh()
    custom_diffusion.load_into(other, first)
    assert torch.equal(predict(pipe), predict(other))
    assert set(custom_diffusion.delta(pipe).tokens) == {"<new1>"}


def test_training_goes_on_from_a_loaded_delta(trained, pipe):
    """The difference stays one to the base model, not to where training went on."""
    first = trained(1)
    custom_diffusion.load_into(pipe, first)
    custom_diffusion.trainable(pipe)
    again = custom_diffusion.delta(pipe)
    for path in first.matrices:
        torch.testing.assert_close(again.matrix(path), first.matrix(path), atol=1e-6, rtol=1e-5)
    assert again.base == first.base


def test_another_base_model_is_refused_and_left_alone(trained, pipe):
    delta = trained(1)
    with torch.no_grad():
        pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight[3, 5] += 1e-4
    before = states(pipe)
    with pytest.raises(ValueError, match="different base models"):
        custom_diffusion.load_into(pipe, delta)
    assert "<new1>" not in pipe.tokenizer.get_vocab()
    assert all(torch.equal(value, before[key]) for key, value in states(pipe).items())


def test_a_token_that_means_something_here_is_refused_and_left_alone(trained, pipe):
    delta = trained(1, token="<mine>")
    pipe.tokenizer.add_tokens(["<mine>"])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    before = states(pipe)
    with pytest.raises(ValueError, match="'<mine>' is already in the vocabulary"):
        custom_diffusion.load_into(pipe, delta)
    assert all(torch.equal(value, before[key]) for key, value in states(pipe).items())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_delta_knows_its_base_model_in_half_precision(trained, pipe, predict, kind):
    pipe.to(kind)
    custom_diffusion.load_into(pipe, trained(1))
    assert row(pipe, "<new1>").dtype == kind


def test_halves_of_different_kinds_cannot_be_compared(fresh):
    first, second = fresh().to(torch.float16), fresh().to(torch.bfloat16)
    custom_diffusion.add_concept(first, "<new1>", "ktn")
    with pytest.raises(ValueError, match="cannot be compared.*float32"):
        custom_diffusion.load_into(second, custom_diffusion.delta(first))


def test_a_pipeline_without_cross_attention_is_refused(pipe):
    pipe.unet = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no layers attn2.to_k"):
        custom_diffusion.add_concept(pipe, "<new1>", "ktn")


# ------------------------------------------------------------------ compression


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
def test_compression_keeps_the_largest_values_up_to_the_share(trained, ratio):
    delta = trained(1)
    small = custom_diffusion.compress(delta, ratio)
    for path in delta.matrices:
        S = torch.linalg.svdvals(delta.matrix(path).double())
        r = small.matrices[path].left.shape[1]
        assert S[:r].sum() <= ratio * S.sum() < S[: r + 1].sum()
        error = torch.linalg.matrix_norm(delta.matrix(path).double() - small.matrix(path).double(), 2)
        torch.testing.assert_close(error, S[r], rtol=1e-4, atol=1e-5)  # Eckart and Young
    assert small.nbytes < delta.nbytes if ratio == 0.3 else True
    assert small.tokens.keys() == delta.tokens.keys() and small.base == delta.base


def test_all_singular_values_give_the_matrix_back(trained):
    delta = trained(1)
    whole = custom_diffusion.compress(custom_diffusion.compress(delta, 1.0), 1.0)
    for path in delta.matrices:
        torch.testing.assert_close(whole.matrix(path), delta.matrix(path), atol=1e-5, rtol=1e-4)


def test_one_singular_value_is_kept_at_least_also_of_nothing(pipe):
    custom_diffusion.add_concept(pipe, "<new1>", "ktn")
    untrained = custom_diffusion.compress(custom_diffusion.delta(pipe), 0.01)
    assert all(m.left.shape == (32, 1) and m.right.shape == (1, 64) for m in untrained.matrices.values())
    assert all(untrained.matrix(path).count_nonzero() == 0 for path in untrained.matrices)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1, float("nan")])
def test_a_ratio_is_a_share(trained, ratio):
    with pytest.raises(ValueError, match="ratio: expected a share"):
        custom_diffusion.compress(trained(1), ratio)
