"""Recorded runs: whether a journal replays, and its ledger. Imports experiments.runs, experiments.spec and sim.control."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.journals import entries_of, header_of, spec_of, with_named_policy
from elastune.experiments.runs.ledger import Ledger
from elastune.experiments.runs.world import Belief, World, data_sha256, file_sha256, new_header
from elastune.sim.control.journal import Header, Sink, replay
from elastune.sim.model.errors import InputError, ReplayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.experiments.spec.run import RunSpec
    from elastune.sim.control.controller import Controller
    from elastune.traces import Bundle


def replay_journal(path: str | Path, *, policy: str | None = None, bundle: Bundle | None = None) -> tuple[int, bool]:
    """Feed a journal's events to a fresh controller; returns how many entries were reproduced, and whether the run had ended.

    Args:
        path: the journal.
        policy: names the code, where the journal is of a policy of somebody's own.
        bundle: used instead of the one that the journal's spec names.

    Raises:
        InputError: the file is not a journal or a damaged one, its spec is not the one of its digest, its policy is code that
            is not named, or code, bundle or price catalogue are not those it was recorded with.
        ReplayError: policy or controller decide something else today.
    """
    path = Path(path)
    header = header_of(path)
    require_same_prices(path, header)
    spec = with_named_policy(spec_of(path), policy, path)
    built: list[Controller] = []
    # A real run has no recorded truth, and only an upper bound is told it.
    is_told_truth = spec.policy.entry.needs_truth
    source: World | Belief = World.of(spec, bundle) if is_told_truth else Belief.of(spec, bundle)
    require_same_data(path, header, source)

    def fresh(sink: Sink) -> Controller:
        built.append(source.controller(sink))
        return built[0]

    try:
        entries = replay(entries_of(path), fresh)
    except ReplayError as error:
        now = new_header(spec, source.bundle).versions
        moved = [
            f"{name} {was} then, {now.get(name)} now" for name, was in header.versions.items() if now.get(name) != was
        ]
        if not moved:
            raise
        raise ReplayError(f"{error}\n  recorded with other versions: {'; '.join(moved)}") from error
    return entries, built[0].is_closed


def require_same_data(journal: Path, header: Header, source: World | Belief) -> None:
    """What the journal was recorded with must be what is here now."""
    spec, bundle = source.spec, source.bundle
    _require_same(journal, header, "bundle", {} if bundle is None else {bundle.name: bundle.sha256})
    code = spec.policy.code
    _require_same(journal, header, "the policy's code", {} if code is None else {spec.policy.name: code.sha256})
    _require_same(journal, header, "spot trace", {} if spec.cloud.spot is None else spec.cloud.spot.data_sha256())
    # Training code decides nothing once its scores are recorded; `run --resume` checks it.
    trained_by = {spec.workload.trainable}
    if missing := sorted(set(header.data_sha256) - set(data_sha256(spec, bundle)) - trained_by):
        raise InputError(
            f"{journal}: it was recorded with {', '.join(missing)}, which its spec does not name: hand it over"
        )


def require_same_training(journal: Path, header: Header, spec: RunSpec) -> None:
    """A real run goes on only with the training code that it began with."""
    if (code := spec.workload.code) is not None:
        _require_same(journal, header, "the training code", {str(spec.workload.trainable): code.sha256})


def ledger_of(path: str | Path) -> Ledger:
    """The ledger of a journal; it needs no bundle, but for the size of its data where the spec leaves that to it.

    Raises:
        InputError: the file is not a journal or a damaged one, its price catalogue has changed, or it ends before its run did.
    """
    path = Path(path)
    header = header_of(path)
    require_same_prices(path, header)
    return Ledger.of(Tables.of(entries_of(path, is_whole=True), spec_of(path).price_book()))


def require_same_prices(journal: Path, header: Header) -> None:
    """Before its spec is read, which looks machines up in the catalogue."""
    prices = header.spec.get("cloud", {}).get("prices")
    if prices is None:
        return
    try:
        now = file_sha256(prices)
    except OSError as error:
        raise InputError(
            f"{journal}: the price catalogue {prices} that it was recorded with cannot be read: {error.strerror}; bring it back"
            f" there (sha256 {header.data_sha256.get(prices)}); a relative path starts from where the command is called"
        ) from error
    _require_same(journal, header, "price catalogue", {prices: now})


def _require_same(journal: Path, header: Header, what: str, sha256: Mapping[str, str]) -> None:
    """Accept what was read if it is what the journal was recorded with."""
    for name, now in sha256.items():
        recorded = header.data_sha256.get(name)
        if recorded != now:
            raise InputError(
                f"{journal}: {what} {name} is not the one that the journal was recorded with: its sha256 was {recorded} and is"
                f" {now}; bring the old one back, or run the spec of the journal again for a journal of the new one"
            )
