"""What the commands print for people. Imports rich; numbers arrive computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table

from elastune.experiments.cli.options import console
from elastune.sim.model.price_series import PriceSeries, price_at
from elastune.sim.model.prices import ON_DEMAND, SECONDS_PER_HOUR, SPOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from elastune.experiments.comparisons.ablation import Ablation
    from elastune.experiments.comparisons.comparison import Comparison
    from elastune.experiments.real.result import RealResult
    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec
    from elastune.policies.registry import Entry
    from elastune.sim.model.price_series import Price
    from elastune.traces import Offer

_NONE = "-"


def _number(value: float | None, digits: int = 4) -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:.{digits}g}"


def _usd(value: float | None) -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return _NONE if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def _kept(is_met: bool | None, limit: str) -> str:
    if is_met is None:
        return "no limit"
    return f"{'within' if is_met else 'BEYOND'} {limit}"


def print_run(spec: RunSpec, result: RunResult, folder: Path, journal: Path) -> None:
    """One run as a small table."""
    job = spec.job
    deadline, budget = f"{_seconds(job.deadline_s)} s", f"{_usd(job.budget_usd)} USD"
    parts = (result.regret_sampling, result.regret_selection, result.regret_truncation)
    sampling, selection, truncation = map(_number, parts)
    table = Table(title=f"{result.policy}, seed {result.seed}", show_header=False, title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    rows = {
        "best trial": _NONE if result.best_trial is None else f"{result.best_trial}: {_configuration(result)}",
        "score": _number(result.score),
        "test score": _number(result.test_score),
        "regret": f"{_number(result.regret)} = {sampling} sampling + {selection} selection + {truncation} truncation",
        "cost": f"{_usd(result.cost_usd)} USD, {_kept(result.budget_met, budget)}",
        "makespan": f"{_seconds(result.makespan_s)} s, {_kept(result.deadline_met, deadline)}",
        "trials started": str(result.trials_started),
        "iterations": str(result.iterations_trained),
        "GPU utilisation": _share(result.gpu_utilisation),
        "placement": _placement(result.placement),
        "results": str(folder),
        "journal": str(journal),
    }
    for what, value in rows.items():
        table.add_row(what, value)
    console().print(table)
    print_ledger(result.ledger_usd, result.ledger_gpu_s)


def print_control(result: RealResult) -> None:
    """What controlling a real run took."""
    control = result.control()
    if not control["events"]:
        return
    told = {
        part: f"{1000 * (control[f'{part}_median_s'] or 0):.2f} ms median, {1000 * (control[f'{part}_p99_s'] or 0):.2f} ms p99"
        for part in ("decision", "control")
    }
    console().print(
        f"{control['events']} events: deciding {told['decision']}; with writing and ordering {told['control']};"
        f" {result.host_s:.0f} s here"
    )


def print_ledger(usd: Mapping[str, float], gpu_s: Mapping[str, float]) -> None:
    """Where dollars and GPU-hours went; parts that are zero in both are left out."""
    table = Table(title="Where it went", title_justify="left", show_footer=True)
    total_usd, total_gpu_s = math.fsum(usd.values()), math.fsum(gpu_s.values())
    for heading, footer in (
        ("part", "sum"),
        ("USD", _usd(total_usd)),
        ("share", ""),
        ("GPU-hours", _number(total_gpu_s / SECONDS_PER_HOUR)),
    ):
        table.add_column(heading, footer=footer, justify="left" if heading == "part" else "right")
    for part in usd:
        if usd[part] or gpu_s[part]:
            share = _share(usd[part] / total_usd) if total_usd else _NONE
            table.add_row(part, _usd(usd[part]), share, _number(gpu_s[part] / SECONDS_PER_HOUR))
    console().print(table)


def print_prices(offers: Sequence[Offer]) -> None:
    """One line per machine and region."""
    table = Table("machine", "provider", "GPUs", "region")
    for heading in ("on demand, USD/h", "spot", "spot over on demand"):
        table.add_column(heading, justify="right")
    table.add_column("date")
    for offer in offers:
        prices = offer.instance_type.usd_per_hour
        ratio = (
            _NONE
            if SPOT not in prices
            else _number(price_at(prices[SPOT], 0) / (price_at(prices[ON_DEMAND], 0) or math.nan), 2)
        )
        shown = (_price(prices.get(market)) for market in (ON_DEMAND, SPOT))
        gpus = f"{offer.instance_type.gpus_per_instance} x {offer.gpu or 'GPU'}"
        table.add_row(offer.name, offer.provider, gpus, offer.region, *shown, ratio, offer.date)
    console().print(table)


def print_offer(offer: Offer) -> None:
    """Everything a catalogue says of one machine in one region."""
    kind = offer.instance_type
    table = Table(title=kind.name, show_header=False, title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    rows = {
        "provider": offer.provider,
        "GPUs": f"{kind.gpus_per_instance} x {offer.gpu or 'GPU'}",
        "region": offer.region,
        **{market: f"{_price(price)} USD/h" for market, price in kind.usd_per_hour.items()},
        "on demand, per GPU": f"{_number(price_at(kind.usd_per_hour[ON_DEMAND], 0) / kind.gpus_per_instance)} USD/h",
        "date": offer.date,
        "source": offer.source,
    }
    for what, value in rows.items():
        table.add_row(what, value or _NONE)
    console().print(table)


def _price(price: Price | None) -> str:
    """A constant price, or a series as `3 (0 s), 2.5 (3600 s)`."""
    if price is None:
        return _NONE
    if not isinstance(price, PriceSeries):
        return f"{price:g}"
    pairs = zip(price.usd_per_hour, price.start_s, strict=True)
    return ", ".join(f"{usd_per_hour:g} ({start_s:g} s)" for usd_per_hour, start_s in pairs)


def _placement(sums: Mapping[str, float]) -> str:
    spread = f"{sums['spread_segments']:.0f} of {sums['segments']:.0f} segments on more machines than needed"
    lost = f"{sums['spread_lost_gpu_s']:,.0f} GPU-seconds lost by it"
    return f"{spread}, {lost}; {sums['migrations']:.0f} of {sums['resumed']:.0f} resumed elsewhere"


def _configuration(result: RunResult) -> str:
    config = result.best_config or {}
    shown = (f"{name}={_number(v) if isinstance(v, float) else v}" for name, v in config.items())
    return ", ".join(shown)


def print_comparison(comparison: Comparison, folder: Path | None) -> None:
    """The summary of all policies, and the differences to the first."""
    wide = console()
    wide.print(_summary_table(comparison.summary))
    if len(comparison.paired):
        wide.print(_paired_table(comparison.paired))
    for row in comparison.summary.to_dict("records"):
        if row["error"]:
            wide.print(f"{row['policy']}: {row['error']}", markup=False, highlight=False)
    if folder is not None:
        wide.print(f"written to {folder}", markup=False, highlight=False)


def _summary_table(summary: pd.DataFrame) -> Table:
    table = Table(title="Means over the seeds, with 95 % intervals", title_justify="left")
    headings = ("policy", "runs", "score", "regret", "cost, USD", "makespan, s", "T met", "B met", "trials", "GPU use")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in cast("list[dict[str, Any]]", summary.to_dict("records")):
        table.add_row(
            row["policy"],
            _runs(row),
            _with_interval(row, "score", 4),
            _with_interval(row, "regret", 3),
            _with_interval(row, "cost_usd", 3),
            _seconds(row["makespan_s"]),
            _share(row["deadline_met"]),
            _share(row["budget_met"]),
            _number(row["trials_started"], 3),
            _share(row["gpu_utilisation"]),
        )
    return table


def _runs(row: Mapping[str, Any]) -> str:
    notes = [f"{row[kind]} {kind}" for kind in ("infeasible", "failed") if row[kind]]
    return ", ".join([str(row["runs"]), *notes])


def _with_interval(row: Mapping[str, Any], name: str, digits: int) -> str:
    value, low, high = (_number(row[key], digits) for key in (name, f"{name}_low", f"{name}_high"))
    return value if value == _NONE else f"{value} [{low}, {high}]"


def _paired_table(paired: pd.DataFrame) -> Table:
    against = paired["against"].iloc[0]
    table = Table(title=f"Differences to {against} on the same seeds", title_justify="left")
    for heading in ("policy", "measure", "difference", "better", "equal", "pairs"):
        table.add_column(heading, justify="left" if heading in {"policy", "measure"} else "right")
    measures = ("regret", "cost_usd")
    for row in cast("list[dict[str, Any]]", paired[paired["measure"].isin(measures)].to_dict("records")):
        difference = (
            f"{_number(row['mean'])} [{_number(row['low'])}, {_number(row['high'])}]" if row["pairs"] else _NONE
        )
        cells = (difference, _share(row["better"]), _share(row["ties"]), str(row["pairs"]))
        table.add_row(row["policy"], row["measure"], *cells)
    return table


def print_policies(policies: Mapping[str, Entry]) -> None:
    """Names, parameters with defaults, one line each."""
    table = Table("policy", "parameters", "what it does")
    for name, entry in policies.items():
        table.add_row(name, ", ".join(f"{key}={value}" for key, value in entry.parameters.items()), entry.summary)
    console().print(table)


def print_bundles(described: Sequence[Mapping[str, Any]]) -> None:
    """One line per bundle."""
    table = Table("bundle", "configurations", "iterations", "s per iteration", "score", "iteration")
    for one in described:
        seconds = _number(one["iteration_s"])
        sizes = (str(one["trials"]), str(one["max_iterations"]), seconds)
        table.add_row(one["name"], *sizes, f"{one['score']} ({one['direction']})", one["iteration"])
    console().print(table)


def print_bundle(described: Mapping[str, Any]) -> None:
    """Everything `describe` says of one bundle."""
    table = Table(title=described["name"], show_header=False, title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    quantiles = described["final_quantiles"] or {}
    correlations = (f"{_number(row['spearman'], 3)} after {row['iteration']}" for row in described["rank_correlation"])
    low, high = described["relative_cost_range"]
    rows = {
        "score": f"{described['score']}, to {described['direction']}",
        "iteration": described["iteration"],
        "size": f"{described['trials']} configurations x {described['max_iterations']} iterations",
        "final scores, worst to best": ", ".join(f"{level}: {_number(score)}" for level, score in quantiles.items()),
        "diverged": _share(described["diverged_share"]),
        "Spearman of early with final ranks": ", ".join(correlations),
        "cost of an iteration": f"{_number(described['iteration_s'])} s on 1 GPU, times {_number(low)} to {_number(high)}",
        "evaluation, of that": f"{_number(described['evaluate_s'])} s on 1 GPU, whatever the gang",
        "GPUs for its memory": f"at least {described['min_gpus']}",
        "launch, checkpoint": f"{_number(described['launch_s'])} s, {_number(described['checkpoint_s'])} s",
        "stragglers (cv)": f"{_number(described['straggler_persistent_cv'])} persistent, "
        f"{_number(described['straggler_per_iteration_cv'])} per iteration",
        "scaling": "none: set workload.scaling"
        if described["max_gpus"] is None
        else f"to {described['max_gpus']} GPUs",
        "schedule": described["schedule"] or _NONE,
        "source": f"{described['source']} ({described['licence']})",
        **{f"provenance of {key}": text for key, text in described["provenance"].items()},
        "sha256": described["sha256"],
    }
    for what, value in rows.items():
        table.add_row(what, value)
    console().print(table)


def print_ablation(ablation: Ablation) -> None:
    """The policy as it is, and with one mechanism switched at a time."""
    table = Table(title=f"{ablation.policy}, one mechanism switched at a time", title_justify="left")
    table.add_column("switch")
    for heading in ("runs", "no plan", "other orders", "regret", "better", "beyond T", "beyond B", "no answer"):
        table.add_column(heading, justify="right")
    for row in ablation.table.to_dict("records"):
        sign = "" if row["switch"] == "-" else "+"
        regret, low, high = (f"{row[key]:{sign}.4f}" for key in ("regret", "regret_low", "regret_high"))
        table.add_row(
            "as it is" if row["switch"] == "-" else row["switch"],
            *(str(row[key]) for key in ("runs", "infeasible")),
            "" if row["switch"] == "-" else _share(row["changed"]),
            f"{regret} [{low}, {high}]",
            *(_share(row[key]) for key in ("better", "deadline_missed", "budget_missed", "unanswered")),
        )
    console().print(table)


def print_import(described: Mapping[str, Any]) -> None:
    """What was made of a recording: its size, what was done to it, and what a run must add."""
    table = Table(title=f"{described['name']}, imported", show_header=False, title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    low, high = described["relative_cost_range"]
    seconds = described["iteration_s"]
    cost = f"{_number(seconds)} s on 1 GPU, times {_number(low)} to {_number(high)}" if seconds else "not recorded"
    rows = {
        "score": f"{described['score']}, to {described['direction']}",
        "iteration": described["iteration"],
        "size": f"{described['trials']} trials x {described['max_iterations']} iterations",
        "points without a score": _share(described["without_score_share"]),
        "test scores": "recorded" if described["has_test_scores"] else "not recorded",
        "cost of an iteration": cost,
        "seconds of each iteration": "recorded" if described["has_seconds"] else "not recorded",
        "hyperparameters": ", ".join(described["hyperparameters"]) or "NONE",
        **{key.replace("_", " "): _listed(value) for key, value in described["imported"].items()},
        **{f"lacking: {what}": f"set {key} in a run" for what, key in described["lacking"].items()},
        "written to": described["folder"],
    }
    for what, value in rows.items():
        table.add_row(what, value)
    console().print(table)


def _listed(value: object) -> str:
    """A note of an import: a number, a text, some names, or counts by name."""
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:10]))
        return f"{len(value)}: {shown}" + (", ..." if value[10:] else "")
    return str(value)
