"""Faust's fetching from Kafka, without the records that it loses while partitions move.

Faust waits up to a second for records of its active partitions, and gives aiokafka the set itself: a rebalance empties it
meanwhile, and aiokafka takes an empty set for all partitions. So records that were fetched between the seek that a recovery
begins with and the moment in which it begins to read were taken and thrown away. The recovery then waited for ever ("No
event received for active tp"; a worker whose neighbour was killed, in one of ten kills on the embedded broker).
"""

from __future__ import annotations

from typing import Any

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Puts back what nobody wants any more."""

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:
        """Records by partition, of those that are active when they come."""
        found = dict(await super()._fetch_records(consumer, active_partitions, timeout, max_records))
        for place in found.keys() - active_partitions:
            records = found.pop(place)
            if place in consumer.assignment():
                consumer.seek(place, records[0].offset)
        return found


class Consumer(driver.Consumer):
    """Fetches in that thread."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """Kafka with that consumer."""

    Consumer = Consumer
