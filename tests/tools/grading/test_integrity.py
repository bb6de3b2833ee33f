import builtins
import functools
import math

import numpy as np
import pytest
import torch
from grading.integrity import LibraryUse, Seal, taken_from_library

from tutorial_lib import sphere
from tutorial_lib.lab import checks
from tutorial_lib.lab.checks import lesson_00, lesson_01, lesson_02


def test_nothing_is_broken_by_work_as_usual():
    seal = Seal()
    for one in (lesson_00.mean_colour, lesson_01.repel, lesson_02.slerp):
        for answer in [*one.right_answers, *(answer for answer, _ in one.wrong_answers)]:
            one._judge(answer)
    np.set_printoptions(precision=4)
    torch.set_printoptions(precision=4)
    torch.manual_seed(1)
    np.random.seed(1)
    import scipy.linalg  # noqa: F401
    import skimage.metrics  # noqa: F401
    from torch.utils import checkpoint  # noqa: F401

    assert seal.broken() == []


@pytest.mark.parametrize(
    ("holder", "name", "value", "named"),
    [
        (np, "allclose", lambda *a: True, "numpy.allclose"),
        (torch, "equal", lambda *a: True, "torch.equal"),
        (torch.Tensor, "isnan", lambda self: self, "torch.Tensor.isnan"),  # new there: torch's own is inherited
        (math, "sqrt", abs, "math.sqrt"),
        (builtins, "abs", lambda x: x, "builtins.abs"),
        (lesson_00, "_case", lambda: None, "tutorial_lib.lab.checks.lesson_00._case"),
        (lesson_00, "len", lambda x: 3, "tutorial_lib.lab.checks.lesson_00.len"),
        (checks.Check, "__call__", lambda *a: None, "tutorial_lib.lab.checks.Check.__call__"),
        (checks.Mistake, "__init__", lambda *a: None, "tutorial_lib.lab.checks.Mistake.__init__"),
    ],
)
def test_what_was_replaced_is_named(monkeypatch, holder, name, value, named):
    seal = Seal()
    monkeypatch.setattr(holder, name, value, raising=False)
    broken = seal.broken()
    monkeypatch.undo()
    assert named in broken
    assert seal.broken() == []


def test_code_swapped_inside_a_function_is_named():
    seal, own = Seal(), sphere.slerp.__code__
    try:
        sphere.slerp.__code__ = (lambda a, b, t, dim=None: a).__code__
        assert seal.broken() == ["tutorial_lib.sphere.slerp"]
    finally:
        sphere.slerp.__code__ = own


# ------------------------------------------------------------------ answers by the library


def _used(answer, *arguments):
    with LibraryUse({__file__}) as use:
        answer(*arguments)
    return use.used


A, B = torch.tensor([1.0, 0.2]), torch.tensor([0.1, 1.0])


@pytest.mark.parametrize(
    "answer",
    [
        lambda a, b, t: sphere.slerp(a, b, t),
        lambda a, b, t: getattr(sphere, "sl" + "erp")(a, b, t),
        lambda a, b, t: list(map(functools.partial(sphere.slerp, t=t), [a], [b]))[0],
        lambda a, b, t: torch.func.grad(lambda x: sphere.slerp(x, b, t).sum())(a),
    ],
)
def test_a_call_of_the_library_is_seen(answer):
    assert _used(answer, A, B, 0.3) == {"sphere.slerp"}  # and not sphere._unit, which slerp calls for itself


def test_what_the_library_calls_for_itself_is_not_the_students_doing():
    with LibraryUse({"<a student's file>"}) as use:
        sphere.slerp(A, B, 0.3)
    assert use.used == set()


def test_things_that_a_check_hands_over_may_be_called():
    model = lesson_02._Model()
    with LibraryUse({__file__}) as use:
        model.__class__.__init__(model)
    assert use.used == set()


def test_importing_the_library_is_no_use_of_it():
    def answer():
        import tutorial_lib.oft  # noqa: F401

        return 3

    assert _used(answer) == set()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (sphere.slerp, {"sphere.slerp"}),
        (functools.partial(sphere.slerp, t=0.5), {"sphere.slerp"}),
        (lesson_00.mean_colour.right_answers[0], {"lab.checks.lesson_00._by_division"}),
        (type("Mine", (checks.Check,), {}), {"lab.checks.Check"}),
        (lambda a: a, set()),
        (3, set()),
        (torch.lerp, set()),
    ],
)
def test_an_answer_that_is_the_librarys(answer, named):
    assert taken_from_library(answer) == named
