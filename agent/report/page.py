"""One self-contained HTML page: tables and bars; nothing is fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.plain_text import html

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1f2328}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #d0d7de;text-align:right}"
    ".text{text-align:left}.late{color:#cf222e}figure{margin:1.5rem 0}svg{max-width:100%}"
)
#: what figures begin with
_FIGURES = "0123456789$+-"
#: work, start-up or idle, lost
COLORS = {"busy": "#1a7f37", "idle": "#d0d7de", "lost": "#cf222e"}


def document(title: str, *parts: str) -> str:
    """The page around its parts, which are HTML already."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html(title)}</title><style>{_STYLE}</style>"
    return f"{head}<h1>{html(title)}</h1>{''.join(parts)}</html>"


def said(text: str) -> str:
    """A paragraph."""
    return f"<p>{html(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table: columns of figures to the right, columns of words to the left, what is late in red."""
    cells = [[str(cell) for cell in row] for row in rows]
    words = [not any(row[at][:1] in _FIGURES for row in cells if row[at]) for at in range(len(head))]

    def line(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(_cell(tag, text, word) for text, word in zip(row, words, strict=True)) + "</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in cells)}</table>"


def figure(caption: str, drawing: str) -> str:
    """A drawing and what it shows."""
    return f"<figure><figcaption>{html(caption)}</figcaption>{drawing}</figure>"


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """A bar a row: its name, its length against the longest, what to write beside it."""
    longest, left, wide, high = max((value for _, value, _ in rows), default=0) or 1, 260, 760, 24
    lines = "".join(
        f'<text x="4" y="{n * high + 16}">{html(name)}</text>'
        f'<rect x="{left}" y="{n * high + 4}" width="{max(0.5, value / longest * (wide - left - 110)):.1f}" height="{high - 8}" '
        f'fill="{COLORS["busy"]}"/><text x="{left + 8 + value / longest * (wide - left - 110):.1f}" y="{n * high + 16}">{html(shown)}</text>'
        for n, (name, value, shown) in enumerate(rows)
    )
    return f'<svg viewBox="0 0 {wide} {len(rows) * high + 8}" font-size="12" role="img">{lines}</svg>'


def _cell(tag: str, text: str, word: bool) -> str:
    kinds = [kind for kind, so in (("text", word), ("late", tag == "td" and "late" in text)) if so]
    return f"<{tag}{_class(kinds)}>{html(text)}</{tag}>"


def _class(kinds: Sequence[str]) -> str:
    return f" class='{' '.join(kinds)}'" if kinds else ""
