"""Policies: they see events and a read-only view, and answer with actions; they never know where they run.

`registry` names them all. `halving` is the promotion arithmetic, `staged` the executor of stages with barriers, `limits` the
keeping of deadline and budget, `planning` the planners. May import the pure core of `sim` only.
"""

from elastune.policies.registry import POLICIES, factory

__all__ = ["POLICIES", "factory"]
