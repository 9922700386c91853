"""Tables of the ledger, in types that SQLite and PostgreSQL share.

`record` is the chain; the others are its rows and projections.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

from agent.model.outcomes import Result

#: number of the newest revision under `migrations/`; a ledger of a higher one is refused
VERSION = 3

metadata = MetaData()

#: by this number a release, also one of before Alembic, refuses a ledger that is newer than itself
version = Table("orc_version", metadata, Column("version", Integer, primary_key=True))

#: one chain for each Dask scheduler, and the governor that may write it
chain = Table(
    "orc_chain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("scheduler", String, unique=True, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("holder", String, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    #: number of the last record, so that a cut-off end is seen
    Column("last_seq", BigInteger, nullable=False),
)

record = Table(
    "orc_record",
    metadata,
    Column("chain", ForeignKey(chain.c.id), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("mode", String, nullable=False),
    Column("actor", String, nullable=False),
    # empty since version 3, and hashed as before: a record is of many runs; see run.trace, decision.team
    Column("team", String, nullable=False),
    Column("trace", String, nullable=False),
    Column("root_run", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

#: content by its digest: parts of snapshots, bodies of decisions
part = Table(
    "orc_part",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

run = Table(
    "orc_run",
    metadata,
    Column("chain", Integer, primary_key=True),
    Column("no", Integer, primary_key=True, autoincrement=False),
    Column("flow_run", String, nullable=False),
    Column("root_run", String, nullable=False),
    Column("flow", String, nullable=False),
    Column("deployment", String, nullable=False),
    Column("team", String, nullable=False),
    #: trace id of the root run, hex; "": it has none
    Column("trace", String, nullable=False, server_default=""),
    #: the record whose digest covers this row; 0: written before version 3, covered by none
    Column("seq", BigInteger, nullable=False, server_default="0"),
    Index("orc_run_seq", "chain", "seq"),
    Index("orc_run_flow_run", "flow_run"),
)

decision = Table(
    "orc_decision",
    metadata,
    Column("chain", Integer, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
    Column("task_class", String, nullable=False),
    Column("pool", String, nullable=False),
    Column("verb", String, nullable=False),
    #: whose work it is; "": its run's team's
    Column("team", String, nullable=False, server_default=""),
    Column("body", LargeBinary, nullable=False),
    Index("orc_decision_run", "chain", "run"),
    Index("orc_decision_seq", "chain", "seq"),
    sqlite_with_rowid=False,
)

placement = Table(
    "orc_placement",
    metadata,
    Column("chain", Integer, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("decision", BigInteger, nullable=False),
    Column("key", String, nullable=False),
    #: placements whose results it takes in, comma between; at most 50, then how many more: `3,4,+950`
    Column("upstream", String, nullable=False, server_default=""),
    Index("orc_placement_seq", "chain", "seq"),
    sqlite_with_rowid=False,
)

outcome = Table(
    "orc_outcome",
    metadata,
    Column("chain", Integer, primary_key=True),
    Column("placement", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("result", SmallInteger, nullable=False),
    #: lease of the worker it ran on; 0: none of ours
    Column("lease", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("run_ms", BigInteger, nullable=False),
    Column("usd_micros", BigInteger, nullable=False),
    #: pool of the worker it ran on, where that is not the decision's; ""
    Column("ran_in", String, nullable=False, server_default=""),
    #: what a checkpoint of an earlier attempt spared it, ms: it belongs to the task's runtime
    Column("spared_ms", BigInteger, nullable=False, server_default="0"),
    #: items of a chunk; 1 for an ordinary task
    Column("items", Integer, nullable=False, server_default="1"),
    Index("orc_outcome_seq", "chain", "seq"),
    sqlite_with_rowid=False,
)

lease = Table(
    "orc_lease",
    metadata,
    Column("chain", Integer, primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("pool", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("worker", String, nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
    #: null until the provider granted it; billing starts here
    Column("granted_ms", BigInteger),
    Column("ready_ms", BigInteger),
    Column("ended_ms", BigInteger),
    #: why it was launched; after its end what ended it, in words
    Column("cause", String, nullable=False),
    #: what ended it, out of a closed list; "" while it is open
    Column("end_cause", String, nullable=False, server_default=""),
    #: price steps [[since_ms, usd_micros_per_hour], …], minimum billing: JSON
    Column("price", String, nullable=False),
    Column("usd_micros", BigInteger, nullable=False),
)

budget = Table(
    "orc_budget",
    metadata,
    Column("name", String, primary_key=True),
    Column("limit_usd_micros", BigInteger, nullable=False),
    Column("reserved_usd_micros", BigInteger, nullable=False),
    Column("spent_usd_micros", BigInteger, nullable=False),
    Column("overrun_usd_micros", BigInteger, nullable=False),
)

reservation = Table(
    "orc_reservation",
    metadata,
    Column("chain", Integer, primary_key=True),
    Column("placement", BigInteger, primary_key=True, autoincrement=False),
    Column("budget", String, nullable=False),
    Column("usd_micros", BigInteger, nullable=False),
    #: what was spent of it; null while it is open
    Column("settled_usd_micros", BigInteger),
)

cursor = Table(
    "orc_cursor",
    metadata,
    Column("consumer", String, primary_key=True),
    Column("chain", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

#: outcome.result
RESULTS = (
    Result.DONE,
    Result.FAILED,
    Result.LOST,
    Result.PREEMPTED,
    Result.CANCELLED,
    Result.WITHDRAWN,
    Result.NOT_SENT,
    Result.UNKNOWN,
    # a number that was given away and never written
    Result.UNKNOWN,
    Result.CANCELLED_BY_RESTART,
    Result.CACHED,
    Result.RESCHEDULED,
    Result.OUT_OF_MEMORY,
    Result.MOVED,
)
RESULT_CODE = {result: RESULTS.index(result) for result in Result}
