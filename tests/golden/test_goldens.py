"""Equal specs give equal numbers for as long as RESULTS_VERSION stays the same."""

from __future__ import annotations

import json

import goldens
import pytest

from elastune.experiments.results_version import HISTORY, RESULTS_VERSION


@pytest.mark.many(fast=8)
@pytest.mark.parametrize(("section", "name"), goldens.CASES)
def test_results_are_as_recorded(section, name):
    now, then = goldens.measured(section, name), goldens.recorded()
    if then["results_version"] != RESULTS_VERSION:
        pytest.fail(f"recorded under results version {then['results_version']}: run `{goldens.COMMAND}`")
    differing = goldens.changed(section, name, now, then)
    if differing:
        told = "\n".join(differing[:5])
        pytest.fail(f"{told}\nResults change, but RESULTS_VERSION is still {RESULTS_VERSION}.{goldens.HOW_TO}")
    assert now.keys() == then[section].get(name, {}).keys(), f"not recorded: run `{goldens.COMMAND}`"


def test_numbers_that_change_under_one_version_are_told_and_not_recorded(tmp_path, monkeypatch):
    file = tmp_path / "goldens.json"
    monkeypatch.setattr(goldens, "FILE", file)
    monkeypatch.setattr(goldens, "CASES", [("plans", "one stage")])
    goldens.main()
    written = file.read_text()
    goldens.main()
    assert file.read_text() == written
    key, (cost_usd, *others) = next(iter(json.loads(written)["plans"]["one stage"].items()))
    changed = written.replace(f"{cost_usd}", f"{cost_usd * 1.001}")
    file.write_text(changed)
    with pytest.raises(
        SystemExit, match=rf"numbers change under results version {RESULTS_VERSION}\.\n(.|\n)*raise RESULTS_VERSION"
    ) as told:
        goldens.main()
    assert (
        f"plans, one stage, {key}: {[cost_usd * 1.001, *others]} was recorded, {[cost_usd, *others]} came out"
        in str(told.value)
    )
    assert file.read_text() == changed
    now, then = RESULTS_VERSION, RESULTS_VERSION + 1
    monkeypatch.setattr(goldens, "RESULTS_VERSION", then)
    goldens.main()
    assert file.read_text() == written.replace(f'"results_version": {now}', f'"results_version": {then}')


def test_the_history_tells_of_every_version():
    assert list(HISTORY) == list(range(1, RESULTS_VERSION + 1))
    assert all(HISTORY.values())
