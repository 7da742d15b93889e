"""Named random streams, keyed by purpose and entity. Imports only the standard library and numpy.

A stream depends on the seed, its purpose and its entity alone, so instance 5 starts equally fast under every policy
(common random numbers), and a new random quantity never shifts the old ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Streams:
    """The random streams of one run."""

    seed: int

    def rng(self, purpose: str, *entity: int) -> np.random.Generator:
        """A fresh generator at the start of the stream of this purpose and entity."""
        import numpy as np

        # hashlib, because hash() of a str changes with PYTHONHASHSEED.
        words = hashlib.blake2s(purpose.encode(), digest_size=16).digest()
        key = [self.seed, *(int.from_bytes(words[i : i + 4], "little") for i in range(0, 16, 4)), *entity]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
