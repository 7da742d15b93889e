"""The folder of a sitting: what was asked, the profiles, and for each run its prediction, journal and calibrations.

    fidelity.json            what was asked, and the format
    bundles/NAME/            the profile from which runs of that workload were predicted
    runs/JOB-POLICY-N/       prediction.json, began.json, run/ (a real run), ended.json

A run counts once it has `ended.json`. A run without one is deleted and run again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from elastune.experiments.files import folder_name, write_atomically
from elastune.experiments.profiling.records import SegmentRecord
from elastune.experiments.runs.run_folder import claim_folder, require_inside
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.yaml_file import policy_mapping
from elastune.policies.registry import all_entries
from elastune.sim.model.errors import InputError
from elastune.traces import Bundle, load_bundle

FORMAT = 1
"""Of the folder; raised when a reader of the older one would be wrong."""
SEGMENTS_FILE = "segments.csv"
NO_FAULTS = {"instance_loss_per_hour": 0.0, "segment_failure_per_hour": 0.0}
"""What a profile says that did not learn from runs."""
StructT = TypeVar("StructT", bound=msgspec.Struct)


class JobAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One job of a sitting.

    Attributes:
        name: of it, from the file of its spec.
        spec: with the profile as its bundle; its policy and seed are those of each run.
        bundle: name of the profile.
    """

    name: str
    spec: dict[str, Any]
    bundle: str


class SittingAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sitting measures.

    Attributes:
        jobs: each of them under each policy, so many times.
        policies: with their parameters.
        repeats: seeds, counted from the spec's.
        device: what a slot is.
        speed: of emulated workers; None where they train.
        injects: whether the start-up delays and losses of the spec are added.
        format: of the folder.
    """

    jobs: list[JobAsked]
    policies: list[str]
    repeats: int
    device: Literal["cpu", "cuda"] = "cpu"
    speed: float | None = None
    injects: bool = False
    format: int = FORMAT


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same work each time, in a fresh process: what differs is the machine.

    Attributes:
        iteration_s: median of its iterations.
        launch_s: until the first could begin.
        load: average of the last minute, per core.
    """

    iteration_s: float
    launch_s: float
    load: float


class Began(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Written when a run begins.

    Attributes:
        at_s: seconds since 1970.
        prediction_sha256: of the file, which was there already.
        profiled: calibration beside the profile; None where nothing can be calibrated.
        before: calibration before the run.
    """

    at_s: float
    prediction_sha256: str
    profiled: Calibration | None = None
    before: Calibration | None = None


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Written when a run has ended.

    Attributes:
        at_s: seconds since 1970.
        after: calibration after the run.
    """

    at_s: float
    after: Calibration | None = None


class Unit(msgspec.Struct, frozen=True):
    """One run of a sitting.

    Attributes:
        folder: of it.
        job: its name.
        policy: with parameters.
        repeat: counted from 0.
        spec: of the run.
        bundle: folder of its profile.
        injects: whether start-up delays and losses of the spec are added.
    """

    folder: Path
    job: str
    policy: str
    repeat: int
    spec: RunSpec
    bundle: Path
    injects: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def journal(self) -> Path:
        """The journal of its real run, compressed where the folder was packed."""
        packed = self.folder / "run" / "journal.jsonl.zst"
        return packed if packed.is_file() else self.folder / "run" / "journal.jsonl"

    @property
    def is_done(self) -> bool:
        """Whether the run has ended."""
        return (self.folder / "ended.json").is_file()


class Sitting:
    """A folder that holds what was asked.

    Args:
        folder: of it.
        asked: what is measured.
    """

    def __init__(self, folder: Path, asked: SittingAsked) -> None:
        self.folder, self.asked = folder, asked

    @classmethod
    def begin(cls, folder: Path, asked: SittingAsked) -> Sitting:
        """Make the folder, or check that it is of the same sitting.

        Raises:
            InputError: it is another's, or holds something else.
        """
        require_inside(folder)
        path = folder / "fidelity.json"
        if path.is_file():
            found = cls.load(folder)
            if found.asked != asked:
                names = [
                    name
                    for name in SittingAsked.__struct_fields__
                    if getattr(found.asked, name) != getattr(asked, name)
                ]
                raise InputError(
                    f"{folder} holds a sitting that differs in {', '.join(names)}: choose another folder (-o), or ask for"
                    " the same"
                )
            return found
        claim_folder(folder, "fidelity sitting")
        write_atomically(path, msgspec.json.format(msgspec.json.encode(asked)) + b"\n")
        return cls(folder, asked)

    @classmethod
    def load(cls, folder: Path) -> Sitting:
        """The sitting in a folder.

        Raises:
            InputError: there is none, or it is of another version.
        """
        path = folder / "fidelity.json"
        if not path.is_file():
            raise InputError(f"{folder} holds no sitting of fidelity: fidelity.json is missing")
        require_inside(folder)
        told = _decoded(path, dict)
        if told.get("format") != FORMAT:
            raise InputError(
                f"{path} is of another version: its format is {told.get('format')}, but this version reads {FORMAT};"
                " measure again, or read it with the version that wrote it"
            )
        asked = _decoded(path, SittingAsked)
        _require_ours(path, asked)
        return cls(folder, asked)

    def units(self) -> Iterator[Unit]:
        """Every run that was asked for: the repeats one after another, so that drift meets all policies alike."""
        for repeat in range(self.asked.repeats):
            for job in self.asked.jobs:
                base = RunSpec.recorded(job.spec)
                for policy in self.asked.policies:
                    name = f"{job.name}-{policy}-{repeat}".replace(":", "-").replace(",", "-").replace("=", "-")
                    yield Unit(
                        self.folder / "runs" / folder_name(name, "a run"),
                        job.name,
                        policy,
                        repeat,
                        base.with_policy(policy).with_seed(base.seed + repeat),
                        self.folder / "bundles" / folder_name(job.bundle, "a bundle"),
                        self.asked.injects,
                    )


def _require_ours(path: Path, asked: SittingAsked) -> None:
    """Refuse a folder that names user code: it is not run."""
    for policy in (*asked.policies, *(job.spec.get("policy") for job in asked.jobs)):
        name = policy.get("name") if isinstance(policy, dict) else policy_mapping(str(policy))["name"]
        if name not in all_entries():
            raise InputError(
                f"{path}: policy {name} is code of somebody's own, which is run only where you name it yourself"
            )


def _decoded(path: Path, kind: type[Any]) -> Any:  # noqa: ANN401  of that type
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def read_note(path: Path, kind: type[StructT]) -> StructT:
    """A note of a run.

    Raises:
        InputError: it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: without it nothing is known about the run beside it")
    found: StructT = _decoded(path, kind)
    return found


def write_note(path: Path, note: msgspec.Struct) -> None:
    """Write a note of a run."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(note), indent=1) + b"\n")


@cache
def profile_in(folder: Path) -> tuple[Bundle, tuple[SegmentRecord, ...]]:
    """A bundle, and the segments that were timed for it; none where it was not timed.

    Raises:
        InputError: it cannot be read.
    """
    bundle, path = load_bundle(folder), folder / SEGMENTS_FILE
    if not path.is_file():
        return bundle, ()
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    try:
        return bundle, tuple(msgspec.convert([_typed(row) for row in rows], list[SegmentRecord], strict=False))
    except msgspec.ValidationError as error:
        raise InputError(f"{path} does not hold timed segments: {error}") from error


def node_starts_s(bundle: Bundle) -> tuple[float, ...]:
    """Seconds that nodes took from launch to readiness when the bundle was timed; none where no node was started."""
    return tuple(_timing_of(bundle).get("node_starts_s") or ())


def faults_of(bundle: Bundle) -> dict[str, float]:
    """How often machines were lost and segments failed in the runs that the profile learned from, as a spec takes it."""
    return NO_FAULTS | (_timing_of(bundle).get("faults") or {})


def _timing_of(bundle: Bundle) -> dict[str, Any]:
    timing = bundle.notes.get("timing")
    return timing if isinstance(timing, dict) else {}


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {**row, "is_fresh": row.get("is_fresh") == "True"}
