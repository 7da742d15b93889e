"""Whole real runs through deaths of every kind; a file of their own, so that they run beside the others."""

from __future__ import annotations

import pytest

from tests.bridge.chaos import KILLS, strike


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLS)
def test_kills_lose_nothing_and_leave_nothing(kind, tmp_path):
    report = strike(kind, 3, tmp_path / kind)
    assert report.kills == 3
