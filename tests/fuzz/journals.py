"""Edits of lines of text, as a bad disk, a bad merge or a hand makes them."""

from __future__ import annotations

import re

_NUMBER = re.compile(rb"-?\d+(\.\d+)?(e[+-]?\d+)?")
_OTHERS = [b"0", b"-1", b"1", b"0.5", b"1e300", b"-0.0", b"99999999999999999999", b"null", b'"x"', b"nan", b"1_0", b""]


def edited_lines(rng, lines):
    """The lines after one to three edits: missing, doubled, swapped, torn, or with another number in them."""
    lines = list(lines)
    for _ in range(rng.randint(1, 3)):
        if not lines:
            break
        at = rng.randrange(len(lines))
        match rng.choice(["missing", "doubled", "swapped", "torn", "number", "number", "number", "byte"]):
            case "missing":
                del lines[at]
            case "doubled":
                lines.insert(at, lines[at])
            case "swapped":
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case "torn":
                lines[at:] = [lines[at][: rng.randrange(len(lines[at]) + 1)]]
            case "number":
                lines[at] = _with_another_number(rng, lines[at])
            case "byte":
                cut = rng.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:cut] + bytes([rng.randrange(256)]) + lines[at][cut + 1 :]
    return lines


def _with_another_number(rng, line):
    found = list(_NUMBER.finditer(line))
    if not found:
        return line
    match = rng.choice(found)
    return line[: match.start()] + rng.choice(_OTHERS) + line[match.end() :]
