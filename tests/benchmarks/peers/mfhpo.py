"""ASHA by ask and tell on mfhpo-simulator: `python mfhpo.py CONFIGURATIONS EPOCHS WORKERS`, in an environment of its own.

The simulator has no scheduler, prices or machines. The rule here is as short as ASHA can be, so that the simulator is timed.
"""

from __future__ import annotations

import heapq
import os
import sys
import tempfile
import warnings

from benchmark_simulator import AbstractAskTellOptimizer, ObjectiveFuncWrapper
from table import EPOCH_S, curves, rungs, timed

configurations, epochs, workers = map(int, sys.argv[1:])
errors, levels, REDUCTION = curves(configurations, epochs), rungs(epochs), 3


class Rung:
    """`top`: the best third, a heap with the worst first; `rest` and `waiting`: heaps with the best first."""

    def __init__(self):
        self.size, self.top, self.rest, self.waiting = 0, [], [], []

    def record(self, error, number):
        self.size += 1
        heapq.heappush(self.waiting, (error, number))
        worst = heapq.heappushpop(self.top, (-error, -number)) if self.top else (-error, -number)
        heapq.heappush(self.rest, (-worst[0], -worst[1]))
        if len(self.top) < self.size // REDUCTION:
            error, number = heapq.heappop(self.rest)
            heapq.heappush(self.top, (-error, -number))

    def promote(self):
        if self.waiting and self.top and self.waiting[0] <= (-self.top[0][0], -self.top[0][1]):
            return heapq.heappop(self.waiting)[1]
        return None


class Asha(AbstractAskTellOptimizer):
    """Promotes from the highest rung down, else starts a new configuration."""

    def __init__(self):
        self.rungs = [Rung() for _ in levels[:-1]]
        self.started = 0

    def ask(self):
        for index in reversed(range(len(self.rungs))):
            number = self.rungs[index].promote()
            if number is not None:
                return {"number": number}, {"epoch": levels[index + 1]}, number
        number, self.started = self.started % configurations, self.started + 1
        return {"number": number}, {"epoch": levels[0]}, number

    def tell(self, eval_config, results, *, fidels, config_id):  # noqa: ARG002  as the simulator calls it
        index = levels.index(fidels["epoch"])
        if index < len(self.rungs):
            self.rungs[index].record(results["loss"], config_id)


def trained(eval_config, fidels=None, seed=None, **others):  # noqa: ARG001  as the simulator calls it
    """What the simulator replays."""
    epoch = int(fidels["epoch"])
    return {"loss": float(errors[eval_config["number"], epoch - 1]), "runtime": EPOCH_S * epoch}


warnings.simplefilter("ignore")
os.chdir(tempfile.mkdtemp())
segments = sum(configurations // REDUCTION**index for index in range(len(levels)))
simulator = ObjectiveFuncWrapper(
    obj_func=trained,
    ask_and_tell=True,
    n_workers=workers,
    n_evals=segments,
    n_actual_evals_in_opt=segments + workers,
    fidel_keys=["epoch"],
    continual_max_fidel=epochs,
    seed=0,
    store_config=True,
)
timed(lambda: simulator.simulate(Asha()), segments=segments)
