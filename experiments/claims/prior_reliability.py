"""How well the prior of curves predicts the regret of schedules on bundles whose families it has not seen.

`python -m elastune.experiments.claims.prior_reliability BUNDLE... -o FILE` replays successive halving on the recorded curves,
prints what was predicted of it and what came out, and draws both. Imports the fit of the prior, and figures; pandas inside.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.experiments.profiling.fit_curve_prior import HeldOut, held_out
from elastune.policies.sizing.curve_prior import family_key, prior_for
from elastune.traces import load_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


def reliability_table(compared: Mapping[tuple[str, str], HeldOut]) -> pd.DataFrame:
    """One row per schedule: family, bundle, stages, predicted, measured (regrets).

    Args:
        compared: by family and bundle.
    """
    import pandas as pd

    rows = [(*names, *row) for names, found in compared.items() for row in found.rows()]
    return pd.DataFrame(rows, columns=["family", "bundle", "stages", "predicted", "measured"])


def compare(bundles: Sequence[str]) -> dict[tuple[str, str], HeldOut]:
    """By family and bundle, what the prior of the other families predicts and what replays measure.

    Raises:
        InputError: a bundle is not there, or has no scale of regret.
    """
    found = {}
    for name in bundles:
        bundle = load_bundle(name)
        family = bundle.family or bundle.name
        found[family_key(family), bundle.name] = held_out(bundle, prior_for(family))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print one line per bundle, and draw."""
    from elastune.experiments import figures

    parser = argparse.ArgumentParser(
        description="Predicted over measured regret of schedules, under the shipped prior."
    )
    parser.add_argument("bundles", nargs="+", help="names or folders of bundles")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the figure: PNG, PDF or SVG")
    options = parser.parse_args(arguments)
    compared = compare(options.bundles)
    for (family, name), found in compared.items():
        told = ", ".join(f"{key} {number:g}" for key, number in found.summary().items())
        sys.stdout.write(f"{family}, {name}: {len(found.schedules)} schedules, {told}\n")
    figures.save(figures.reliability(reliability_table(compared)), options.output)


if __name__ == "__main__":
    main()
