"""What makes two runs of a sweep the same: spec, data and the version of results. Imports traces for types only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elastune.experiments.spec.run import RunSpec
    from elastune.traces import Bundle


def data_sha256(spec: RunSpec, bundle: Bundle) -> str:
    """SHA-256 over the bundle and every file that the spec names: scaling tables, price catalogues, recordings, own code."""
    digest = hashlib.sha256(bundle.sha256.encode())
    for text in sorted(set(_texts(spec.to_dict()))):
        path = Path(text)
        # Names of shipped tables have no suffix: `tests/golden` guards what they stand for.
        if path.suffix and path.is_file():
            content = path.read_bytes()
            # The length keeps bytes from moving unnoticed from one file to the next.
            digest.update(f"{text} {len(content)}\n".encode() + content)
    if (code := spec.policy.code) is not None:
        digest.update(f"{code.name} {code.sha256}\n".encode())
    return digest.hexdigest()


def run_keys(spec: RunSpec, seeds: Iterable[int], data: str, version: int) -> Iterator[str]:
    """What a row is known by, on each of the seeds: a digest of the spec, policy as written, data and results version."""
    rest = f" {spec.policy.label} {data} {version}"
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
