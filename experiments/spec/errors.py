"""One clear sentence from what pydantic found wrong with a spec. Imports pydantic, sim.model.errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel, ValidationError

from elastune.sim.model.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

# By the beginning of pydantic's error types; what they say themselves is the last resort.
_WANTED: Mapping[str, str] = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text",
    "model": "must hold keys and values",
    "dict": "must hold keys and values",
    "tuple": "must be a list",
}
# What pydantic calls the alternatives of a union, besides those with brackets in their names.
_ALTERNATIVES = frozenset({"int", "float", "str", "bool", "constrained-int", "constrained-float", "constrained-str"})
# Keys that a section takes besides its fields, in another form of the same thing.
_FLAT_KEYS: Mapping[str, tuple[str, ...]] = {
    "cloud": (
        "queue_s",
        "init_s",
        "setup_s",
        "price_usd_per_hour",
        "spot_price_usd_per_hour",
        "gpus_per_instance",
    )
}


def one_message(error: ValidationError, root: type[BaseModel]) -> str:
    """What is wrong, where, and what would be right; unknown keys first, because they cause missing ones."""
    details = error.errors(include_url=False)
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
    detail = _deepest(unknown or details)
    if detail["type"] == "extra_forbidden":
        *above, key = detail["loc"]
        return _unknown_key(_without_alternatives(above), str(key), root)
    path = dotted(_without_alternatives(detail["loc"]))
    if detail["type"] == "missing":
        return f"{path} is missing"
    return f"{path or 'the spec'} is {detail['input']!r}, but {_wanted(detail)}"


def _deepest(details: Sequence[ErrorDetails]) -> ErrorDetails:
    """What is wrong with the first key; of the alternatives of a union, the one that fits furthest."""
    first = _without_alternatives(details[0]["loc"])
    of_key = [detail for detail in details if _without_alternatives(detail["loc"])[: len(first)] == first]
    return max(of_key, key=lambda detail: len(_without_alternatives(detail["loc"])))


def _without_alternatives(location: Sequence[str | int]) -> list[str | int]:
    """A place in a spec without the names that pydantic puts in for the alternatives of a union, as `float` or `list[...]`."""
    return [part for part in location if not (isinstance(part, str) and ("[" in part or part in _ALTERNATIVES))]


def dotted(location: Sequence[str | int]) -> str:
    """A place in a spec, as `--set` takes it; list items in brackets."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _wanted(detail: ErrorDetails) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}"
    for beginning, wanted in _WANTED.items():
        if kind.startswith(beginning):
            return wanted
    return detail["msg"].replace("Input should", "must").replace("Input", "it")


def _unknown_key(above: Sequence[str | int], key: str, root: type[BaseModel]) -> str:
    section = dotted(above)
    fields = _section_at(root, above).model_fields
    known = [*(field.alias or name for name, field in fields.items()), *_FLAT_KEYS.get(section, ())]
    listed = f"known: {', '.join(known)}"
    prefix = f"{section}." if section else ""
    near = nearest(key, known)
    if near is None:
        elsewhere = [path for path in _paths(root) if path.rpartition(".")[2] == key]
        suggestion = elsewhere[0] if elsewhere else prefix + (nearest(key, known, likeness=0.0) or known[0])
    else:
        suggestion = prefix + near
    return f"unknown key {prefix}{key}; did you mean {suggestion}? {listed}"


def _section_at(root: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    section = root
    for part in location:
        if str(part) not in section.model_fields:
            continue  # the name or number of one of several alike, whose section the part before led to
        found = _section_in(section.model_fields[str(part)].annotation)
        assert found is not None  # only sections forbid unknown keys
        section = found
    return section


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)


def _paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in section.model_fields.items():
        yield f"{prefix}{key}"
        below = _section_in(field.annotation)
        if below is not None:
            yield from _paths(below, f"{prefix}{key}.")
