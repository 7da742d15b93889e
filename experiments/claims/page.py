"""The page of the claims, from their records alone. Imports nothing but the standard library.

The records are what `elastune claims --json` prints. They lie beside the page, so that it can be made again without a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from elastune.experiments.files import write_text

RECORDS, PAGE, FIGURES = "claims.json", "claims.md", "figures"
WHERE = ", where "
"""Begins the part of the grid in the text of a gain."""
LONG = 60
"""Characters from which on that part is told once, and named by a letter."""

_HEAD = """# Claims and verdicts

`elastune claims` wrote this page from the runs of the [catalogue](catalog.md). A verdict follows from the bound that the
claim's file states, and from nothing else: a claim holds where the interval of its gain lies on the right side of the bound
and no cell of the grid on the wrong one; it does not hold where the interval lies on the wrong side, and is not shown where
it lies on both. Gains are above 0 (ratios above 1) where the policy is better. Intervals are of 95 %, over families, bundles
and paired seeds; p-values are Holm's over the baselines. Costs are of jobs that ran to their end: `unfinished` counts the pairs
of which T cut a run. D1 and D2 rest on trained networks instead, V1, R4 and R11 on real runs; their rows ship. The papers' full
texts were not at hand: what is marked as recalled is a reconstruction.

Regret has no upper end: an answer that diverged can be thousands of times as far from the best as the median configuration
is, and a few of them make a mean. Where that happens, the same comparisons stand beside it with `regret_at_most_1`, in which
an answer worse than the median counts as the median. This was added after the runs had been seen, so it decides nothing.
"""


def write_page(records: Sequence[Mapping[str, Any]], folder: Path, order: Sequence[str]) -> list[Path]:
    """Write the records and their page into the folder; returns both. Claims that are not among the records stay as they are.

    Args:
        records: of some claims.
        folder: of records, page and figures.
        order: the ids of all claims; what is there of others goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    at = folder / RECORDS
    before = json.loads(at.read_text(encoding="utf-8")) if at.is_file() else []
    by_id = {record["id"]: record for record in [*before, *records]}
    told = [by_id[name] for name in order if name in by_id]
    write_text(at, json.dumps(told, indent=1, allow_nan=False) + "\n")
    write_text(folder / PAGE, page(told))
    return [at, folder / PAGE]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page as markdown."""
    head = "| id | claim | measured | verdict |\n|---|---|---|---|"
    rows = [
        f"| [{record['id']}](#{record['id'].lower()}) | {record['claim']} | {measured(record)} | {verdict(record)} |"
        for record in records
    ]
    return "\n".join([_HEAD, head, *rows, "", *map(_section, records)])


def measured(record: Mapping[str, Any]) -> str:
    """The first contrast's gain with its interval."""
    if not record["tests"]:
        return "-"
    first = record["tests"][0]
    gain, _, part = first["gain"].partition(WHERE)
    told = f"{gain}, in a part of the grid" if len(part) > LONG else first["gain"]
    return f"{told}: {interval(first)}"


def verdict(record: Mapping[str, Any]) -> str:
    """The word, and the size it rests on unless that is the full one."""
    is_told = record["size"] in (None, "full", record["verdict"])
    return record["verdict"] if is_told else f"{record['verdict']} ({record['size']})"


def interval(test: Mapping[str, Any]) -> str:
    """The gain with its interval, or a word where there are no pairs."""
    if test["value"] is None:
        return "no pairs"
    return f"{test['value']:g} [{test['low']:g}, {test['high']:g}]"


def _section(record: Mapping[str, Any]) -> str:
    parts = [
        f'## <a id="{record["id"].lower()}"></a>{record["id"]}: {record["claim"]}',
        f"{record['source']} ({record['flag']}). Expected: {record['expected']}.",
        f"**Verdict: {verdict(record)}.** {_sentence(record['where'])}".rstrip(),
    ]
    if record["tests"]:
        beside = record.get("beside", [])
        parts += [_tests(record["tests"])]
        parts += ["Beside it, deciding nothing:", _tests(beside)] if beside else []
        parts += [f"Size: {record['size']}; results version {record['results_version']}."]
        parts = _with_letters(parts, [*record["tests"], *beside])
    parts += ["\n".join(f"- {told}" for told in record["conditions"])] if record["conditions"] else []
    parts += [f"![{name}]({FIGURES}/{name}.png)" for name in record["figures"]]
    return "\n\n".join(parts) + "\n"


def _with_letters(parts: list[str], tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same, in which a long part of the grid has a letter that is explained once."""
    grids = dict.fromkeys(part for test in tests if len(part := test["gain"].partition(WHERE)[2]) > LONG)
    for letter, part in zip(ascii_lowercase, grids, strict=False):
        parts = [text.replace(f"{WHERE}{part}", f" ({letter})") for text in parts]
        parts.append(f"({letter}) where `{part}`")
    return parts


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


_COLUMNS = (
    *("gain", "scaling", "measured", "needed", "p (Holm)", "pairs", "unfinished", "families"),
    *("cells right / wrong / all", "verdict"),
)


def _tests(tests: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for test in tests:
        p = "-" if test["p_holm"] is None else f"{test['p_holm']:.2g}"
        cells = f"{test['cells_right']} / {test['cells_wrong']} / {test['cells']}"
        lines.append(
            f"| {test['gain']} | {test['scaling']} | {interval(test)} | {test['needed']} | {p} | {test['pairs']:,} |"
            f" {test['unfinished']:,} | {test['families']} | {cells} | {test['verdict']} |"
        )
    return "\n".join(lines)
