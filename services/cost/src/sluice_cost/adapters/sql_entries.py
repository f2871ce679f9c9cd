"""Puts new entries into the ledger: sealed, summed and told, in the transaction of whoever calls."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, func, select

from sluice_cost.adapters import tables
from sluice_cost.adapters.alert_events import unpriced_alert
from sluice_cost.adapters.bulk import add_up, insert_all, insert_missing
from sluice_cost.adapters.moments import DAY_US, HOUR_US, to_microseconds
from sluice_cost.adapters.outbox import Telling, tell
from sluice_cost.adapters.sql_chain import lock_heads, move_heads
from sluice_cost.domain.chain import SEALED_COLUMNS, Head, seal
from sluice_cost.domain.ledger import Completion, LedgerEntry, Partition
from sluice_cost.domain.pricing import Priced
from sluice_cost.domain.usage import COMPUTE_BUCKETS, TOKEN_BUCKETS

Encode = Callable[[LedgerEntry], bytes]

_NOT_STORED = ("price_model", "price_version")
_STORED = tuple(name for name in SEALED_COLUMNS if name not in _NOT_STORED)
_KEPT = tuple(i for i, name in enumerate(SEALED_COLUMNS) if name not in _NOT_STORED)
_UNSEALED = ("recorded_at_us", "price_id", "request_count", "chain_number", "entry_hash")


def known_events(connection: Connection, event_ids: Sequence[str]) -> set[str]:
    """Those of `event_ids` that are in the ledger."""
    if not event_ids:
        return set()
    column = tables.ledger.c.event_id
    if connection.dialect.name == "postgresql":
        # One array, so that the statement is the same for any number of ids.
        rows = connection.exec_driver_sql(
            "SELECT event_id FROM cost_ledger WHERE event_id = ANY(%s)", (list(event_ids),)
        )
        return set(rows.scalars())
    return set(connection.execute(select(column).where(column.in_(event_ids))).scalars())


def insert_entries(connection: Connection, entries: Iterable[LedgerEntry], encode: Encode) -> list[LedgerEntry]:
    """Enters what is not in the ledger yet, in the order given; returns it.

    The chains are locked first, so that what is new stays new until the end of the transaction.
    """
    unique: dict[str, LedgerEntry] = {}
    for entry in entries:
        unique.setdefault(entry.completion.event_id, entry)  # of two the first counts, and at its place
    wanted = list(unique.values())
    heads = lock_heads(connection, {entry.completion.partition for entry in wanted})
    known = known_events(connection, list(unique))
    new = [entry for entry in wanted if entry.completion.event_id not in known]
    if new:
        _insert_sealed(connection, new, heads)
        _add_to_spend(connection, new)
        tell(connection, [Telling(entry.cost_event_id, "CostRecorded", encode(entry)) for entry in new])
        _warn_of_unpriced(connection, new)
    return new


def _warn_of_unpriced(connection: Connection, new: Sequence[LedgerEntry]) -> None:
    """Raises an alert for every model without a price, once a model and day."""
    first: dict[tuple[int, str], LedgerEntry] = {}
    for entry in new:
        if entry.charge.priced is Priced.UNPRICED:
            moment, completion = to_microseconds(entry.completion.occurred_at), entry.completion
            first.setdefault((moment - moment % DAY_US, completion.served_model or completion.model), entry)
    if not first:
        return
    day, model = tables.unpriced_days.c.day_us, tables.unpriced_days.c.model
    known = {
        (row.day_us, row.model)
        for row in connection.execute(select(day, model).where(day.in_({key[0] for key in first})))
    }
    fresh = sorted(key for key in first if key not in known)
    if fresh:
        insert_missing(
            connection,
            tables.unpriced_days,
            [{"day_us": key[0], "model": key[1]} for key in fresh],
            key=("day_us", "model"),
        )
        tell(connection, [unpriced_alert(first[key], model=key[1], day_us=key[0]) for key in fresh])


def _insert_sealed(connection: Connection, new: Sequence[LedgerEntry], heads: Mapping[Partition, Head]) -> None:
    moved: dict[Partition, Head] = {}
    rows = []
    for entry in new:
        chain = entry.completion.partition
        before = moved.get(chain) or heads[chain]
        values = sealed_values(entry)
        number = before.number + 1
        moved[chain] = head = Head(number, seal(before.hash, number, values), before.unsealed)
        rows.append([*(values[i] for i in _KEPT), *_unsealed_values(entry, head)])
    insert_all(connection, tables.ledger, (*_STORED, *_UNSEALED), rows)
    move_heads(connection, moved)


def sealed_values(entry: LedgerEntry) -> list[Any]:
    """What an entry is sealed by, in the order of SEALED_COLUMNS."""
    completion, charge, usage, price = entry.completion, entry.charge, entry.completion.usage, entry.charge.price
    return [
        completion.partition.topic,
        completion.partition.number,
        completion.offset,
        completion.event_id,
        entry.cost_event_id,
        entry.charge_kind,
        to_microseconds(completion.occurred_at),
        completion.request_id,
        completion.tenant_id,
        completion.project_id,
        completion.subject_id,
        completion.api_key_id,
        completion.model,
        completion.served_model,
        completion.route,
        completion.operation,
        completion.outcome,
        completion.prompt_version,
        completion.experiment_arm,
        entry.corrects,
        entry.approved_by,
        charge.priced.value,
        price.model if price else "",
        price.version if price else 0,
        charge.currency,
        charge.total,
        charge.uncached_input,
        charge.cached_input,
        charge.cache_write,
        charge.output,
        charge.reasoning,
        charge.per_request,
        charge.minimum_top_up,
        charge.cpu,
        charge.accelerator,
        usage.uncached_input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.cpu_us,
        usage.accelerator_us,
        int(usage.is_estimated),
    ]


def _unsealed_values(entry: LedgerEntry, head: Head) -> tuple[Any, ...]:
    price_id = entry.charge.price.price_id if entry.charge.price else None
    return to_microseconds(entry.recorded_at), price_id, entry.request_count, head.number, head.hash


def _add_to_spend(connection: Connection, new: Sequence[LedgerEntry]) -> None:
    sums: dict[tuple[Any, ...], list[int]] = {}
    for entry in new:
        key, amounts = _spend_of(entry)
        group = sums.get(key)
        sums[key] = amounts if group is None else [a + b for a, b in zip(group, amounts, strict=True)]
    rows = [_spend_row(key, sums[key]) for key in sorted(sums)]
    add_up(connection, tables.spend_hours, rows, key=("hour_us", "series"), sums=tables.SPEND_SUMS)


def _spend_row(key: tuple[Any, ...], amounts: Sequence[int]) -> dict[str, Any]:
    hour_us, *dimensions = key
    text = "".join(f"{len(value)}:{value}" for value in dimensions)
    return {
        "hour_us": hour_us,
        "series": hashlib.blake2b(text.encode(), digest_size=16).digest(),
        **dict(zip(tables.SPEND_DIMENSIONS, dimensions, strict=True)),
        **dict(zip(tables.SPEND_SUMS, amounts, strict=True)),
    }


def _spend_of(entry: LedgerEntry) -> tuple[tuple[Any, ...], list[int]]:
    """The group of the hourly sums an entry belongs to, and what it adds, in the order of SPEND_SUMS."""
    completion: Completion = entry.completion
    usage, moment = completion.usage, to_microseconds(completion.occurred_at)
    key = (
        moment - moment % HOUR_US,
        completion.tenant_id,
        completion.project_id,
        completion.model,
        completion.served_model,
        completion.api_key_id,
        completion.route,
        completion.operation,
        completion.prompt_version,
        completion.experiment_arm,
        entry.charge_kind,
        completion.outcome,
        entry.charge.currency,
    )
    amounts = [
        1,
        entry.request_count,
        entry.unpriced_count,
        entry.request_count * usage.is_estimated,
        entry.charge.total,
        usage.uncached_input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.cpu_us,
        usage.accelerator_us,
    ]
    return key, amounts


# The same sums over ledger rows, for the parts of a range that are no whole hours.
LEDGER_SUMS: Mapping[str, Any] = {
    "row_count": func.count(),
    "request_count": func.sum(tables.ledger.c.request_count),
    "unpriced_request_count": func.sum(
        case({Priced.UNPRICED.value: 1, Priced.NEWLY_PRICED.value: -1}, value=tables.ledger.c.priced, else_=0)
    ),
    "estimated_request_count": func.sum(tables.ledger.c.usage_estimated * tables.ledger.c.request_count),
    "amount_nano": func.sum(tables.ledger.c.amount_nano),
    **{bucket: func.sum(tables.ledger.c[bucket]) for bucket in (*TOKEN_BUCKETS, *COMPUTE_BUCKETS)},
}
