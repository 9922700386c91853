"""Text of others as nothing but text: names of tasks come from whoever may submit one, and people decide by what they
read.
"""

from __future__ import annotations

import re
from html import escape

#: what moves a terminal's cursor, colours it, turns the order of letters round, breaks a line, or cannot be encoded:
#: C0 and C1 controls, marks of direction, separators of lines, halves of surrogate pairs
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
#: what Markdown reads as more than itself, in a cell or a sentence; a colon and a point only where they make an address
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()#+!|~@$^=]|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: object) -> str:
    r"""One line of text that does nothing to a terminal: what would is shown as `\x1b`, `\n` or `\u202e`."""
    return _UNPRINTABLE.sub(lambda found: _shown(found[0]), str(text))


def markdown(text: object) -> str:
    """The same as Markdown that reads as it stands: no code, link, picture, HTML or cell of its own."""
    plain = re.sub("[&<>]", lambda found: _ENTITIES[found[0]], printable(text))
    return _MARKDOWN.sub(r"\\\g<0>", plain)


def html(text: object) -> str:
    """The same as the content of an HTML element or of a quoted attribute."""
    return escape(printable(text))


def _shown(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    )
