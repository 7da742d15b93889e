from __future__ import annotations

import math
import os
import re
from dataclasses import replace

import pytest
from tidy_tables import TIDY

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers import from_table

NAN = math.nan


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"lauch_s": 3}, r"toy/bundle.yaml, column lauch_s: is unknown; did you mean 'launch_s'"),
        ({"max_iterations": 3}, r"--set max_iterations: follows from the import itself"),
        ({"straggler": {"cv": 1}}, r"toy/bundle.yaml, column straggler: Object contains unknown field"),
        ({"provenance": "mine"}, r"--set provenance: is 'mine', but must hold keys"),
        (
            {"provenance": {"curves": "guessed"}},
            r"column provenance.curves: is 'guessed', but must begin with measured",
        ),
        ({"scaling": "resnet5-v100"}, r"toy/bundle.yaml, column scaling: there is no scaling .*resnet50-v100"),
    ],
)
def test_a_wrong_key_is_refused_and_nothing_is_left_behind(write, out, described, others, message):
    with pytest.raises(InputError, match=message):
        from_table(write(TIDY), out, replace(described, others=others))
    assert not out.exists()
    assert not out.parent.exists() or not os.listdir(out.parent)  # noqa: PTH208  hidden ones too


def test_what_is_there_is_replaced_only_if_asked(write, out, described):
    first = from_table(write(TIDY), out, described)
    with pytest.raises(InputError, match=re.escape(f"{out} is already there: choose another folder, or replace")):
        from_table(write(TIDY), out, described)
    second = from_table(write(TIDY), out, replace(described, name="other"), overwrite=True)
    assert (first.name, traces.load_bundle(out).name) == ("toy", "other")
    assert second.sha256 == traces.load_bundle(out).sha256
    assert [path.name for path in out.parent.iterdir()] == ["toy"]


def test_a_folder_that_holds_more_than_a_bundle_is_not_replaced(write, out, described):
    from_table(write(TIDY), out, described)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds more than a bundle \(thesis.tex\), so it is not replaced"):
        from_table(write(TIDY), out, described, overwrite=True)
    assert (out / "thesis.tex").exists()


def test_a_bundle_stays_when_what_should_replace_it_is_invalid(write, out, described):
    from_table(write(TIDY), out, described)
    with pytest.raises(InvalidTraceError, match="lauch_s"):
        from_table(write(TIDY), out, replace(described, others={"lauch_s": 1}), overwrite=True)
    assert traces.load_bundle(out).name == "toy"
    assert [path.name for path in out.parent.iterdir()] == ["toy"]


def test_an_empty_folder_is_written_into(write, out, described):
    out.mkdir(parents=True)
    assert from_table(write(TIDY), out, described).trials == 2
