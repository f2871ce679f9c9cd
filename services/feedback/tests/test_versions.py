"""Versions of the database side by side on PostgreSQL: who still uses the live one."""

import asyncio

import psycopg
from sluice_feedback.adapters import versions


async def test_who_asks_for_connections_of_others_does_not_count_its_own(postgres: str) -> None:
    live = postgres.replace("postgresql://", "postgresql+psycopg://")
    own: set[int] = set()
    asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    with psycopg.connect(postgres, autocommit=True) as other:
        waiting = asyncio.create_task(asyncio.to_thread(versions._others, live))
        while not waiting.done():
            own |= {pid for (pid,) in other.execute(asked)} - {other.info.backend_pid}
            await asyncio.sleep(0.01)
    assert await waiting == 1
    assert len(own) == 1, "of a connection that it has just closed PostgreSQL may tell a moment longer"
