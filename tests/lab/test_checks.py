"""Every check of every lesson: wrong answers get their own diagnosis, right ones pass, nothing raises."""

import importlib
import pkgutil

import numpy as np
import pytest
import torch

from tutorial_lib.lab import checks
from tutorial_lib.lab.checks import Check, Mistake, check


def _all_checks():
    for module in pkgutil.iter_modules(checks.__path__, checks.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Check):
                yield pytest.param(value, id=f"{module.name[-2:]}-{value.name}")


every_check = pytest.mark.parametrize("one", list(_all_checks()))


@pytest.fixture(autouse=True)
def lenient(monkeypatch):
    monkeypatch.delenv("TUTORIAL_STRICT", raising=False)


@every_check
def test_each_wrong_answer_gets_its_own_diagnosis(one):
    assert len(one.wrong_answers) >= 4, "list the wrong answers that students really give"
    messages = {answer.__name__: one(answer) for answer, _ in one.wrong_answers}
    for answer, phrase in one.wrong_answers:
        verdict = messages[answer.__name__]
        assert verdict.state == "wrong", f"{answer.__name__} passed"
        assert phrase in verdict.message, f"{answer.__name__}: {verdict.message}"
        assert "torch.Size" not in verdict.message, "a shape is written as a tuple"
        others = [name for name, other in messages.items() if phrase in other.message and name != answer.__name__]
        assert not others, f"{phrase!r} is also said of {others}"


@every_check
def test_right_answers_pass(one):
    assert one.right_answers, "list a right answer that is written in another way than the solution"
    for answer in one.right_answers:
        assert one(answer).state == "right", f"{answer.__name__}: {one(answer).message}"


@every_check
def test_an_answer_that_is_no_answer_never_raises(one):
    for answer in (None, 3, "text", lambda *_, **__: None, lambda *_, **__: "text", lambda *_, **__: object(), dict):
        assert one(answer).state == "wrong"


@every_check
def test_a_stub_is_to_do(one):
    def stub(*arguments, **named):
        raise NotImplementedError

    assert one(stub).state == "to do"


# ------------------------------------------------------------------ the machinery itself


@check
def double(answer):
    """Twice the number."""
    if answer(3) == 9:
        raise Mistake("You squared it.")
    if answer(3) + 0 != 6:
        raise Mistake("Expected 6.")


def test_strict_mode_raises_for_wrong_and_for_to_do(monkeypatch):
    def to_do(x):
        raise NotImplementedError

    monkeypatch.setenv("TUTORIAL_STRICT", "1")
    assert double(lambda x: 2 * x).state == "right"
    with pytest.raises(AssertionError, match="squared"):
        double(lambda x: x * x)
    with pytest.raises(AssertionError, match="To do"):
        double(to_do)


def test_an_error_in_the_answer_is_told_with_its_line():
    def crashes(x):
        return x / 0

    message = double(crashes).message
    assert "ZeroDivisionError" in message and "return x / 0" in message


def test_an_unusable_result_is_not_blamed_on_a_line_of_the_student():
    verdict = double(lambda x: "six")
    assert verdict.state == "wrong" and "what your code returned" in verdict.message


def test_not_implemented_inside_a_library_is_an_error_and_not_to_do():
    class Library:
        def __getattr__(self, name):
            exec(compile("raise NotImplementedError('no such kernel')", "library.py", "exec"))

    assert double(lambda x: Library().kernel).state == "wrong"


def test_an_answer_that_writes_into_its_input_is_told_which_and_the_check_keeps_its_own():
    numbers, rows, named = torch.ones(3), [[3, 1, 2]], {"a": np.zeros(2)}

    @check
    def total(answer):
        """Sums."""
        answer(numbers, rows, named=named)

    def halves(x, lists, named):
        x /= 2
        return x

    def sorts(x, lists, named):
        lists[0].sort()

    def sets(x, lists, named):
        named["a"][0] = 1

    def replaces(x, lists, named):
        named["a"] = np.ones(2)

    for answer, name in ((halves, "x"), (sorts, "lists"), (sets, "named"), (replaces, "named")):
        assert f"changed its input {name} in place" in total(answer).message
    assert total(lambda x, lists, named: x + 1).state == "right"
    assert (numbers == 1).all() and rows == [[3, 1, 2]] and not named["a"].any()


def test_what_an_answer_is_given_keeps_its_gradient_and_other_things_are_the_very_same():
    leaf, thing = torch.tensor([2.0, float("nan")], requires_grad=True), object()

    @check
    def twice(answer):
        """Twice."""
        result, other = answer(leaf, thing, 3)
        assert other is thing and torch.autograd.grad(result, leaf)[0][0] == 3

    assert twice(lambda x, one, *more: (more[0] * x[0], one)).state == "right"  # NaN is no change


def test_classes_can_be_answers():
    @check
    def counter(answer):
        """Counts."""
        if answer().next() != 1:
            raise Mistake("Start with 1.")

    class Stub:
        def next(self) -> int:
            raise NotImplementedError

    class Right:
        def next(self) -> int:
            return 1

    assert counter(Stub).state == "to do"
    assert counter(Right).state == "right"


def test_a_called_answer_is_explained():
    assert "without calling it" in double(6).message


def test_verdict_is_shown_as_text_and_as_safe_html_and_recorded():
    data, metadata = double(lambda x: "<b>")._repr_mimebundle_()
    assert data["text/plain"].startswith("✗ Not yet.")
    shown, _ = checks.Verdict("double", "wrong", "a <b> c")._repr_mimebundle_()
    assert "a &lt;b&gt; c" in shown["text/html"]
    assert metadata["course"] == {"check": "double", "state": "wrong"}
