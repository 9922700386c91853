"""Which parts of a snapshot a record names: what changed since the last one, and from time to time all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: a record carries the whole list of its snapshot's parts each so many records; the others carry what changed
WHOLE_EVERY = 64


class Manifest:
    """The parts of the last snapshot that a writer put on record, so that the next record says what changed."""

    def __init__(self) -> None:
        self._digests: Mapping[str, bytes] = {}

    def change(self, digests: Mapping[str, bytes], seq: int) -> dict[str, Any]:
        """What record `seq` says of its parts; all of them where nothing is known of those before."""
        whole = not self._digests or seq % WHOLE_EVERY == 0
        changed = {name: key.hex() for name, key in digests.items() if whole or self._digests.get(name) != key}
        gone = [] if whole else [name for name in self._digests if name not in digests]
        return {"whole": whole, "set": changed, "gone": gone}

    def keep(self, digests: Mapping[str, bytes]) -> None:
        """These are on record; a record without parts changes nothing."""
        if digests:
            self._digests = dict(digests)
