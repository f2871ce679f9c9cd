"""Events per second of the quality processor under both runners, beside what does less, in one run on one broker.

    python tests/bench/streams_speed.py [--quick] [--events 300000] [--rounds 3]

By turns, each time as a new group: a Faust agent that does nothing, quality on Faust, quality on the plain runner, an aiokafka
consumer that does nothing, and quixstreams with a windowed count of the same series (from a copy of the topic that is keyed by
series: repartitioning is not measured). What runs on Faust reads a fifth of the topic. Prints medians as a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import encode
from sluice_kit.streams.plain_reading import PlainRecord
from sluice_quality.adapters.batches import together
from sluice_quality.adapters.events import fact_of
from sluice_quality.domain.partition import Partition, Rules
from streams_workers import FACTS, NOOP, QUALITY, TOPIC, Kafka, Measurement, completions, fill, kafka, measure

BY_SERIES = "bench-by-series"
QUIX_PYTHON = Path(".venv-quix/bin/python")
# Both print the moment of the first record, and of the last, with the processor time between and the peak memory.
REPORT = """
import json, resource, time
class Watch:
    def __init__(self, total):
        self.total, self.seen = total, 0
    def note(self, records):
        if not self.seen:
            self.already, self.began, self.cpu = records, time.monotonic(), time.process_time()
        self.seen += records
        if self.seen < self.total:
            return False
        done = self.seen - self.already
        print(json.dumps({"rate": done / (time.monotonic() - self.began), "cpu_rate": done / (time.process_time() - self.cpu),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}), flush=True)
        return True
"""
BARE = (
    REPORT
    + """
import asyncio, os
from aiokafka import AIOKafkaConsumer
async def main():
    watch = Watch(int(os.environ["BENCH_EVENTS"]))
    async with AIOKafkaConsumer(os.environ["BENCH_TOPIC"], bootstrap_servers=os.environ["SLUICE_KAFKA_BOOTSTRAP"],
            group_id=os.environ["SLUICE_QUALITY_GROUP"], auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20) as consumer:
        while True:
            for records in (await consumer.getmany(timeout_ms=100, max_records=20_000)).values():
                if watch.note(len(records)):
                    return
asyncio.run(main())
"""
)
QUIX = (
    REPORT
    + """
import os, logging
from datetime import timedelta
from quixstreams import Application
watch = Watch(int(os.environ["BENCH_EVENTS"]))
app = Application(broker_address=os.environ["SLUICE_KAFKA_BOOTSTRAP"], consumer_group=os.environ["SLUICE_QUALITY_GROUP"],
    auto_offset_reset="earliest", state_dir=os.environ["SLUICE_HOME"] + "/quix", loglevel="ERROR")
counts = app.dataframe(app.topic(os.environ["BENCH_BY_SERIES"], value_deserializer="bytes", key_deserializer="bytes"))
counts = counts.tumbling_window(timedelta(minutes=1), grace_ms=600_000).count().current()
counts.update(lambda _: watch.note(1) and app.stop())
app.run()
"""
)


def told_by(python: str | Path, program: str, environment: dict[str, str], events: int) -> Measurement:
    """What a program says of itself."""
    added = {"BENCH_EVENTS": str(events), "BENCH_BY_SERIES": BY_SERIES}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program],
        env={**os.environ, **environment, **added},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def contenders(events: int, fewer: int) -> dict[str, Callable[[dict[str, str]], Measurement]]:
    """What is measured, by name. Each is given its environment."""
    python = sys.executable
    found: dict[str, Callable[[dict[str, str]], Measurement]] = {
        "Faust agent that does nothing": lambda told: measure(NOOP, "noop_events_total", told, fewer),
        "quality on Faust": lambda told: measure(QUALITY, FACTS, told, fewer),
        "quality on the plain runner": lambda told: measure(QUALITY, FACTS, told, events, "plain"),
        "aiokafka consumer that does nothing": lambda told: told_by(python, BARE, told, events),
    }
    if QUIX_PYTHON.exists():
        found["quixstreams, windowed count only"] = lambda told: told_by(QUIX_PYTHON, QUIX, told, fewer)
    else:
        print("quixstreams is left out: `make bench-streams` installs it.")
    return found


async def make_copy(bootstrap: str) -> None:
    """The topic that is keyed by series."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(BY_SERIES, num_partitions=4, replication_factor=1)])
    finally:
        await admin.close()


def run(broker: Kafka, *, events: int, fewer: int, rounds: int) -> dict[str, list[Measurement]]:
    """Fill the topics once, then let all read them by turns."""
    asyncio.run(make_copy(broker.bootstrap))
    asyncio.run(fill(broker.bootstrap, completions(events), by_series=BY_SERIES))
    results: dict[str, list[Measurement]] = {}
    for number in range(rounds):
        for place, (name, measured) in enumerate(contenders(events, fewer).items()):
            with tempfile.TemporaryDirectory() as home:
                told = broker.environment(home, f"bench-{place}-{number}")
                results.setdefault(name, []).append(measured(told))
    return results


def domain_alone(events: int) -> float:
    """Events per CPU second of the same aggregation without runner, Kafka or table, as the fast lane has it: decoded and merged
    in batches of 5,000, in columns where they are installed."""
    place, now = TopicPartition(TOPIC, 0), int(time.time() * 1000)
    records = [
        PlainRecord(
            place, SimpleNamespace(offset=offset, timestamp=now, key=each.key, value=each.value, headers=each.headers)
        )
        for offset, each in enumerate(map(encode, completions(events)))
    ]
    together(records[:5000])  # what is loaded and made at the first batch is not measured
    partition = Partition(0, Rules(retention=10**15), now=0)
    began = time.process_time()
    for start in range(0, len(records), 5000):
        batch = records[start : start + 5000]
        read = together(batch)
        facts: Any = read if not isinstance(read, tuple) else [fact_of_record(each) for each in batch]
        partition.absorb(TOPIC, facts, now=0, through=batch[-1].offset)
    return len(records) / (time.process_time() - began)


def fact_of_record(record: PlainRecord) -> Any:
    """One by one."""
    return fact_of(RequestCompleted.FromString(record.value), offset=record.offset, record_time=2**60)


def report(results: dict[str, list[Measurement]], alone: float) -> None:
    """Medians; the ratios are to the first of the same kind."""
    print("\n| | events/s | events per CPU second | us of CPU an event | peak MiB |\n|---|---|---|---|---|")
    for name, found in results.items():
        rate, cpu = statistics.median(m.rate for m in found), statistics.median(m.cpu_rate for m in found)
        peak = max(m.peak_mib for m in found)
        print(f"| {name} | {rate:,.0f} | {cpu:,.0f} | {1e6 / cpu:.1f} | {peak} |")
    print(f"| its aggregation alone: decoded and merged | | {alone:,.0f} | {1e6 / alone:.1f} | |")
    noop, faust = results["Faust agent that does nothing"], results["quality on Faust"]
    wall = statistics.median(m.rate for m in faust) / statistics.median(m.rate for m in noop)
    cpu = statistics.median(m.cpu_rate for m in faust) / statistics.median(m.cpu_rate for m in noop)
    print(f"\nquality on Faust to a Faust agent that does nothing: {wall:.2f} by wall time, {cpu:.2f} by CPU time.")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100,000 events, one round")
    given = parser.parse_args()
    events, rounds = (100_000, 1) if given.quick else (given.events, given.rounds)
    with kafka() as broker:
        print(
            f"{broker.name}, {events:,} events of 96 series, {rounds} rounds, load {os.getloadavg()[0]:.1f}", flush=True
        )
        results = run(broker, events=events, fewer=events // 5, rounds=rounds)
    report(results, statistics.median(domain_alone(events // 5) for _ in range(rounds)))
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
