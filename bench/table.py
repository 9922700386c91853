"""One table, and the same as JSON."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Integers by name, and `--json FILE`."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def show(title: str, rows: list[dict[str, Any]], into: Path | None) -> None:
    """Print the rows; write them, when asked."""
    out = Table(title=title, title_justify="left")
    for column in rows[0]:
        out.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        out.add_row(
            *(f"{v:,.3g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
        )
    Console(width=150).print(out)
    if into is not None:
        into.write_text(json.dumps({"title": title, "machine": platform.platform(), "rows": rows}, indent=1))
