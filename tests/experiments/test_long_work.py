"""How far long work is, where standard error is no terminal."""

from __future__ import annotations

import time

from elastune.experiments.cli.options import progress


def test_a_log_gets_a_line_from_time_to_time_also_while_nothing_is_told(capsys):
    with progress("Timing gangs", line_every_s=0.05) as tell:
        lines = _waited_for(capsys, "Timing gangs, ")
        tell(3, 1200, "gang of [2]")
        lines += _waited_for(capsys, "gang of [2]: 3 of 1,200, ")
    assert all(line.endswith(" s") for line in lines)
    time.sleep(0.15)
    assert capsys.readouterr() == ("", "")


def test_short_work_says_nothing(capsys):
    with progress("Running") as tell:
        tell(1, 2)
    assert capsys.readouterr() == ("", "")


def _waited_for(capsys, start, most_s=20.0):
    """The lines of standard error until one begins so."""
    until_s, lines = time.monotonic() + most_s, []
    while time.monotonic() < until_s:
        lines += capsys.readouterr().err.splitlines()
        if any(line.startswith(start) for line in lines):
            return lines
        time.sleep(0.01)
    raise AssertionError(f"no line began with {start!r}: {lines}")
