import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tutorial_lib import training
from tutorial_lib.training import checkpoint

TINY = Path(__file__).with_name("tiny.py")


def _tiny():
    spec = importlib.util.spec_from_file_location("tiny", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TinyTask = _tiny().TinyTask


def fit(task, steps=12, lr=1e-2, batch_size=3, **options):
    return training.fit(task, steps, lr, batch_size, progress=False, **options)


# ------------------------------------------------------------------ what a run does


def test_it_learns_and_tells_what_happened():
    task, seen = TinyTask(), []
    start = task.watch()["norm"]

    def callback(step, history):
        assert len(history.loss) == step and not task.module.training
        seen.append(step)

    history = fit(task, steps=205, batch_size=4, every=50, callback=callback)
    assert seen == history.watched_at == [0, 50, 100, 150, 200, 205]
    assert list(history.steps) == list(range(1, 206)) and len(history.seconds) == 205
    assert history.watched["norm"][0] == start and history.watched["norm"][-1] == task.watch()["norm"]
    assert sum(history.loss[-50:]) < 0.3 * sum(history.loss[:50])
    assert not task.module.training


def test_all_randomness_comes_from_the_seed():
    first, again, other = TinyTask(), TinyTask(), TinyTask()
    torch.manual_seed(1)
    fit(first, seed=5)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    fit(again, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)  # and the user's own generator is left alone
    fit(other, seed=6)
    assert first.weights() == again.weights() != other.weights()


def test_each_pass_shows_every_sample_once_in_another_order():
    task = TinyTask(length=7)
    fit(task, steps=7, batch_size=3)
    passes = [[s.index for s in task.drawn if s.visit == visit] for visit in range(3)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) > 1


def test_two_small_batches_are_one_large_batch():
    whole, halves = TinyTask(dropout=0.0), TinyTask(dropout=0.0)
    one = fit(whole, batch_size=6)
    two = fit(halves, batch_size=3, accumulation=2)
    assert whole.drawn == halves.drawn
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    assert halves.weights() == pytest.approx(whole.weights(), abs=1e-5)


def test_two_processes_are_one_with_twice_the_accumulation():
    options = {"steps": 6, "lr": 1e-2, "batch_size": 2}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]  # or two CPUs
    command += ["--num_machines=1", "--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"]
    command += [str(TINY), json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    ends = [json.loads(text) for text in re.findall(r"{.*?}", run.stdout)]
    assert len(ends) == 2 and ends[0] == ends[1]
    assert run.stdout.count("step 3") == 1  # one process speaks
    alone = TinyTask()
    history = fit(alone, **options, accumulation=2)
    assert ends[0]["weights"] == pytest.approx(alone.weights(), abs=1e-5)
    assert ends[0]["loss"] == pytest.approx(history.loss, rel=1e-5)


def test_the_learning_rate_warms_up_and_the_gradient_is_clipped():
    def change(**options):
        task = TinyTask()
        before = torch.tensor(task.weights())
        fit(task, steps=1, lr=0.1, weight_decay=0.0, **options)
        return (torch.tensor(task.weights()) - before).abs().max().item()

    assert change() == pytest.approx(0.1, rel=1e-3)  # AdamW's first step is the learning rate, whatever the gradient
    assert change(warmup=4) == pytest.approx(0.025, rel=1e-3)
    assert change(clip=1e-12) < 1e-4  # far below AdamW's epsilon
    assert change(clip=None) == pytest.approx(0.1, rel=1e-3)


def test_looks_and_the_end_see_the_average_of_the_weights_on_the_way():
    def way(task, **options):
        seen = []
        history = fit(task, steps=30, every=1, callback=lambda *_: seen.append(torch.tensor(task.weights())), **options)
        return seen, history.loss

    task = TinyTask()
    weights, losses = way(TinyTask())
    averages, losses_of_averaged = way(task, ema=0.9)
    assert losses_of_averaged == losses, "a look leaves the weights that train as they are, bit for bit"
    average = weights[0]
    for step, (now, seen) in enumerate(zip(weights[1:], averages[1:], strict=True)):
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        average = decay * average + (1 - decay) * now
        assert torch.allclose(seen, average, atol=1e-6)
    assert torch.equal(torch.tensor(task.weights()), averages[-1])
    assert not torch.allclose(average, weights[-1], atol=1e-3)


def test_half_precision_computes_in_half_and_keeps_the_weights_whole():
    half, whole = TinyTask(), TinyTask()
    fit(half, precision="bf16")
    fit(whole)  # a run may have another precision than the one before
    assert half.weights() != whole.weights()
    assert half.weights() == pytest.approx(whole.weights(), abs=0.05)
    assert all(p.dtype == torch.float32 for p in half.parameters().values())


def test_the_bar_shows_the_loss_and_what_is_watched(capsys):
    training.fit(TinyTask(), 3, 1e-2, 2, every=1)
    err = capsys.readouterr().err
    assert "3/3" in err and "loss " in err and "norm " in err


# ------------------------------------------------------------------ killed and gone on with


@pytest.fixture(scope="module")
def straight():
    """A run that nothing interrupts."""
    task = TinyTask()
    return task, fit(task, ema=0.9, warmup=4)


@pytest.mark.parametrize("killed_at", [1, 4, 5, 11, 12])
def test_an_interrupted_run_ends_in_the_same_weights_bit_for_bit(killed_at, straight, tmp_path):
    options = {"ema": 0.9, "warmup": 4, "folder": tmp_path, "save_every": 2, "every": 3}

    class Interrupt(TinyTask):
        def batch(self, samples):
            if len(self.drawn) == 3 * killed_at:
                raise KeyboardInterrupt
            return super().batch(samples)

    if killed_at < 12:
        with pytest.raises(KeyboardInterrupt):
            fit(Interrupt(), **options)
    else:
        fit(TinyTask(), **options)  # killed when all was done
    task = TinyTask()
    history = fit(task, **options)
    assert task.weights() == straight[0].weights()
    assert history.loss == straight[1].loss and len(history.seconds) == 12
    assert history.watched_at == [0, 3, 6, 9, 12]
    saved = 12 if killed_at == 12 else 2 * ((killed_at - 1) // 2)  # what the next loss showed to be good
    assert len(task.drawn) == 3 * (12 - saved)  # the rest is done again, and no more


def test_killed_processes_end_in_the_same_weights_bit_for_bit(tmp_path):
    options = {"steps": 25, "lr": 1e-2, "batch_size": 2, "save_every": 1}
    reference = TinyTask()
    expected = fit(reference, **options)
    command = [sys.executable, str(TINY), json.dumps(options | {"folder": str(tmp_path)})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    chance = random.Random(time.time_ns())
    for _ in range(2):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(chance.randint(1, 10)):
            child.stdout.readline()
        time.sleep(chance.random() * 0.02)  # in the middle of a step, or of writing a checkpoint
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    end = json.loads(done.stdout.splitlines()[-1])
    assert "step 0\n" not in done.stdout  # it went on, it did not begin anew
    assert end["weights"] == reference.weights() and end["loss"] == expected.loss


def test_a_finished_run_is_read_and_a_longer_one_goes_on_from_it(tmp_path):
    fit(TinyTask(), steps=8, folder=tmp_path)
    again, longer, straight = TinyTask(), TinyTask(), TinyTask()
    assert fit(again, steps=8, folder=tmp_path).watched_at[-1] == 8
    assert again.drawn == []
    fit(longer, steps=12, folder=tmp_path)
    fit(straight, steps=12)
    assert longer.weights() == straight.weights()
    with pytest.raises(ValueError, match="stands at step 12, beyond the 8 steps"):
        fit(TinyTask(), steps=8, folder=tmp_path)


def test_another_run_does_not_go_on_from_the_checkpoint(tmp_path):
    fit(TinyTask(), steps=2, folder=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    other = TinyTask(length=9)
    start = other.weights()
    with pytest.raises(ValueError, match="(?s)checkpoint of another run.*lr: 0.01 there, 0.02 now.*data: "):
        fit(other, steps=2, lr=0.02, folder=tmp_path)
    assert other.weights() == start
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


# ------------------------------------------------------------------ losses that are not finite


def test_a_loss_that_is_not_finite_names_step_and_samples(tmp_path):
    task = TinyTask(broken=4, length=20)
    position = next(p for p in range(20) if training.sample_at(0, 20, p).index == 4)
    step = position // 6 + 1
    part = [training.sample_at(0, 20, 6 * (step - 1) + 3 * (position % 6 // 3) + k).index for k in range(3)]
    message = rf"loss is not finite at step {step}, on the samples \[{', '.join(map(str, part))}\]"
    with pytest.raises(FloatingPointError, match=message):
        fit(task, accumulation=2, folder=tmp_path, save_every=1)
    kept = checkpoint.read(tmp_path / "checkpoint.pt") if step > 2 else None
    assert kept is None or kept["step"] == step - 2  # the last one that the next loss showed to be good
    healed, straight = TinyTask(length=20), TinyTask(length=20)
    fit(healed, accumulation=2, folder=tmp_path, save_every=1)
    fit(straight, accumulation=2)
    assert healed.weights() == straight.weights()


def test_weights_that_ran_away_are_not_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="below 1e[+]25"):
        fit(TinyTask(), lr=1e25, folder=tmp_path, save_every=1, weight_decay=0.0)
    assert not (tmp_path / "checkpoint.pt").exists()

    class Edge(TinyTask):
        """One weight at the edge of float32; the last step takes it over."""

        weight = torch.nn.Parameter(torch.tensor([3.4e38]))

        def parameters(self):
            return {"weight": self.weight}

        def loss(self, batch):
            return -self.weight.sum()

    with pytest.raises(FloatingPointError, match="not finite after step 1"):
        fit(Edge(), steps=1, lr=3e37, weight_decay=0.0, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_gradient_that_is_not_finite_changes_no_weight():
    class Steep(TinyTask):
        def loss(self, batch):
            first = self.module[0].weight
            return super().loss(batch) + (first * 0).abs().sqrt().sum()  # 0, with an infinite slope

    task = Steep()
    start = task.weights()
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1, on the samples"):
        fit(task)
    assert task.weights() == start and all(p.grad is None for p in task.parameters().values())


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": float("nan")}, "lr: expected a positive learning rate .* got nan"),
        ({"lr": -1e-4}, "lr: expected a positive"),
        ({"lr": "1e-4"}, "lr: expected a positive"),
        ({"steps": 0}, "steps: expected a whole number, 1 or more, got 0"),
        ({"steps": 2.5}, "steps: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"accumulation": -1}, "accumulation: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"warmup": -1}, "warmup: expected"),
        ({"weight_decay": float("inf")}, "weight_decay: expected"),
        ({"clip": 0.0}, "clip: expected a positive gradient norm, or None"),
        ({"ema": 1.5}, "ema: expected"),
        ({"every": 0}, "every: expected"),
        ({"save_every": 0}, "save_every: expected"),
        ({"precision": "half"}, 'precision: expected "no", "bf16" or "fp16"'),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"tracker": "tensorboard"}, "needs a folder for its logs"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ValueError, match=message):
        fit(TinyTask(), **options)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        fit(TinyTask(), tracker="tensorboard", folder=tmp_path)


def test_tasks_that_cannot_be_trained_are_refused():
    nothing, frozen, half, apart = TinyTask(), TinyTask(), TinyTask(), TinyTask()
    nothing.parameters = dict
    frozen.module[0].requires_grad_(False)
    half.module.half()
    apart.loss = lambda batch: batch[0].sum()
    for task, message in [
        (nothing, "no parameters to train"),
        (frozen, "frozen: 0.weight, 0.bias"),
        (half, "half precision.*: 0.weight, 0.bias, 3.weight and 1 more"),
        (apart, "does not depend on the parameters"),
        (TinyTask(length=0), "no samples"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(task)


def test_importing_it_imports_no_model_library():
    code = (
        "import sys\n"
        "from tutorial_lib import pictures, training\n"
        "print([name for name in ('accelerate', 'diffusers', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
