"""What a restart takes, what memory and time cost as series grow, and what a second worker adds, under both runners.

    python tests/bench/streams_scale.py [--quick] [--budget 900]

Every number of series has a broker of its own, because the topic's name stands in the contract. Prints a line for each measurement
as it is done, and Markdown tables at the end. It ends when its budget of seconds is used up: what was not reached is said.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial

from streams_workers import (
    FACTS,
    QUALITY,
    Kafka,
    completions,
    counted,
    cpu_seconds,
    fill,
    kafka,
    memory_mib,
    wait_until,
    worker,
)

RUNNERS = ("faust", "plain")
SERIES = (100, 1_000, 10_000, 100_000)


class Budget:
    """The time that is left for all of it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def of(self, most: float) -> float:
        """So many seconds, or what is left. Raises TimeoutError when nothing is."""
        left = min(most, self._end - time.monotonic())
        if left <= 1:
            raise TimeoutError("the budget is used up")
        return left


def wait_for_health(port: int, *, seconds: float) -> None:
    """Until /healthz says 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, urllib.error.HTTPError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz"):
            return
        time.sleep(0.02)
    raise TimeoutError("the worker did not become ready")


def grow(broker: Kafka, runner: str, series: int, events: int, budget: Budget) -> str:
    """A worker reads everything, is killed, and starts again over what it stored."""
    with tempfile.TemporaryDirectory() as home:
        told = broker.environment(home, f"grow-{runner}-{series}")
        with worker(QUALITY, told, runner) as (running, port):
            wait_for_health(port, seconds=budget.of(60))
            idle = memory_mib(running.pid, "VmRSS")
            wait_until(port, FACTS, events, seconds=budget.of(150))
            used = cpu_seconds(running.pid)
            full = memory_mib(running.pid, "VmRSS")
            running.kill()
            running.wait(10)
        begun = time.monotonic()
        with worker(QUALITY, told, runner) as (running, port):
            wait_for_health(port, seconds=budget.of(60))
            took = time.monotonic() - begun
    return f"| {series:,} | {runner} | {idle} | {full} | {1e6 * used / events:.0f} | {took:.1f} |"


def two(broker: Kafka, runner: str, events: int, budget: Budget) -> str:
    """One worker, then two of a new group; their rate from when all are at it until nine tenths are done."""
    rates = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as home, ExitStack() as running:
            told = broker.environment(home, f"two-{runner}-{workers}")
            ports = [
                running.enter_context(worker(QUALITY, told | {"SLUICE_INSTANCE": str(number)}, runner))[1]
                for number in range(workers)
            ]
            rates[workers] = steady_rate(ports, events, seconds=budget.of(150))
    return f"| {runner} | {rates[1]:,.0f} | {rates[2]:,.0f} | {rates[2] / rates[1]:.2f} |"


def steady_rate(ports: list[int], events: int, *, seconds: float) -> float:
    """Events a second of all workers together."""
    deadline, begun, already = time.monotonic() + seconds, 0.0, 0.0
    while time.monotonic() < deadline:
        seen = [counted(port, FACTS) for port in ports]
        if not begun and all(seen):
            begun, already = time.monotonic(), sum(seen)
        if sum(seen) >= 0.9 * events:
            if not begun or sum(seen) == already:
                return float("nan")  # one had done it all before the other had begun: too few events
            return (sum(seen) - already) / (time.monotonic() - begun)
        time.sleep(0.1)
    raise TimeoutError(f"{events:,} events were not counted in {seconds:.0f} s")


def brokers(sizes: Mapping[int, int]) -> Iterator[tuple[int, int, Kafka]]:
    """A broker for each number of series, filled with so many events."""
    for series, events in sizes.items():
        with kafka() as broker:
            asyncio.run(fill(broker.bootstrap, completions(events, series=series)))
            yield series, events, broker


def done(measure: Callable[[], str], told: str) -> str:
    """A row of a table, shown at once; one that says why there is none when time was too short."""
    try:
        row = measure()
    except TimeoutError as error:
        row = f"| {told} | not measured: {error} |"
    print(row, flush=True)
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 events, two numbers of series")
    parser.add_argument("--budget", type=float, default=900, help="seconds for all of it")
    parser.add_argument("--events", type=int, default=100_000)
    given = parser.parse_args()
    sizes = {100: 20_000, 10_000: 20_000} if given.quick else dict.fromkeys(SERIES, given.events)
    budget = Budget(given.budget)
    rows: dict[str, list[str]] = {"grow": [], "two": []}
    for series, events, broker in brokers(sizes):
        print(f"{series:,} series, {events:,} events, load {os.getloadavg()[0]:.1f} ...", flush=True)
        for runner in RUNNERS:
            told = f"{series:,} | {runner}"
            rows["grow"].append(done(partial(grow, broker, runner, series, events, budget), told))
    events = 10 * min(sizes.values())  # with fewer the first plain worker has done all before the second has begun
    for _, _, broker in brokers({min(sizes): events}):
        for runner, read in (("faust", events // 5), ("plain", events)):
            rows["two"].append(done(partial(two, broker, runner, read, budget), runner))
    print(
        "\n| series | runner | MiB idle | MiB after all events | us of CPU an event, start included | s to be ready again after kill -9 |"
        "\n|---|---|---|---|---|---|\n" + "\n".join(rows["grow"])
    )
    print("\n| runner | events/s, one worker | two workers | times |\n|---|---|---|---|\n" + "\n".join(rows["two"]))
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
