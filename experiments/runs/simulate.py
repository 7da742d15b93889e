"""Running a spec in the simulated world, and replaying the journal of a run.

The composition root: the one place where bundle, cloud, policy, controller and backend meet. Imports all of `sim` but the
bridge, the policies through the registry, and `traces`.

Versions are read from the installed packages, so a journal holds no wall-clock time and nothing of the machine.
"""

from __future__ import annotations

import hashlib
import platform
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from elastune.experiments.files import kept_file
from elastune.experiments.runs.belief import Belief, most_gpus, profile_of, terms_of
from elastune.experiments.runs.journals import entries_of, header_of
from elastune.experiments.runs.ledger import Ledger
from elastune.experiments.runs.noisy_scores import heard_scores
from elastune.experiments.runs.placements import PlacementAccount
from elastune.experiments.runs.result import RunResult, recorded_answer, result_of
from elastune.experiments.runs.trajectory import Recording
from elastune.experiments.spec.run import RunSpec
from elastune.policies.registry import entry_named
from elastune.sim.control.journal import Header, JournalWriter, MemorySink, replay
from elastune.sim.control.runner import run
from elastune.sim.model.errors import InputError, ReplayError
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from elastune.sim.control.controller import Controller
    from elastune.sim.control.journal import Entry, Sink
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import GroundTruth, Profile
    from elastune.traces import Bundle

_RECORDED_VERSIONS = ("elastune", "numpy", "simpy", "msgspec")


@dataclass(frozen=True, eq=False)
class World:
    """Everything a run needs, resolved from its spec.

    Attributes:
        truth: what really happens; never shown to a policy. Its scores are those that are heard, noise included.
        recorded_scores: (trials, iterations) float; the curves of the seed's draw, without noise. Answers are judged by them.
        profile: what the policy believes.
        provenance: where the workload's numbers are from; see `traces.WorkloadTerms`.
    """

    spec: RunSpec
    bundle: Bundle
    job: TuningJob
    price_book: PriceBook
    truth: GroundTruth
    profile: Profile
    provenance: Mapping[str, str]
    recorded_scores: np.ndarray

    @classmethod
    def of(cls, spec: RunSpec, bundle: Bundle | None = None) -> World:
        """The world of a spec.

        Args:
            spec: the run.
            bundle: used instead of the one that the spec names.

        Raises:
            InputError: spec and bundle do not fit each other, or a number is given by neither.
        """
        bundle = spec.bundle() if bundle is None else bundle
        terms = terms_of(spec, bundle)
        job = spec.job.tuning_job(bundle.direction)
        book = spec.price_book(bundle)
        truth, noise = bundle.truth_of(terms, job, spec.seed), spec.workload.score_noise
        heard = truth.scores if noise is None else heard_scores(truth.scores, noise, bundle, spec.seed)
        return cls(
            spec,
            bundle,
            job,
            book,
            truth=replace(truth, scores=heard),
            profile=profile_of(spec, bundle, terms, book),
            provenance=terms.provenance,
            recorded_scores=truth.scores,
        )

    def controller(self, sink: Sink | None) -> Controller:
        """A fresh controller of this run's policy.

        Raises:
            InfeasibleJobError: the policy finds no plan within deadline and budget.
        """
        return self.belief.controller(sink, scores=self.recorded_scores)

    @property
    def belief(self) -> Belief:
        """What of it the policy is given."""
        return Belief(self.spec, self.bundle, self.job, self.price_book, self.profile)

    def backend(self) -> SimulatedBackend:
        """The simulated cloud and workers."""
        return SimulatedBackend(self.truth, self.spec.cloud.truth(self.bundle.data_bytes), Streams(self.spec.seed))

    def header(self) -> Header:
        """The first line of this run's journal."""
        return new_header(self.spec, self.bundle)


def new_header(spec: RunSpec, bundle: Bundle | None) -> Header:
    """The first line of a run's journal."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in _RECORDED_VERSIONS}}
    return Header(spec.to_dict(), spec.digest(), versions, data_sha256(spec, bundle))


def data_sha256(spec: RunSpec, bundle: Bundle | None) -> dict[str, str]:
    """Digest of everything that was read for a run: its bundle, by name, price catalogue and spot trace, by path."""
    spot = spec.cloud.spot
    trace = {} if spot is None else spot.data_sha256()
    recorded = {} if bundle is None else {bundle.name: bundle.sha256}
    return {**recorded, **_prices_sha256(spec), **trace}


class _Sinks:
    """Several sinks as one; the file can be added once the run is known to start."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = list(sinks)

    def write(self, entry: Entry) -> None:
        for sink in self.sinks:
            sink.write(entry)


def execute(
    spec: RunSpec,
    *,
    journal: str | Path | BinaryIO | None = None,
    record_trajectory: bool = False,
    bundle: Bundle | None = None,
) -> RunResult:
    """Run a spec in the simulated world. Equal specs give equal results, and journals that are equal byte for byte.

    Args:
        spec: the run.
        journal: where the journal goes; nothing is written to it unless the run starts.
        record_trajectory: keep what `RunResult.trajectory()` needs.
        bundle: used instead of the one that the spec names.

    Raises:
        InputError: spec and bundle do not fit each other, the run needs real workers, or the policy finds no plan within
            deadline and budget.
        InvalidActionError: the policy asked for something impossible.
        StalledRunError: the policy does not finish the run.
    """
    spec.require_simulable()
    world = World.of(spec, bundle)
    ledger, memory = Ledger(world.price_book), MemorySink()
    placements = PlacementAccount(world.truth.scaling, most_gpus(world.price_book))
    sinks = _Sinks([ledger, placements, memory] if record_trajectory else [ledger, placements])
    controller = world.controller(sinks)
    with _opened(journal) as stream:
        if stream is not None:
            sinks.sinks.append(JournalWriter(stream, world.header()))
        run(controller, world.backend())
    recording = Recording(memory.entries, world.recorded_scores, world.price_book, world.job.direction)
    return result_of(
        world,
        controller,
        ledger,
        placements.sums(),
        recorded_answer(world, controller),
        recording if record_trajectory else None,
    )


@contextmanager
def _opened(journal: str | Path | BinaryIO | None) -> Iterator[BinaryIO | None]:
    """The stream to write to; see `kept_file`."""
    if not isinstance(journal, str | Path):
        yield journal
        return
    with kept_file(Path(journal)) as stream:
        yield stream


def replay_journal(path: str | Path, *, bundle: Bundle | None = None) -> tuple[int, bool]:
    """Feed a journal's events to a fresh controller; returns how many entries were reproduced, and whether the run had ended.

    Args:
        path: the journal.
        bundle: used instead of the one that the journal's spec names.

    Raises:
        InputError: the file is not a journal, its spec is not the one of its digest, or bundle or price catalogue are not those
            it was recorded with.
        ReplayError: an entry is malformed, or the controller asked for or ordered something else.
    """
    path = Path(path)
    header = header_of(path)
    _require_same_prices(path, header)
    spec = RunSpec.of(**header.spec)
    if header.digest != spec.digest():
        raise InputError(f"{path}: its header was changed: the spec in it does not have the digest {header.digest}")
    built: list[Controller] = []
    # A real run has no recorded truth, and only an upper bound is told it.
    is_told_truth = entry_named(spec.policy.name).needs_truth
    source: World | Belief = World.of(spec, bundle) if is_told_truth else Belief.of(spec, bundle)
    _require_same_data(path, header, source)

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


def _require_same_data(journal: Path, header: Header, source: World | Belief) -> None:
    """What the journal was recorded with must be what is here now."""
    spec, bundle = source.spec, source.bundle
    _require_same(journal, header, "bundle", {} if bundle is None else {bundle.name: bundle.sha256})
    _require_same(journal, header, "spot trace", {} if spec.cloud.spot is None else spec.cloud.spot.data_sha256())
    if missing := sorted(set(header.data_sha256) - set(data_sha256(spec, bundle))):
        raise InputError(
            f"{journal}: it was recorded with {', '.join(missing)}, which its spec does not name: hand it over"
        )


def ledger_of(path: str | Path) -> Ledger:
    """The ledger of a journal; it needs no bundle, but for the size of its data where the spec leaves that to it.

    Raises:
        InputError: the file is not a journal, its price catalogue has changed, or it ends before its run did.
        ReplayError: an entry is malformed.
    """
    path = Path(path)
    header = header_of(path)
    _require_same_prices(path, header)
    spec = RunSpec.of(**header.spec)
    ledger = Ledger(spec.price_book())
    for entry in entries_of(path):
        ledger.write(entry)
    if not ledger.is_complete:
        raise InputError(f"{path}: the journal ends before its run did: its leases have no end, and so no bill")
    return ledger


def _prices_sha256(spec: RunSpec) -> dict[str, str]:
    """The digest of the price catalogue that a spec names; nothing where it names none."""
    prices = spec.cloud.prices
    return {} if prices is None else {prices: _sha256(prices)}


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _require_same_prices(journal: Path, header: Header) -> None:
    """Before its spec is read, which looks machines up in the catalogue."""
    prices = header.spec.get("cloud", {}).get("prices")
    if prices is None:
        return
    try:
        now = _sha256(prices)
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
