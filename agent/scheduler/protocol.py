"""What runner, extension and governor say to each other: names of handlers, deltas and annotation fields."""

from __future__ import annotations

from typing import Any

#: the resource nobody has
HOLD = "orc-hold"
#: the key of ORC's annotation on a Dask task
ANNOTATION = "orc"

#: fields of the annotation
SPEC, NEEDS, RUN, NAME, INNER, MODE, BATCH = "spec", "needs", "run", "name", "inner", "mode", "batch"
#: what the class of a task's chunks is called after the task's own
CHUNKS = "/batch"

#: handlers the extension adds to the scheduler
FOLLOW, INSTRUCT, SNAPSHOT, STATE = "orc_follow", "orc_instruct", "orc_snapshot", "orc_state"

#: in the scheduler's metadata: the extension is there. A handler that is not there is an error in its log
PRESENT = "orc-present"

#: deltas, as (kind, …):
# key, spec number, input bytes, since ms, governed keys it takes in, how many more, Dask's priority in thousandths
READY = "ready"
SPECIFIED = "spec"  # spec number, what it says
BOUND_ELSEWHERE = "seen"  # shadow: key, spec number, input bytes, since ms, worker address
SUBMITTED = "submitted"  # [(key, spec number, keys it depends on)], inputs first, of runs with a deadline
ENDED = "end"  # key, result, worker address, start ms, stop ms, output bytes, lineage, checkpoint: (at ms, bytes) or ()
SAVED = "saved"  # key, at ms (0: nothing saved yet, but it can leave), bytes
GONE = "gone"  # key: a held task that was cancelled
JOINED = "join"  # worker, as `Extension.worker` describes it
LEFT = "left"  # worker address, why where it did not leave by itself
PAUSED = "paused"  # worker address, whether it takes no work now (too full, or closing)
LENT = "lent"  # key: its slot is free while it waits for inner work
THROUGH = "through"  # key, why it was not held
RESTARTED = "restart"  # held tasks it ended
NOTICE = "notice"  # worker address, ms left, why: it will be taken away
WANTED = "wanted"  # workers that are waited for in all (0: no more), who waits
BUSY = "busy"  # worker address, tasks and actors on it that no governor placed, slots they take

#: what a body says of itself, in its Dask task's metadata: a mapping under the annotation's key
RESULT, CAUSE, LINEAGE = "result", "cause", "lineage"

#: results of a task that left its worker by itself: for more memory, or at a checkpoint of a worker that is going
STARVED, LEFT_EARLY = "out of memory", "moved"

#: topics of a worker's events: a task's checkpoint, a task that leaves, a worker that will be taken away
CHECKPOINT_TOPIC, MOVED_TOPIC, NOTICE_TOPIC = "orc-checkpoint", "orc-moved", "orc-notice"
#: message to a worker: a task is to leave at its next checkpoint
LEAVE = "orc-leave"

Delta = tuple[Any, ...]
