"""The loss and its weights, training through the loop, joint training, going on from a checkpoint; bad input."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from tutorial_lib import custom_diffusion, training
from tutorial_lib.training import sample_at

CAPTIONS = ["a photo of a <new1> cat", "a photo of a <new1> cat", "a photo of a <new2> mug"]


def picture(k: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (60 * k % 256, 90, 250 - 40 * k % 200))


@pytest.fixture
def joint(fresh):
    """A task of two concepts with augmentation and a prior, on a pipeline of its own."""

    def make(prior_weight: float = 1.0, regularised: bool = True):
        pipe = fresh()
        custom_diffusion.add_concept(pipe, "<new1>", "ktn", "cat")
        custom_diffusion.add_concept(pipe, "<new2>", "pll", "mug")
        data, masks = custom_diffusion.augmented(pipe, [picture(k) for k in range(3)], CAPTIONS, versions=4)
        prior = training.encode(pipe, [picture(k) for k in range(4)], ["a photo of a cat", "a photo of a mug"] * 2)
        prior = prior if regularised else None
        return custom_diffusion.CustomDiffusionTask(pipe, data, masks, prior=prior, prior_weight=prior_weight)

    return make


def batch_of(task, n: int = 6) -> dict:
    return task.batch([sample_at(0, len(task), k) for k in range(n)])


# ------------------------------------------------------------------ the loss


def test_a_full_mask_gives_the_plain_mean():
    predicted, target = torch.randn(2, 3, 4, 5, 6)
    errors = custom_diffusion.masked_errors(predicted, target, torch.ones(3, 1, 5, 6))
    torch.testing.assert_close(errors, (predicted - target).square().mean((1, 2, 3)))


def test_what_is_masked_out_does_not_matter():
    predicted, target = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(3, 1, 5, 6)
    masks[0, :, 1:3, 2:5], masks[1, :, 0, 0], masks[2] = 1, 1, 1
    errors = custom_diffusion.masked_errors(predicted, target, masks)
    spoiled = torch.where(masks.bool(), predicted, 1e3)
    torch.testing.assert_close(custom_diffusion.masked_errors(spoiled, target, masks), errors)
    torch.testing.assert_close(errors[0], (predicted - target)[0, :, 1:3, 2:5].square().mean())
    torch.testing.assert_close(errors[1], (predicted - target)[1, :, 0, 0].square().mean())


def test_an_empty_mask_is_an_error():
    masks = torch.ones(2, 1, 5, 6)
    masks[1] = 0
    with pytest.raises(ValueError, match="a mask is empty"):
        custom_diffusion.masked_errors(torch.zeros(2, 4, 5, 6), torch.zeros(2, 4, 5, 6), masks)


def test_both_terms_weigh_the_same_and_a_quarter_gives_the_balance_of_the_ports(joint):
    """The ports' loss by their formula: sum over channels and places / places, plus the prior's plain mean."""
    ours, quarter = joint(), joint(prior_weight=0.25)
    batch = batch_of(ours)
    context = ours.context(batch["captions"])
    noisy = ours.scheduler.add_noise(batch["latents"], batch["noise"], batch["timesteps"])
    squares = (ours.pipe.unet(noisy, batch["timesteps"], context).sample - batch["noise"]).square()
    masks = torch.stack([ours.masks[s.index] for s in batch["samples"][:6]])
    instance = ((squares[:6] * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3))).mean()
    prior = squares[6:].mean()
    torch.testing.assert_close(ours.loss(batch), instance / 4 + prior)
    torch.testing.assert_close(4 * quarter.loss(batch_of(quarter)), instance + prior)


def test_masks_and_captions_belong_to_the_samples(joint):
    task = joint()
    batch = batch_of(task, 12)
    assert {s.index for s in batch["samples"][:12]} == set(range(12))
    for sample, caption in zip(batch["samples"][:12], batch["captions"]):
        small = caption.startswith(("very small", "a far away"))
        assert bool(task.masks[sample.index].all()) != small
        assert ("<new2> mug" in caption) == (sample.index >= 8)
    assert all("<new" not in caption for caption in batch["captions"][12:])


def test_the_text_of_a_concept_is_never_from_a_cache(joint):
    """After a step its features must be those of the new row."""
    task = joint()
    before = task.context(CAPTIONS + ["a photo of a cat"]).detach()
    with torch.no_grad():
        task.parameters()["<new2>"].add_(1.0)
    after = task.context(CAPTIONS + ["a photo of a cat"]).detach()
    assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]]) and not torch.equal(before[2], after[2])
    torch.testing.assert_close(after[2:3], training.embed(task.pipe, CAPTIONS[2:]))


# ------------------------------------------------------------------ training


def test_joint_training_moves_every_concept_and_nothing_else(joint):
    task = joint()
    pipe = task.pipe
    before = {k: v.clone() for part in (pipe.unet, pipe.text_encoder, pipe.vae) for k, v in part.state_dict().items()}
    history = training.fit(task, steps=3, lr=1e-2, batch_size=6, weight_decay=0.1, progress=False, every=3)
    after = {k: v for part in (pipe.unet, pipe.text_encoder, pipe.vae) for k, v in part.state_dict().items()}
    words = "embeddings.token_embedding.weight"
    changed = {key for key in before if not torch.equal(before[key], after[key])} - {words}
    assert changed == {k for k in before if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert (before[words] != after[words]).any(1).nonzero().flatten().tolist() == [
        len(after[words]) - 2,
        len(after[words]) - 1,
    ]
    assert history.watched["change of K and V"][0] == 0 < history.watched["change of K and V"][-1]


def test_the_loss_of_a_few_pictures_falls(joint):
    task = joint()
    fixed = [sample_at(9, len(task), k) for k in range(12)]
    with torch.no_grad():
        before = task.loss(task.batch(fixed)).item()
    training.fit(task, steps=20, lr=1e-2, batch_size=6, progress=False)
    with torch.no_grad():
        assert task.loss(task.batch(fixed)).item() < before


def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(joint, tmp_path):
    whole, first, second = joint(), joint(), joint()
    settings = {"lr": 1e-2, "batch_size": 3, "progress": False, "save_every": 2}
    training.fit(whole, steps=5, **settings)
    training.fit(first, steps=3, folder=tmp_path, **settings)
    training.fit(second, steps=5, folder=tmp_path, **settings)
    training.fit(first, steps=5, folder=tmp_path, **settings)  # also where the concepts have moved already
    for name, parameter in whole.parameters().items():
        assert torch.equal(parameter, second.parameters()[name]), name
        assert torch.equal(parameter, first.parameters()[name]), name
    ids = second.pipe.tokenizer.convert_tokens_to_ids(["<new1>", "<new2>"])
    table = second.pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids[1]], whole.parameters()["<new2>"])  # the table has what was restored


def test_a_checkpoint_of_another_base_model_is_refused(joint, tmp_path):
    settings = {"lr": 1e-2, "batch_size": 3, "progress": False, "folder": tmp_path}
    training.fit(joint(), steps=2, **settings)
    other = joint()
    with torch.no_grad():
        other.pipe.text_encoder.get_input_embeddings().weight[5, 3] += 1
    with pytest.raises(ValueError, match="frozen weights"):
        training.fit(other, steps=3, **settings)


def test_without_regularisation_there_is_one_term(joint):
    task = joint(regularised=False)
    batch = batch_of(task)
    assert len(batch["latents"]) == 6
    assert task.loss(batch).isfinite()


# ------------------------------------------------------------------ bad input


def test_a_concept_without_pictures_would_not_be_trained(joint):
    task = joint()
    lonely = replace(task.data, captions=("a photo of a <new1> cat",) * len(task.data))
    with pytest.raises(ValueError, match="no caption holds the token '<new2>'"):
        custom_diffusion.CustomDiffusionTask(task.pipe, lonely)


def test_masks_that_do_not_fit_are_refused(joint):
    task = joint()
    with pytest.raises(ValueError, match=r"masks: expected the shape \(12, 1, 8, 8\), got \(3, 1, 8, 8\)"):
        custom_diffusion.CustomDiffusionTask(task.pipe, task.data, task.masks[:3])


def test_an_empty_regularisation_set_is_refused(pipe):
    with pytest.raises(ValueError, match="no pictures"):
        training.encode(pipe, [], [])
