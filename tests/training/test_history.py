from dataclasses import asdict

from tutorial_lib.training import History


def example() -> History:
    history = History()
    history.look(0, {"energy": 2.0})
    for step, loss in enumerate((4.0, 2.0, 1.0), start=1):
        history.loss.append(loss)
        history.seconds.append(0.1)
        if step in (2, 3):
            history.look(step, {"energy": 2.0 + step})
    return history


def test_rows_have_the_mean_loss_since_the_look_before():
    assert example().rows() == [
        {"step": 0, "loss": None, "energy": 2.0},
        {"step": 2, "loss": 3.0, "energy": 4.0},
        {"step": 3, "loss": 1.0, "energy": 5.0},
    ]


def test_smoothing_looks_back_only():
    history = example()
    assert list(history.steps) == [1, 2, 3]
    assert history.smooth(2) == [4.0, 3.0, 1.5] and history.smooth(1) == history.loss


def test_it_prints_as_a_table():
    lines = str(example()).splitlines()
    assert lines[0].split() == ["step", "loss", "energy"] and lines[1].split() == ["0", "2"]
    assert lines[2].split() == ["2", "3", "4"] and len({len(line) for line in lines}) == 1


def test_it_survives_a_file():
    assert History(**asdict(example())) == example()
