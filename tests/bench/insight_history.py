"""What insight's minutes take in memory, and its history of hours on disk, by series.

    python tests/bench/insight_history.py [--series 100] [--minutes 240] [--hours 48]

Minutes of 3 requests each, hours of 180, five sketches in both; then one question over all hours.
"""

import argparse
import asyncio
import gc
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from sluice_insight.adapters.history import DAY, HOUR, History
from sluice_insight.domain.board import MINUTE, Board, Query
from sluice_insight.domain.part import Part, Series, Totals
from sluice_insight.domain.sketch import Sketch

BASE = 1_760_000_040_000_000 // DAY * DAY
COUNTS = 16
SKETCHES = ("latency", "first", "speed", "characters", "repetition")


def part(rng: random.Random, series: Series, start: int, requests: int) -> Part:
    """One minute's part, as quality publishes it."""
    totals = Totals(Counter({f"requests.{number}": rng.randrange(1, 99) for number in range(COUNTS)}))
    totals.counts["requests.requests"] = requests
    for name in SKETCHES:
        buckets = Counter(round(rng.gauss(650, 40)) for _ in range(requests))
        totals.sketches[f"requests.{name}"] = Sketch(buckets=dict(buckets), sum=rng.randrange(10**9))
    return Part(
        key=f"quality|{series.tenant_id}|lab|small|small/small|||{start}|{MINUTE}|0", family="quality", series=series,
        start=start, length=MINUTE, partition=0, revision=requests, closed=True, totals=totals,
    )  # fmt: skip


def memory(rng: random.Random, series: list[Series], minutes: int) -> None:
    """Bytes a part of a minute takes in the board."""
    process, board = psutil.Process(), Board(history=2 * DAY)
    gc.collect()
    before = process.memory_info().rss
    for minute in range(minutes):
        for one in series:
            board.put(part(rng, one, BASE + minute * MINUTE, 3), now=BASE + DAY)
    gc.collect()
    each = (process.memory_info().rss - before) / len(board)
    print(f"memory: {each:,.0f} bytes a part of a minute; 10^3 series busy for 24 h: {each * 1.44e6 / 1e9:.1f} GB")


async def disk(rng: random.Random, series: list[Series], hours: int, path: Path) -> None:
    """Bytes that an hour of a series takes in the file, and how long an answer out of all of them takes."""
    history = History(path, days=31, most_series=2_000, now=BASE + 31 * DAY)
    for hour in range(BASE, BASE + hours * HOUR, HOUR):
        await history.fold([part(rng, one, hour, 180) for one in series], hour=hour)
    history.close()
    each = path.stat().st_size / hours / len(series)
    print(f"disk: {each:,.0f} bytes an hour of a series; 10^3 series for 31 days: {each * 744e3 / 1e9:.1f} GB")
    history = History(path, days=31, most_series=2_000, now=BASE + 31 * DAY)
    query = Query(metrics=("quality.requests",), filters={}, window=HOUR, start=BASE, end=BASE + hours * HOUR)
    began = time.perf_counter()
    older = await history.parts(query, frozenset({"quality"}), before=history.folded_up_to)
    points = Board(history=DAY).points(query, parts=older)
    seconds = time.perf_counter() - began
    print(
        f"an answer of {len(points)} points out of {len(older)} hours: {seconds:.2f} s; load {os.getloadavg()[0]:.1f}"
    )
    history.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--minutes", type=int, default=240)
    parser.add_argument("--hours", type=int, default=48)
    chosen = parser.parse_args()
    rng = random.Random(1)
    series = [Series(f"tenant-{number}", "lab", "small", "small/small") for number in range(chosen.series)]
    memory(rng, series, chosen.minutes)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(disk(rng, series, chosen.hours, Path(folder) / "history.db"))


if __name__ == "__main__":
    main()
