"""Placement against the peers and the bound: `python -m bench.placement long-job …` and
`python -m bench.placement workflows …`.

One long job on spot traces, and workflows arriving over days; each part explains its own options with `--help`.
"""

from __future__ import annotations

import sys

from bench import placement_long_job, placement_workflows

PARTS = {"long-job": placement_long_job.main, "workflows": placement_workflows.main}


def main() -> None:
    """Run one part."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(f"python -m bench.placement PART …: PART is one of {', '.join(PARTS)}", file=sys.stderr)
        sys.exit(2)
    PARTS[sys.argv.pop(1)]()


if __name__ == "__main__":
    main()
