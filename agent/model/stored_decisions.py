"""Decisions as they are stored, also by planners of before, which kept rules' words as sentences."""

from __future__ import annotations

import re
from typing import Any

import orjson

from agent.model import codec
from agent.model.plans import Decision

_VERDICT = re.compile(r"(.+?) \((forbid|require|prefer|escalate)\): (.*)", re.DOTALL)
_KEPT = re.compile(r"rule (.+?) (?:forbids it|requires another): ", re.DOTALL)
_ASKS = re.compile(r"rule (.+?) asks a person: ", re.DOTALL)


def read(data: bytes) -> Decision:
    """A decision back from its bytes. Raises ValueError (pydantic.ValidationError, orjson.JSONDecodeError)."""
    body = orjson.loads(data)
    if isinstance(body, dict) and "asked_by" not in body:
        body = _brought_up_to_date(body)
        data = codec.encode(body)
    return codec.decode(Decision, data)


def _brought_up_to_date(body: dict[str, Any]) -> dict[str, Any]:
    words = [_VERDICT.fullmatch(said) for said in body.get("verdicts", ()) if isinstance(said, str)]
    asks = _ASKS.match(str(body.get("reason", ""))) if body.get("verb") == "ask" else None
    return {
        **body,
        "verdicts": [{"rule": word[1], "verb": word[2], "reason": word[3]} for word in words if word is not None],
        "asked_by": asks[1] if asks is not None else "",
        "options": [_option(option) for option in body.get("options", ())],
    }


def _option(option: Any) -> Any:
    if not isinstance(option, dict) or (kept := _KEPT.match(str(option.get("why_not", "")))) is None:
        return option
    return {**option, "block": "rule", "block_rule": kept[1]}
