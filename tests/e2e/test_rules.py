"""Rules that are changed while the governor runs."""

from __future__ import annotations

import pytest

from agent.report.run import report
from tests.conftest import until

pytestmark = pytest.mark.real

MOVED = """
rules:
  - name: moved
    reason: somebody changed the rules
    when: {task: work}
    then: {forbid: {market: spot}}
"""


def pools_of_work(orc, tmp_path):
    """Where the tasks of a flow ran."""
    orc.run("many", folder=str(tmp_path), count=1, seconds=0.1)
    orc.settled()
    return {row.pool for row in report(orc.ledger(), orc.flow_runs("many")[0]["id"], 0).rows if row.name == "work"}


def said(orc, what):
    return [s for r in orc.ledger().records(0, 100_000, "said") for s in r.body["said"] if what in s]


def test_a_rule_file_that_is_edited_changes_the_next_decision_and_a_wrong_one_changes_nothing(orc, tmp_path):
    file = orc.home / "rules/moved.yaml"
    before = orc.face("/status")["rules"]
    assert pools_of_work(orc, tmp_path) == {"spot"}
    try:
        file.write_text(MOVED)
        until(lambda: orc.face("/status")["rules"]["count"] == before["count"] + 1, 20, 0.2)
        assert said(orc, "rules")[-1]["added"] == ["moved"]
        (tmp_path / "second").mkdir()
        assert pools_of_work(orc, tmp_path / "second") == {"on-demand"}
        assert "rule moved (forbid)" in orc.cli("explain", orc.flow_runs("many")[0]["id"])

        file.write_text(MOVED.replace("forbid", "forbids"))
        wrong = until(lambda: orc.face("/status")["rules"]["wrong"], 20, 0.2)
        assert "moved.yaml:6: rule 'moved': unknown field 'forbids'" in wrong
        assert "the rules in force stay" in orc.cli("status")
        assert "unknown field 'forbids'" in until(lambda: said(orc, "rules_refused"), 20, 0.2)[-1]["rules_refused"]
        assert "unknown field 'forbids'" in (orc.home / "orc/logs/governor.log").read_text()
        (tmp_path / "third").mkdir()
        assert pools_of_work(orc, tmp_path / "third") == {"on-demand"}
        told = next(
            line
            for line in orc.cli("rules", "did", ORC_RULES=str(orc.home / "rules/default.yaml")).splitlines()
            if "moved" in line
        )
        assert "spot" in told
    finally:
        file.unlink()
    until(lambda: orc.face("/status")["rules"] == before, 20, 0.2)
    assert said(orc, "rules")[-1]["removed"] == ["moved"]
    assert orc.faults() == []
