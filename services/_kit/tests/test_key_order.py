"""Work by key: order kept, many keys at once, commits of what is contiguous, poison aside."""

import asyncio
import random
from datetime import timedelta
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from sluice.events.v1 import gateway_pb2
from sluice_kit.batch_work import BatchWork
from sluice_kit.dead_letters import read_dead_letter
from sluice_kit.errors import Unavailable
from sluice_kit.events import encode, new_event_id, now
from sluice_kit.key_order import KeyOrder
from sluice_kit.keyed_work import KeyedWork
from sluice_kit.progress import Progress
from sluice_kit.trials import Interrupted, Trial, Trials

TP = TopicPartition("t", 0)


@given(st.lists(st.integers(0, 30), unique=True, min_size=1), st.randoms(use_true_random=False))
def test_only_what_is_contiguous_may_be_committed(offsets, chance):
    offsets.sort()
    progress, done = Progress(), set()
    for offset in offsets:
        progress.begin(TP, offset)
    for offset in chance.sample(offsets, len(offsets)):
        progress.done(TP, offset)
        done.add(offset)
        contiguous = next((n for n, o in enumerate(offsets) if o not in done), len(offsets))
        expected = {TP: offsets[contiguous - 1] + 1} if contiguous else {}
        assert progress.committable() == expected
        assert progress.unfinished() == ({TP: offsets[contiguous]} if contiguous < len(offsets) else {})
        assert progress.in_hand == len(offsets) - contiguous


def test_what_was_let_go_is_not_counted_when_it_ends_late():
    progress = Progress()
    progress.begin(TP, 5)
    progress.forget()
    progress.done(TP, 5)
    assert (progress.in_hand, progress.committable()) == (0, {})


async def test_keys_run_at_once_up_to_the_limit_and_each_in_its_order():
    running, most, seen = set(), 0, []

    async def work(item):
        nonlocal most
        key, _ = item
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        for _ in range(random.randint(0, 3)):
            await asyncio.sleep(0)
        running.remove(key)
        seen.append(item)

    order = KeyOrder(work, concurrency=4)
    for number in range(200):
        order.add(number % 10, (number % 10, number))
    async with asyncio.timeout(20):
        while len(seen) < 200:
            await order.ended_one(0.1)
    assert most == 4
    for key in range(10):
        assert [n for k, n in seen if k == key] == list(range(key, 200, 10))


async def test_letting_go_drops_what_has_not_begun_and_ends_what_has():
    begun, ended, gate = [], [], asyncio.Event()

    async def work(item):
        begun.append(item)
        await gate.wait()
        ended.append(item)

    order = KeyOrder(work, concurrency=2)
    for item in range(6):
        order.add(item % 3, item)
    await asyncio.sleep(0)
    letting_go = asyncio.create_task(order.let_go(20))
    await asyncio.sleep(0)
    gate.set()
    await letting_go
    assert begun == ended == [0, 1]


class Letters:
    """Stands in for the producer of dead letters: keeps them."""

    def __init__(self) -> None:
        self.kept: list[SimpleNamespace] = []

    async def send_and_wait(self, topic, *, key, value, headers) -> None:
        self.kept.append(
            SimpleNamespace(
                topic=topic, partition=0, offset=len(self.kept), timestamp=0, key=key, value=value, headers=headers
            )
        )


def record_of(offset: int, key: str, value: bytes | None = None) -> SimpleNamespace:
    event = gateway_pb2.RequestCompleted()
    event.metadata.event_id, event.metadata.request_id = new_event_id(), key
    event.metadata.producer_sequence = offset + 1
    made = encode(event)
    return SimpleNamespace(
        topic=made.topic, partition=0, offset=offset, timestamp=1, key=made.key,
        value=made.value if value is None else value, headers=made.headers,
    )  # fmt: skip


class Bench:
    """A kind of work with a committed offset, and a fetcher that begins where it is told to."""

    def __init__(self, kind: str, handle_each, concurrency: int = 4) -> None:
        self.letters, self.trials = Letters(), Trials("g")
        self.trials.use(self.letters)
        self.commits: list[int] = []
        self.position = 0

        async def commit(offsets):
            self.commits += offsets.values()

        def seek(positions):
            self.position = next(iter(positions.values()), self.position)

        async def handle(events):
            for event in events:
                await handle_each(event)

        if kind == "keyed":
            self.work = KeyedWork(
                handle_each, self.trials, concurrency=concurrency, most_in_hand=20, commit=commit, seek=seek
            )
        else:
            self.work = BatchWork(handle, self.trials, group="g", batch_size=20, commit=commit, seek=seek)

    async def run(self, records) -> None:
        topic = TopicPartition(records[0].topic, 0)
        async with asyncio.timeout(60):
            while not (self.commits and self.commits[-1] == len(records)):
                batch = records[self.position : self.position + self.work.room]
                self.position += len(batch)
                await (self.work.begin({topic: batch}) if batch else self.work.keep_up())
                if self.trials.interrupt.is_set():  # as in a rebalance
                    await self.work.release(20)
                    self.trials.interrupt.clear()
                if not batch:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["batch", "keyed"])
@pytest.mark.parametrize("seed", range(3))
async def test_random_poison_among_good_events_is_buried_and_stops_nothing(kind, seed):
    chance = random.Random(seed)
    records = [record_of(n, f"k{chance.randint(0, 6)}") for n in range(60)]
    unreadable = set(chance.sample(range(60), 6))
    for n in unreadable:
        records[n].value = b"\xff\xff\xff"
    unbearable = set(chance.sample(range(60), 6)) - unreadable
    away = {n: chance.randint(1, 2) for n in chance.sample(range(60), 4)}
    handled: list[tuple[bytes, int]] = []

    async def handle(event):
        if event.offset in unbearable:
            raise ValueError("no")
        if away.get(event.offset, 0):
            away[event.offset] -= 1
            raise Unavailable("the database is away")
        await asyncio.sleep(0)
        handled.append((event.key, event.offset))

    bench = Bench(kind, handle)
    await bench.run(records)
    letters = [read_dead_letter(letter) for letter in bench.letters.kept]
    assert {letter.source_offset for letter in letters} == unreadable | unbearable
    assert {offset for _, offset in handled} == set(range(60)) - unreadable - unbearable
    for letter in letters:
        assert letter.original.value == records[letter.source_offset].value
        assert letter.original.headers == records[letter.source_offset].headers
        assert (letter.attempts == 0) is (letter.source_offset in unreadable)
    assert bench.commits == sorted(bench.commits)
    for key in {k for k, _ in handled}:
        # A batch that fails is gone through again: first times count.
        first = list(dict.fromkeys(offset for k, offset in handled if k == key))
        assert first == sorted(first)


@pytest.mark.parametrize("kind", ["batch", "keyed"])
async def test_what_is_in_hand_when_partitions_go_is_committed_and_the_rest_fetched_again(kind):
    gate, handled = asyncio.Event(), []

    async def handle(event):
        if event.offset == 3:
            await gate.wait()
        handled.append(event.offset)

    bench = Bench(kind, handle)
    records = [record_of(n, f"k{n % 2}") for n in range(10)]
    running = asyncio.create_task(bench.work.begin({TopicPartition(records[0].topic, 0): records}))
    async with asyncio.timeout(20):
        while len(handled) < 3:
            await asyncio.sleep(0)
    bench.position = 10
    bench.trials.interrupt.set()
    letting_go = asyncio.create_task(bench.work.release(20))
    await asyncio.sleep(0)
    gate.set()
    await letting_go
    await running
    committed = bench.commits[-1]
    assert 4 <= committed <= 10
    assert set(handled) >= set(range(committed))
    # keyed: the other key may have run ahead of the slow one, and comes again
    assert committed == 10 or bench.position == committed


async def test_a_handler_that_fails_for_longer_than_retries_may_last_is_put_back_not_buried():
    trials, trial = Trials("g"), Trial()

    async def fail():
        raise ValueError("no")

    with pytest.raises(Interrupted):
        await trials.attempt(fail, trial, most=5, until=0)
    assert trial.attempts == 1
    with pytest.raises(ValueError, match="no"):
        await trials.attempt(fail, trial, most=1, until=0)


@pytest.mark.parametrize(("kind", "in_all"), [("batch", 8), ("keyed", 5)])
@pytest.mark.parametrize("put_back_after", range(1, 8))
async def test_a_letter_tells_of_all_attempts_and_putting_back_gives_no_more_of_them(kind, in_all, put_back_after):
    calls, begun = [], now()

    async def handle(event):
        if event.offset == 2:
            calls.append(event.offset)
            if len(calls) == put_back_after:
                bench.trials.interrupt.set()
            raise ValueError("no")

    bench = Bench(kind, handle)
    records = [record_of(n, f"k{n % 2}") for n in range(5)]
    await bench.run(records)
    assert not bench.trials.interrupt.is_set()
    (letter,) = map(read_dead_letter, bench.letters.kept)
    assert (letter.attempts, len(calls)) == (in_all, in_all)
    assert begun - timedelta(seconds=1) <= letter.first_failed_at


async def test_a_slow_key_bounds_what_is_taken_in_hand():
    gate, handled = asyncio.Event(), []

    async def handle(event):
        if event.key == b"slow":
            await gate.wait()
        handled.append(event.offset)

    bench = Bench("keyed", handle)
    records = [record_of(n, "slow" if n == 0 else f"k{n}") for n in range(50)]
    running = asyncio.create_task(bench.run(records))
    async with asyncio.timeout(20):
        while len(handled) < 19:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
    assert sorted(handled) == list(range(1, 20))
    assert bench.commits == []
    gate.set()
    await running
