"""What `import elastune` gives, and how little it takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import elastune
from elastune import RunSpec, compare, execute, load_bundle, plan, sweep, tune_scheduler

NAMED = (RunSpec, compare, execute, load_bundle, plan, sweep, tune_scheduler)
HEAVY = ("numpy", "pandas", "scipy", "pydantic", "msgspec", "matplotlib", "rich", "typer")


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def cpu_s(program):
    """Seconds of the processor that a fresh interpreter takes, which other programs do not make longer."""
    before = os.times()
    python("-c", program)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_every_name_is_there_and_documented():
    assert all(callable(one) for one in NAMED)
    for name in elastune.__all__:
        assert getattr(elastune, name).__doc__, name
        assert name in dir(elastune)
    with pytest.raises(AttributeError, match="no attribute 'runspec'"):
        _ = elastune.runspec


def test_a_name_of_an_extra_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "elastune.experiments.huggingface_callback", raising=False)
    assert "HuggingFaceCallback" in dir(elastune)
    assert "HuggingFaceCallback" not in elastune.__all__  # else `from elastune import *` fails
    with pytest.raises(ModuleNotFoundError, match=r"elastune.HuggingFaceCallback needs .*'elastune\[huggingface\]'"):
        _ = elastune.HuggingFaceCallback


@pytest.mark.parametrize("name", ["sim", "policies", "traces", "experiments"])
def test_packages_are_attributes(name):
    assert python("-c", f"import elastune; print(elastune.{name}.__name__)") == f"elastune.{name}\n"


def test_the_import_loads_nothing_heavy_and_takes_less_than_300_ms():
    found = python("-c", f"import sys, elastune; print([name for name in {HEAVY} if name in sys.modules])")
    assert found == "[]\n"
    assert min(cpu_s("import elastune") for _ in range(3)) < 0.3


def test_python_m_elastune_is_the_command():
    assert python("-m", "elastune", "--version").startswith("elastune ")
