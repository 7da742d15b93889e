"""A hook of MkDocs: links from pages to files of the repository that are no pages.

Texts that live beside the code have a generated page; any other file is named without a link.
"""

from __future__ import annotations

import posixpath
import re

BESIDE_THE_CODE = {
    "traces/README.md": "generated/traces.md",
    "policies/seer/README.md": "generated/seer.md",
    "policies/explore_finish/README.md": "generated/explore_finish.md",
    "sim/DESIGN.md": "generated/design.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """The text with its links out of the pages mended."""
    folder = posixpath.dirname(page.file.src_uri)  # type: ignore[attr-defined]

    def mended(match: re.Match[str]) -> str:
        text, target = match[1], posixpath.normpath(posixpath.join("docs", folder, match[2]))
        if target.startswith("docs/"):
            return match[0]
        if target in BESIDE_THE_CODE:
            return f"[{text}]({posixpath.relpath(BESIDE_THE_CODE[target], folder or '.')})"
        return text

    return _LINK.sub(mended, markdown)
