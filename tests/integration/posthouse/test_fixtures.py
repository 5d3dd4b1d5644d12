"""The servers that conftest.py gives to every test."""

import asyncio

import asyncpg
import nats
import pytest

from fakes.waiting import eventually, eventually_sync
from shared.db.migrate import current, head


async def test_database_is_migrated_and_empty(database_url: str) -> None:
    assert await current(database_url) == head()
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM account WHERE name = 'only here'") == 0
        await connection.execute("INSERT INTO account (name) VALUES ('only here')")
    finally:
        await connection.close()


async def test_database_is_of_the_test_alone(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM account WHERE name = 'only here'") == 0
    finally:
        await connection.close()


async def test_nats_needs_its_token(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    await client.publish("somebody.there", b"")
    await client.flush()
    await client.close()
    host, _, port = nats_url.rpartition("@")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        assert (await reader.readline()).startswith(b"INFO")
        writer.write(b"CONNECT {}\r\nPING\r\n")
        assert b"Authorization Violation" in await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_eventually_waits_for_plain_and_async_conditions() -> None:
    seen: list[int] = []

    async def third() -> int:
        seen.append(1)
        return len(seen) if len(seen) >= 3 else 0

    assert await eventually(third) == 3
    assert await eventually(lambda: len(seen) == 3)


async def test_eventually_fails_with_what_was_asserted() -> None:
    def never() -> bool:
        assert 1 == 2, "one is not two"  # noqa: PLR0133 - a condition that fails by an assertion
        return True

    with pytest.raises(AssertionError, match="one is not two"):
        await eventually(never, timeout=0.05)
    with pytest.raises(AssertionError, match=r"the bell did not come true within 0\.05 s; last seen: 0"):
        eventually_sync(lambda: 0, timeout=0.05, what="the bell")
