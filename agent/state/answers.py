"""What people said of a group, when the group gets another name because other rules judge it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.model.snapshot import Group
from agent.state.groups import Word


def carried(
    words: Mapping[str, Word], groups: Mapping[str, Group], moved: Mapping[str, frozenset[str]]
) -> list[dict[str, Any]]:
    """The words to say again, as they go on record: new name → old names in `moved`.

    An approval is of rules: it goes along for those that say the same as before, so that a rule that was changed asks
    again. Groups that become one keep a word only when it was said of each of them.
    """
    out: list[dict[str, Any]] = []
    for new, olds in sorted(moved.items()):
        found = [words.get(old) for old in sorted(olds)]
        if new in words or (word := found[0]) is None or any(other != word for other in found):
            continue
        before = {v.rule: v for old in sorted(olds) for v in groups[old].verdicts}
        about = {"groups": [new], "carried_from": sorted(olds)}
        if word.override is not None:
            out.append({**about, "override": word.override})
        same = [v.rule for v in groups[new].verdicts if v.rule in word.approved and before.get(v.rule) == v]
        if same and word.approved_by is not None:
            out += [
                {**about, "answer": "approve", "rules": same, "pool": pool, "by": word.approved_by, "usd_micros": word.approved_usd_micros}
                for pool in word.approved_pools
            ]  # fmt: skip
        if word.rejected_by is not None:
            out.append({**about, "answer": "reject", "rules": [], "pool": "", "by": word.rejected_by})
    return out
