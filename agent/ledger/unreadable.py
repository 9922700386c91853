"""A record, or part of one, that cannot be read must not end whoever reads the others: it is named, and passed over."""

from __future__ import annotations

import zlib

from pydantic import ValidationError

from agent.errors import LedgerPartError
from agent.ledger.reader import Reader
from agent.model import stored_decisions
from agent.model.plain_text import printable
from agent.model.plans import Decision

#: what reading content of another shape than ours raises; not that the database is away
UNREADABLE: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    zlib.error,
    LedgerPartError,
)
#: longest reason that is told: content may be of any length
_LONGEST = 300


def why(error: Exception) -> str:
    """The reason in one line: the field and what is wrong with it, where that is known."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        text = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    elif isinstance(error, LedgerPartError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def decision_of(reader: Reader, digest: bytes, number: int) -> Decision | str:
    """A decision by the digest of its body, or the sentence that says why it cannot be read."""
    try:
        return stored_decisions.read(reader.part(digest))
    except UNREADABLE as error:
        return f"decision {number} cannot be read: {why(error)}"
