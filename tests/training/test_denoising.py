import pytest
import torch
from diffusers import DDPMScheduler

from tutorial_lib import training
from tutorial_lib.training import DenoisingTask, Sample, embed, sample_at


def keys(pipe) -> dict:
    return {name: p for name, p in pipe.unet.named_parameters() if ".attn2.to_k" in name}


def samples(count: int, length: int) -> list[Sample]:
    return [sample_at(3, length, k) for k in range(count)]


def test_the_loss_is_the_papers(pipe, cat):
    task = DenoisingTask(pipe, cat, keys(pipe))
    picked = samples(3, len(cat))
    batch = task.batch(picked)
    alphas = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod
    errors = []
    for k, sample in enumerate(picked):
        t = int(sample.rng("timestep").integers(1000))
        z0 = cat.mean[sample.index] + cat.std[sample.index] * sample.normal((4, 16, 16), "latents")
        eps = sample.normal((4, 16, 16), "noise")
        zt = alphas[t].sqrt() * z0 + (1 - alphas[t]).sqrt() * eps
        found = pipe.unet(zt[None], t, embed(pipe, [cat.captions[sample.index]])).sample[0]
        errors.append((found - eps).square().mean())
        assert batch["timesteps"][k] == t
    assert task.loss(batch).item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_a_model_that_predicts_velocity_is_asked_for_it(pipe, cat):
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    task = DenoisingTask(pipe, cat, keys(pipe))
    batch = task.batch(samples(2, len(cat)))
    alpha = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[batch["timesteps"]][:, None, None, None]
    velocity = alpha.sqrt() * batch["noise"] - (1 - alpha).sqrt() * batch["latents"]
    assert torch.allclose(task.target(batch), velocity, atol=1e-5)
    pipe.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="epsilon or v_prediction, this one predicts 'sample'"):
        DenoisingTask(pipe, cat, keys(pipe)).target(batch)


def test_only_what_is_trained_changes(pipe, cat, mug):
    trained = keys(pipe)
    modules = (pipe.unet, pipe.text_encoder, pipe.vae)
    everything = {(i, name): p for i, module in enumerate(modules) for name, p in module.named_parameters()}
    before = {key: p.detach().clone() for key, p in everything.items()}
    training.fit(DenoisingTask(pipe, cat, trained, prior=mug), 2, 1e-3, 2, progress=False)
    changed = {key for key, p in everything.items() if not torch.equal(p, before[key])}
    assert changed == {(0, name) for name in trained}
    assert {key for key, p in everything.items() if p.requires_grad} == changed
    assert all(p.grad is None for p in everything.values())


def test_the_prior_weighs_what_it_should(pipe, cat, mug):
    picked = samples(4, len(cat))

    def loss(**options):
        task = DenoisingTask(pipe, cat, keys(pipe), **options)
        return task.loss(task.batch(picked)).item()

    alone, whole, half = loss(), loss(prior=mug), loss(prior=mug, prior_weight=0.5)
    assert loss(prior=mug, prior_weight=0.0) == pytest.approx(alone, rel=1e-5)
    assert whole - alone == pytest.approx(2 * (half - alone), rel=1e-4)
    assert whole - alone > 0.1 * alone


def test_all_pictures_of_the_prior_come_in_turn(pipe, cat, mug):
    task = DenoisingTask(pipe, cat, keys(pipe), prior=mug)
    batch = task.batch([sample_at(0, 4, k) for k in range(12)])
    beside = batch["samples"][12:]
    assert sorted(s.index - 4 for s in beside) == sorted(list(range(3)) * 4)
    assert all(task.source(s) == (mug, s.index - 4) for s in beside)
    assert batch["captions"][12:] == [mug.captions[s.index - 4] for s in beside]
    pair = task.batch([Sample(0, 2, 5)])  # whatever the batch, the same picture stands beside it, with the same noise
    large = task.batch([Sample(0, 1, 5), Sample(0, 2, 5)])
    assert torch.equal(pair["noise"], large["noise"][[1, 3]])
    assert torch.equal(pair["latents"], large["latents"][[1, 3]])


def test_prompts_are_dropped_as_often_as_asked_for_and_by_sample(pipe, cat):
    task = DenoisingTask(pipe, cat, keys(pipe), drop_prompt=0.3)
    captions = task.batch(samples(400, len(cat)))["captions"]
    assert 0.22 < captions.count("") / 400 < 0.38
    assert task.batch(samples(400, len(cat))[100:103])["captions"] == captions[100:103]
    never, always = (DenoisingTask(pipe, cat, keys(pipe), drop_prompt=share) for share in (0.0, 1.0))
    assert "" not in never.batch(samples(50, 4))["captions"] and set(always.batch(samples(50, 4))["captions"]) == {""}


def test_a_method_may_replace_each_step_of_the_loss(pipe, cat):
    class Masked(DenoisingTask):
        """Half of each picture counts, its caption is another one, and text gets a gradient."""

        def caption(self, sample):
            return "zoomed in, " + super().caption(sample)

        def context(self, captions):
            assert all(c.startswith("zoomed in, a photo") for c in captions)
            return embed(self.pipe, captions)

        def errors(self, predicted, target, batch):
            return (predicted - target)[..., :8].square().mean((1, 2, 3))

    table = pipe.text_encoder.get_input_embeddings().weight
    before = table.detach().clone()
    task = Masked(pipe, cat, {"table": table})
    history = training.fit(task, 2, 1e-3, 2, progress=False)
    assert len(history.loss) == 2 and not torch.equal(table, before)
    with torch.no_grad():
        table.copy_(before)  # the other tests use this text encoder too


def test_training_teaches_the_pictures(pipe, cat):
    task = DenoisingTask(pipe, cat, pipe.unet.named_parameters(), watch=lambda: {"one": 1.0})
    history = training.fit(task, 40, 3e-3, 4, progress=False, every=20)
    assert sum(history.loss[-10:]) < 0.8 * sum(history.loss[:10])
    assert history.watched == {"one": [1.0, 1.0, 1.0]}


def test_a_checkpoint_of_other_pictures_or_of_another_model_is_refused(pipe, cat, mug, tmp_path):
    def fit(data, **options):
        return training.fit(DenoisingTask(pipe, data, keys(pipe), **options), 1, 1e-4, 2, folder=tmp_path)

    fit(cat)
    fit(cat)  # trained weights in memory do not make it another run
    for data, options, differs in [(mug, {}, "pictures"), (cat, {"prior": mug}, "prior"), (cat, {"name": "x"}, "task")]:
        with pytest.raises(ValueError, match=f"(?s)another run.*{differs}: "):
            fit(data, **options)
    with torch.no_grad():
        pipe.unet.conv_in.weight[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match="(?s)another run.*frozen weights: "):
        fit(cat)


def test_bad_arguments_are_refused(pipe, cat, mug):
    for options, message in [({"drop_prompt": 1.1}, "share between 0 and 1"), ({"prior_weight": -1.0}, "0 or more")]:
        with pytest.raises(ValueError, match=message):
            DenoisingTask(pipe, cat, keys(pipe), prior=mug, **options)
    wide = training.Encoded(mug.mean[..., :8], mug.std[..., :8], mug.captions, "")
    with pytest.raises(ValueError, match="the prior's latents are"):
        DenoisingTask(pipe, cat, keys(pipe), prior=wide)
