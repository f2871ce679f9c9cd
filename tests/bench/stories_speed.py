"""How fast insight's stories take events in and are searched, as they grow.

    python tests/bench/stories_speed.py [--requests 100000] [--rounds 5]

Two events a request, in batches of 500, as the consumer brings them; then searches of a page (medians of the rounds).
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.gateway_pb2 import REQUEST_OUTCOME_COMPLETED, RequestCompleted
from sluice_insight.adapters.stories.events import StoryEvent, story_event
from sluice_insight.adapters.stories.store import Stories
from sluice_insight.domain.request_query import RequestQuery

BEGUN = 1_795_000_000
BATCH = 250
PAGE = 51
SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "of one tenant of fifty": {"tenant_id": "t7"},
    "for a model that one in a thousand asks for": {"model": "large"},
    "with e-mail addresses": {"marks": ("kind:EMAIL_ADDRESS",)},
    "with a kind that never was": {"marks": ("kind:IBAN",)},
    "that took longer than any (no index)": {"min_latency_us": 10**12},
}


def events(number: int, request_id: str) -> list[StoryEvent]:
    """What is kept of one request."""
    done = RequestCompleted(
        outcome=REQUEST_OUTCOME_COMPLETED, model="large" if number % 1000 == 0 else "small", route="direct"
    )
    done.latency.FromMilliseconds(750)
    done.redacted_input.add(kind="EMAIL_ADDRESS", count=1)
    row = CostRecorded(charge_kind="inference")
    row.amount.currency_code, row.amount.nano_units = "USD", 100
    made: list[tuple[Message, str]] = [(done, "completed"), (row, "cost")]
    for event, name in made:
        metadata: Any = event.metadata  # type: ignore[attr-defined]
        metadata.event_id, metadata.request_id, metadata.tenant_id = (
            f"{name}-{request_id}",
            request_id,
            f"t{number % 50}",
        )
        metadata.occurred_at.FromSeconds(BEGUN + number)
    return [kept for event, _ in made if (kept := story_event(event)) is not None]


async def main(requests: int, rounds: int) -> None:
    dice = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.db"
        stories = Stories(path, most_requests=10**9, keep_us=10**18)
        begun, last = time.perf_counter(), ""
        for start in range(0, requests, BATCH):
            batch: list[StoryEvent] = []
            for number in range(start, min(start + BATCH, requests)):
                last = f"{dice.getrandbits(128):032x}"
                batch += events(number, last)
            await stories.take(batch, {})
        seconds = time.perf_counter() - begun
        size = sum(one.stat().st_size for one in Path(folder).iterdir())
        print(
            f"{requests:,} requests: {2 * requests / seconds:,.0f} events/s, {size / requests:,.0f} bytes of disk a request"
        )
        for name, conditions in SEARCHES.items():
            query = RequestQuery(limit=PAGE, **conditions)
            print(f"  a page, {name}: {await median(lambda query=query: stories.find(query), rounds):.1f} ms")
        print(f"  one story: {await median(lambda: stories.story(last, ''), rounds):.1f} ms")
        stories.close()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


async def median(ask: Any, rounds: int) -> float:
    """Milliseconds."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(taken)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    asyncio.run(main(given.requests, given.rounds))
