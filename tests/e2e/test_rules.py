"""Rules that are changed while the governor runs."""

from __future__ import annotations

import pytest

from agent.ledger.kinds import NOTES
from agent.report.run import report
from harness.wait import until

pytestmark = pytest.mark.real

RULE = """
rules:
  - name: moved
    reason: somebody changed the rules
    when: {task: work}
    then: {require: {market: MARKET}}
"""


def pools_of_work(orc, folder):
    """Where the tasks of a flow ran."""
    folder.mkdir()
    orc.run("many", folder=str(folder), count=1, seconds=0.1)
    orc.settled()
    return {row.pool for row in report(orc.ledger(), orc.flow_runs("many")[0]["id"], 0).rows if row.name == "work"}


def said(orc, what):
    return [note.body for note in orc.ledger().notes(NOTES) if what in note.body]


def rules(orc):
    return orc.governor("/status")["rules"]


def test_a_rule_file_that_is_edited_changes_the_next_decision_and_a_wrong_one_changes_nothing(orc, tmp_path):
    file, before = orc.folder / "rules/moved.yaml", rules(orc)
    try:
        for market in ("on-demand", "spot"):
            old = rules(orc)["digest"]
            file.write_text(RULE.replace("MARKET", market))
            until(lambda old=old: rules(orc)["digest"] != old, 30, 0.2)
            assert pools_of_work(orc, tmp_path / market) == {market}
            assert "rule moved (require)" in orc.cli("explain", orc.flow_runs("many")[0]["id"])
        added, changed = said(orc, "rules_in_force")[-2:]
        assert (added["added"], added["count"]) == (["moved"], before["count"] + 1)
        assert (changed["changed"], changed["before"]) == (["moved"], added["rules_in_force"])

        good = rules(orc)
        file.write_text(RULE.replace("require", "requires"))
        wrong = until(lambda: rules(orc)["wrong"], 30, 0.2)
        assert "moved.yaml:6: rule 'moved': unknown field 'requires'" in wrong
        assert rules(orc) == {**good, "wrong": wrong}
        assert "the rules in force stay" in orc.cli("status")
        assert until(lambda: said(orc, "rules_refused"), 20, 0.2)[-1]["rules_refused"] == wrong
        assert "unknown field 'requires'" in (orc.home / "logs/governor.log").read_text()
        told = next(line for line in orc.cli("rules", "did").splitlines() if "moved" in line and "require " in line)
        assert "on-demand" in told
    finally:
        file.unlink()
    until(lambda: rules(orc) == before, 30, 0.2)
    assert said(orc, "rules_in_force")[-1]["removed"] == ["moved"]
    assert orc.faults() == []
