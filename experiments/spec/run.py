"""The run spec: everything that decides a run, checked before anything starts.

Imports the sections of a spec, sim.model, traces, and pydantic. A spec is immutable, can be written back as the YAML it came
from, and has a digest that is equal for equal runs. Every error is one `InputError` that names the key.

Beyond the documented keys there are `cloud.faults: {instance_loss_per_hour, segment_failure_per_hour}`,
`cloud.slow_nodes: {share, slowdown, cv}`, `cloud.interference`, `cloud.store_writers`, `workload.evaluate_s`,
`workload.min_gpus` and `job.checkpoint_every`; for real runs `workload.configurations` and `workload.batch`;
where no bundle says it, `job.direction`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator

from elastune.experiments.files import write_text
from elastune.experiments.own_code import changed_phrase
from elastune.experiments.spec.cloud import CloudSpec  # noqa: TC001  pydantic reads the annotations when the program runs
from elastune.experiments.spec.errors import one_message
from elastune.experiments.spec.job import JobSpec  # noqa: TC001  as above
from elastune.experiments.spec.places import place_of_bundle, read_run_spec, spec_file
from elastune.experiments.spec.policy import PolicySpec
from elastune.experiments.spec.section import RECORDED, RECORDED_TRAINABLE, SEED, Count, Section
from elastune.experiments.spec.workload import WorkloadSpec  # noqa: TC001  as above
from elastune.experiments.spec.yaml_file import policy_mapping, with_settings
from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import unstated_gangs
from elastune.sim.model.prices import MIXED, ON_DEMAND, SPOT, PriceBook
from elastune.traces import Bundle, load_bundle, repeating_phrase, scaling_of, slower_phrase
from elastune.traces.formats.yaml_text import dump_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from elastune.sim.model.scaling import Scaling


_ANY_SEED = "\0 any seed"


@functools.cache
def _configurations_in(folder: Path) -> int:
    """How many configurations a bundle has; a sweep asks this of each of its cells."""
    return load_bundle(folder).trials


class RunSpec(Section):
    """One run: a job, a workload, a cloud, a policy and a seed.

    Build it with `RunSpec.load(path)` or `RunSpec.of(job={...}, ...)`; both raise `InputError` only.
    """

    job: JobSpec
    workload: WorkloadSpec
    cloud: CloudSpec
    policy: PolicySpec
    seed: Annotated[Count, SEED] = 0

    @model_validator(mode="wrap")
    @classmethod
    def _one_error(cls, value: object, build: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            spec = build(_with_checkpoints(value))
        except ValidationError as error:
            raise InputError(one_message(error, cls)) from error
        _check(spec)
        return spec

    @classmethod
    def of(cls, /, **sections: object) -> Self:
        """The spec with these sections, each as YAML would hold it. A policy of the user's own is imported.

        Raises:
            InputError: a key is unknown, missing or out of range.
        """
        return cls.model_validate(sections)

    @classmethod
    def recorded(cls, sections: Mapping[str, Any]) -> Self:
        """The spec of a record, such as a journal, which may come from somebody else: it does not make any code run.

        Where its policy is code of somebody's own, it can be read, but not run; see `PolicySpec.with_code_of`. Do not give the
        mapping of such a spec to `of`.

        Raises:
            InputError: a key is unknown, missing or out of range.
        """
        return cls.model_validate(sections, context={RECORDED: True, RECORDED_TRAINABLE: True})

    @classmethod
    def load(cls, path: str | Path, settings: Sequence[str] = ()) -> Self:
        """The spec of a YAML file. The file of a policy of the user's own is relative to it, and imported.

        Args:
            path: the file, or the name of a spec that ships, such as `headline`.
            settings: `dotted.key=value` texts that are put in before anything is checked.

        Raises:
            InputError: the file cannot be read or is malformed, or a key is unknown, missing or out of range.
        """
        return cls.model_validate(with_settings(read_run_spec(spec_file(path)), settings))

    def to_dict(self) -> dict[str, Any]:
        """The spec as YAML and JSON hold it, defaults included; `RunSpec.of(**spec.to_dict())` is the same spec."""
        return self.model_dump(mode="json", exclude_none=True)

    def save(self, path: Path) -> None:
        """Write the YAML file from which the same run can be run."""
        write_text(path, dump_yaml(self.to_dict()))

    def digest(self) -> str:
        """SHA-256 over all keys, policy and seed included; equal for equal runs, whether they state a default or not."""
        return next(self.digests([self.seed]))

    def digests(self, seeds: Iterable[int]) -> Iterator[str]:
        """The digest on each of the seeds; what it is over takes longer to write than to digest, and is written once."""
        resolved = {**self.to_dict(), "policy": self.policy.canonical(), "seed": _ANY_SEED}
        canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"), allow_nan=False)
        before, after = canonical.split(json.dumps(_ANY_SEED))
        for seed in seeds:
            yield hashlib.sha256(f"{before}{seed}{after}".encode()).hexdigest()

    def with_policy(self, name: str, **params: object) -> Self:
        """The same run under another policy; the name may carry parameters, as in `sha-elastic:gpus_per_trial=4`.

        Raises:
            InputError: the policy or a parameter is unknown.
        """
        return self.model_copy(update={"policy": PolicySpec.model_validate({**policy_mapping(name), **params})})

    def with_seed(self, seed: int) -> Self:
        """The same run with other luck."""
        return self.model_copy(update={"seed": seed})

    def bundle(self) -> Bundle:
        """The workload's recorded curves.

        Raises:
            InputError: none is named, or there is none of this name.
            InvalidTraceError: a file of it is malformed.
        """
        if self.workload.bundle is None:
            raise InputError("workload.bundle is missing: a run needs recorded curves")
        try:
            place = place_of_bundle(self.workload.bundle)
        except InputError as error:
            if self.workload.trainable is None:
                raise
            raise InputError(f"{error}; elastune profile, with the file of this spec, records one") from error
        return load_bundle(place)

    def trial_names(self) -> list[str]:
        """What pages and tables call the trials, by their number in the run.

        That is what the recording calls them; a configuration that no bundle holds has only its place in the draw.

        Raises:
            InputError: the bundle is not there or damaged.
        """
        trials = self.job.tuning_job("minimize").trials
        if self.workload.bundle is None or self.workload.configurations is not None:
            return [str(position) for position in range(trials)]
        return self.bundle().drawn_labels(trials, self.seed)

    @property
    def draws_anew(self) -> bool:
        """Whether the user's own code trains configurations that no bundle has, so that nothing is known of their scores."""
        return self.workload.trainable is not None and self.workload.configurations is not None

    def notes(self, *, of_draws: bool = True) -> tuple[str, ...]:
        """What to know before the numbers of this run are used; commands print it once.

        Args:
            of_draws: also whether seeds repeat each other.
        """
        return (*self._scaling_notes(), *(self._draw_notes() if of_draws else ()), *self._code_notes())

    def _scaling_notes(self) -> tuple[str, ...]:
        given = self.workload.scaling
        if given is not None:
            scaling: Scaling | None = scaling_of(cast("str", given))
            name = f"workload.scaling {given if isinstance(given, str) else 'as given'}"
        else:
            try:
                scaling = self.bundle().scaling
            except InputError:  # the run itself says so
                return ()
            name = f"the scaling of bundle {self.workload.bundle}"
        if scaling is None:
            return ()
        phrases = (slower_phrase(scaling), self._across_phrase(scaling))
        return tuple(f"{name}: {phrase}" for phrase in phrases if phrase)

    def _draw_notes(self) -> tuple[str, ...]:
        """Whether seeds repeat each other, since each draws much of the bundle's configurations."""
        name = self.workload.bundle
        if name is None:
            return ()
        try:
            folder = place_of_bundle(name).resolve()
            phrase = repeating_phrase(self.job.tuning_job("minimize").trials, _configurations_in(folder))
        except InputError:  # the run itself says so
            return ()
        return (f"workload.bundle {name}: {phrase}",) if phrase else ()

    def _code_notes(self) -> tuple[str, ...]:
        """Whether the user's own code has changed since the bundle was recorded with it."""
        code, name = self.workload.code, self.workload.bundle
        if code is None or name is None:
            return ()
        try:
            source = self.bundle().source
        except InputError:  # the run itself says so
            return ()
        phrase = changed_phrase(source, code.cited)
        note = (
            f"workload.bundle {name} {phrase}: its curves and seconds may be others; elastune profile with another -o records"
            " them anew"
        )
        return (note,) if phrase else ()

    def _across_phrase(self, scaling: Scaling) -> str:
        """Which gangs on several machines are believed without a measurement, in words; empty where none is."""
        try:
            book = self.cloud.price_book(0.0)
        except InputError:  # the run itself says so
            return ""
        whole = book.default_type.gpus_per_instance
        gangs = unstated_gangs(scaling, whole, book.max_instances * whole)
        if not gangs:
            return ""
        listed = f"{gangs[0]} to {gangs[-1]}" if len(gangs) > 3 else ", ".join(map(str, gangs))
        return (
            f"nothing says what the network between machines of {whole} GPU{'' if whole == 1 else 's'} costs, so gangs of"
            f" {listed} GPUs are believed as fast as on one machine; state it as in"
            f" {{{gangs[0]}x{gangs[0] // whole}: 4.0}}, or leave these gangs out"
        )

    def require_simulable(self) -> None:
        """Accept a run whose outcome the recorded curves know.

        Raises:
            InputError: its policy, or where its configurations come from, needs workers that really train.
        """
        workload, name = self.workload, self.policy.name
        needs = "real workers: run it with --on ray"
        if self.policy.entry.needs_real_workers:
            raise InputError(
                f"policy {name} changes configurations while they train, of which nothing is recorded; it needs {needs}"
            )
        for key, value, instead in (
            ("configurations", workload.configurations, "curves are recorded of the bundle's own configurations only"),
            ("batch", workload.batch, "curves are recorded at the batch of one worker only"),
        ):
            if value is not None:
                raise InputError(f"workload.{key} is {value}, but {instead}; it needs {needs}, or leave it out")

    def price_book(self, bundle: Bundle | None = None) -> PriceBook:
        """What a policy knows of the cloud's terms.

        Args:
            bundle: used instead of the one that the spec names, for the size of its data.

        Raises:
            InputError: the size of the data is given by neither spec nor bundle.
        """
        data = self.cloud.data
        if data is None or data.gb is not None:
            return self.cloud.price_book()
        known = self.bundle() if bundle is None and self.workload.bundle is not None else bundle
        return self.cloud.price_book(None if known is None else known.data_bytes)


def _with_checkpoints(value: object) -> object:
    """On machines that may be taken back, the interval of checkpoints follows from how often that is, unless it is given."""
    if not isinstance(value, dict):
        return value
    job, cloud = value.get("job"), value.get("cloud")
    if not (isinstance(job, dict) and isinstance(cloud, dict)) or "checkpoint_every" in job:
        return value
    return value | {"job": job | {"checkpoint_every": "auto"}} if cloud.get("market") in (SPOT, MIXED) else value


def _check(spec: RunSpec) -> None:
    """Everything that can be checked without the bundle's curves."""
    is_unknown = spec.cloud.market == ON_DEMAND and math.isinf(spec.cloud.believed_mtbf_s())
    if spec.job.checkpoint_every == "auto" and is_unknown:
        raise InputError(
            "job.checkpoint_every is auto, but nothing says how often machines are lost: give a number of iterations,"
            " cloud.faults.instance_loss_per_hour, or another cloud.market"
        )
    spec.job.tuning_job("minimize")
    spec.cloud.price_book(data_bytes=0.0)
    spec.cloud.truth(data_bytes=0.0)
    spec.workload.overrides(spec.cloud.rescale_s)
    spec.workload.profile.errors()
