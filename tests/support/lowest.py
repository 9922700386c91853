"""The lock with the lowest versions that pyproject claims of what the runner and the extension are built on.

`python -m tests.support.lowest` prints requirements for pip.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: distributions whose lowest claimed versions are tested
OF = ("dask", "distributed", "prefect", "prefect-dask")
#: what they take in older versions than the lock has
OLDER = ("packaging", "python-slugify")


def claimed() -> dict[str, str]:
    """Distribution → lowest version that pyproject claims."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = {}
    for line in said:
        if (match := re.match(r"([a-z-]+)(?:\[[^]]*\])?>=([0-9.]+)", line)) and match[1] in OF:
            found[match[1]] = match[2]
    return found


def requirements() -> str:
    """requirements.txt with those versions in it."""
    lowest = claimed()
    out = []
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        name = re.split(r"[=<>\[ ;]", line, maxsplit=1)[0].lower()
        out.append(f"{name}=={lowest[name]}" if name in lowest else name if name in OLDER else line)
    return "\n".join(out)


if __name__ == "__main__":
    print(requirements())
