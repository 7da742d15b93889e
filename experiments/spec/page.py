"""The tables of docs/spec.md, written from the sections of a spec: `python -m elastune.experiments.spec.page docs/spec.md`.

Imports experiments.spec. A table stands between the lines `<!-- keys of SECTION -->` and `<!-- end of keys -->` of the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.section import NeededUnless, Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_TABLE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)


class Key(NamedTuple):
    """One key of a spec.

    Attributes:
        name: dotted.
        default: as it is shown.
        allowed: the range of its numbers, and its words.
        means: what it is for.
        range: of its numbers, None where it holds none.
    """

    name: str
    default: str
    allowed: str
    means: str
    range: Range | None


def keys(section: type[BaseModel] = RunSpec, prefix: str = "") -> Iterator[Key]:
    """Every key of a section, in its order; those of the sections below it follow it."""
    for name, field in section.model_fields.items():
        below = _section_in(field.annotation)
        means = next((text for text in field.metadata if isinstance(text, str)), "")
        if below is None or means:
            found = next(
                (part for part in (*field.metadata, *_parts(field.annotation)) if isinstance(part, Range)), None
            )
            yield Key(
                f"{prefix}{name}", _default(field, is_section=below is not None), _allowed(field, found), means, found
            )
        if below is not None:
            yield from keys(below, f"{prefix}{name}.")


def _parts(annotation: object) -> Iterator[object]:
    """An annotation, and all that it is made of."""
    yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)


def _section_in(annotation: object) -> type[BaseModel] | None:
    return next((part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _default(field: FieldInfo, *, is_section: bool) -> str:
    if field.is_required():
        return "*needed*"
    needed = next((part for part in field.metadata if isinstance(part, NeededUnless)), None)
    if needed is not None:
        return str(needed)
    if field.default is None or is_section:
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _allowed(field: FieldInfo, found: Range | None) -> str:
    words = [word for part in _parts(field.annotation) if get_origin(part) is Literal for word in get_args(part)]
    truths = ["true", "false"] if bool in _parts(field.annotation) else []
    return ", ".join([*([str(found)] if found else []), *(f"`{word}`" for word in (*words, *truths))])


def table(section: str) -> str:
    """The keys of one of the spec's sections, as Markdown."""
    rows = [
        f"| `{key.name.removeprefix(f'{section}.')}` | {key.default} | {key.allowed} | {key.means} |"
        for key in keys()
        if key.name.startswith(f"{section}.")
    ]
    return "\n".join(["| key | default | allowed | means |", "|---|---|---|---|", *rows, ""])


def written(page: str) -> str:
    """The page with its tables as they are now."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", page)


if __name__ == "__main__":
    _path = Path(sys.argv[1])
    _path.write_text(written(_path.read_text(encoding="utf-8")), encoding="utf-8")
