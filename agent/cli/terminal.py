"""What people read on a terminal: lines and tables, in which text of others is nothing but text."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from agent.model.plain_text import printable

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """The terminal, or 160 columns where the output goes elsewhere. Rich is imported where something is printed."""
    from rich.console import Console

    return Console(highlight=False, width=None if os.isatty(1) else 160)


def say(*lines: object, style: str = "") -> None:
    """Print lines, each one line whatever is in it; an empty one when nothing is given."""
    from rich.text import Text

    for line in lines or ("",):
        console().print(Text(printable(line), style=style))


def labelled(label: str, style: str, line: object) -> None:
    """Print a line with a word in colour before it."""
    from rich.text import Text

    console().print(Text.assemble((printable(label), style), printable(line)))


def table(title: object, columns: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[str] = ()) -> None:
    """Print a table.

    Args:
        right: columns of figures, which stand to the right.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(printable(title)), title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    console().print(made)


def picture(title: str) -> str:
    """What was printed while `console().record` was set, as SVG.

    With the viewer's own font, so that nothing is fetched.
    """
    return re.sub(r"@font-face \{.*?\}", "", console().export_svg(title=title), flags=re.DOTALL).replace(
        "Fira Code", "monospace"
    )


def written(file: Path, text: str) -> None:
    """Write a page, and say where."""
    file.write_text(text, encoding="utf-8")
    say(f"written to {file}")
