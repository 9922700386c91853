"""Who says something, and how that was established."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: `claimed`: by the name that a request carries; `process`: a process of this ORC by its token
How = Literal["claimed", "process"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The author of a word that goes on record."""

    subject: str
    how: How
