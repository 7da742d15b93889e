from __future__ import annotations

import hashlib
import math
import shutil
import sqlite3
import sys
from dataclasses import replace

import numpy as np
import pytest

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers import CurveRules, from_optuna, study_names

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")

NAN = math.nan
DROP = CurveRules(incomplete="drop")


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["optuna.db", "optuna.log"])
def storage(request, fixtures):
    """A storage that Optuna wrote; record_optuna.py says what is in it."""
    return fixtures / request.param


@pytest.fixture
def undirected(described):
    """A description that leaves the direction to the study."""
    return replace(described, direction=None, score=None, iteration=None)


def test_a_study_becomes_a_bundle(storage, out, undirected):
    bundle = from_optuna(storage, out, undirected, study_name="toy", rules=DROP)
    expected = [[(number + 1) / epoch for epoch in (1, 2, 3, 4)] for number in (0, 1, 3, 4, 5, 6)]
    expected[3][2:] = [NAN, NAN]
    np.testing.assert_array_equal(bundle.scores, expected)
    assert bundle.configurations[:2] == [
        {"lr": 1.0, "layers": 1, "optimizer": "sgd"},
        {"lr": 0.1, "layers": 2, "optimizer": "adam"},
    ]
    assert bundle.configurations[4] == {"lr": 0.1, "layers": 6, "optimizer": None}
    assert (bundle.direction, bundle.score, bundle.iteration) == ("minimize", "intermediate value", "one step")
    noted = bundle.notes["imported"]
    assert noted["trials_by_state"] == {"COMPLETE": 5, "PRUNED": 1, "FAIL": 1}
    assert noted["trials_dropped_as_incomplete"] == ["2"]
    assert (out / "configs.csv").read_text().splitlines()[3].startswith("3,")


def test_an_iterations_cost_is_the_trials_duration_over_its_iterations(storage, out, undirected):
    bundle = from_optuna(storage, out, undirected, study_name="toy", rules=DROP)
    # Trial n took 10 s x (n + 1) per iteration; the mean of 1, 2, 4, 5, 6 and 7 is 25 / 6.
    assert bundle.iteration_s == pytest.approx(250 / 6)
    np.testing.assert_allclose(bundle.relative_cost, np.array([1, 2, 4, 5, 6, 7]) * 6 / 25)
    assert bundle.seconds is None
    assert bundle.provenance["iteration_s"] == (
        "measured elsewhere: duration of a trial over its iterations (the parts in between are not recorded), their mean"
    )


def test_cut_curves_keep_pruned_trials_and_the_cost_of_what_was_recorded(storage, out, undirected):
    bundle = from_optuna(storage, out, undirected, study_name="toy", rules=CurveRules(iterations=2))
    assert bundle.scores.shape == (7, 2)
    np.testing.assert_allclose(bundle.relative_cost, np.arange(1, 8) / 4)


def test_durations_can_be_left_out(storage, out, undirected):
    bundle = from_optuna(storage, out, undirected, study_name="toy", rules=DROP, untimed=True)
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (None, [1.0] * 6)


def test_a_pruned_trial_is_incomplete_and_did_not_diverge(storage, out, undirected):
    message = (
        rf"{storage.name}, study 'toy', column step: trial 2: ends at iteration 2 of 4; 1 of 7 trials are incomplete"
    )
    with pytest.raises(InvalidTraceError, match=message):
        from_optuna(storage, out, undirected, study_name="toy")
    message = r"trial 2 is PRUNED, which does not mean that it diverged: .*--incomplete drop.*--iterations N"
    with pytest.raises(InputError, match=message):
        from_optuna(storage, out, undirected, study_name="toy", rules=CurveRules(incomplete="diverged"))


def test_the_direction_is_the_studys(storage, out, undirected):
    with pytest.raises(InputError, match=r"study 'toy' says minimize, but --direction says maximize"):
        from_optuna(storage, out, replace(undirected, direction="maximize"), study_name="toy", rules=DROP)


def test_reading_changes_nothing(storage, tmp_path, out, undirected):
    copy = shutil.copy(storage, tmp_path / storage.name)
    before = hashlib.sha256(copy.read_bytes()).hexdigest()
    copy.chmod(0o444)
    from_optuna(copy, out, undirected, study_name="toy", rules=DROP)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([storage.name, "bundles"])


def test_a_study_must_be_named_where_there_are_several(fixtures, out, undirected):
    assert study_names(fixtures / "optuna.db") == ["toy", "two objectives"]
    with pytest.raises(InputError, match=r"optuna.db holds 2 studies; name one with --study: toy, two objectives"):
        from_optuna(fixtures / "optuna.db", out, undirected)
    with pytest.raises(InputError, match=r"there is no study 'tay'; did you mean 'toy'\?"):
        from_optuna(fixtures / "optuna.db", out, undirected, study_name="tay")
    assert from_optuna(fixtures / "optuna.log", out, undirected, rules=DROP).trials == 6


def test_a_url_may_name_the_file(fixtures, out, undirected):
    assert from_optuna(f"sqlite:///{fixtures / 'optuna.db'}", out, undirected, study_name="toy", rules=DROP).trials == 6


@pytest.mark.parametrize("given", ["absent.db", "sqlite:///absent.db"])
def test_a_missing_storage_is_an_error_and_is_not_made(tmp_path, monkeypatch, out, undirected, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"absent.db: there is no such file"):
        from_optuna(given, out, undirected)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"SQLite format 3\0 and no more", b"{ no journal\n", b'{"op_code": 0}\n'])
def test_a_file_that_is_no_storage_is_an_error(tmp_path, out, undirected, content):
    (tmp_path / "study").write_bytes(content)
    # Optuna takes a last line that is no JSON for one that is still being written.
    with pytest.raises(
        InputError, match=r"study(: Optuna cannot read it: | holds 0 studies; there is nothing to import)"
    ):
        from_optuna(tmp_path / "study", out, undirected)


def test_a_url_of_no_storage_is_an_error(out, undirected):
    with pytest.raises(InputError, match=r"nosql://somewhere: Optuna cannot read it: "):
        from_optuna("nosql://somewhere", out, undirected)


def test_a_study_in_memory_can_be_given_itself(out, undirected):
    study = optuna.create_study(direction="maximize", study_name="mine")
    for number in range(3):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        for step in range(3):
            trial.report(number + step / 10, step)
        study.tell(trial, number)
    rules = CurveRules(iteration_zero="first")
    bundle = from_optuna(study, out, undirected, rules=rules)
    np.testing.assert_allclose(bundle.scores, np.arange(3)[:, None] + np.array([0, 0.1, 0.2]))
    assert bundle.direction == "maximize"
    assert bundle.iteration_s > 0


def test_a_study_with_two_objectives_has_no_curves(fixtures, out, undirected):
    with pytest.raises(InputError, match=r"study 'two objectives' has 2 objectives, which report no curves"):
        from_optuna(fixtures / "optuna.db", out, undirected, study_name="two objectives")


def test_a_study_that_reported_nothing_has_no_curves(out, undirected):
    study = optuna.create_study(study_name="silent")
    study.tell(study.ask(), 1.0)
    message = r"study 'silent', column intermediate value: none of its 1 trials reported one \(trial.report\)"
    with pytest.raises(InvalidTraceError, match=message):
        from_optuna(study, out, undirected)


def test_without_optuna_it_says_what_to_install(fixtures, out, undirected, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna.storages", None)
    with pytest.raises(InputError, match=r"reading a study takes Optuna: pip install -e '\.\[optuna\]'"):
        from_optuna(fixtures / "optuna.db", out, undirected)


def test_the_password_of_a_storage_is_not_shown(out, undirected):
    with pytest.raises(InputError, match=r"nosql://me:\*\*\*@host/db: Optuna cannot read it: ") as told:
        from_optuna("nosql://me:secret@host/db", out, undirected)
    assert "secret" not in str(told.value)


def test_trials_that_failed_may_have_diverged(out, undirected):
    study = optuna.create_study()
    for state, values in (("FAIL", {1: 0.4}), ("COMPLETE", {1: 0.9, 2: 0.8})):
        done = {"state": optuna.trial.TrialState[state], "value": 0.5 if state == "COMPLETE" else None}
        study.add_trial(optuna.create_trial(**done, intermediate_values=values))
    bundle = from_optuna(study, out, undirected, rules=CurveRules(incomplete="diverged"), untimed=True)
    np.testing.assert_array_equal(bundle.scores, [[0.4, NAN], [0.9, 0.8]])
    assert bundle.notes["imported"]["trials_ended_as_diverged"] == ["0"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "update trial_intermediate_values set intermediate_value = 'abc' where intermediate_value > 0",
            "could not convert string",
        ),
        ("update trial_intermediate_values set intermediate_value = null", "AssertionError"),
        ("insert into trial_system_attributes (trial_id, key, value_json) values (1, 'retry_history', '5')", "'int'"),
        ("insert into trial_system_attributes (trial_id, key, value_json) values (1, 'retry_history', '{}')", None),
        ("drop table trial_intermediate_values", "no such table: trial_intermediate_values$"),
        ("delete from study_directions", None),
        ("update study_directions set direction = 'NOT_SET'", None),
    ],
)
def test_a_damaged_storage_is_told_and_a_direction_that_is_not_set_is_asked_for(
    fixtures, tmp_path, out, undirected, change, problem
):
    file = shutil.copy(fixtures / "optuna.db", tmp_path / "damaged.db")
    with sqlite3.connect(file) as database:
        database.execute(change)
    database.close()
    if problem is not None:
        with pytest.raises(InputError, match=rf"damaged\.db.*: Optuna cannot read it: .*{problem}"):
            from_optuna(file, out, undirected, study_name="toy", rules=DROP)
    elif "direction" in change:
        with pytest.raises(
            InputError, match="does not tell whether scores are minimised or maximised: give --direction"
        ):
            from_optuna(file, out, undirected, study_name="toy", rules=DROP)
        given = replace(undirected, direction="minimize")
        assert from_optuna(file, out, given, study_name="toy", rules=DROP).direction == "minimize"
    else:
        assert from_optuna(file, out, undirected, study_name="toy", rules=DROP).trials == 6


def test_a_journal_whose_last_line_is_cut_off_is_read_without_it_and_says_so(fixtures, tmp_path, out, undirected):
    whole = (fixtures / "optuna.log").read_bytes()
    bundle = from_optuna(fixtures / "optuna.log", out, undirected, study_name="toy", rules=DROP)
    assert "journals_cut_short" not in bundle.notes["imported"]
    (tmp_path / "cut.log").write_bytes(whole + b'{"op_code": 4, "worker')
    bundle = from_optuna(tmp_path / "cut.log", out, undirected, study_name="toy", rules=DROP, overwrite=True)
    assert bundle.notes["imported"]["journals_cut_short"] == 1


def test_a_folder_is_no_storage(tmp_path, out, undirected):
    with pytest.raises(InvalidTraceError, match="is a folder, but must be a file"):
        from_optuna(tmp_path, out, undirected)
