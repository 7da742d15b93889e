"""Identifiers. Imports nothing of the project."""

from __future__ import annotations

from typing import NewType

TrialId = NewType("TrialId", int)
"""Position of a configuration in the run's draw, from 0."""
SegmentId = NewType("SegmentId", int)
"""Number of a segment in the run, from 0, in order of its StartSegment."""
InstanceId = NewType("InstanceId", int)
"""Number of an instance in the run, from 0, in order of its ProvisionInstance."""

Placement = tuple[tuple[InstanceId, int], ...]
"""The GPUs of a gang: (instance, GPUs on it), most GPUs first."""
