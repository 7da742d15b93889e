"""YAML texts, without the forms in which YAML 1.1 reads another number than a person does. Imports yaml, sim.model.

Numbers are those of `sim.model.numbers`. `1e3` is one. `010` (8 in YAML 1.1), `1_0` (10) and `1:30` (90) stay text, which
whoever needs a number refuses. Dates stay text as well.
"""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.numbers import NUMBER, WHOLE, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from yaml import SafeDumper, SafeLoader

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DATE = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_NOT_FINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_FIRST = list("-+.0123456789")  # how a number begins
_MOST_VALUES = 1_000_000
"""In one text, with those behind aliases counted each time. A few lines of aliases can stand for more than memory holds."""

_DEEPEST = 100
"""Levels of nesting; a spec has six [ours]."""


def parse_yaml(text: str, where: str) -> object:
    """The value of a YAML text.

    Args:
        text: one document.
        where: what the message of an error begins with, such as the file's name.

    Raises:
        InvalidTraceError: it is malformed, gives a key twice, or holds a number that is none; names the line.
    """
    import yaml

    try:
        _require_shallow(text)
        loader = _loader()(text)
        node = loader.get_single_node()
        _check(node, where, itertools.count(1), loader.construct_object)
        value: object = None if node is None else loader.construct_document(node)
    except _NumberError as error:
        raise InvalidTraceError(f"{where}, line {error.line}", str(error)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The loader in C counts the end of a text as a line.
        line = f", line {min(mark.line, text.count(chr(10))) + 1}" if mark else ""
        problem = "is indented by a tab; YAML wants spaces" if mark and _has_tab(text, mark.line) else None
        problem = problem or f"malformed YAML: {error.problem or error.context}"
        raise InvalidTraceError(f"{where}{line}", problem) from error
    except RecursionError as error:
        problem = "malformed YAML: nested too deep, as by an alias that contains itself"
        raise InvalidTraceError(where, problem) from error
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise InvalidTraceError(where, f"malformed YAML: {' '.join(str(error).split())}") from error
    return value


def _has_tab(text: str, line: int) -> bool:
    """Whether a tab is in the indentation of a line, which is counted from 0."""
    found = text.splitlines()[line : line + 1]
    return any("\t" in one[: len(one) - len(one.lstrip())] for one in found)


def dump_yaml(mapping: Mapping[str, Any]) -> str:
    """The YAML text that `parse_yaml` reads as this mapping; texts that look like numbers are quoted."""
    import yaml

    return yaml.dump(dict(mapping), Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=100)


def _fast_loader() -> type[SafeLoader]:
    """PyYAML's safe loader in C, several times as fast, where PyYAML has it."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _require_shallow(text: str) -> None:
    """Refuse what is nested too deep for the loader in C, which would end the process.

    Raises:
        RecursionError: it is.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_fast_loader()):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise RecursionError


@cache
def _dumper() -> type[SafeDumper]:
    """PyYAML's safe dumper, which knows that `1e3` is a number here."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Holds resolvers of its own."""

    Dumper.add_implicit_resolver(_NUMBERS[1], re.compile(f"(?:{NUMBER.pattern})$"), _FIRST)
    return Dumper


@cache
def _loader() -> type[SafeLoader]:
    """PyYAML's safe loader with our numbers."""
    import yaml

    class Loader(_fast_loader()):  # type: ignore[misc]  # chosen while it runs
        """Holds resolvers of its own."""

        yaml_implicit_resolvers = {  # noqa: RUF012  as PyYAML declares it
            first: [(tag, pattern) for tag, pattern in resolvers if tag not in (*_NUMBERS, _DATE)]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_number(self, node: Any) -> int | float:  # noqa: ANN401  PyYAML has no types
            """What is tagged as a number by hand is read by the same reader."""
            text = str(self.construct_scalar(node))
            if re.fullmatch(_NOT_FINITE, text):
                return float(text.lower().replace(".", ""))
            try:
                return number_of(text)
            except ValueError as error:
                raise _NumberError(f"{text!r} {error}", node.start_mark.line + 1) from error

    Loader.add_implicit_resolver(_NUMBERS[0], re.compile(f"(?:{WHOLE.pattern})$"), _FIRST)
    Loader.add_implicit_resolver(_NUMBERS[1], re.compile(f"(?:{NUMBER.pattern}|{_NOT_FINITE})$"), _FIRST)
    for tag in _NUMBERS:
        Loader.add_constructor(tag, Loader.construct_number)
    return Loader


class _NumberError(Exception):
    """What looks like a number, or is tagged as one, is none."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def _check(node: object, where: str, count: Iterator[int], value_of: Callable[[object], object]) -> None:
    """Refuse two equal keys, of which YAML readers keep the last silently, and aliases that stand for too many values.

    Keys are equal if their values are, as those of `1`, `1.0` and `true`.
    """
    import yaml

    if next(count) > _MOST_VALUES:
        raise InvalidTraceError(where, f"holds more than {_MOST_VALUES:,} values, those behind aliases included")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, where, count, value_of)
    if isinstance(node, yaml.MappingNode):
        seen: set[object] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                name = value_of(key)
                if name in seen:
                    line = f"{where}, line {key.start_mark.line + 1}"
                    raise InvalidTraceError(line, f"the key {key.value!r} is given twice")
                seen.add(name)
            _check(value, where, count, value_of)
