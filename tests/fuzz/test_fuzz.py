"""500 cases of random input; ELASTUNE_FUZZ_SECONDS asks for a time instead, ELASTUNE_FUZZ_SEED for another first seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import guard
from tests.fuzz.__main__ import main, parsed

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_random_input_breaks_nothing():
    seconds, seed = os.environ.get("ELASTUNE_FUZZ_SECONDS"), os.environ.get("ELASTUNE_FUZZ_SEED", "0")
    # So many whatever else the machine does: each run tries the same.
    until = ["--seconds", "3600", "--cases", "500"] if seconds is None else ["--seconds", seconds]
    command = [sys.executable, "-m", "tests.fuzz", *until, "--seed", seed]
    # Commands that ran in this process before have made its children safe from the working folder, where `tests` lies.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def breaks(seed, _):
    raise KeyError(seed)


def hangs(*_):
    while True:
        pass


def is_greedy(*_):
    bytearray(3 << 30)


@pytest.mark.parametrize(
    ("case", "told"), [(breaks, "KeyError: 7"), (hangs, "HangError: no end"), (is_greedy, "MemoryError")]
)
def test_whatever_breaks_is_told(case, told, monkeypatch):
    monkeypatch.setattr(guard, "CASES", {"case": case})
    monkeypatch.setattr(guard, "HANG_S", 0.5)
    assert told in guard.failure_of("case", 7)
    monkeypatch.setattr(guard, "CASES", {"case": lambda *_: None})
    assert guard.failure_of("case", 7) is None


def test_a_failure_is_printed_with_the_command_that_repeats_it(monkeypatch, capsys):
    class Failing:
        def failure_of(self, _, seed):
            return "KeyError: 7" if seed == 4 else None

        def close(self):
            pass

    monkeypatch.setattr("tests.fuzz.__main__.Worker", Failing)
    assert main(parsed(["--seed", "3", "--cases", "2", "--kind", "spec"])) == 1
    told = capsys.readouterr().out
    assert "FAILED spec, seed 4: python -m tests.fuzz --kind spec --seed 4 --cases 1\nKeyError: 7\n" in told
    assert told.endswith("2 cases from seed 3, 1 failed\n")
