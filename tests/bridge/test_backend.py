"""The real backend keeps the promises that the simulated one keeps, and turns deaths into facts in time."""

from __future__ import annotations

import os
import signal
import time

import pytest

from experiments.contract import BACKEND_PROMISES, BackendUnderTest, check_backend
from experiments.contract_backends import Dialogue
from sim.bridge.embedded import EmbeddedNodes
from sim.model.commands import StartSegment
from sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceReady,
    Outcome,
    ProgressReported,
    SegmentEnded,
    TrialSampled,
)
from sim.model.ids import InstanceId, SegmentId, TrialId
from tests.bridge.conftest import ITERATIONS, processes_of, wait_for


@pytest.fixture
def under_test(real):
    return BackendUnderTest(
        "ray", real, "m", iterations=ITERATIONS, moment_s=0.25, build_losing=lambda: real(loses_after_s=4.0)
    )


@pytest.mark.parametrize("promise", BACKEND_PROMISES)
def test_the_real_backend_keeps_its_promises(under_test, promise):
    check_backend(under_test, promise)
