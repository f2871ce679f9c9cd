"""Limits: what is over them is shed at once and told when to come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_gateway.domain.admission import BURST_SECONDS, Admission
from sluice_gateway.domain.configuration import Limits, Tenant
from sluice_gateway.domain.rejection import Rejection


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _tenant(**limits: int) -> Tenant:
    return Tenant("acme", limits=Limits(**limits))


def test_requests_over_the_tenants_concurrency_are_shed_and_a_place_is_given_back() -> None:
    admission = Admission(max_in_flight=100, clock=Clock())
    tenant = _tenant(concurrency=1)
    with admission.admit(tenant), pytest.raises(Rejection, match="1 requests are in flight"), admission.admit(tenant):
        pass
    with admission.admit(tenant):
        assert admission.in_flight == 1
    assert admission.in_flight == 0


def test_the_gateways_own_limit_holds_over_all_tenants() -> None:
    admission = Admission(max_in_flight=1, clock=Clock())
    with admission.admit(Tenant("a")), pytest.raises(Rejection) as caught, admission.admit(Tenant("b")):
        pass
    assert caught.value.reason == "OVERLOADED"


def test_a_tenant_over_its_rate_is_told_when_to_come_back_and_is_let_in_then() -> None:
    clock = Clock()
    admission = Admission(max_in_flight=100, clock=clock)
    tenant = _tenant(requests_per_minute=60)
    for _ in range(10):
        with admission.admit(tenant):
            pass
    with pytest.raises(Rejection) as caught, admission.admit(tenant):
        pass
    assert caught.value.retry_after_seconds == pytest.approx(1.0)
    clock.now += caught.value.retry_after_seconds or 0
    with admission.admit(tenant):
        pass


@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"requests_per_minute": 1}])
@pytest.mark.parametrize("first", [False, True])
def test_self_tests_take_no_room_of_their_tenant_and_have_no_more_of_their_own(
    limits: dict[str, int], first: bool
) -> None:
    admission, tenant = Admission(max_in_flight=100, clock=Clock()), _tenant(**limits)
    with admission.admit(tenant, synthetic=first):
        with admission.admit(tenant, synthetic=not first):
            assert admission.in_flight == 2
        with pytest.raises(Rejection), admission.admit(tenant, synthetic=first):
            pass


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 600))
def test_never_more_than_the_rate_and_one_burst_get_in(waits: list[float], per_minute: int) -> None:
    clock = Clock()
    admission = Admission(max_in_flight=1000, clock=clock)
    tenant = _tenant(requests_per_minute=per_minute)
    let_in = 0
    for wait in waits:
        clock.now += wait
        try:
            with admission.admit(tenant):
                let_in += 1
        except Rejection:
            pass
    assert let_in <= (sum(waits) + max(BURST_SECONDS, 60 / per_minute)) * per_minute / 60 + 1
