"""The papers' claims as experiments: the catalogue's files, their sweeps and plans, their figures and tables.

Imports the other modules of `experiments`. Nothing here decides whether a claim holds.
"""

from __future__ import annotations

from elastune.experiments.claims.entries import Claim, load_claims

__all__ = ["Claim", "load_claims"]
