"""Admission: bounded, fair, and no tenant reads another's cached prompt."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sluice_inference.domain.admission import Admission, Grant
from sluice_inference.domain.refusals import DuplicateRequest, Overloaded


def test_requests_beyond_slots_and_queue_are_shed_with_a_time_to_retry() -> None:
    admission = Admission(slots=2, queue_limit=1)
    assert admission.enter("a").grant and admission.enter("b").grant
    assert admission.enter("c").grant is None
    with pytest.raises(Overloaded) as refused:
        admission.enter("d")
    assert 1.0 <= refused.value.retry_after_seconds <= 30.0
    assert (admission.running, admission.queued) == (2, 1)


def test_the_time_to_retry_grows_with_how_long_requests_take() -> None:
    admission = Admission(slots=1, queue_limit=4)
    admission.enter("a")
    admission.leave("a", seconds=8.0)
    assert admission.expected_wait_seconds() == 8.0


def test_a_running_id_cannot_be_used_again_until_it_left() -> None:
    admission = Admission(slots=1, queue_limit=1)
    admission.enter("a")
    admission.enter("b")
    for taken in ("a", "b"):
        with pytest.raises(DuplicateRequest):
            admission.enter(taken)
    admission.leave("a")
    assert admission.enter("a").grant is None


def test_higher_priority_runs_first_and_equals_in_order_of_arrival() -> None:
    admission = Admission(slots=1, queue_limit=9)
    admission.enter("now")
    for name, priority in (("first", 0), ("second", 0), ("urgent", 5), ("later", -1)):
        admission.enter(name, priority=priority)
    order, leaving = [], "now"
    while admitted := admission.leave(leaving):
        leaving = admitted[0][0]
        order.append(leaving)
    assert order == ["urgent", "first", "second", "later"]


def test_a_cached_prefix_is_reused_by_its_own_salt_alone() -> None:
    admission = Admission(slots=2, queue_limit=0)
    first = admission.enter("1", salt="tenant-a").grant
    assert first == Grant(slot=0, may_reuse_cache=False)
    admission.leave("1")
    assert admission.enter("2", salt="tenant-b").grant == Grant(slot=1, may_reuse_cache=False)
    assert admission.enter("3", salt="tenant-a").grant == Grant(slot=0, may_reuse_cache=True)
    admission.leave("2")
    admission.leave("3")
    assert admission.enter("4", salt="tenant-c").grant == Grant(slot=1, may_reuse_cache=False)
    admission.leave("4")


def order_of_running(admission: Admission, leaving: str) -> list[str]:
    order = []
    while admitted := admission.leave(leaving):
        leaving = admitted[0][0]
        order.append(leaving)
    return order


def test_a_tenant_with_nothing_running_goes_before_one_that_came_first() -> None:
    admission = Admission(slots=2, queue_limit=9)
    for number in range(5):
        admission.enter(f"big{number}", tenant="big")
    admission.enter("small", tenant="small")
    assert order_of_running(admission, "big0")[0] == "small"


def test_a_full_queue_makes_room_for_a_tenant_that_has_none_and_not_for_the_one_that_filled_it() -> None:
    admission = Admission(slots=1, queue_limit=3)
    for number in range(4):
        admission.enter(f"big{number}", tenant="big")
    with pytest.raises(Overloaded):
        admission.enter("big4", tenant="big")
    assert admission.enter("small", tenant="small").displaced == "big3"  # the last to come
    with pytest.raises(Overloaded):
        admission.enter("small2", tenant="small")  # two places against one: no reason to displace
    assert admission.queued == 3


def test_nobody_of_higher_priority_is_displaced() -> None:
    admission = Admission(slots=1, queue_limit=2)
    for number in range(3):
        admission.enter(f"big{number}", tenant="big", priority=5)
    with pytest.raises(Overloaded):
        admission.enter("small", tenant="small", priority=0)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Enter and leave in any order: limits hold, slots are never shared, nobody waits beside a free slot."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(slots=3, queue_limit=4)
        self.granted: dict[str, Grant] = {}
        self.waiting: list[str] = []
        self.last_salt: dict[int, str] = {}
        self.salts: dict[str, str] = {}
        self.count = 0

    def _grant(self, name: str, grant: Grant) -> None:
        assert grant.slot not in {other.slot for other in self.granted.values()}
        assert grant.may_reuse_cache == (self.last_salt.get(grant.slot) == self.salts[name])
        self.last_salt[grant.slot] = self.salts[name]
        self.granted[name] = grant

    @rule(priority=st.integers(-2, 2), salt=st.sampled_from("xyz"), tenant=st.sampled_from("xyz"))
    def enter(self, priority: int, salt: str, tenant: str) -> None:
        self.count += 1
        name = f"r{self.count}"
        self.salts[name] = salt
        try:
            entry = self.admission.enter(name, priority=priority, salt=salt, tenant=tenant)
        except Overloaded:
            assert len(self.waiting) == 4
            return
        if entry.displaced:
            assert len(self.waiting) == 4
            self.waiting.remove(entry.displaced)
        if entry.grant:
            self._grant(name, entry.grant)
        else:
            self.waiting.append(name)

    @precondition(lambda self: self.granted or self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([*self.granted, *self.waiting]))
        self.granted.pop(name, None)
        if name in self.waiting:
            self.waiting.remove(name)
        for other, grant in self.admission.leave(name):
            self.waiting.remove(other)
            self._grant(other, grant)

    @invariant()
    def counts_agree_and_no_slot_idles_while_one_waits(self) -> None:
        assert self.admission.running == len(self.granted) <= 3
        assert self.admission.queued == len(self.waiting) <= 4
        assert not self.waiting or len(self.granted) == 3


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
