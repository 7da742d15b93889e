"""Laws fitted to measured speed-ups: exact where the data are, honest where they are few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import AllReduceScaling, Link
from elastune.sim.model.scaling import AmdahlScaling, LinearScaling, PowerScaling
from elastune.traces import MeasuredTable, fit_scaling
from elastune.traces.scaling.fit import LEVEL, USUAL_ERRORS


def table(speedups, kind="strong"):
    by_gang = {gang if isinstance(gang, tuple) else (gang, 1): s for gang, s in speedups.items()}
    return MeasuredTable({(1, 1): 1.0, **by_gang}, kind, knows_nodes=any(nodes > 1 for _, nodes in by_gang))


def of(scaling, *gangs, noise=None, kind="strong"):
    factors = np.ones(len(gangs)) if noise is None else np.exp(noise)
    pairs = [gang if isinstance(gang, tuple) else (gang, 1) for gang in gangs]
    return table({pair: scaling.speedup(*pair) * f for pair, f in zip(pairs, factors, strict=True)}, kind)


@given(st.floats(0.0, 1.0))
def test_data_of_amdahls_law_give_its_serial_share_back(serial):
    fit = fit_scaling(of(AmdahlScaling(serial), 2, 4, 8), "amdahl")
    assert fit.chosen.parameters["serial"].value == pytest.approx(serial, abs=1e-5)
    assert fit.predict(64).value == pytest.approx(AmdahlScaling(serial).speedup(64), rel=1e-3)


@given(st.floats(0.05, 1.0))
def test_data_of_a_power_law_give_its_exponent_back(exponent):
    fit = fit_scaling(of(PowerScaling(exponent), 2, 4, 8), "power")
    assert fit.chosen.parameters["exponent"].value == pytest.approx(exponent, abs=1e-6)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_data_of_the_all_reduce_model_give_both_links_back(kind):
    true = AllReduceScaling(1.0, Link(0.002, 0.05), Link(0.01, 0.3), kind)
    fit = fit_scaling(of(true, 2, 4, (4, 2), (8, 2), (16, 4), kind=kind), "allreduce")
    values = {name: found.value for name, found in fit.chosen.parameters.items()}
    expected = {"intra_latency": 0.002, "intra_transfer": 0.05, "inter_latency": 0.01, "inter_transfer": 0.3}
    assert values == pytest.approx(expected, rel=1e-4)
    assert fit.predict(32, 8).value == pytest.approx(true.speedup(32, 8), rel=1e-4)


@pytest.mark.parametrize(
    ("true", "family"),
    [(AmdahlScaling(0.1), "amdahl"), (PowerScaling(0.8), "power")],
)
def test_the_family_that_made_the_data_is_chosen(true, family):
    assert fit_scaling(of(true, 2, 4, 8, 16)).chosen.family == family


def test_of_two_families_that_say_the_same_the_one_with_fewer_parameters_is_chosen():
    # Without latency, the all-reduce model of strong scaling is Amdahl's law.
    fit = fit_scaling(of(AmdahlScaling(0.1), 2, 4, 8, 16))
    assert fit.families["allreduce"].left_out_error == pytest.approx(0.0, abs=1e-6)
    assert fit.chosen.family == "amdahl"


@pytest.mark.parametrize(("of_two", "of_four", "is_usual"), [(1.8, 3.0, True), (1.9, 2.9, False)])
def test_one_parameter_and_two_points_by_hand(of_two, of_four, is_usual):
    # log s = e log p; least squares on the points (log 2, log s2) and (log 4, log s4): e = sum xy / sum xx.
    x, y = np.log([2, 4]), np.log([of_two, of_four])
    exponent = float(x @ y / (x @ x))
    fit = fit_scaling(table({2: of_two, 4: of_four}), "power").chosen
    assert fit.parameters["exponent"].value == pytest.approx(exponent)
    variance = float(np.sum((y - exponent * x) ** 2))  # 2 points, 1 parameter
    t = 6.31375  # of one degree of freedom, at 90 %
    half = t * math.sqrt(variance / float(x @ x))
    assert fit.parameters["exponent"].low == pytest.approx(exponent - half, rel=1e-4)
    assert fit.parameters["exponent"].high == pytest.approx(min(exponent + half, 1.0), rel=1e-4)
    predicted = fit.predict(8)
    spread = math.sqrt(variance * (1 + math.log(8) ** 2 / float(x @ x)))
    usual = 1.644854 * USUAL_ERRORS["power"]
    assert (usual > t * spread) == is_usual
    factor = math.exp(max(t * spread, usual))
    assert predicted.high / predicted.value == pytest.approx(factor, rel=1e-3)
    assert predicted.value / predicted.low == pytest.approx(factor, rel=1e-3)
    # Left out: 4 GPUs alone give e = log s4 / log 4, 2 GPUs alone e = log s2 / log 2.
    errors = [y[0] - x[0] * y[1] / x[1], y[1] - x[1] * y[0] / x[0]]
    assert fit.left_out_error == pytest.approx(math.hypot(*errors) / math.sqrt(2), rel=1e-6)
    assert fit.residuals[2, 1] == pytest.approx(of_two / 2**exponent - 1)


def test_as_many_parameters_as_points_leave_no_interval():
    fit = fit_scaling(table({2: 1.6}), "amdahl").chosen
    assert fit.scaling.speedup(2) == pytest.approx(1.6)
    assert (fit.degrees_of_freedom, fit.left_out_error) == (0, None)
    assert (fit.predict(8).low, fit.parameters["serial"].high) == (None, None)


def test_the_speed_up_of_one_gpu_is_one_by_definition():
    found = fit_scaling(table({2: 1.5, 4: 3.0}), "power").predict(1)
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.slow
def test_intervals_hold_new_measurements_as_often_as_they_say():
    rng = np.random.default_rng(0)
    true, gangs, covered, repeats = AmdahlScaling(0.08), (2, 3, 4, 6, 8), 0, 400
    for _ in range(repeats):
        # More noise than the usual error of the family, which is the least half of an interval.
        fit = fit_scaling(of(true, *gangs, noise=rng.normal(0, 0.2, len(gangs))), "amdahl")
        found, new = fit.predict(16), true.speedup(16) * math.exp(rng.normal(0, 0.2))
        covered += found.low <= new <= found.high
    # 400 draws of a share of 0.9 are within 0.035 of it, but for one time in fifty.
    assert covered / repeats == pytest.approx(LEVEL, abs=0.035)


@pytest.mark.parametrize("family", ["amdahl", "power", "allreduce", "linear"])
def test_an_interval_is_no_narrower_than_the_usual_error_of_its_family(family):
    # Fitted without any error, which says nothing of its shape beyond what was measured.
    true = AmdahlScaling(0.08) if family in ("amdahl", "allreduce") else LinearScaling()
    found = fit_scaling(of(true, 2, 3, 4, 6), family).predict(16)
    normal = 1.644854  # 95 % of a standard normal are below
    assert math.log(found.high / found.value) == pytest.approx(normal * USUAL_ERRORS[family], rel=1e-4)
    assert math.log(found.value / found.low) == pytest.approx(normal * USUAL_ERRORS[family], rel=1e-4)


def test_what_was_not_measured_of_a_network_is_said():
    one_node = fit_scaling(table({2: 1.8, 4: 3.1}), "allreduce")
    assert "no gang on several nodes was measured, so they are taken to be as fast as one node" in one_node.notes[-1]
    assert one_node.predict(8, 2).value == one_node.predict(8, 1).value
    two_nodes = fit_scaling(table({(2, 2): 1.2, (4, 4): 1.5}), "allreduce")
    assert "no gang on one node was measured" in two_nodes.notes[-1]
    assert two_nodes.predict(2, 1).value == two_nodes.predict(2, 2).value
    sizes = fit_scaling(table({2: 1.8, (4, 2): 2.0, (8, 4): 3.0}), "allreduce")
    assert list(sizes.chosen.parameters) == ["intra_transfer", "inter_latency", "inter_transfer"]
    assert "one size of gang measured the intra-node link, so its latency is taken as 0" in sizes.notes[0]


def test_only_the_gangs_that_were_asked_for_are_fitted():
    fit = fit_scaling(table({2: 1.8, 4: 3.0, 8: 1.0}), on=(1, 2, 4))
    assert fit.fitted_on == ((2, 1), (4, 1))
    assert fit.predict(8).value > 3


def test_decreasing_and_superlinear_measurements_are_accepted_and_said():
    fit = fit_scaling(table({2: 2.1, 4: 3.0, 8: 2.5}))
    assert "8 GPUs are slower than the next smaller gang; planners use the non-decreasing envelope" in fit.notes
    assert "2 GPUs are faster than linear, which no family can be" in fit.notes
    assert fit_scaling(table({2: 2.1, 4: 4.3}), "amdahl").chosen.parameters["serial"].value == 0.0


def test_a_family_that_cannot_be_fitted_is_left_out_with_its_reason():
    fit = fit_scaling(table({2: 1.8, 4: 3.0}, "unstated"))
    assert set(fit.families) == {"linear", "amdahl", "power"}
    assert "left out: allreduce must know whether the batch of each GPU (weak) or of the gang (strong)" in fit.notes[0]


@pytest.mark.parametrize(
    ("speedups", "arguments", "message"),
    [
        ({}, {}, "nothing but 1 GPU was measured"),
        ({2: 1.8}, {}, r"too few gangs beyond 1 GPU \(1\) to choose a family .* measure at least 2, or say which"),
        ({2: 1.8}, {"family": "cubic"}, "--family 'cubic': a fit is of one of auto, linear, amdahl, power, allreduce"),
        ({2: 1.8, 4: 3.0}, {"on": (1, 3)}, r"3 GPUs were not measured, .*; measured: \[1, 2, 4\]"),
    ],
)
def test_too_little_to_fit_is_refused(speedups, arguments, message):
    with pytest.raises(InputError, match=message):
        fit_scaling(table(speedups), **arguments)


def test_fewer_points_than_parameters_are_refused():
    with pytest.raises(InputError, match=r"allreduce has 2 parameters \(intra_transfer, inter_transfer\), too many"):
        _fit_one_point_short()


def _fit_one_point_short():
    from elastune.traces.scaling.fit import _least_squares
    from elastune.traces.scaling.laws import law_of

    law = law_of("allreduce", ((2, 1), (4, 2)), "strong", 64)
    return _least_squares(law, {(2, 1): 1.8})


def test_two_points_do_not_outvote_what_a_family_usually_does():
    # GPT-2 at batch 256 on A100 (ElasticFlow): the power law fits 2 and 4 GPUs better, and is far off beyond them.
    measured = MeasuredTable(
        {(1, 1): 1.0, (2, 1): 1781.69 / 1048.92, (4, 1): 2928.76 / 1048.92}, "strong", knows_nodes=False
    )
    fit = fit_scaling(measured)
    assert fit.families["power"].left_out_error < fit.families["amdahl"].left_out_error
    assert fit.chosen.family == "amdahl"
