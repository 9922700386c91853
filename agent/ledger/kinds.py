"""The kinds of records, and what each says."""

from __future__ import annotations

START, ROUND, MERGED = "start", "round", "merged"
ANSWER, APPROVAL, NOTICE, DEPARTURE = "answer", "approval", "notice", "departure"
RULES, REFUSAL, OUT_OF_MEMORY, RESTART = "rules", "refusal", "out_of_memory", "restart"
CHECKPOINT = "checkpoint"
#: kinds of records that hold notes: neither decisions nor outcomes
NOTES = (ANSWER, APPROVAL, NOTICE, DEPARTURE, RULES, REFUSAL, OUT_OF_MEMORY, CHECKPOINT, RESTART)
#: the one bag that ledgers of before have of all notes
SAID = "said"

#: what docs say of them
KINDS = {
    START: "a governor began: scheduler, mode, pools, digest of the rules, version of the planner, how many placements "
    "it closed",
    ROUND: "one plan: decisions, placements, outcomes, leases, the head of the snapshot, the parts that changed, "
    "the digest of the plan",
    ANSWER: "what a person said, who is the record's actor: the answer to a question, or an override; about which "
    "groups, for which pool and dollars, and why",
    APPROVAL: "a question to a person, by an id of its own: asked, answered or withdrawn",
    NOTICE: "a worker will be taken away, and when",
    DEPARTURE: "a worker left the scheduler, and why",
    RULES: "`rules_in_force`: a set that comes into force (digest, count, names added, removed and changed); "
    "`rules_refused`: files that are wrong, and why",
    REFUSAL: "tasks that are refused for what they say, and why",
    OUT_OF_MEMORY: "a task class ran out of so much memory, and is given more from now on",
    CHECKPOINT: "a task that was interrupted goes on from a checkpoint: how much of its work that keeps, "
    "in which pool it lies, and its size",
    RESTART: "a restart of the scheduler's workers ended tasks, and how many were held",
    MERGED: "records of a governor whose place in the chain was taken while the database was away, whole",
}
