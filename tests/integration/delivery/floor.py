"""A site whose operator makes transports and routes, in a network of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fakes.smtp_network import SmtpNetwork
from fakes.waiting import eventually
from integration.delivery.conftest import SECRET, Site, in_order
from shared.db import routes, transports
from shared.db.engine import create_engine, session_factory
from shared.db.routes import RouteOptions
from shared.db.transports import TransportOptions
from shared.security.keys import KeyRing


@dataclass
class Floor:
    """A site whose operator makes routes, and a network that mail without a route goes to."""

    site: Site
    network: SmtpNetwork

    async def operate(
        self, name: str = "t", kind: str = "smtp", *, route: dict[str, Any] | None = None, **options: Any
    ) -> int:
        """Make a transport, and a route to it."""
        engine = create_engine(self.site.url, size=1, service="test")
        try:
            async with session_factory(engine)() as session, session.begin():
                made = await transports.create_transport(
                    session, KeyRing([SECRET]), name, kind, TransportOptions(**options)
                )
                if route is not None:
                    await routes.create_route(session, RouteOptions(name, **route))
                return made.id
        finally:
            await engine.dispose()

    async def update(self, transport_id: int, **changes: Any) -> None:
        engine = create_engine(self.site.url, size=1, service="test")
        async with session_factory(engine)() as session, session.begin():
            await transports.update_transport(session, KeyRing([SECRET]), transport_id, changes)
        await engine.dispose()

    async def send(self, recipient: str = "a@b.test", *, attempts: int = 1, **start: Any) -> list[dict[str, Any]]:
        """Send one mail; return its attempts so far, as many as are asked for."""
        (delivery,) = await self.site.room.accept([recipient])
        async with self.working(**start):
            for count in range(1, attempts + 1):
                await eventually(lambda count=count: self._made(delivery, count))
                if count < attempts:
                    await self.due()
        return await self.attempts(delivery)

    @asynccontextmanager
    async def working(self, **start: Any) -> AsyncIterator[None]:
        async with in_order(await self.site.start(dns=self.network.dns.address, smtp_port=self.network.port, **start)):
            yield

    async def due(self) -> None:
        """Let the time pass that mails and sites wait."""
        await self.site.pool.execute("UPDATE site SET backoff_until = now(), next_at = now() WHERE in_use = 0")
        await self.site.pool.execute("UPDATE delivery_queue SET due_at = now() WHERE worker_id IS NULL")
        await self.site.pool.execute("INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM delivery_queue")

    async def attempts(self, delivery: int) -> list[dict[str, Any]]:
        query = "SELECT * FROM attempt WHERE delivery_id = $1 AND finished_at IS NOT NULL ORDER BY n"
        return [dict(row) for row in await self.site.pool.fetch(query, delivery)]

    async def _made(self, delivery: int, count: int) -> bool:
        return len(await self.attempts(delivery)) >= count


async def sites(floor: Floor) -> set[str]:
    return {row["name"] for row in await floor.site.pool.fetch("SELECT name FROM site WHERE queue = 'delivery'")}
