"""What runner, extension, worker and governor say to each other: names of handlers, topics and annotation fields.

What the extension tells the governor of is in `agent.model.events`.
"""

from __future__ import annotations

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

#: what a body says of itself, in its Dask task's metadata: a mapping under the annotation's key
RESULT, CAUSE, LINEAGE = "result", "cause", "lineage"

#: topics of a worker's events: a task's checkpoint, a task that leaves, a worker that will be taken away
CHECKPOINT_TOPIC, MOVED_TOPIC, NOTICE_TOPIC = "orc-checkpoint", "orc-moved", "orc-notice"
#: message to a worker: a task is to leave at its next checkpoint
LEAVE = "orc-leave"
