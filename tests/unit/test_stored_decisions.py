"""Decisions of planners of before, whose rules' words were sentences."""

from __future__ import annotations

from agent.model import codec, stored_decisions
from agent.model.plans import Decision, Option, RuleWord

BEFORE = {
    "group": "g", "task_class": "c", "name": "n", "root_run": "r", "flow_run": "f", "verb": "ask", "pool": "gpu",
    "reason": "rule big asks a person: too much (3 tasks on gpu, about $9)",
    "verdicts": ["big (escalate): too much", "home (forbid): not\nhere (require): no"],
    "options": [
        {"pool": "gpu", "kind": "gpu"},
        {"pool": "spot", "kind": "spot", "why_not": "rule home forbids it: not here"},
        {"pool": "small", "kind": "spot", "why_not": "needs 8 GiB and its workers have 4 GiB"},
    ],
}  # fmt: skip


def test_a_decision_of_before_says_the_same_as_values():
    read = stored_decisions.read(codec.encode(BEFORE))
    assert read.asked_by == "big"
    assert read.verdicts == (
        RuleWord(rule="big", verb="escalate", reason="too much"),
        RuleWord(rule="home", verb="forbid", reason="not\nhere (require): no"),
    )
    assert [(option.block, option.block_rule) for option in read.options] == [("", ""), ("rule", "home"), ("", "")]


def test_a_decision_of_now_comes_back_as_it_was():
    word = RuleWord(rule="a (forbid): b", verb="prefer", reason="rule x asks a person: y")
    option = Option(pool="p", kind="spot", why_not="rule no forbids it: z", block="memory")
    made = Decision(
        group="g",
        task_class="c",
        name="n",
        root_run="",
        flow_run="",
        verb="ask",
        pool=None,
        reason="rule x asks a person: y",
        options=(option,),
        verdicts=(word,),
    )
    assert stored_decisions.read(codec.encode(made)) == made
