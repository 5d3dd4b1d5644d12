"""What tests of notifications to senders share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import asyncpg

from delivery.dsn import DsnWriter
from integration.delivery.conftest import Site
from shared.metrics import Metrics

CONTENT = (
    b"Received: by us.test id 1;\r\n\tFri, 20 Nov 2026 13:00:00 +0000\r\nFrom: <me@ours.test>\r\nSubject: Order 7\r\n"
    b"Message-Id: <order-7@ours.test>\r\n\r\nThe body that nobody gets back\r\n"
)


def start(site: Site, stop: asyncio.Event) -> "asyncio.Task[None]":
    """Start a writer."""
    writer = DsnWriter(site.pool, "us.test", Metrics("delivery"))
    return asyncio.create_task(writer.run(stop, poll_seconds=0.02, random=Random(1)))


@asynccontextmanager
async def writing(site: Site) -> AsyncIterator[None]:
    """A writer at work; at the end of the block it has stopped in order."""
    stop = asyncio.Event()
    task = start(site, stop)
    try:
        yield
    finally:
        stop.set()
        await task


async def wants(site: Site, *, wanted: bool = True, schedule: str = "default") -> None:
    await site.pool.execute("UPDATE account SET dsn_to_sender = $1, retry_schedule = $2", wanted, schedule)


async def stored(site: Site) -> list[asyncpg.Record]:
    return await site.pool.fetch(
        "SELECT m.*, b.bytes FROM inbound_message m JOIN inbound_body b ON b.body_id = m.body_id ORDER BY m.id"
    )


async def owed(site: Site) -> int:
    count: int = await site.pool.fetchval("SELECT count(*) FROM dsn_pending")
    return count


async def nothing_owed(site: Site) -> bool:
    return await owed(site) == 0
