"""Named random streams, keyed by purpose and entity. Imports only the standard library and numpy.

A stream depends on the seed, its purpose and its entity alone, so instance 5 starts equally fast under every policy
(common random numbers), and a new random quantity never shifts the old ones.
"""

from __future__ import annotations

import functools
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

        key = [self.seed, *_words(purpose), *entity]
        # Both give the same stream; numpy reads a list number by number, which takes half of the time of a generator.
        entropy = np.array(key, dtype=np.uint32) if max(key) < 1 << 32 and min(key) >= 0 else key
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


@functools.cache
def _words(purpose: str) -> tuple[int, ...]:
    # hashlib, because hash() of a str changes with PYTHONHASHSEED.
    digest = hashlib.blake2s(purpose.encode(), digest_size=16).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
