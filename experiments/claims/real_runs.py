"""Claims about real runs rest on a table that lies in the catalogue, a row for each run that `elastune fidelity` measured.

Imports the columns of the table; pandas inside. Nothing of it can be simulated, so both sizes read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.experiments.claims.entries import CATALOG, Claim, Contrast
from elastune.experiments.fidelity.rows import RealRunRow
from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd


_MADE_BY = "elastune fidelity SPEC... --policies ... --repeats 6 -o DIR --rows FILE"


@dataclass(frozen=True, eq=False)
class ClaimRealRuns:
    """The real runs of a claim.

    Attributes:
        claim: of the catalogue.
        experiment: what the claim calls them.
        file: of the rows.
        cells: columns that tell cells apart.
    """

    claim: Claim
    experiment: str
    file: Path
    cells: tuple[str, ...] = ("job",)

    @classmethod
    def of(cls, claim: Claim, name: str) -> ClaimRealRuns:
        """The real runs that a claim names."""
        return cls(claim, name, CATALOG / claim.real_runs[name])

    def rows(self) -> pd.DataFrame:
        """One row per run, with the columns of `RealRunRow`.

        Raises:
            InputError: the file is no such table.
        """
        import pandas as pd

        rows = pd.read_csv(self.file)
        if tuple(rows) != RealRunRow._fields:
            raise InputError(f"{self.file} is no table of real runs: `elastune fidelity --rows FILE` writes one")
        return rows

    def evidence_rows(self, contrast: Contrast) -> pd.DataFrame:
        """The rows with the columns that `experiments.claims.evidence` reads. Intervals cover the repeats of the jobs measured.

        Raises:
            InputError: no run is of a policy that the contrast names.
        """
        rows = self.rows()
        for policy in (*contrast.policies, *contrast.against):
            if policy not in set(rows["policy"]):
                problem = unknown("policy", policy, sorted(set(rows["policy"])))
                raise InputError(f"{self.claim.id} {self.experiment}: {problem}")
        return rows.assign(bundle_family="real runs", bundle_sha256=rows["job"])

    def conditions(self) -> Iterator[str]:
        """For each job, how many runs there are and in which regime, and the command that measures again."""
        for job, part in self.rows().groupby("job", sort=False):
            policies = part["policy"].value_counts()
            runs = f"{policies.min()}" if policies.min() == policies.max() else f"{policies.min()} to {policies.max()}"
            yield (
                f"{job}: {runs} real runs of each of {len(policies)} policies, {part['workload'].iloc[0]};"
                f" {part['trained'].mean():.0%} of the busy GPU-seconds trained; drift of the machine since the profile"
                f" {part['drift'].mean():+.0%}"
            )
        yield f"on CPU slots; measured anew by `{_MADE_BY}`"
