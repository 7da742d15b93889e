"""The papers' claims as experiments: files of the catalogue, the sweeps that they mean, and the tables that come out.

Imports the other modules of `experiments`. Nothing here decides whether a claim holds.
"""

from __future__ import annotations

from elastune.experiments.claims.entries import Claim, load_claims

__all__ = ["Claim", "load_claims"]
