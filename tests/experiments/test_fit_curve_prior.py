import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from elastune.experiments.claims.prior_reliability import main as compare_bundles
from elastune.experiments.profiling.fit_curve_prior import (
    HeldOut,
    developed_on,
    document_of,
    fit,
    held_out,
    main,
    regret_curves,
    replayed_regret,
    schedules,
)
from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.curve_prior import FAILED_REGRET, PRIORS_FILE, CurveModel, family_key, prior_for
from elastune.sim.model.errors import InputError
from elastune.traces import load_bundle

SHIPPED = json.loads(PRIORS_FILE.read_text(encoding="utf-8"))["families"]


@pytest.fixture
def shared_bundles(shared_data):
    return [shared_data / "bundles"]


def recorded(scores, direction="minimize", schedule="constant"):
    scores = np.array(scores, dtype=float)
    return SimpleNamespace(
        name="toy", scores=scores, direction=direction, max_iterations=scores.shape[1], schedule=schedule
    )


def drawn_from(model, configurations=600, iterations=81, seed=0):
    """Regret curves that follow a model without failures."""
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
    ranks = rng.standard_normal(configurations)
    curves = np.empty((configurations, iterations))
    for iteration in range(iterations, 0, -1):
        left = model.gap * np.log(iterations / iteration) ** model.gap_power
        curves[:, iteration - 1] = np.minimum(2 * norm.sf(ranks), 1) ** model.rarity + left
        kinship = ((iteration - 1) / iteration) ** model.churn
        ranks = kinship * ranks + np.sqrt(1 - kinship**2) * rng.standard_normal(configurations)
    return curves


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_regret_is_0_at_the_best_1_at_the_median_and_capped(direction, sign):
    finals = sign * np.array([0.1, 0.3, 0.5, 0.9, 7.0])

    regrets = regret_curves(recorded(np.stack([finals, finals], axis=1), direction))

    assert regrets[:, -1].tolist() == pytest.approx([0, 0.5, 1, FAILED_REGRET, FAILED_REGRET])


def test_a_diverged_score_has_the_regret_of_a_failed_run():
    regrets = regret_curves(recorded([[0.4, 0.1], [np.nan, 0.2], [0.4, 0.3], [0.4, np.nan]]))

    assert regrets[1, 0] == regrets[3, 1] == FAILED_REGRET


def test_curves_without_a_scale_are_refused():
    with pytest.raises(InputError, match=r"^bundle toy: every configuration diverged$"):
        regret_curves(recorded([[0.1, np.nan], [0.1, np.nan]]))
    with pytest.raises(InputError, match=r"^bundle toy: the median final loss, 0\.5, is the best one too$"):
        regret_curves(recorded([[0.1, 0.5], [0.1, 0.5], [0.1, 0.9]]))


def test_the_fit_finds_the_model_that_the_curves_follow():
    truth = CurveModel(churn=0.15, rarity=0.6, failed=0.0, gap=0.05, gap_power=1.5)
    found = fit([drawn_from(truth, seed=seed) for seed in range(4)])

    assert (found.churn, found.rarity) == pytest.approx((truth.churn, truth.rarity), rel=0.2)
    assert found.failed == 0.0


def test_replayed_successive_halving_keeps_whoever_leads_at_the_rung():
    early = np.linspace(0, 1, 40)
    regrets = np.stack([early, early[::-1]], axis=1)
    # The least of 10 of the numbers 0 to 39 is 30 / 11 on average; whoever is that early is as far from the best at the end.
    cut = replayed_regret(regrets, [Stage(10, 1, 1), Stage(1, 1, 2)])
    uncut = replayed_regret(regrets, [Stage(10, 2, 2)])

    assert cut == pytest.approx(1 - 30 / 11 / 39, abs=0.015)
    assert uncut == pytest.approx(30 / 11 / 39, abs=0.015)


def test_schedules_end_before_r_only_where_a_shorter_run_is_a_prefix():
    ends = {flag: {s[-1].until_iteration for s in schedules(40, 81, is_prefix_schedule=flag)} for flag in (True, False)}

    assert ends == {True: {9, 27, 81}, False: {81}}
    assert max(s[0].trials for s in schedules(40, 81, is_prefix_schedule=True)) == 10


def test_a_prediction_that_is_the_measurement_loses_nothing_by_choosing():
    truth = CurveModel(churn=0.15, rarity=0.6, failed=0.0, gap=0.05, gap_power=1.5)
    compared = held_out(recorded(drawn_from(truth, 200, 27)), prior_for(""))
    perfect = HeldOut(
        compared.schedules, compared.first, compared.last, compared.work, compared.measured, compared.measured
    )

    summary = perfect.summary()

    assert (summary["rank_correlation"], summary["bias"]) == (1.0, 0.0)
    assert (summary["chosen"], summary["chosen_given_r"]) == (0.0, 0.0)
    assert compared.summary()["chosen"] >= 0


@pytest.mark.parametrize("name", developed_on())
def test_the_shipped_models_are_what_the_shipped_bundles_give(name):
    bundle = load_bundle(name)
    entry = SHIPPED[family_key(bundle.family or bundle.name)]

    assert entry["bundles"][name]["sha256"] == bundle.sha256
    assert asdict(fit([regret_curves(bundle)])) == pytest.approx(entry["model"], rel=0.02)


@pytest.mark.parametrize("name", developed_on())
def test_the_other_families_rank_the_schedules_of_a_shipped_bundle(name):
    bundle = load_bundle(name)

    summary = held_out(bundle, prior_for(bundle.family or bundle.name)).summary()

    assert summary["rank_correlation"] > 0.9
    assert summary["chosen_given_r"] < summary["largest_n"]


def test_the_file_can_be_written_anew(tmp_path, capsys):
    file = tmp_path / "priors.json"

    main(["--output", str(file)])

    written = json.loads(file.read_text(encoding="utf-8"))["families"]
    assert sorted(written) == ["digits-mlp", "mnist5k-cnn"]
    assert "digits-mlp: {'rank_correlation'" in capsys.readouterr().out


def test_predictions_are_compared_with_replays_and_drawn(tmp_path, capsys):
    compare_bundles(["mnist5k-cnn", "-o", str(tmp_path / "reliability.png")])
    expected = held_out(load_bundle("mnist5k-cnn"), prior_for("mnist5k-cnn")).summary()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("mnist5k-cnn, mnist5k-cnn: ")
    assert f"rank_correlation {expected['rank_correlation']:g}" in line
    assert (tmp_path / "reliability.png").stat().st_size > 10_000


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is not a folder of bundles$"):
        main([str(tmp_path / "nowhere")])


@pytest.mark.slow
def test_the_shipped_file_is_what_all_bundles_give(shared_bundles):
    bundles = [load_bundle(name, shared_bundles) for name in developed_on(shared_bundles)]
    families = document_of(bundles)["families"]

    assert sorted(families) == sorted(SHIPPED)
    for name, family in families.items():
        assert family["bundles"] == SHIPPED[name]["bundles"]
        assert family["model"] == pytest.approx(SHIPPED[name]["model"], rel=0.02)
        for bundle, summary in family["held_out"].items():
            assert summary == pytest.approx(SHIPPED[name]["held_out"][bundle], abs=0.02)
