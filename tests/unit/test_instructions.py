"""The governor's instructions as the extension reads them: whole, or not at all."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from agent.errors import InstructionError, NeedUnmetError
from agent.model.capacity import Load
from agent.model.pools import Selector
from agent.scheduler import instructions
from agent.scheduler.fence import Fence

POOL = {"name": "spot", "selector": asdict(Selector(name="spot-*")), "cpus": 4, "memory_mib": 1024, "gpus": 0}
BIND = {"pool": "spot", "cpus": 1, "memory_mib": 512, "gpus": 0, "ahead": 2, "keys": ["a", ("b", 1)]}
HELD = {"flow_run": "f", "task": "work", "reason": "spot", "why": "w", "release": "r"}


def test_what_a_governor_says_is_read_as_values():
    told = instructions.read(
        {
            "pools": [POOL],
            "mode": "shadow",
            "binds": [BIND],
            "drain": ["tcp://1"],
            "refuse": [("c", "NeedUnmetError", "no pool has 9 GPUs")],
            "leave": [["d", "a cheaper pool"]],
            "figures": {"held": [HELD], "runtimes_ms": {}},
        }
    )
    assert told.pools is not None
    assert (told.pools[0].name, told.pools[0].cpus, told.mode, told.drain) == ("spot", 4, "shadow", ("tcp://1",))
    (bind,), (refusal,), (leave,) = told.binds, told.refuse, told.leave
    assert (bind.pool, bind.load, bind.ahead) == ("spot", Load(cpus=1, memory_mib=512), 2)
    assert bind.keys == ("a", ("b", 1))
    assert (refusal.key, refusal.error, refusal.why) == ("c", NeedUnmetError, "no pool has 9 GPUs")
    assert (leave.key, leave.why) == ("d", "a cheaper pool")


def test_what_is_not_said_stays_as_it_is():
    told = instructions.read({})
    assert (told.pools, told.mode, told.figures, told.binds) == (None, None, None, ())


WRONG = [
    ({"bind": [BIND]}, "no instruction 'bind'"),
    ({"pools": POOL}, "pools is a list"),
    ({"pools": [POOL, POOL]}, "two pools 'spot'"),
    ({"pools": [{**POOL, "cpus": "many"}]}, r"pools\[0\] is no pool"),
    ({"pools": [{**POOL, "selector": {"nam": "spot-*"}}]}, r"pools\[0\] is no pool"),
    ({"pools": [{**POOL, "selector": {"name": 7}}]}, r"pools\[0\].selector"),
    ({"pools": [{**POOL, "selector": {"nthreads": "4"}}]}, r"pools\[0\].selector.nthreads"),
    ({"pools": ["spot"]}, r"pools\[0\] is no pool"),
    ({"mode": "goverm"}, "mode is one of govern, shadow, off, not 'goverm'"),
    ({"drain": "tcp://1"}, "drain is a list"),
    ({"undrain": [1]}, r"undrain\[0\] is a text"),
    ({"withdraw": {"tcp://1": 1}}, "withdraw is a list"),
    ({"binds": [BIND, {**BIND, "ahead": -1}]}, r"binds\[1\].ahead is a whole number"),
    ({"binds": [{**BIND, "cpus": 0.5}]}, r"binds\[0\].cpus is a whole number"),
    ({"binds": [{**BIND, "gpus": True}]}, r"binds\[0\].gpus is a whole number"),
    ({"binds": [{**BIND, "keys": "a"}]}, r"binds\[0\].keys is a list"),
    ({"binds": [{**BIND, "keys": ["a", ["b"]]}]}, r"binds\[0\].keys\[1\]: \['b'\] is no key"),
    ({"binds": [{k: v for k, v in BIND.items() if k != "memory_mib"}]}, r"binds\[0\] has pool, cpus, memory_mib"),
    ({"binds": [{**BIND, "disk": 1}]}, r"binds\[0\] has pool, cpus"),
    ({"binds": [None]}, r"binds\[0\] has fields"),
    ({"refuse": [("c", "NoSuchError", "w")]}, r"refuse\[0\]: 'NoSuchError' is no error"),
    ({"refuse": [("c", "annotations", "w")]}, r"refuse\[0\]: 'annotations' is no error"),
    ({"refuse": [("c", "NeedUnmetError")]}, r"refuse\[0\] has 3 parts"),
    ({"leave": [("c", None)]}, r"leave\[0\] is a text"),
    ({"leave": [({}, "w")]}, r"leave\[0\]: {} is no key"),
    ({"figures": [1]}, "figures are no figures"),
    ({"figures": {"runtimes_ms": 3}}, "figures are no figures"),
    ({"figures": {"held": [{"task": "work"}]}}, "figures.held lacks flow_run, reason, release, why"),
]


@pytest.mark.parametrize(("told", "why"), WRONG, ids=[why[:30] for _, why in WRONG])
def test_what_is_not_in_its_form_is_refused_with_its_place(told, why):
    with pytest.raises(InstructionError, match=why):
        instructions.read({"mode": "off", **told})


@pytest.mark.parametrize("epoch", [float("nan"), "7", None, True])
def test_a_governor_without_a_number_is_not_obeyed_and_keeps_nobody_out(epoch):
    fence = Fence()
    assert fence.refusal(3) is None
    with pytest.raises(InstructionError, match="epoch is a whole number"):
        fence.refusal(epoch)
    assert fence.refusal(2) == {"fenced": 3}


def test_a_governor_that_is_overtaken_hears_so_whatever_it_says():
    fence = Fence()
    assert fence.refusal(3) is None
    assert fence.overtaken(2)
