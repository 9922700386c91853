"""What runner, extension and governor say to each other: names of handlers, deltas and annotation fields."""

from __future__ import annotations

from typing import Any

#: the resource nobody has
HOLD = "orc-hold"
#: the key of ORC's annotation on a Dask task
ANNOTATION = "orc"

#: fields of the annotation
SPEC, NEEDS, RUN, NAME, INNER, MODE = "spec", "needs", "run", "name", "inner", "mode"

#: handlers the extension adds to the scheduler
FOLLOW, INSTRUCT, SNAPSHOT, STATE = "orc_follow", "orc_instruct", "orc_snapshot", "orc_state"

#: deltas, as (kind, …):
READY = "ready"  # key, spec number, input bytes, since ms, governed keys it takes in, how many more of them
SPECIFIED = "spec"  # spec number, what it says
BOUND_ELSEWHERE = "seen"  # shadow: key, spec number, input bytes, since ms, worker address
ENDED = "end"  # key, result, worker address, start ms, stop ms, output bytes, lineage
GONE = "gone"  # key: a held task that was cancelled
JOINED = "join"  # worker, as `Extension.worker` describes it
LEFT = "left"  # worker address, why where it did not leave by itself
PAUSED = "paused"  # worker address, whether it takes no work now (too full, or closing)
LENT = "lent"  # key: its slot is free while it waits for inner work
THROUGH = "through"  # key, why it was not held
RESTARTED = "restart"  # held tasks it ended

#: what a body says of itself, in its Dask task's metadata: a mapping under the annotation's key
RESULT, CAUSE, LINEAGE = "result", "cause", "lineage"

Delta = tuple[Any, ...]
