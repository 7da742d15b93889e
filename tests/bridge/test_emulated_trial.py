import math
import subprocess
import sys

import numpy as np
import pytest

from elastune.sim.bridge.workers.emulated import EmulatedTrial, Emulation
from elastune.sim.model.errors import InputError, WorkerError

SCORES = np.array([0.9, 0.5, math.nan, 0.4])


def emulation(**changes):
    return Emulation(**{"iteration_s": np.zeros(4), "scores": SCORES, **changes})


@pytest.fixture
def clock(monkeypatch):
    """A clock on which every sleep takes a millisecond too long."""

    class Clock:
        now_s = 100.0

        def monotonic(self):
            return self.now_s

        def sleep(self, seconds):
            assert seconds > 0
            self.now_s += seconds + 0.001

    clock = Clock()
    monkeypatch.setattr("elastune.sim.bridge.workers.emulated.time", clock)
    return clock


def test_each_iteration_has_its_recorded_score_and_takes_its_seconds(clock):
    trial = EmulatedTrial(emulation(iteration_s=np.array([2.0, 4.0, 1.0, 0.0])))
    ends_s = []
    for score in (0.9, 0.5, math.nan, 0.4):
        trial.train_iteration()
        ends_s.append(clock.now_s - 100.0)
        assert trial.evaluate() == pytest.approx(score, nan_ok=True)

    assert ends_s == pytest.approx([2.001, 6.001, 7.001, 7.001])


def test_short_iterations_do_not_add_up_their_lateness(clock):
    trial = EmulatedTrial(Emulation(np.full(400, 0.3), np.zeros(400), speed=60.0))
    for _ in range(400):
        trial.train_iteration()

    assert clock.now_s - 100.0 == pytest.approx(400 * 0.3 / 60, abs=0.0011)


def test_what_held_a_trial_up_for_long_is_not_made_up_for(clock):
    trial = EmulatedTrial(emulation(iteration_s=np.array([1.0, 1.0, 1.0, 1.0])))
    trial.train_iteration()
    clock.now_s += 10.0
    trial.train_iteration()

    assert clock.now_s - 100.0 == pytest.approx(1.0 + 10.0 + 1.0, abs=0.051)


def test_start_up_and_checkpoints_take_their_seconds_over_the_speed(clock, tmp_path):
    trial = EmulatedTrial(emulation(start_s=20.0, checkpoint_s=10.0, speed=10.0))
    assert clock.now_s - 100.0 == pytest.approx(2.0, abs=0.0011)
    trial.save(tmp_path / "checkpoint")

    assert clock.now_s - 100.0 == pytest.approx(3.0, abs=0.0011)
    assert (tmp_path / "checkpoint").stat().st_size < 100


def test_a_trial_goes_on_from_its_checkpoint(tmp_path):
    trial = EmulatedTrial(emulation())
    assert math.isnan(trial.evaluate())
    trial.train_iteration()
    trial.save(tmp_path / "checkpoint")
    resumed = EmulatedTrial(emulation())
    resumed.load(tmp_path / "checkpoint")

    assert resumed.evaluate() == 0.9
    resumed.train_iteration()
    assert resumed.evaluate() == 0.5


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"iteration": "two"}', '{"iteration": 5}', '{"iteration": -1}', "\x80"]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, text):
    (tmp_path / "checkpoint").write_bytes(text.encode("latin-1"))
    with pytest.raises(WorkerError, match=r"is not a checkpoint of an emulated trial|of 4 recorded ones"):
        EmulatedTrial(emulation()).load(tmp_path / "checkpoint")


def test_an_iteration_beyond_the_recording_is_refused():
    trial = EmulatedTrial(emulation())
    for _ in range(4):
        trial.train_iteration()
    with pytest.raises(WorkerError, match="iteration 5 was asked for, but 4 were recorded"):
        trial.train_iteration()


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="speed is 0, but must be a number > 0"):
        emulation(speed=0)
    with pytest.raises(InputError, match="there are 3 durations, but 4 scores"):
        emulation(iteration_s=np.zeros(3))


def test_a_worker_of_an_emulated_trial_imports_no_torch():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
import tempfile
from elastune.sim.bridge.workers.emulated import EmulatedTrial, Emulation
from elastune.sim.bridge.workers.worker import Assignment, SegmentWorker, WorkerSettings
class Build:
    needs_process_group = False
    def __call__(self, assignment, device):
        return EmulatedTrial(Emulation(np.zeros(3), np.zeros(3)))
assignment = Assignment(0, 0, 0, 3, 0, 0, None, {}, 0, 2, 8)
print(list(SegmentWorker(WorkerSettings(Build(), tempfile.mkdtemp()), assignment).train())[-1].iteration)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
