"""The machinery of pretraining, on small things: laws of Muon, resuming, the data's promises."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from tutorial_lib import metrics
from tutorial_lib.pocket import world
from tutorial_lib.pocket.files import POCKET
from tutorial_lib.pocket.pretrain import data, judge, latents, loop, run
from tutorial_lib.pocket.pretrain.judge import answers, contrast, identity_views, unseen_pairs
from tutorial_lib.pocket.pretrain.loop import WARMUP_STEPS, Begun, train
from tutorial_lib.pocket.pretrain.muon import Muon, orthogonalise, split_parameters
from tutorial_lib.pocket.pretrain.vae import build, standardise
from tutorial_lib.pocket.scene import Person, Scene, Thing, held_out_pairs


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 8, 3, 3)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix).flatten(1))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_finds_the_least_squares_solution():
    generator = torch.Generator().manual_seed(1)
    wanted, x = torch.randn(12, 20, generator=generator), torch.randn(20, 64, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(12, 20))
    optimiser = Muon([weight], lr=0.1)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimiser.zero_grad()
        ((weight - wanted) @ x).square().mean().backward()
        optimiser.step()
    assert (weight - wanted).abs().max() < 0.05


def test_split_gives_embeddings_and_vectors_to_adam():
    module = torch.nn.Sequential(torch.nn.Embedding(30, 16), torch.nn.Linear(16, 12), torch.nn.Conv2d(12, 4, 3))
    matrices, others = split_parameters(module)
    assert [p.shape for p in matrices] == [(12, 16)]  # the convolution has 4 rows: too thin
    assert len(others) == 4


def test_training_scenes_depend_on_their_index_alone_and_hold_nothing_out():
    scenes = data.training_scenes(200)
    assert scenes[90:110] == data.training_scenes(20, first=90)
    assert not any(held_out_pairs(s) for s in scenes)
    assert all(held_out_pairs(s) for s in data.held_out_scenes(50, held_out=True))
    assert not set(scenes) & set(data.held_out_scenes(200))


def test_a_sibling_differs_in_one_thing():
    rng = np.random.default_rng(3)
    for scene in data.training_scenes(60):
        other = data.sibling(scene, rng)
        changed = [a != b for a, b in zip(scene.things, other.things, strict=True)]
        swapped = sum(changed) == 2 and {t.colour for t in scene.things} == {t.colour for t in other.things}
        assert swapped or sum(changed) + (scene.background != other.background) == 1


def test_answers_leave_out_what_cannot_be_seen():
    from tutorial_lib.pocket.judge import QUESTIONS

    mug = Scene("pencil sketch", "table", (Thing("mug", "red"),))
    person = Scene("photo", "beach", (Person(extras=("hat", "smile")),))
    said = dict(zip(QUESTIONS, answers(mug), strict=True))
    assert said["first colour"] == -1 and QUESTIONS["first kind"][said["first kind"]] == "mug"
    assert QUESTIONS["second kind"][said["second kind"]] == "nothing" and said["skin"] == -1
    said = dict(zip(QUESTIONS, answers(person), strict=True))
    assert (said["hat"], said["smile"], said["glasses"], said["first colour"]) == (1, 1, 0, -1)


def test_identity_views_show_one_thing_in_two_places():
    for i in range(12):
        a, b = (scene.things[0] for scene in identity_views(i))
        assert (a.kind, a.pattern, a.second_colour, a.variant) == (b.kind, b.pattern, b.second_colour, b.variant)
        assert (a.x, a.size) != (b.x, b.size)
    assert not np.array_equal(*(np.asarray(world.draw(s)) for s in identity_views(0)))


def test_contrast_is_small_only_for_matching_pairs():
    rows = torch.nn.functional.normalize(torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    assert contrast(rows.repeat_interleave(2, 0)) < 0.01 < 1 < contrast(torch.cat([rows, rows]))


def test_standardise_keeps_the_pictures_and_whitens_the_latents():
    torch.manual_seed(0)
    vae = build().eval()
    pictures = world.draw_many(data.held_out_scenes(12), progress=False)
    x = data.to_tensor(pictures) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mode()).sample
        log_variance = (
            vae.encode(x).latent_dist.logvar - 2 * vae.encode(x).latent_dist.mean.std((0, 2, 3))[:, None, None].log()
        )
        standardise(vae, pictures)
        latents = vae.encode(x).latent_dist
        after = vae.decode(latents.mode()).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    total = latents.mean.var((0, 2, 3)) + latents.var.mean((0, 2, 3))
    torch.testing.assert_close(latents.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(total, torch.ones(4), atol=1e-3, rtol=0)
    assert (latents.logvar < log_variance + 1e-3).all()  # scaled down with the signal, by at least its spread


def test_the_judge_learns_from_pictures_as_they_come_back_from_the_vae():
    vae = AutoencoderKL.from_pretrained(POCKET / "vae").float()
    drawn = world.draw_many(data.held_out_scenes(3), progress=False)
    back = judge.back_from_vae(vae, drawn)
    assert back.shape == drawn.shape and back.dtype == np.uint8
    assert 26 < metrics.psnr(back, drawn) < 50

    task = judge.JudgeTask.__new__(judge.JudgeTask)
    task.drawn, task.back = {"pictures": drawn, "unseen": drawn[:1]}, {"pictures": back[:2], "unseen": back[:1]}
    shown = task._plain(np.array([0] * 40 + [2] * 40 + [judge.PLAIN] * 40), np.random.default_rng(0))
    came_back = [np.array_equal(picture, back[0]) for picture in shown[:40]]
    assert 10 < sum(came_back) < 30 and all(np.array_equal(picture, drawn[2]) for picture in shown[40:80])
    assert 10 < sum(np.array_equal(picture, back[0]) for picture in shown[80:]) < 30

    task.views, task.drawn["second views"], task.back["second views"] = drawn[[0, 1, 2, 0]], drawn[[1, 0]], back[1:2]
    views = task._views(np.array([0, 1] * 20), np.random.default_rng(0))
    assert all(np.array_equal(views[k], drawn[0 if k % 4 == 0 else 2]) for k in range(0, 80, 2))
    assert all(np.array_equal(picture, drawn[0]) for picture in views[3::4])  # did not go through it
    assert 5 < sum(np.array_equal(picture, back[1]) for picture in views[1::4]) < 15


def test_the_judge_alone_learns_from_pairs_that_the_others_never_see():
    scenes = unseen_pairs(40)
    assert all(held_out_pairs(s) for s in scenes)
    assert not set(scenes) & set(data.held_out_scenes(200, held_out=True))
    assert 0 < sum(bool(held_out_pairs(identity_views(4 * i)[0])) for i in range(40)) < 40


def test_cached_moments_are_of_the_encoder_alone(tmp_path, monkeypatch):
    """A decoder trained further keeps the cache; another encoder makes another."""
    monkeypatch.setattr(data, "pictures", lambda cache: world.draw_many(data.training_scenes(3), progress=False))
    torch.manual_seed(0)
    vae = build().eval()
    first = latents.moments(vae, tmp_path)
    assert first.shape == (3, 8, 16, 16) and len(list(tmp_path.iterdir())) == 1
    torch.nn.init.normal_(vae.decoder.conv_in.weight)
    torch.testing.assert_close(latents.moments(vae, tmp_path), first, rtol=0, atol=0)
    assert len(list(tmp_path.iterdir())) == 1
    torch.nn.init.normal_(vae.encoder.conv_in.weight)
    assert not torch.equal(latents.moments(vae, tmp_path), first) and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_a_cpu_without_bfloat16_computes_in_whole_precision(monkeypatch, has_bfloat16):
    monkeypatch.setattr(data, "DEVICE", "cpu")
    monkeypatch.setattr(data, "_cpu_has_bfloat16", lambda: has_bfloat16)
    with data.autocast():
        product = torch.ones(3, 5) @ torch.ones(5, 2)
    assert product.dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)


def test_samples_of_latents_have_the_moments():
    moments = torch.cat([torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), -4.0)], 1).half()
    noise = torch.randn(4000, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    drawn = latents.sample(moments.expand(4000, -1, -1, -1), noise)
    assert abs(drawn.mean() - 3) < 0.01 and abs(drawn.std() - np.exp(-2)) < 0.01


class _Line:
    """Fits a matrix; small enough to train in a test."""

    muon_lr, adam_lr = 0.01, 0.01

    def __init__(self):
        torch.manual_seed(0)
        self.module = torch.nn.Linear(16, 16)

    def loss(self, step):
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        return (self.module(x) - x.flip(1)).square().mean(), {}

    def measure(self):
        return {"norm": self.module.weight.norm().item()}

    def sheet(self):
        return None


def test_a_run_writes_its_files_and_refuses_to_overwrite(tmp_path):
    task = _Line()
    train(task, tmp_path / "line", minutes=0.02)
    assert {f.name for f in (tmp_path / "line").iterdir()} == {"checkpoint.pt", "curve.csv", "measured.csv"}
    with pytest.raises(FileExistsError, match="--resume"):
        train(_Line(), tmp_path / "line", minutes=0.02)


def test_a_resumed_run_goes_on_where_it_stood(tmp_path):
    train(_Line(), tmp_path / "line", minutes=0.01)
    first = torch.load(tmp_path / "line" / "checkpoint.pt", weights_only=True)
    state = loop._State(_Line(), tmp_path / "line", 1.2, loop.NOTHING)
    state.load()
    again = torch.load(state.checkpoint, weights_only=True) | {"module": state.task.module.state_dict()}
    again |= {name: getattr(state, name).state_dict() for name in ("ema", "muon", "adam")}
    _assert_same(again, first)
    train(_Line(), tmp_path / "line", minutes=0.02, resume=True)
    second = torch.load(tmp_path / "line" / "checkpoint.pt", weights_only=True)
    assert second["steps"] > first["steps"] and second["spent"] >= 1.2 > first["spent"]


def _assert_same(one, other):
    """Nested dicts and lists of tensors and numbers that are equal."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _assert_same(a, b)
    else:
        assert one == other


def test_a_resumed_run_forgets_what_came_after_its_checkpoint_and_a_finished_one_adds_nothing(tmp_path, capsys):
    train(_Line(), tmp_path / "line", minutes=0.01)
    files = [tmp_path / "line" / name for name in ("curve.csv", "measured.csv")]
    before = [file.read_text() for file in files]
    for file in files:
        file.write_text(file.read_text() + "999999,0.5,1.0\n88")
    train(_Line(), tmp_path / "line", minutes=0.01, resume=True)
    assert [file.read_text() for file in files] == before
    assert "has had its 0.01 minutes" in capsys.readouterr().out


def test_shipped_weights_train_on_with_their_record_behind_them(tmp_path):
    """The record goes into the model's folder and back into a run's, and the run goes on at its end."""
    first, history, second = tmp_path / "a" / "line", tmp_path / "history", tmp_path / "b" / "line"
    train(_Line(), first, minutes=0.02)
    run._keep_history(first, history)
    begun = run._restore_history(second, history)
    before = (second / "measured.csv").read_text()
    assert begun.steps > 0 and 0.02 <= begun.minutes < 0.03 and before == (first / "measured.csv").read_text()
    train(_Line(), second, minutes=0.01, resume=True, begun=begun)
    after = (second / "measured.csv").read_text()
    assert after.startswith(before) and float(run._last_row(second / "measured.csv")["minutes"]) > begun.minutes
    assert int(run._last_row(second / "measured.csv")["step"]) > begun.steps
    checkpoint = torch.load(second / "checkpoint.pt", weights_only=True)
    assert checkpoint["spent"] == pytest.approx(60 * (begun.minutes + 0.01), abs=0.3)
    with pytest.raises(FileNotFoundError, match="line"):
        run._restore_history(second, tmp_path / "empty")


def test_new_optimisers_warm_up_and_the_rate_falls_from_where_the_run_stands(tmp_path):
    state = loop._State(_Line(), tmp_path / "line", 300, Begun(4000, 5.0))
    rates = []
    for state.steps in range(4000, 4000 + 2 * WARMUP_STEPS):
        rates.append(state._schedule())
    assert rates[0] == pytest.approx(1.15 * 0.5 / WARMUP_STEPS)
    assert rates[WARMUP_STEPS - 1 :] == pytest.approx([1.15 * 0.5] * (WARMUP_STEPS + 1))


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """`run.pretrain` without its trainings: what each part was asked to do."""
    asked = []

    def train(task, folder, minutes, resume, begun):
        asked.append((folder.name, minutes, begun))

    module = SimpleNamespace(export=lambda task: None, **dict.fromkeys(run.TASKS.values(), lambda cache: _Line()))
    monkeypatch.setattr(run, "import_module", lambda name: module)
    monkeypatch.setattr(run.loop, "train", train)
    monkeypatch.setattr(run, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(run, "POCKET", tmp_path)
    for name in ("_keep_history", "write_hashes"):
        monkeypatch.setattr(run, name, lambda *_: None)
    monkeypatch.setattr(run, "_from_shipped", lambda task, folder: Begun(3000, 140.0))
    return asked


def test_one_part_trains_on_from_the_shipped_weights_and_all_parts_begin_anew(parts):
    """A new encoder beside the old UNet would be a broken model, with hashes that call it whole."""
    run.pretrain("unet", 60, resume=True)
    assert parts == [("unet", 60, Begun(3000, 140.0))]
    parts.clear()
    run.pretrain("all", resume=True)
    assert parts == [(name, run.MINUTES[name], loop.NOTHING) for name in run.TASKS]


@pytest.mark.parametrize("minutes", [0, -5])
def test_a_training_takes_time(parts, minutes):
    with pytest.raises(ValueError, match=f"more than 0, got {minutes}"):
        run.pretrain("unet", minutes)
    assert not parts


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    task = _Line()
    task.loss = lambda step: (task.module.weight.sum() * float("nan"), {})
    with pytest.raises(FloatingPointError, match="step 0"):
        train(task, tmp_path / "line", minutes=0.02)
