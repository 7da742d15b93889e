"""What makes two runs of a sweep the same: spec, data and code. Imports the packages whose code decides a run.

A row's key is a digest of three things: the digest of the spec (policy as written and seed included), the content of everything
that is read for it (its bundle, and each file that the spec names), and the source of what computes it. Code that only shows,
imports or trains does not count, so that a better figure does not make results old; a comment in the engine does.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elastune.experiments.spec.run import RunSpec
    from elastune.traces import Bundle

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("sim", "policies", "traces")
_LEFT_OUT = (
    "sim/bridge/",
    # Planners that are used alone, and the bound beside plans: no policy asks them.
    *(
        f"policies/planning/{name}.py"
        for name in ("bound", "instance_types", "machines", "naive", "sampling", "spending")
    ),
    "traces/bundles/writer.py",
    "traces/importers/",
    "traces/workloads/",
    "traces/data/bundles/",  # a bundle has a digest of its own
)
_PLANNING = ("experiments/plans/planning.py", "experiments/claims/plans.py")
_COMPUTING = (
    "runs/belief.py",
    "runs/ledger.py",
    "runs/placements.py",
    "runs/regret.py",
    "runs/result.py",
    "runs/simulate.py",
    "runs/noisy_scores.py",
    "spec/*.py",
    "sweeps/rows.py",
)
_KINDS = (".py", ".json", ".csv")


@functools.cache
def code_sha256() -> str:
    """SHA-256 over the sources and tables of `sim`, `policies` and `traces`, and over what makes a result in `experiments`."""
    digest = hashlib.sha256()
    for path in sorted(sources()):
        _put(digest, path.relative_to(_ROOT).as_posix(), path.read_bytes())
    return digest.hexdigest()


@functools.cache
def planning_sha256() -> str:
    """SHA-256 over all that makes plans, those of planners that are used alone and the bound included."""
    digest = hashlib.sha256(code_sha256().encode())
    for path in sorted([*(_ROOT / "policies/planning").rglob("*.py"), *(_ROOT / name for name in _PLANNING)]):
        _put(digest, path.relative_to(_ROOT).as_posix(), path.read_bytes())
    return digest.hexdigest()


def sources() -> Iterator[Path]:
    """Sources and tables whose change makes results old: what a run in the simulated world imports or reads."""
    for package in _PACKAGES:
        for path in (_ROOT / package).rglob("*"):
            name = path.relative_to(_ROOT).as_posix()
            if path.suffix in _KINDS and not name.startswith(_LEFT_OUT):
                yield path
    for pattern in _COMPUTING:
        yield from (_ROOT / "experiments").glob(pattern)


def data_sha256(spec: RunSpec, bundle: Bundle) -> str:
    """SHA-256 over the bundle and every file that the spec names: scaling tables, price catalogues, recordings."""
    digest = hashlib.sha256(bundle.sha256.encode())
    for text in sorted(set(_texts(spec.to_dict()))):
        path = Path(text)
        # A name among the shipped ones has no suffix; what it stands for is in the digest of the code.
        if path.suffix and path.is_file():
            _put(digest, text, path.read_bytes())
    return digest.hexdigest()


def run_keys(spec: RunSpec, seeds: Iterable[int], data: str, code: str) -> Iterator[str]:
    """What a row is known by, on each of the seeds: a digest over that of the spec, policy as written, data and code."""
    rest = f" {spec.policy.label} {data} {code}"
    for digest in spec.digests(seeds):
        yield hashlib.sha256(f"{digest}{rest}".encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401  whatever YAML holds
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for below in value.values():
            yield from _texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below)


def _put(digest: hashlib._Hash, name: str, content: bytes) -> None:
    # Name and length keep bytes from moving unnoticed between two files.
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)
