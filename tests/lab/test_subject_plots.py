import io

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.lab import subject_plots
from tutorial_lib.lab.plots import Shown
from tutorial_lib.lab.subject_runs import BASE, METHODS


def a_run(part, method, subject, seed, rate=0.01):
    rng = np.random.default_rng([seed, len(method), len(subject)])
    steps = {"long": [0, 20, 40, 80, 160], "main": [0, 20, 40]}.get(part, [0, 40]) if method != BASE else [0]
    run = {"part": part, "method": method, "subject": subject, "seed": float(seed), "rate": rate}
    for name in ("subject_similarity", "context", "others", "class_fidelity"):
        run[name] = float(rng.random())
    return (
        run
        | {"looks": np.array(steps, float)}
        | {f"{name}_at": rng.random(len(steps)) for name in ("similarity", "context", "others")}
    )


@pytest.fixture
def runs():
    main = [a_run("main", m, s, k) for m in (BASE, *METHODS) for s in ("mug", "cat") for k in (0, 1)]
    search = [a_run("search", m, "ball", 0, rate) for m in METHODS for rate in (0.001, 0.01, 0.1)]
    return main + search + [a_run("long", m, "mug", 0) for m in METHODS]


def is_picture(shown) -> bool:
    picture = Image.open(io.BytesIO(shown.png))
    return isinstance(shown, Shown) and len(shown.alt) > 30 and picture.getextrema() != ((255, 255),) * 4


def test_every_figure_is_drawn_with_words_for_it(runs):
    main = [run for run in runs if run["part"] == "main"]
    for shown in (
        subject_plots.search(runs),
        subject_plots.curves(main, real=0.9),
        subject_plots.long_runs(runs),
        subject_plots.frontier(main, real=0.9),
        subject_plots.weights_while_training({"OFT": ([0, 5], [0.0, 0.1], [0.0, 1e-8]), "full": ([0], [0], [0])}),
    ):
        assert is_picture(shown)


def test_methods_are_told_apart_by_colour_and_by_marker():
    assert list(subject_plots.LOOKS) == [BASE, *METHODS]
    colours, markers, lines = zip(*subject_plots.LOOKS.values())
    assert len(set(colours)) == len(set(markers)) == len(METHODS) + 1
    assert len({str(line) for line in lines[1:]}) == len(METHODS)


def test_the_score_is_that_of_the_benchmark():
    import subject_driven

    run = a_run("main", "OFT", "mug", 3)
    row = type("Row", (), run)()
    assert subject_plots.score(run) == subject_driven.Row.score.fget(row)
    assert set(METHODS) == set(subject_driven.METHODS) and subject_driven.BASE == BASE
