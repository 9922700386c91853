"""What a command costs: CPU seconds of its whole process, user and system.

`python -m bench.cli [--runs 7] [--json FILE]`

On a ledger of 40 decisions; the governor is played by a server with answers of that shape. The least of several runs is
what the code takes, the median what this machine made of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from bench import table
from bench.cli_stage import HOLD, RUN, stage

#: command → most CPU seconds it may take
COMMANDS: Mapping[tuple[str, ...], float] = {
    ("--help",): 0.25,
    ("status",): 0.6,
    ("why",): 0.6,
    ("why", RUN[:8]): 0.6,
    ("explain", RUN[:8]): 0.6,
    ("decisions",): 0.6,
    ("report", RUN[:8]): 0.6,
    ("approve", HOLD, "--by", "me"): 0.6,
    ("ledger", "verify"): 0.6,
}


def cpu_seconds(command: tuple[str, ...], env: Mapping[str, str], cwd: Path) -> float:
    """Run it once. Raises CalledProcessError when it fails."""
    line = [sys.executable, "-m", "agent.cli.main", *command]
    process = subprocess.Popen(line, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, line)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure each."""
    said = table.arguments("CPU of each command", runs=7)
    rows = []
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as at:
        for command, most in COMMANDS.items():
            seen = [cpu_seconds(command, at.env, at.home) for _ in range(said.runs)]
            rows.append(
                {
                    "command": f"orc {' '.join(command)}",
                    "floor, s": f"≤ {most}",
                    "least, s": round(min(seen), 3),
                    "median, s": round(median(seen), 3),
                }
            )
    table.show(f"CPU seconds of a command, {said.runs} runs", rows, said.json)


if __name__ == "__main__":
    main()
