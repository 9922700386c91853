"""Self-contained HTML pages from the templates beside this module: nothing is fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agent.model.plain_text import printable

#: what every page extends and draws with
TEMPLATES = Path(__file__).parent / "pages"
#: work, start-up or idle, lost
COLORS = {"busy": "#1a7f37", "idle": "#d0d7de", "lost": "#cf222e"}
#: what figures begin with
_FIGURES = "0123456789$+-"
#: width of the longest bar
_LONGEST = 390


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTable:
    """A table as pages draw it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def words(self) -> tuple[bool, ...]:
        """Whether a column has words, not figures."""
        return tuple(not any(row[at][:1] in _FIGURES for row in self.rows if row[at]) for at in range(len(self.head)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a bar chart: its name, its length, what to write beside it."""

    name: str
    shown: str
    width: float


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> PageTable:
    """A table of cells as they read."""
    return PageTable(head=tuple(head), rows=tuple(tuple(str(cell) for cell in row) for row in rows))


def bars(rows: Sequence[tuple[str, float, str]]) -> list[Bar]:
    """Bars of (name, value, what to write), each against the longest."""
    longest = max((value for _, value, _ in rows), default=0) or 1
    return [Bar(name=name, shown=shown, width=max(0.5, value / longest * _LONGEST)) for name, value, shown in rows]


def render(template: Path, **values: Any) -> str:
    """The page of a template. Every value is text in it, whatever it holds."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(colors=COLORS, **values)


def _plain(value: Any) -> Any:
    """What a template prints: markup of its own macros as it is, all else as text that does nothing."""
    return value if isinstance(value, Markup) else printable(value)
