"""Customers with endpoints, deliveries and events, for tests of calls."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from integration.hooks.service import SECRET
from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db.endpoints import NewEndpoint, create_endpoint
from shared.db.engine import create_engine, session_factory
from shared.db.queue import CALLS, Claimed
from shared.security.keys import KeyRing

RING = KeyRing([SECRET])


@dataclass
class Customer:
    """One account in a database of its own; ``connection`` is the test's."""

    database_url: str
    name: str = "acme"
    connection: asyncpg.Connection = field(init=False)
    mailroom: Mailroom = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        self.connection = await asyncpg.connect(self.database_url)
        self._stack.push_async_callback(self.connection.close)
        self.mailroom = await Mailroom(self.connection).open(self.name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def account_id(self) -> int:
        return self.mailroom.account_id

    async def connect(self) -> asyncpg.Connection:
        """A further connection, closed at the end."""
        connection = await asyncpg.connect(self.database_url)
        self._stack.push_async_callback(connection.close)
        return connection

    async def endpoint(self, url: str = "https://customer.test/hook", **more: object) -> tuple[int, str]:
        """Register an endpoint; return its id and secret."""
        engine = create_engine(self.database_url, size=1, service="test")
        try:
            async with session_factory(engine)() as session, session.begin():
                row, secret = await create_endpoint(session, RING, self.account_id, NewEndpoint(url, **more))  # type: ignore[arg-type]  # fields by name
                return row.id, secret
        finally:
            await engine.dispose()

    async def delivery(self, recipient: str = "them@theirs.test") -> int:
        return (await self.mailroom.accept([recipient]))[0]

    async def event(self, delivery_id: int | None, event_type: str = "delivered", **columns: object) -> int:
        """Record an event as the settlement of a delivery does; return its id."""
        names = ["account_id", "delivery_id", "type", *columns]
        values = [self.account_id, delivery_id, event_type, *columns.values()]
        places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        event_id: int = await self.connection.fetchval(
            f"""WITH told AS (INSERT INTO event (id, {", ".join(names)}) SELECT nextval('event_id'), {places} RETURNING id),
                pending AS (INSERT INTO event_pending (event_id) SELECT id FROM told) SELECT id FROM told""",
            *values,
        )
        return event_id

    async def worker(self) -> int:
        return await new_worker(self.connection, "hooks")

    async def claim(self, worker_id: int, *, rows: int = 50) -> list[Claimed]:
        await CALLS.drain(self.connection)
        return await CALLS.claim(self.connection, worker_id, sites=50, lanes=4, rows=rows)

    async def return_slots(self, worker_id: int) -> None:
        """Give back what the worker's claims took, so that its next claim finds the endpoints open."""
        slots = await self.connection.fetch("SELECT id FROM site_slot WHERE worker_id = $1", worker_id)
        await CALLS.return_slots(self.connection, worker_id, [row["id"] for row in slots])

    async def calls(self) -> Sequence[asyncpg.Record]:
        """All records of calls, the oldest first."""
        return await self.connection.fetch("SELECT * FROM call ORDER BY id")

    async def queued(self) -> Sequence[asyncpg.Record]:
        """All live calls, the oldest first."""
        return await self.connection.fetch(
            "SELECT *, due_at - now() AS due_in FROM call_queue ORDER BY event_id, call_id"
        )

    async def due_now(self) -> None:
        """Let waiting time pass for every live call."""
        await self.connection.execute(
            """WITH moved AS (UPDATE call_queue SET due_at = now() WHERE worker_id IS NULL RETURNING lane_id)
                INSERT INTO call_wake (lane_id) SELECT DISTINCT lane_id FROM moved"""
        )
