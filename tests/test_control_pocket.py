"""Control on the pocket pipeline: pairs, training, pictures, and bad input in plain words."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import control, models, sampling, training
from tutorial_lib.pocket import conditions, world

SCENES = [world.sample_scene(np.random.default_rng((5, k))) for k in range(6)]
PROMPTS = [world.caption(scene) for scene in SCENES]


@pytest.fixture(scope="module")
def pipe():
    return models.load("pocket", device="cpu")


@pytest.fixture(scope="module")
def pairs(pipe):
    return control.scene_pairs(pipe, "edges", SCENES)


@pytest.fixture(scope="module")
def controls():
    return [conditions.of_scene("edges", scene) for scene in SCENES]


@pytest.fixture
def stirred(pipe):
    """A branch that does something."""
    return _stir(control.from_unet(pipe.unet, "lite", 4), 0.1)


@torch.no_grad()
def _stir(model, size, seed=2):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def draw(pipe, model, controls, prompts=PROMPTS, **options):
    options = {"seed": 3, "num_inference_steps": 2, "progress": False} | options
    pictures = control.generate(pipe, model, list(prompts), controls, **options)
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def differ(first, second) -> bool:
    """By more than rounding does."""
    return np.abs(first - second).max() > 8


def plain(pipe, prompts=PROMPTS, **options):
    options = {"seed": 3, "num_inference_steps": 2, "progress": False} | options
    return np.stack([np.asarray(p) for p in sampling.generate(pipe, list(prompts), **options)]).astype(int)


# ------------------------------------------------------------------ pairs


def test_pairs_are_the_scenes_pictures_hints_and_captions(pipe, pairs, controls):
    assert len(pairs) == 6 and pairs.pictures.captions == tuple(PROMPTS)
    assert torch.equal(pairs.hints.float() / 255, conditions.hints(controls))
    expected = training.encode(pipe, [world.draw(scene) for scene in SCENES], PROMPTS)
    assert torch.equal(pairs.pictures.mean, expected.mean) and pairs.pictures.fingerprint == expected.fingerprint


def test_pairs_are_drawn_once_and_read_again(pipe, pairs, tmp_path, monkeypatch):
    control.scene_pairs(pipe, "edges", SCENES, cache=tmp_path)
    monkeypatch.setattr(training, "encode", lambda *_: pytest.fail("encoded again"))
    read = control.scene_pairs(pipe, "edges", SCENES, cache=tmp_path)
    for name in ("mean", "std", "captions", "fingerprint"):
        ours, theirs = getattr(read.pictures, name), getattr(pairs.pictures, name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert torch.equal(read.hints, pairs.hints)


def test_other_scenes_and_other_kinds_are_other_files(pipe, tmp_path):
    for kind, scenes in (("edges", SCENES[:2]), ("edges", SCENES[1:3]), ("segmentation", SCENES[:2])):
        control.scene_pairs(pipe, kind, scenes, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_wanted_scenes_are_the_first_of_their_kind():
    every = control.scenes(control.TEST, 40)
    wanted = control.scenes(control.TEST, 5, lambda scene: len(scene.things) == 2)
    assert wanted == [scene for scene in every if len(scene.things) == 2][:5] and len(wanted) == 5


def test_a_part_of_the_pairs_is_another_training_set(pairs):
    part = pairs.first(2)
    assert len(part) == 2 and torch.equal(part.hints, pairs.hints[:2]) and len(part.pictures) == 2
    assert part.pictures.fingerprint != pairs.pictures.fingerprint
    with pytest.raises(ValueError, match="there are 6 pairs: expected a number from 1 to 6, got 7"):
        pairs.first(7)


def test_pairs_that_do_not_fit_are_refused(pipe, controls):
    pictures = [world.draw(scene) for scene in SCENES]
    with pytest.raises(ValueError, match="one control picture for each of 6 pictures, got 5"):
        control.encode_pairs(pipe, pictures, controls[1:], PROMPTS)
    with pytest.raises(ValueError, match="one caption for each of the 6"):
        control.encode_pairs(pipe, pictures, controls, PROMPTS[1:])
    with pytest.raises(ValueError, match="pictures must be 64x64, got 32x32"):
        control.encode_pairs(pipe, [p.resize((32, 32)) for p in pictures], controls, PROMPTS)
    with pytest.raises(ValueError, match="no person"):
        control.scene_pairs(pipe, "landmarks", [s for s in SCENES if world.landmarks(s) is None])


# ------------------------------------------------------------------ training


def samples(count, seed=0, visit=0):
    return [training.Sample(seed, k % 6, visit + k // 6) for k in range(count)]


def test_a_batch_has_each_samples_own_hint_and_half_of_the_prompts(pipe, pairs):
    task = control.ControlTask(pipe, control.HintEncoder(64, 4), pairs)
    batch = task.batch(samples(240))
    assert batch["hints"].shape == (240, 3, 64, 64) and batch["hints"].max() == 1 and batch["hints"].min() == 0
    assert torch.equal(batch["hints"][:6], pairs.hints.float() / 255)
    left_out = [caption == "" for caption in batch["captions"]]
    assert 0.4 < np.mean(left_out) < 0.6
    assert all(said in ("", PROMPTS[k % 6]) for k, said in enumerate(batch["captions"]))
    half = task.batch(samples(240)[120:])
    assert torch.equal(half["noise"], batch["noise"][120:]) and half["captions"] == batch["captions"][120:]


def test_noisier_time_steps_come_more_often(pipe, pairs):
    branch = control.HintEncoder(64, 4)
    drawn = {
        n: control.ControlTask(pipe, branch, pairs, noisier=n).batch(samples(600))["timesteps"] for n in (0.0, 1.0, 3.0)
    }
    for n, t in drawn.items():  # density ~ t^n: mean (n + 1) / (n + 2), and P(t < 500) = 2^-(n+1)
        assert t.dtype == torch.int64 and 0 <= t.min() and t.max() <= 999
        assert t.float().mean() / 1000 == pytest.approx((n + 1) / (n + 2), abs=0.04)
        assert (t < 500).float().mean() == pytest.approx(2 ** -(n + 1), abs=0.06)
    plain = training.DenoisingTask(pipe, pairs.pictures, {}).batch(samples(600))["timesteps"]
    assert torch.equal(drawn[0.0], plain)
    with pytest.raises(ValueError, match="noisier: expected 0"):
        control.ControlTask(pipe, branch, pairs, noisier=-1)


def test_another_choice_of_time_steps_is_another_run(pipe, pairs):
    descriptions = [control.ControlTask(pipe, control.HintEncoder(64, 4), pairs, noisier=n).describe() for n in (0, 1)]
    assert [k for k in descriptions[0] if descriptions[0][k] != descriptions[1][k]] == ["noisier"]


def test_at_the_start_the_loss_is_that_of_no_control(pipe, pairs):
    branch = control.from_unet(pipe.unet, "full", 4)
    task = control.ControlTask(pipe, branch, pairs)
    batch = task.batch(samples(4))
    with torch.no_grad():
        ours, theirs = task.loss(batch), training.DenoisingTask(pipe, pairs.pictures, {}).loss(batch)
    assert ours == theirs


@pytest.mark.parametrize("kind", ["full", "lite", "oft", "lora"])
def test_training_moves_what_it_should_and_nothing_else(pipe, pairs, kind):
    pipe = models.load("pocket", device="cpu") if kind in ("oft", "lora") else pipe  # adapters would stay in the UNet
    make = {"oft": lambda: control.with_oft(pipe, 32), "lora": lambda: control.with_lora(pipe, 4)}
    model = make[kind]() if kind in make else control.from_unet(pipe.unet, kind, 4)
    task = control.ControlTask(pipe, model, pairs)
    everything = {**dict(pipe.unet.named_parameters()), **{f"m.{n}": p for n, p in model.named_parameters()}}
    before = {name: p.detach().clone() for name, p in everything.items()}
    trained = {id(p) for p in task.parameters().values()}
    training.fit(task, steps=3, lr=1e-2, batch_size=2, progress=False)
    for name, parameter in everything.items():
        if id(parameter) not in trained:
            assert torch.equal(parameter, before[name]), name
    moved = [n for n, p in everything.items() if not torch.equal(p, before[n])]
    assert len(moved) > 0.9 * len(trained)  # what guidance of the text alone would move is all that may be missing


def test_a_checkpoint_of_other_hints_is_another_run(pipe, pairs):
    encoder = control.HintEncoder(64, 4)
    other = control.Pairs(pairs.pictures, pairs.hints.flip(0))
    descriptions = [control.ControlTask(pipe, encoder, p).describe() for p in (pairs, other)]
    assert [k for k in descriptions[0] if descriptions[0][k] != descriptions[1][k]] == ["hints"]


def test_a_probe_draws_the_same_until_the_model_changes(pipe, controls):
    branch = control.from_unet(pipe.unet, "lite", 4)

    def score(pictures):
        return control.edge_scores(pictures, controls[:3])

    probe = control.Probe(PROMPTS[:3], controls[:3], score, num_inference_steps=2)
    first, again = probe.look(pipe, branch), probe.look(pipe, branch)
    _stir(branch, 0.1)
    changed = probe.look(pipe, branch)
    assert first == again != changed and set(first) == {"F1", "IoU"}
    assert [len(pictures) for pictures in probe.drawn] == [3, 3, 3]


def test_edges_of_the_true_picture_score_one_and_of_another_less(controls):
    pictures = [world.draw(scene) for scene in SCENES]
    assert control.edge_scores(pictures, controls) == {"F1": 1.0, "IoU": 1.0}
    assert control.edge_scores(pictures[1:] + pictures[:1], controls)["IoU"] < 0.5


def test_the_vae_loses_some_edges_and_keeps_most(pipe, controls):
    ceiling = control.edge_ceiling(pipe, [world.draw(scene) for scene in SCENES], controls)
    assert 0.8 < ceiling["F1"] < 1 and 0.3 < ceiling["IoU"] < ceiling["F1"]
    wrong = control.edge_ceiling(pipe, [world.draw(scene) for scene in SCENES[::-1]], controls)
    assert wrong["F1"] < ceiling["F1"] - 0.2


def test_scenes_to_train_on_and_to_test_with_are_fixed_and_differ():
    train, test = control.scenes(control.TRAINING, 30), control.scenes(control.TEST, 30)
    assert train[:10] == control.scenes(control.TRAINING, 10)
    assert not {str(scene) for scene in train} & {str(scene) for scene in test}


def test_sudden_convergence_tells_a_jump_from_a_slope():
    steps = list(range(0, 101, 5))
    jump = [0.1 + 0.8 / (1 + np.exp(-(s - 62) / 2)) for s in steps]
    middle, share = control.sudden_convergence(steps, jump)
    assert abs(middle - 62) <= 10 and share > 0.95
    slope = [0.1 + 0.003 * s for s in steps]
    assert control.sudden_convergence(steps, slope)[1] == pytest.approx(0.2)
    assert control.sudden_convergence(steps, slope, window=0.5)[1] == pytest.approx(0.5)
    assert np.isnan(control.sudden_convergence(steps, slope[::-1])[1])
    uneven = [0, 1, 2, 3, 50, 100]  # looks need not be evenly spaced
    assert control.sudden_convergence(uneven, [0, 0, 0, 0, 1, 2])[1] == pytest.approx(20 / 50 / 2, abs=0.02)
    for bad in (([0, 1], [0, 1]), ([0, 2, 1], [0, 1, 2]), ([0, 1, 2], [0, 1])):
        with pytest.raises(ValueError, match="three or more scores"):
            control.sudden_convergence(*bad)


# ------------------------------------------------------------------ pictures


def test_without_training_the_pictures_are_the_pipelines_own(pipe, controls):
    branch = control.from_unet(pipe.unet, "full", 4)
    assert np.abs(draw(pipe, branch, controls) - plain(pipe)).max() <= 1
    assert np.abs(draw(pipe, control.HintEncoder(64, 4), controls) - plain(pipe)).max() <= 1


def test_a_trained_branch_obeys_scale_and_hint(pipe, stirred, controls):
    full = draw(pipe, stirred, controls)
    assert differ(full, plain(pipe))
    assert np.abs(draw(pipe, stirred, controls, scale=0.0) - plain(pipe)).max() <= 1
    assert differ(full, draw(pipe, stirred, controls[::-1]))
    assert differ(full, draw(pipe, stirred, controls, guess_mode=True))


def test_hints_are_the_same_as_pictures_and_as_tensors(pipe, stirred, controls):
    assert np.array_equal(draw(pipe, stirred, controls), draw(pipe, stirred, conditions.hints(controls)))


@pytest.mark.parametrize("make", ["branch", "encoder"])
def test_every_picture_meets_its_own_hint_in_batches_too(pipe, stirred, controls, make):
    model = stirred if make == "branch" else _stir(control.HintEncoder(64, 4), 0.3)
    many, hints = PROMPTS * 3, controls * 3
    assert len(many) > sampling.BATCH
    together = draw(pipe, model, hints, many, seed=[7] * 18)
    assert np.abs(together[-6:] - together[:6]).max() <= 2
    alone = draw(pipe, model, hints[4:5], many[4:5], seed=7)
    assert np.abs(together[16] - alone[0]).max() <= 2
    assert differ(together[0], draw(pipe, model, hints[1:2], many[:1], seed=7)[0])


def test_several_branches_are_added_up(pipe, stirred, controls):
    silent = control.from_unet(pipe.unet, "lite", 4)
    one = draw(pipe, stirred, controls)
    assert np.abs(draw(pipe, [stirred, silent], [controls, controls[::-1]]) - one).max() <= 1
    assert (
        np.abs(draw(pipe, [stirred, stirred], [controls, controls]) - draw(pipe, stirred, controls, scale=2)).max() <= 1
    )


def test_given_latents_replace_the_seeds_noise(pipe, controls):
    encoder = _stir(control.HintEncoder(64, 4), 0.3)
    latents = sampling.noise(pipe, range(3, 9))
    assert np.array_equal(draw(pipe, encoder, controls, seed=0, latents=latents), draw(pipe, encoder, controls))


def test_a_branch_in_float32_serves_a_pipeline_in_half_precision(pipe, stirred, controls):
    half = models.load("pocket", device="cpu", dtype=torch.bfloat16)
    for model in (stirred, control.HintEncoder(64, 4)):
        exact, rounded = (draw(p, model, controls[:2], PROMPTS[:2]) for p in (pipe, half))
        assert np.abs(exact - rounded).mean() < 0.5 * np.abs(exact - exact[::-1]).mean()


def test_control_that_does_not_fit_is_refused_in_plain_words(pipe, pairs, controls):
    for branch in (control.from_unet(pipe.unet, "lite", 8), control.HintEncoder(64, 8)):
        with pytest.raises(ValueError, match=r"another model: VAE factor 8 \(the pipeline has 4\)"):
            draw(pipe, branch, controls)
    from diffusers import ControlNetModel

    config = dict(block_out_channels=(16, 32, 32), layers_per_block=1, cross_attention_dim=192, norm_num_groups=8)
    stranger = ControlNetModel(
        down_block_types=("DownBlock2D",) * 3, conditioning_embedding_out_channels=(16, 32, 96), **config
    )
    with pytest.raises(ValueError, match=r"block_out_channels \[16, 32, 32\] \(the pipeline has \[64, 128, 256\]\)"):
        control.ControlTask(pipe, stranger, pairs)
    with pytest.raises(ValueError, match="width of conv_in 32"):
        draw(pipe, control.HintEncoder(32, 4), controls)


def test_bad_hints_and_counts_are_refused(pipe, stirred, controls):
    with pytest.raises(ValueError, match="6 control images|6 prompts"):
        draw(pipe, stirred, controls[1:])
    with pytest.raises(ValueError, match="one control picture and one seed for each prompt, got 6 prompts, 5"):
        draw(pipe, control.HintEncoder(64, 4), controls[1:])
    with pytest.raises(ValueError, match="a list of control pictures for each of 2 branches"):
        draw(pipe, [stirred, stirred], [controls])
    with pytest.raises(ValueError, match=r"as many control pictures for each branch, got \[6, 5\]"):
        draw(pipe, [stirred, stirred], [controls, controls[1:]])
    with pytest.raises(ValueError, match="not hint encoders"):
        draw(pipe, control.HintEncoder(64, 4), controls, guess_mode=True)
    with pytest.raises(ValueError, match="crop or pad"):
        draw(pipe, stirred, [Image.new("RGB", (64, 48))] * 6)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        draw(pipe, stirred, conditions.hints(controls) * 2 - 1)
