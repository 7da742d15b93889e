"""What people see of results in Python: short words, tables and pictures, and examples that hold."""

from __future__ import annotations

import doctest
import importlib
import re
from dataclasses import replace

import pytest

from elastune import Cloud, Job, Policy, RunSpec, Workload, compare, execute, load_bundle, plan
from elastune.sim.model.errors import InputError
from elastune.traces.formats.html_table import pairs_html, table_html

SECTIONS = {
    "job": {"trials": 8, "max_iterations": 9, "deadline_s": 900, "budget_usd": 10},
    "workload": {"bundle": "mnist5k-cnn", "scaling": "bert-a100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 10},
}
CODE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def result():
    return execute(RunSpec.of(**SECTIONS, policy="seer"), record_trajectory=True)


@pytest.fixture(scope="module")
def comparison():
    return compare(RunSpec.of(**SECTIONS, policy="seer"), ["seer", "sha-fixed"], seeds=2, jobs=1)


@pytest.fixture(scope="module")
def plans():
    return plan(RunSpec.of(**SECTIONS, policy="seer"))


def test_a_spec_of_typed_sections_is_the_spec_of_mappings():
    typed = RunSpec(
        job=Job(**SECTIONS["job"]),
        workload=Workload(**SECTIONS["workload"]),
        cloud=Cloud(**SECTIONS["cloud"]),
        policy=Policy(name="seer"),
    )
    assert typed.digest() == RunSpec.of(**SECTIONS, policy="seer").digest()


def test_objects_say_on_one_line_what_they_are(result, comparison, plans):
    assert repr(result) == (
        f"<RunResult seer, seed 0: score {result.score:.4g}, {result.cost_usd:.2f} USD, {result.makespan_s:,.0f} s>"
    )
    assert repr(comparison) == "<Comparison of seer, sha-fixed on 2 seeds>"
    assert re.fullmatch(r"<Plans: \d+ efficient ones, the cheapest within the limits takes .*>", repr(plans))
    bundle = load_bundle("mnist5k-cnn")
    assert repr(bundle) == f"<Bundle mnist5k-cnn: {bundle.trials} configurations, 27 iterations, {bundle.score}>"


@pytest.mark.slow
def test_notebooks_show_a_table_and_a_picture(result, comparison, plans):
    for one in (result, comparison, plans):
        assert one._repr_html_().startswith("<table>")
        assert one._repr_html_().count('<img src="data:image/png;base64,') == 1
    assert "<img" not in replace(result, recording=None)._repr_html_()
    assert "<th style='text-align:left'>licence</th>" in load_bundle("mnist5k-cnn")._repr_html_()


def test_text_in_what_notebooks_show_is_escaped(result):
    assert CODE not in replace(result, policy=CODE, recording=None)._repr_html_()
    assert CODE not in pairs_html(CODE, {CODE: CODE})
    assert CODE not in table_html(CODE, [CODE], [[CODE, CODE]])


def test_results_draw_themselves(result, comparison, plans):
    [drawn] = result.plot_gantt(color="trial", deadline_s=900).axes[:1]
    assert drawn.get_xlabel() == "time (min)"
    labels = [text.get_text() for text in comparison.plot_cost().legends[0].get_texts()]
    assert labels == ["seer", "sha-fixed"]
    assert plans.plot_frontier().axes[0].get_ylabel() == "cost (USD)"
    with pytest.raises(InputError, match="record_trajectory=True"):
        replace(result, recording=None).plot_gantt()
    with pytest.raises(InputError, match="no run of the comparison is done"):
        replace(comparison, results=comparison.results.assign(status="failed")).plot_cost()


@pytest.mark.parametrize("module", ["runs.result", "comparisons.comparison", "plans.planning"])
def test_examples_in_docstrings_hold(module):
    found = doctest.testmod(importlib.import_module(f"elastune.experiments.{module}"))
    assert found.attempted > 1
    assert found.failed == 0
