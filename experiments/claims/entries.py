"""The catalogue's files: one per claim, and one of workloads. They are checked before anything runs.

Imports pydantic, the sections of a run spec, sim.model.errors. A claim's file is named after its id, as
`S1.yaml`; run specs lie beside them under names in lower case.

Endpoint, grid and sizes are written down here before a run is made, and both sizes have seeds of their own: the full size those
from `FIRST_SEED["full"]` on, which nothing was developed with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from elastune.experiments.spec.errors import one_message
from elastune.experiments.spec.policy import PolicySpec
from elastune.experiments.spec.section import Count, Number, Range, Section
from elastune.experiments.spec.yaml_file import read_mapping
from elastune.experiments.sweeps.rows import columns, measures
from elastune.sim.model.errors import InputError, unknown

CATALOG = Path(__file__).parents[1] / "catalog"
FIRST_SEED = {"smoke": 45_000, "full": 50_000}

PLANNERS = ("static", "rubberband-next", "rubberband", "fair", "static-wide", "rubberband-wide", "wide", "bound")
"""Planners of an experiment on plans, and the lower bound on every plan's cost."""
PLANNED = ("cost_usd", "makespan_s", "instances")
"""What is measured of their plans."""
REGRET_AT_MOST_1 = "regret_at_most_1"
"""Of runs: regret, in which an answer that is worse than the bundle's median configuration counts as the median."""
TRAINED = ("accuracy_over_standard", "accuracy_over_constant_rate", "flops", "test")
"""What is measured of trained networks; see `experiments.claims.trainings`."""
REAL = (
    *(
        "makespan_error",
        "cost_error",
        "makespan_structure",
        "cost_structure",
        "makespan_beyond_drift",
        "cost_beyond_drift",
    ),
    *("in_common", "covered", "score"),
)
"""What is measured of real runs; see `experiments.fidelity.rows`."""

_Kind = TypeVar("_Kind", bound=Section)
SizeName: TypeAlias = Literal["smoke", "full"]
Positive = Annotated[Number, Field(gt=0)]
_AtLeastOne = Annotated[Count, Field(ge=1)]


class ClaimWorkload(Section):
    """A workload of the catalogue.

    Attributes:
        about: one line for listings.
        bundle: a name; for `data` the path of a folder below the one of real data.
        origin: of the bundle: shipped with the project, real data beside it, or made from a formula when it is needed.
        pool: configurations that the bundle has; a run draws a quarter of them at most, else seeds repeat each other.
        base: keys of a run spec, those that every experiment on this workload shares.
    """

    about: str
    bundle: str
    origin: Literal["shipped", "data", "made"] = "shipped"
    pool: _AtLeastOne
    base: dict[str, Any]


class Size(Section):
    """The size of an experiment.

    Attributes:
        seeds: how many, from `FIRST_SEED` on.
        workloads: instead of the experiment's; none for all of them.
        deadlines: instead of the experiment's, as `budgets`.
        axes: values instead of those of the experiment's axes.
    """

    seeds: _AtLeastOne
    workloads: tuple[str, ...] = ()
    deadlines: tuple[Positive, ...] = ()
    budgets: tuple[Positive, ...] = ()
    axes: dict[str, list[Any]] = Field(default_factory=dict)


class _Sized(Section):
    """Common fields of experiments with runs and with plans."""

    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    zip: list[dict[str, list[Any]]] = Field(default_factory=list)
    smoke: Size
    full: Size

    def size(self, name: SizeName) -> Size:
        """The size of this name."""
        return self.smoke if name == "smoke" else self.full

    @model_validator(mode="after")
    def _sizes_change_what_is_there(self) -> _Sized:
        for name in get_args(SizeName):
            for key in self.size(name).axes:
                if key not in self.axes:
                    raise unknown(f"axis of the experiment that {name}.axes changes,", key, self.axes)
        return self


class Experiment(_Sized):
    """Runs of a claim: one sweep per workload.

    Attributes:
        workloads: names of `workloads.yaml`.
        deadlines: T as multiples of R tau, the seconds that one configuration takes to R on one GPU; an axis.
        budgets: B as multiples of what these seconds cost on one GPU; an axis.
        base: keys of a run spec over the workload's.
        axes: as in a sweep.
        zip: as in a sweep.
        journals: whether the runs' journals are kept, which what happens within runs is read from.
    """

    workloads: tuple[str, ...] = Field(min_length=1)
    deadlines: tuple[Positive, ...] = ()
    budgets: tuple[Positive, ...] = ()
    journals: bool = False

    @property
    def policies(self) -> tuple[str, ...]:
        """The swept policies, as rows name them."""
        return tuple(PolicySpec.model_validate(policy).label for policy in self.axes.get("policy", ()))


class PlanExperiment(_Sized):
    """Plans of a claim: nothing is run.

    Attributes:
        base: job, workload and cloud, as `elastune plan` takes them.
        axes: as in a sweep.
        zip: as in a sweep.
        random_jobs: whether each seed draws the stages of a job.
        points: how many deadlines, spread from the fastest plan to the cheapest.
        deadlines: instead of these, T as multiples of R tau.
    """

    random_jobs: bool = False
    points: _AtLeastOne = 12
    deadlines: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _sizes_change_what_plans_have(self) -> PlanExperiment:
        for name in get_args(SizeName):
            size = self.size(name)
            if size.workloads or size.deadlines or size.budgets:
                raise InputError(
                    f"{name}: of plans a size gives seeds and axes, but no workloads, deadlines or budgets"
                )
        return self


class Contrast(Section):
    """A comparison of policies, and the bound that decides the claim.

    What is compared is a gain: by how much the policy is better than the other one, as a difference or as a ratio. Without
    `against` it is the measure itself, and with `along` the change of either from one setting to the next.

    Attributes:
        experiment: whose runs or plans.
        policies: each of them ...
        against: ... with each of these; none for no comparison, where the measure itself is the result.
        by: further columns by which the pairs are told apart, such as `workload.scaling`.
        measure: instead of the endpoint's.
        kind: instead of the endpoint's.
        along: a column whose settings are compared with each other.
        values: of this column, in order; none for all of them, ascending.
        where: a condition on rows of runs, as `elastune results --where` takes it; on rows of trainings as pandas does.
        above: the claim needs more than this, told apart from it by the interval and by Holm's p-value.
        below: the claim needs less than this, in the same way.
        least: the claim needs an interval that is nowhere below this.
        most: the claim needs an interval that is nowhere above this.
    """

    experiment: str
    policies: tuple[str, ...] = Field(min_length=1)
    against: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    measure: str | None = None
    kind: Literal["difference", "ratio"] | None = None
    along: str | None = None
    values: tuple[str | Number, ...] = ()
    where: str | None = None
    above: Number | None = None
    below: Number | None = None
    least: Number | None = None
    most: Number | None = None

    @property
    def decides(self) -> bool:
        """Whether the verdict rests on it; else it is only told in the claim's table."""
        return any(bound is not None for bound in (self.above, self.below, self.least, self.most))


class Endpoint(Section):
    """The endpoint of a claim. It is fixed before any run.

    Attributes:
        measure: of each run.
        kind: how two runs of a seed are compared: the other's minus the policy's, or over the policy's.
        also: further measures that are told beside it in the claim's tables, as differences.
        beside: measures by which everything that is decided by the endpoint's own is compared as well. They decide nothing.
        least_effect: that counts.
        contrasts: who with whom.
    """

    measure: str
    kind: Literal["difference", "ratio"] = "difference"
    also: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    least_effect: Annotated[Number, Range(0, 1e9)] = 0.05
    contrasts: tuple[Contrast, ...] = ()

    @model_validator(mode="after")
    def _measures_are_known(self) -> Endpoint:
        for measure in (self.measure, *self.also, *self.beside):
            _require_known("measure", measure, (*measures(), REGRET_AT_MOST_1, *TRAINED, *REAL))
        return self


class FigureEntry(Section):
    """A figure of a claim.

    Attributes:
        draw: which figure; see `experiments.claims.figures`.
        experiment: whose runs or plans.
        where: a condition on rows of runs, as `elastune results --where` takes it.
        options: of the figure.
        caption: what it shows.
    """

    draw: str
    experiment: str
    caption: str
    where: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class Claim(Section):
    """A claim of a paper, or a question of ours, and the experiments that test it.

    Attributes:
        source: paper, or `ours`.
        flag: how sure it is that the source says so, as in the list of claims.
        expected: what would be seen if it holds.
        conditions: what has to be said beside every result.
        experiments: runs, by name.
        plans: plans, by name.
        trainings: tables of trained networks, by name; each is a file beside the claim's.
        real_runs: tables of real runs, in the same way.
        figures: by name.
    """

    id: str
    claim: str
    source: str
    flag: str
    question: str
    expected: str
    conditions: tuple[str, ...] = ()
    endpoint: Endpoint = Field(default_factory=lambda: Endpoint(measure="regret"))
    experiments: dict[str, Experiment] = Field(default_factory=dict)
    plans: dict[str, PlanExperiment] = Field(default_factory=dict)
    trainings: dict[str, str] = Field(default_factory=dict)
    real_runs: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, FigureEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_there(self) -> Claim:
        known = [*self.experiments, *self.plans, *self.trainings, *self.real_runs]
        if not known:
            raise InputError("give experiments, plans, trainings or real_runs")
        for contrast in self.endpoint.contrasts:
            _require_known("experiment", contrast.experiment, known)
            self._check_contrast(contrast)
        for name, drawn in self.figures.items():
            _require_known("experiment", drawn.experiment, known)
            if drawn.where is not None and drawn.experiment in self.plans:
                raise InputError(f"figures.{name}.where is about rows of runs, but {drawn.experiment} has plans")
        return self

    def _check_contrast(self, contrast: Contrast) -> None:
        if contrast.experiment in {**self.trainings, **self.real_runs}:
            # Networks, policies and columns are known once the table is read.
            known = TRAINED if contrast.experiment in self.trainings else REAL
            _require_known("measure", contrast.measure or self.endpoint.measure, known)
            return
        is_planned = contrast.experiment in self.plans
        policies = PLANNERS if is_planned else self.experiments[contrast.experiment].policies
        measured = PLANNED if is_planned else measures()
        for policy in (*contrast.policies, *contrast.against):
            _require_known(f"policy of {contrast.experiment}", policy, policies)
        if contrast.measure is not None:
            _require_known("measure", contrast.measure, measured)
        if is_planned and contrast.where is not None:
            raise InputError(f"a contrast's where is about rows of runs, but {contrast.experiment} has plans")
        for column in filter(None, (*contrast.by, contrast.along)):
            _require_known("column", column, tuple(columns()))


def _require_known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise unknown(kind, name, known)


def load_claims(folder: Path = CATALOG) -> dict[str, Claim]:
    """Every claim of the catalogue, by id.

    Raises:
        InputError: a file is malformed, has an unknown key (names the nearest), or does not fit the workloads.
    """
    workloads = load_workloads(folder)
    claims: dict[str, Claim] = {}
    for path in sorted(folder.glob("[A-Z]*.yaml"), key=_order):
        claim = _checked(str(path), read_mapping(path), Claim)
        if claim.id != path.stem:
            raise InputError(f"{path}: id is {claim.id!r}, but must be the file's name, {path.stem}")
        for name, experiment in claim.experiments.items():
            _check_workloads(f"{path}: experiments.{name}", experiment, workloads)
        claims[claim.id] = claim
    figures = [name for claim in claims.values() for name in claim.figures]
    doubles = sorted({name for name in figures if figures.count(name) > 1})
    if doubles:
        raise InputError(f"{folder}: two figures are called {doubles[0]}")
    return claims


def _order(path: Path) -> tuple[int, str, str]:
    """SEER's claims, RubberBand's, then the others; S2 before S10."""
    letter = path.stem[0]
    return "SR".find(letter) % 3, letter, path.stem.zfill(9)


def load_workloads(folder: Path = CATALOG) -> dict[str, ClaimWorkload]:
    """The workloads of the catalogue, by name.

    Raises:
        InputError: the file is malformed or has an unknown key.
    """
    path = folder / "workloads.yaml"
    return {name: _checked(f"{path}: {name}", document, ClaimWorkload) for name, document in read_mapping(path).items()}


def _checked(where: str, document: object, kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{where}: {one_message(error, kind)}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_workloads(where: str, experiment: Experiment, workloads: Mapping[str, ClaimWorkload]) -> None:
    named: Sequence[str] = (*experiment.workloads, *experiment.smoke.workloads, *experiment.full.workloads)
    for name in named:
        if name not in workloads:
            raise InputError(f"{where}: {unknown('workload', name, workloads)}")
