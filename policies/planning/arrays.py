"""The types of the planners' arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Seconds, dollars, GPU-seconds."""
Ids: TypeAlias = NDArray[np.int64]
"""Indexes and counts."""
