"""What rules did, told from a ledger that the planner's own plans were written to."""

from __future__ import annotations

import pytest

from agent.ledger.ledger import Ledger
from agent.ledger.snapshots import split
from agent.model.needs import Needs
from agent.model.records import Decided, Entry, FlowRun, Placed
from agent.model.verdicts import Verdict
from agent.planner.plan import VERSION, plan
from agent.report.rules import did
from tests.values import MINUTE, group, pool, snapshot, state

SPOT, SAFE = pool("spot", "spot", 0.09), pool("on-demand", "on-demand", 0.36)
CHEAP = (("market", ("spot",)),)
NO_SPOT = Verdict(rule="no-spot (ever)", verb="forbid", reason="because", select=CHEAP)
ONLY_SAFE = Verdict(rule="only-safe", verb="require", reason="because", select=(("market", ("on-demand",)),))
PREFER = Verdict(rule="likes", verb="prefer", reason="because", select=CHEAP)
ASK = Verdict(rule="ask", verb="escalate", reason="because")


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db", "s")
    made.acquire_lease("test", 0, 0)
    made.append(Entry(kind="start", at_ms=0, runs=[FlowRun(no=1)]))
    yield made
    made.close()


class Story:
    """Rounds of a planner, written as the governor writes them."""

    def __init__(self, ledger):
        self.ledger, self.decisions, self.placements = ledger, 0, 0

    def round(self, at_ms, *groups, states=None):
        shot = snapshot(*(states or (state(SPOT, 2), state(SAFE, 2))), groups=groups, now_ms=at_ms, planner=VERSION)
        made = plan(shot)
        head, parts = split(shot)
        entry = Entry(kind="round", at_ms=at_ms, says={"head": head}, parts=parts)
        first = self.decisions + 1
        for decision in made.decisions:
            self.decisions += 1
            entry.decisions.append(Decided(id=self.decisions, run=1, decision=decision))
        for bind in made.binds:
            for _ in range(bind.count):
                self.placements += 1
                entry.placements.append(
                    Placed(id=self.placements, decision=first + bind.decision, key=f"k{self.placements}")
                )
        self.ledger.append(entry)
        return made

    def said(self, at_ms, **words):
        self.ledger.append(Entry(kind="answer", at_ms=at_ms, actor=words.get("by", ""), says={"notes": [words]}))


def test_decisions_tasks_and_the_pool_that_would_have_been_best(ledger):
    Story(ledger).round(100, group(ready=2, verdicts=(NO_SPOT,)))
    (rule,) = did(ledger, 0)
    assert (rule.rule, rule.verb, rule.decisions, rule.placements) == ("no-spot (ever)", "forbid", 1, 2)
    assert (rule.kept_from, rule.would_be_best) == ({"spot": 1}, {"spot": 1})
    # half an author's minute is not the mean of its estimate, but the price differs by a factor of four
    assert rule.forgone_usd_micros > 0


def test_a_rule_that_keeps_tasks_from_a_pool_they_would_not_have_had_cost_nothing(ledger):
    not_interruptible = Needs(runtime_ms=MINUTE)
    Story(ledger).round(100, group(needs=not_interruptible, verdicts=(NO_SPOT,)))
    (rule,) = did(ledger, 0)
    # the author's word is tested before the rules: the rule was not what kept it off spot
    assert (rule.decisions, rule.kept_from, rule.would_be_best) == (1, {}, {})


def test_a_rule_is_not_charged_for_what_another_rule_forbids_as_well(ledger):
    Story(ledger).round(100, group(verdicts=(NO_SPOT, ONLY_SAFE)))
    found = {rule.rule: rule for rule in did(ledger, 0)}
    assert found["no-spot (ever)"].kept_from == {"spot": 1}
    assert found["no-spot (ever)"].would_be_best == {}


def test_a_preference_is_counted_when_its_pool_was_chosen(ledger):
    Story(ledger).round(100, group(verdicts=(PREFER,)))
    (rule,) = did(ledger, 0)
    assert rule.preferred == {"spot": 1}


def test_questions_and_their_answers(ledger):
    story = Story(ledger)
    for at, name in enumerate("abc", 1):
        story.round(at * 1000, group(id=name, verdicts=(ASK,)))
    story.said(5_000, answer="approve", groups=["a"], rules=["ask"], pool="spot", by="ada")
    story.said(6_000, answer="reject", groups=["b"], rules=["ask"], pool="spot", by="ada")
    story.said(7_000, answer="approve", groups=["c"], rules=["ask"], pool="spot", by="ada", carried_from=["x"])
    (rule,) = did(ledger, 0)
    assert (rule.asked, rule.approved, rule.rejected, rule.unanswered) == (3, 1, 1, 1)
    assert rule.answer_ms == [4_000, 4_000]


def test_only_the_time_asked_for_and_rules_that_were_silent(ledger):
    story = Story(ledger)
    story.round(100, group(verdicts=(NO_SPOT,)))
    story.round(5_000, group(id="h", verdicts=(PREFER,)))
    assert [(r.rule, r.decisions) for r in did(ledger, 1_000, ["likes", "silent"])] == [("likes", 1), ("silent", 0)]


def test_snapshots_are_put_together_from_the_parts_of_many_records(ledger):
    story = Story(ledger)
    for at in range(1, 140):  # past two records that list every part
        story.round(at, group(id=f"g{at}", verdicts=(NO_SPOT,) if at % 2 else ()))
    (rule,) = did(ledger, 100)
    assert rule.decisions == rule.would_be_best["spot"] == 20


def test_a_refusal_has_no_pool_that_would_have_been_better(ledger):
    Story(ledger).round(100, group(verdicts=(NO_SPOT,)), states=(state(SPOT, 1),))
    (rule,) = did(ledger, 0)
    assert (rule.kept_from, rule.would_be_best, rule.forgone_usd_micros) == ({"spot": 1}, {}, 0)
