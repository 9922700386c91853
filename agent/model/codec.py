"""Values to canonical JSON bytes and back; the same value gives the same bytes."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def encode(value: Any) -> bytes:
    """Canonical JSON of a value made of dataclasses, tuples, strings, integers and floats."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def decode(cls: type[T], data: bytes) -> T:
    """The value back from its bytes. Raises pydantic.ValidationError when they are of another shape."""
    known: Any = cls
    value: T = _adapter(known).validate_json(data)
    return value


def digest(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
