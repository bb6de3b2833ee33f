"""tools/environments.py without installing anything: what would be installed, how a failure is told."""

import sys

import pytest

import environments
from environments import Environment, Measured, main, python_for, requirements, run, table

LOCK = "# the lock\ntorch==2.13.0\nnumpy==2.3.1\npeft==0.21.2\n"


def test_the_locked_environment_is_this_one_and_the_others_are_files():
    known = environments.environments()
    assert list(known)[0] == "locked" and known["locked"].python == sys.executable
    colab = known["colab"]
    assert colab.wanted.exists() and colab.python.endswith(".environments/colab/bin/python")
    assert not known["locked"].kernels and colab.kernels["JUPYTER_PATH"].endswith("colab/share/jupyter")


def test_torch_comes_from_the_lock_and_nothing_else_does():
    wanted = "# Colab on Python 3.13\ntorch==2.11.0\nnumpy==2.1.3  # as it is there\n\npeft==0.20.0\ntorchmetrics\n"
    assert requirements(wanted, LOCK) == ["torch==2.13.0", "numpy==2.1.3", "peft==0.20.0", "torchmetrics"]


def test_without_the_python_that_is_asked_for_this_one_is_taken_and_that_is_said(capsys):
    assert python_for("# on Python 3.99") == sys.executable
    assert "Python 3.99 is not found here" in capsys.readouterr().out
    here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert python_for(f"# on {here}")
    assert capsys.readouterr().out == ""


def test_table_shows_each_lesson_in_each_environment_and_then_the_errors():
    found = {
        "00_start": {"locked": Measured(33.6, 1500, 2), "colab": Measured(40.2, 1400, 2)},
        "01_next": {"locked": Measured(5.1, 900, 2), "colab": "AttributeError: no such name"},
    }
    lines = table(found).splitlines()
    assert lines[0].split() == ["lesson", "locked", "colab"]
    assert lines[1].split() == ["00_start", "34", "s,", "1.5", "GB", "40", "s,", "1.4", "GB"]
    assert lines[2].split() == ["01_next", "5", "s,", "0.9", "GB", "FAILED"]
    assert lines[3] == "01_next in colab: AttributeError: no such name" and len(lines) == 4


def test_a_failing_lesson_gives_its_error_and_a_sound_one_its_measurement(course, tmp_path):
    sound = course.masters()[0]
    assert isinstance(run(Environment("locked"), sound, course.root), Measured)
    text = sound.read_text(encoding="utf-8").replace("07", "08")
    broken = tmp_path / "08_broken.py"
    broken.write_text(text + "\n# %% broken\nraise KeyError('not in this version')\n", encoding="utf-8")
    assert run(Environment("locked"), broken, course.root) == "KeyError: 'not in this version'"


@pytest.mark.parametrize(
    "arguments, told", [(["colb"], "no environment colb; there are locked, colab"), (["-l", "77"], "no lesson 77")]
)
def test_unknown_names_are_refused_before_anything_is_installed(arguments, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert told in capsys.readouterr().err
