"""Small tables as HTML, for notebooks. Imports only the standard library; all texts are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def pairs_html(title: str, rows: Mapping[str, object]) -> str:
    """What is known of one thing: a name and a text per line."""
    return table_html(title, (), rows.items())


def table_html(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under headings, the first cell of each in bold."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = [
        f"<tr><th style='text-align:left'>{escape(str(first))}</th>{''.join(map(_cell, cells))}</tr>"
        for first, *cells in rows
    ]
    caption = f"<caption style='text-align:left'>{escape(title)}</caption>"
    return f"<table>{caption}{f'<tr>{head}</tr>' if head else ''}{''.join(lines)}</table>"


def _cell(value: object) -> str:
    return f"<td>{escape(str(value))}</td>"
