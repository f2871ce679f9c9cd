"""What a budget adds to a request: the same requests of a tenant without one and of a tenant with one, in turns.

    python tests/bench/budget_overhead.py [--requests 2000] [--rounds 6]

The gateway as it is shipped and the real cost service on SQLite, Kafka away, neighbours that answer at once. The calls that the
gateway made to the cost service are read from its metrics: a request that fits a lease makes none.
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
from gateway_overhead import Gateway, HttpCaller, measure, neighbours, quantile
from sluice.cost.v1 import cost_service_pb2 as cost
from sluice.cost.v1 import cost_service_pb2_grpc as cost_rpc
from sluice.types.v1 import money_pb2
from sluice_gateway.domain.budgets import Caller, Grant, NoBudgets, Reservation, Standing
from sluice_gateway.domain.chat import Usage
from sluice_gateway.domain.completion import Completion, Operation, Protocol
from sluice_gateway.domain.pricing import Price
from sluice_gateway.domain.purse import Purse, PurseLimits
from sluice_gateway.domain.size import Size

NANO = 10**9
PRICE = Price("USD", 50_000_000, 50_000_000, 50_000_000, 200_000_000, 200_000_000)
PRICE_BOOK = """
id: bench
version: "1"
currency: USD
effective_from: 2026-01-01T00:00:00Z
approved_by: bench
models:
  fake: {input_per_million: "0.05", output_per_million: "0.20"}
"""
CALLS = re.compile(r'^sluice_gateway_budget_calls_total\{call="(\w+)",result="ok"\} (\S+)$', re.MULTILINE)


class Cost:
    """A running cost service with one budget."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        (home / "prices.yaml").write_text(PRICE_BOOK)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.target = f"127.0.0.1:{probe.getsockname()[1]}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from sluice_cost.main import main; main()"],
            env=os.environ
            | {
                "SLUICE_HOME": str(home),
                "SLUICE_COST_GRPC_LISTEN": self.target,
                "SLUICE_COST_METRICS_LISTEN": "127.0.0.1:0",
                "SLUICE_COST_PRICE_BOOK_FILE": str(home / "prices.yaml"),
                "SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def put_budget(self, tenant: str) -> None:
        """A million dollars a month, so that none of it runs out."""
        budget = cost.Budget(
            budget_id=tenant,
            scope=cost.BUDGET_SCOPE_TENANT,
            tenant_ids=[tenant],
            limit=money_pb2.Money(currency_code="USD", nano_units=10**6 * NANO),
            window=cost.BUDGET_WINDOW_MONTH,
            enforcement=cost.BUDGET_ENFORCEMENT_HARD,
            approved_by="bench",
        )
        async with grpc.aio.insecure_channel(self.target) as channel:
            stub: Any = cost_rpc.CostServiceStub(channel)
            request = cost.PutBudgetRequest(budget=budget)
            await stub.PutBudget(request, timeout=60, wait_for_ready=True)


def calls(gateway: Gateway) -> dict[str, int]:
    """Calls to the cost service so far, by kind."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=10) as answer:
        return {name: int(float(count)) for name, count in CALLS.findall(answer.read().decode())}


async def purse_cost(*, budgeted: bool) -> float:
    """CPU microseconds that the purse itself takes for one request: of a caller without budgets, or on a lease."""

    class Desk(NoBudgets):
        async def ask(self, caller: Caller, *, seconds: float) -> Standing:
            return Standing(seconds, price=PRICE) if budgeted else Standing(seconds, unbudgeted=True)

        async def reserve(self, caller: Caller, request_id: str, size: Size, *, seconds: float) -> Reservation:
            return Reservation(request_id, size.output_tokens)

        async def lease(self, caller: Caller, lease_id: str, *, amount: int, currency: str, seconds: float) -> Grant:
            return Grant(amount, seconds, PRICE)

    purse = Purse(Desk(), limits=PurseLimits(most=10**18), new_id=lambda: "lease", clock=time.monotonic)
    caller, size = Caller("bench", "default", "key", "small", "fake"), Size(200, 512, 16)
    completion = Completion(Operation.CHAT, Protocol.HTTP, 0.0, "key", "bench", "default")

    async def serve(requests: int) -> float:
        began = time.process_time()
        for _ in range(requests):
            async with purse.held(caller, size, completion, request_id="request", seconds=10, fail_open=False):
                completion.usage = Usage(uncached_input_tokens=20, output_tokens=20)
        return time.process_time() - began

    for _ in range(10):  # leases grow with what they are used for
        await serve(1000)
        purse.tend_once()
        await asyncio.sleep(0.01)
    cost = await serve(1000) / 1000 * 1e6
    assert (completion.cost_hold_id == "lease") is budgeted
    return cost


async def report(gateway: Gateway, *, requests: int, rounds: int) -> None:
    """Print one row for each tenant and concurrency."""
    print(f"{'tenant':10} {'callers':>7} {'p50 ms':>7} {'p99 ms':>7} {'CPU ms/req':>10}   calls to the cost service")
    for concurrency in (1, 16):
        latencies: dict[str, list[float]] = {tenant: [] for tenant in gateway.key_of}
        seconds = dict.fromkeys(gateway.key_of, 0.0)
        made: dict[str, dict[str, int]] = {tenant: {} for tenant in gateway.key_of}
        for _ in range(rounds):
            for tenant, key in gateway.key_of.items():
                before, began_with = gateway.cpu_seconds(), calls(gateway)
                caller = HttpCaller(gateway, stream=False, key=key)
                found, _, _ = await measure(caller, requests=requests // rounds, concurrency=concurrency)
                latencies[tenant] += found
                seconds[tenant] += gateway.cpu_seconds() - before
                for name, count in calls(gateway).items():
                    more = made[tenant].get(name, 0) + count - began_with.get(name, 0)
                    made[tenant] |= {name: more} if more else {}
        for tenant, found in latencies.items():
            cpu = seconds[tenant] / (len(found) + rounds * concurrency) * 1000
            print(
                f"{tenant:10} {concurrency:7} {statistics.median(found):7.2f} {quantile(found, 0.99):7.2f} {cpu:10.2f}   "
                f"{made[tenant]} for {len(found) + rounds * concurrency} requests"
            )
    for budgeted in (False, True):
        print(
            f"the purse alone, {'on a lease' if budgeted else 'no budget'}: {await purse_cost(budgeted=budgeted):.1f} us of CPU a request"
        )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    fakes = context.Process(target=neighbours, args=(port, 20), daemon=True)
    fakes.start()
    with tempfile.TemporaryDirectory() as home:
        books = Cost(Path(home) / "cost")
        try:
            asyncio.run(books.put_budget("budgeted"))
            served = Gateway(Path(home), port.get(timeout=60), cost_target=books.target, budgeted="budgeted")
            try:
                asyncio.run(report(served, requests=arguments.requests, rounds=arguments.rounds))
            finally:
                served.process.terminate()
                served.process.communicate(timeout=30)
        finally:
            books.process.terminate()
            books.process.wait(timeout=30)
            fakes.terminate()


if __name__ == "__main__":
    main()
