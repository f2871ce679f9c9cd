"""CPU time is shared equally among the requests that ran together, and none of it is made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_inference.domain.attribution import Load, ShareMeter


class Clocks:
    def __init__(self) -> None:
        self.cpu = self.now = 0.0

    def meter(self) -> ShareMeter:
        return ShareMeter(cpu_clock=lambda: self.cpu, clock=lambda: self.now)

    def pass_time(self, *, seconds: float, cpu: float) -> None:
        self.now += seconds
        self.cpu += cpu


def test_time_together_is_halved_and_time_alone_is_not() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    clocks.pass_time(seconds=5, cpu=9)  # nobody runs: nobody pays
    meter.begin("a")
    clocks.pass_time(seconds=1, cpu=2)
    meter.begin("b")
    clocks.pass_time(seconds=1, cpu=2)
    a = meter.end("a")
    clocks.pass_time(seconds=2, cpu=4)
    b = meter.end("b")
    assert (a.cpu_seconds, b.cpu_seconds) == (3.0, 5.0)
    assert a.mean_occupancy == 1.5
    assert b.mean_occupancy == pytest.approx(4 / 3)


def test_one_that_waits_for_an_upstream_pays_no_cpu_that_another_used() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.begin("remote", Load("far", computes_here=False))
    clocks.pass_time(seconds=1, cpu=0.5)
    meter.begin("local", Load("near"))
    clocks.pass_time(seconds=1, cpu=2)
    assert (meter.end("local").cpu_seconds, meter.end("remote").cpu_seconds) == (2.0, 0.5)


def test_accelerators_are_shared_within_their_model_and_so_is_occupancy() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.begin("a", Load("gpu", accelerators=4))
    meter.begin("other", Load("cpu"))
    clocks.pass_time(seconds=1, cpu=0)
    meter.begin("b", Load("gpu", accelerators=4))
    clocks.pass_time(seconds=2, cpu=0)
    a, b, other = meter.end("a"), meter.end("b"), meter.end("other")
    assert (a.accelerator_seconds, b.accelerator_seconds, other.accelerator_seconds) == (8.0, 4.0, 0.0)
    assert (a.mean_occupancy, b.mean_occupancy, other.mean_occupancy) == (pytest.approx(5 / 3), 2.0, 1.0)


def test_a_request_that_never_began_costs_nothing() -> None:
    assert Clocks().meter().end("unknown").cpu_seconds == 0.0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 10), st.floats(0, 10)), max_size=40))
def test_shares_never_add_up_to_more_than_was_used(steps: list[tuple[str, float, float]]) -> None:
    clocks = Clocks()
    meter = clocks.meter()
    running: set[str] = set()
    total = 0.0
    for name, seconds, cpu in steps:
        clocks.pass_time(seconds=seconds, cpu=cpu)
        if name in running:
            running.discard(name)
            total += meter.end(name).cpu_seconds
        else:
            running.add(name)
            meter.begin(name)
    total += sum(meter.end(name).cpu_seconds for name in running)
    assert total <= clocks.cpu + 1e-6
