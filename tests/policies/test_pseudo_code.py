"""The pseudo-code that readers start with names functions that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from elastune import policies
from elastune.policies.registry import all_entries

FOLDER = Path(policies.__file__).parent
ROOMS = ("rules", "planning", "execution", "sizing", "seer", "explore_finish", "tuners")
NAME = re.compile(rf"\b((?:{'|'.join(ROOMS)})\.\w+\.[\w.]+)")
README = (FOLDER / "seer" / "README.md").read_text(encoding="utf-8")
OUR_README = (FOLDER / "explore_finish" / "README.md").read_text(encoding="utf-8")
MODULES = ("rubberband", "sha", "asha", "hyperband", "hypersched")


def blocks(text):
    return [block.strip("\n").splitlines() for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)]


def pseudo_code(module):
    """The indented lines of a module's docstring."""
    doc = importlib.import_module(f"elastune.policies.tuners.{module}").__doc__
    return [line for line in doc.splitlines() if line.startswith("    ")]


def resolved(name):
    room, module, *attributes = name.rstrip(".").split(".")
    found = importlib.import_module(f"elastune.policies.{room}.{module}")
    for attribute in attributes:
        found = getattr(found, attribute)
    return found


def test_seer_is_told_in_twenty_lines_that_each_name_their_function():
    first, second = blocks(README)
    assert len(first) <= 20
    for line in (*first, *second):
        assert NAME.search(line), f"no function is named: {line}"


def test_our_policy_is_told_in_twenty_lines():
    (lines,) = blocks(OUR_README)
    assert len(lines) <= 20
    assert len(NAME.findall("\n".join(lines))) >= len(lines) // 2


@pytest.mark.parametrize("name", sorted(set(NAME.findall(README + OUR_README))))
def test_what_the_readmes_of_policies_name_exists(name):
    assert callable(resolved(name))


@pytest.mark.parametrize("module", MODULES)
def test_what_the_pseudo_code_of_a_rule_names_exists(module):
    lines = pseudo_code(module)
    names = NAME.findall("\n".join(lines))
    assert 3 <= len(lines) <= 20
    assert len(names) >= len(lines) // 2
    assert all(callable(resolved(name)) for name in names)


def test_a_name_that_does_not_exist_is_noticed():
    with pytest.raises(AttributeError):
        resolved("seer.seer.worst_plan")


@pytest.mark.parametrize("name", all_entries())
def test_each_policy_says_where_it_departs_from_its_paper(name):
    build = all_entries()[name].build
    doc = build.__doc__ or ""
    described = doc if "Deviations:" in doc else (resolved_return(build).__doc__ or "")
    assert "Deviations:" in described


def resolved_return(build):
    """The class that a factory returns, where its docstring describes the policy."""
    module = importlib.import_module(build.__module__)
    return getattr(module, build.__annotations__["return"])
