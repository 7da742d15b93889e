"""Figures of scores over FLOPs, and of gates."""

import numpy as np
import pandas as pd
import pytest

from elastune.experiments import figures
from elastune.sim.model.errors import InputError


def configurations():
    return pd.DataFrame({"score": [0.5, 0.9, 0.8, 0.95, np.nan], "flops": [10.0, 40.0, 20.0, 80.0, 5.0]})


def test_a_trade_off_shows_what_no_other_beats_in_both_and_each_answer():
    answers = pd.DataFrame({"policy": ["seer", "seer"], "score": [0.9, 0.8], "flops": [40.0, 20.0]})
    figure = figures.trade_off(configurations(), answers, minimized=False, bound=50.0)
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["no other is better and cheaper"] == [[10, 0.5], [20, 0.8], [40, 0.9], [80, 0.95]]
    assert lines["seer"] == [[40, 0.9], [20, 0.8]]
    assert len(lines["configurations"]) == 4  # one diverged
    assert "bound 50" in lines
    losses = configurations().assign(score=lambda table: 1 - table["score"] * [1, 1, 1, 0.9, 1])
    front = figures.trade_off(losses, answers.head(0), minimized=True).axes[0].lines[1]
    assert front.get_xdata().tolist() == [10, 20, 40]  # the dearest is no better than the one before


def trainings():
    return pd.DataFrame(
        {
            "network": ["standard"] * 2 + ["wide DeepMoE"] * 4,
            "width": [1.0, 1.0, 2.0, 2.0, 2.0, 2.0],
            "sparsity": [0.0, 0.0, 1e-3, 1e-3, 1e-2, 1e-2],
            "seed": [0, 1] * 3,
            "flops": [100.0, 100.0, 200.0, 240.0, 40.0, 60.0],
            "dense_flops": [100.0, 100.0, 400.0, 400.0, 400.0, 400.0],
            "test": [0.8, 0.9, 0.9, 0.95, 0.6, 0.7],
            "active": ["", "", "0.8 0.4", "0.6 0.2", "0.1 0.1", "0.3 0.1"],
            "routed": [0.0, 0.0, 0.5, 0.5, 0.1, 0.3],
        }
    )


def test_networks_are_lines_of_means_over_flops():
    figure = figures.networks_over_flops(trainings())
    lines = {bars.get_label(): bars[0].get_xydata() for bars in figure.axes[0].containers}
    assert lines["wide DeepMoE"] == pytest.approx(np.array([[50, 0.65], [220, 0.925]]))
    assert lines["standard"] == pytest.approx(np.array([[100, 0.85]]))


def test_gates_are_shown_by_layer_over_lambda():
    mixtures = trainings().query("network == 'wide DeepMoE'")
    left, right = figures.gate_sparsity(mixtures).axes
    layers = [line.get_ydata() for line in left.lines]
    assert np.array(layers) == pytest.approx(np.array([[0.7, 0.2], [0.3, 0.1]]))
    assert right.lines[0].get_ydata() == pytest.approx([220 / 400, 50 / 400])
    with pytest.raises(InputError, match="gate_sparsity: no column routed"):
        figures.gate_sparsity(mixtures.drop(columns="routed"))
