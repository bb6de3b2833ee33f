"""pyproject.toml (ranges), requirements.lock (pins) and environment.yml (conda) describe one environment."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PINS = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCK = {canonicalize_name(Requirement(line).name): Requirement(line) for line in PINS}
DEPENDENCIES = [
    Requirement(text)
    for text in PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
    if not text.startswith(PROJECT["name"])
]
COLAB = {
    requirement.name: requirement
    for line in (ROOT / "environments" / "colab.txt").read_text().splitlines()
    if line and not line.startswith("#") and (requirement := Requirement(line)).specifier
}
CUDA = (
    "nvidia-",
    "cuda-",
    "triton",
)  # what torch brings along where its build is for a GPU; its own versions, not ours
HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "skimage")


def pinned(name):
    """The version of a package in the lock."""
    return str(LOCK[canonicalize_name(name)].specifier).removeprefix("==")


def needed_by(package, extras=()):
    """What an installed package needs here, with the given extras: (name, extras) of each."""
    environments = [{"extra": extra} for extra in ("", *extras)]
    wanted = map(Requirement, requires(package) or [])
    return [
        (canonicalize_name(need.name), tuple(sorted(need.extras)))
        for need in wanted
        if need.marker is None or any(need.marker.evaluate(environment) for environment in environments)
    ]


def closure(todo):
    """All packages that those in `todo` need, directly or not; a package that is not installed needs nothing."""
    seen = set()
    while todo:
        package = todo.pop()
        if package not in seen:
            seen.add(package)
            try:
                todo += needed_by(*package)
            except PackageNotFoundError:
                continue
    return {name for name, extras in seen if not name.startswith(CUDA)}


def for_this_machine(pin):
    return pin.marker is None or pin.marker.evaluate()


def test_lock_has_plain_pins_only():
    plain = re.compile(r'[\w.-]+==[\w.]+( ; (sys_platform|python_version) [=!<>]+ "[\w.]+")?')
    assert [line for line in PINS if not plain.fullmatch(line)] == []


def test_lock_names_torch_first_and_the_rest_in_order():
    names = list(LOCK)
    assert len(names) == len(PINS)
    assert names[0] == "torch"
    assert names[1:] == sorted(names[1:])


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda dependency: dependency.name)
def test_dependency_is_pinned_within_its_range(dependency):
    assert dependency.specifier.contains(pinned(dependency.name))
    assert LOCK[canonicalize_name(dependency.name)].marker is None


def test_lock_is_complete_and_has_nothing_that_nobody_needs():
    roots = {(canonicalize_name(dependency.name), tuple(dependency.extras)) for dependency in DEPENDENCIES}
    build = {("setuptools", ())}
    needed = closure(list(roots | build))
    assert needed == {name for name, pin in LOCK.items() if for_this_machine(pin)}


@pytest.mark.parametrize("name", [d.name for d in DEPENDENCIES if d.name in COLAB])
def test_colab_keeps_its_own(name):
    ranges = {dependency.name: dependency.specifier for dependency in DEPENDENCIES}
    (exact,) = COLAB[name].specifier
    assert exact.operator == "==" and ranges[name].contains(exact.version)


def test_what_colab_has_includes_the_packages_that_methods_stand_on():
    assert {"torch", "transformers", "diffusers", "peft", "accelerate", "numpy", "ipywidgets"} <= set(COLAB)


def test_lower_bound_of_python_is_the_makefiles():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"sys.version_info < ({lowest.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


def test_conda_takes_a_python_in_range_and_everything_else_from_the_lock():
    python, *rest = CONDA["dependencies"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert rest == ["pip", {"pip": ["--requirement requirements.lock", "--editable ."]}]
    assert CONDA["name"] == PROJECT["name"]


def test_import_of_the_library_is_light():
    code = f"import sys, tutorial_lib; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert loaded.split() == []
