"""What is hashed of records and their rows, and how. What a column of a later version does not say is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson


def chain_hash(previous: bytes, head: Sequence[Any], body: bytes) -> bytes:
    """SHA-256 over the record before, this record's columns and its body."""
    return hashlib.sha256(previous + orjson.dumps(head) + body).digest()


def content_digest(body: bytes) -> bytes:
    """Address of a stored part."""
    return hashlib.sha256(body).digest()[:16]


def run_line(no: int, flow_run: str, root_run: str, flow: str, deployment: str, team: str, trace: str) -> str:
    """A run row as it is hashed."""
    return "|".join((str(no), flow_run, root_run, flow, deployment, team, trace))


def decision_line(number: int, run: int, task_class: str, pool: str, verb: str, body: bytes, team: str = "") -> str:
    """A decision row as it is hashed; what a column of a later version does not say is left out, as it was before."""
    return f"{number}|{run}|{task_class}|{pool}|{verb}|{body.hex()}" + (f"|{team}" if team else "")


def placement_line(number: int, decision: int, key: str, upstream: str) -> str:
    """A placement row as it is hashed."""
    return f"{number}|{decision}|{key}|{upstream}" if upstream else f"{number}|{decision}|{key}"


def outcome_line(  # noqa: PLR0913
    placement: int,
    result: int,
    lease: int,
    start_ms: int,
    run_ms: int,
    usd_micros: int,
    ran_in: str = "",
    spared_ms: int = 0,
    items: int = 1,
) -> str:
    """An outcome row as it is hashed."""
    line = f"{placement}|{result}|{lease}|{start_ms}|{run_ms}|{usd_micros}"
    return f"{line}|{ran_in}|{spared_ms}|{items}" if (ran_in, spared_ms, items) != ("", 0, 1) else line


def rows_digest(decided: Sequence[str], placed: Sequence[str], ended: Sequence[str], runs: Sequence[str] = ()) -> bytes:
    """SHA-256 over a record's rows. Runs were covered from version 3 of the tables on."""
    lines = (*decided, "--", *placed, "--", *ended, *(("--", *runs) if runs else ()))
    return hashlib.sha256("\n".join(lines).encode()).digest()
