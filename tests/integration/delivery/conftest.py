"""A whole delivery worker in the test's own loop: real Postgres, real SMTP, no NATS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TypedDict, Unpack

import pytest

from delivery.attempt import Tools
from delivery.dial import Dialer, DialSettings
from delivery.ledger import Ledger
from delivery.main import exhausted
from delivery.pipeline import Courier
from delivery.prepare import BodyBudget
from delivery.route import Own, Router
from delivery.seen import ProvidersSeen
from delivery.signing import Signers
from delivery.sites import Sites
from delivery.smtp import Timeouts
from delivery.traffic import TrafficRules
from delivery.way import Contexts, Ways
from delivery.worker import Worker, WorkerSettings
from fakes.certificates import trusting_context
from fakes.smtp_server import ScriptedSmtpServer
from integration.shared.db.queue_data import Mailroom
from shared.clock import utc_now
from shared.db import workers
from shared.db.engine import Pool, create_pool
from shared.db.lanes import Lanes, SiteName
from shared.db.routing import Routing
from shared.db.sites import Backoff
from shared.db.transaction import NoBell
from shared.dns.resolver import Resolver
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.worker.lease import Lease
from shared.worker.operator_events import OperatorEvents

SECRET = "s" * 32
BEAT_SECONDS = 0.2


class Options(TypedDict, total=False):
    """Sizes and times of a worker."""

    sessions: int
    grace: float
    timeout: float
    recipients: int
    backoff: float
    smtp_port: int


DEFAULTS: Options = {
    "sessions": 4,
    "grace": 5.0,
    "timeout": 5.0,
    "recipients": 50,
    "backoff": 60.0,
    "smtp_port": 25,
}


@dataclass
class RunningWorker:
    """A worker that runs; ``stop`` asks it to end in order, ``kill`` leaves everything as it lies."""

    worker: Worker
    lease: Lease
    tools: Tools
    courier: Courier
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    beating: asyncio.Event
    beat: "asyncio.Task[None]"
    telling: "asyncio.Task[None]"

    async def finish(self) -> None:
        self.stop.set()
        await self.task
        self.beating.set()
        await asyncio.gather(self.beat, self.telling)
        await self.lease.leave()

    async def kill(self) -> None:
        for task in [self.task, self.beat, self.telling, *self.worker.serving]:
            task.cancel()
        await asyncio.gather(self.task, self.beat, self.telling, *self.worker.serving, return_exceptions=True)


@dataclass
class Site:
    """Everything a test of the delivery service needs."""

    url: str
    pool: Pool
    room: Mailroom
    server: ScriptedSmtpServer
    running: list[RunningWorker] = field(default_factory=list)

    @property
    def relay(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def accept(self, *recipients: str, **more: object) -> list[int]:
        messages = await self.room.messages(list(recipients), site=SiteName("relay", self.relay), **more)  # type: ignore[arg-type] # passed on
        return await self.room.store(messages)

    async def accept_one(self, *recipients: str, from_ids: bool = False) -> list[int]:
        """One message to all recipients; return the ids of its deliveries."""
        site = SiteName("relay", self.relay)
        message = await self.room.message(list(recipients), site=site, from_ids=from_ids)
        await self.room.store([message])
        return [delivery.id for delivery in message.deliveries]

    async def start(
        self,
        *,
        relay: str | None = None,
        dns: str | None = None,
        **options: Unpack[Options],
    ) -> RunningWorker:
        """Start a worker that sends to the relay, or with ``dns`` to the MX hosts that this server names."""
        chosen = DEFAULTS | options
        metrics = Metrics("delivery")
        routing = Routing(seconds=0.05)
        lease = Lease(
            self.pool,
            NoBell(),
            "delivery",
            beat_seconds=BEAT_SECONDS,
            holding=workers.Holding(workers.DELIVERY_ROWS, exhausted),
        )
        told = OperatorEvents(self.pool, metrics, seconds=0.1)
        tools = Tools(
            pool=self.pool,
            ledger=Ledger(self.pool, NoBell(), lease),
            dialer=_dialer(routing, dns, chosen),
            signers=Signers(self.pool, KeyRing([SECRET])),
            bodies=BodyBudget(1024 * 1024),
            lanes=Lanes(),
            routing=routing,
            operator_events=told,
            relay=None if dns else relay or self.relay,
            clock=utc_now,
            random=Random(1),
            traffic=TrafficRules(self.pool),
            seen=ProvidersSeen(self.pool),
            sites=Sites(
                self.pool,
                Backoff(timedelta(seconds=chosen["backoff"]), timedelta(seconds=chosen["backoff"] * 8)),
                Random(4),
            ),
            recipients=chosen["recipients"],
        )
        courier = Courier(tools, metrics)
        worker = Worker(self.pool, courier, lease, WorkerSettings(chosen["sessions"], 0.05, chosen["grace"]), Random(2))
        await lease.join("test")
        stop, beating = asyncio.Event(), asyncio.Event()
        beat = asyncio.create_task(lease.run(beating, lambda _: worker.heard.set()))
        telling = asyncio.create_task(told.run(beating))
        running = RunningWorker(
            worker, lease, tools, courier, stop, asyncio.create_task(worker.run(stop)), beating, beat, telling
        )
        self.running.append(running)
        return running

    async def state(self, delivery_id: int) -> str:
        state: str = await self.pool.fetchval("SELECT state FROM delivery WHERE id = $1", delivery_id)
        return state

    async def events(self, delivery_id: int) -> list[str]:
        return [
            row["type"]
            for row in await self.pool.fetch("SELECT type FROM event WHERE delivery_id = $1 ORDER BY id", delivery_id)
        ]

    async def settled(self) -> bool:
        return await self.pool.fetchval("SELECT count(*) FROM delivery_queue") == 0


def _dialer(routing: Routing, dns: str | None, chosen: Options) -> Dialer:
    contexts = Contexts(verifying=trusting_context())
    return Dialer(
        Router(
            Resolver([dns] if dns else ()),
            Random(3),
            own=Own("us.test"),
            smtp_port=chosen["smtp_port"],
            allow_private=True,
        ),
        Ways(routing, KeyRing([SECRET]), "us.test", contexts),
        DialSettings(Timeouts.all(chosen["timeout"])),
    )


OpenSite = Callable[[ScriptedSmtpServer], Awaitable[Site]]


@pytest.fixture
async def open_site(database_url: str) -> AsyncIterator[OpenSite]:
    sites: list[Site] = []

    async def make(server: ScriptedSmtpServer) -> Site:
        pool = await create_pool(database_url, size=12, service="test")
        connection = await pool.acquire()
        room = await Mailroom(connection).open(f"acme {len(sites)}")  # type: ignore[arg-type] # a pool's proxy of a connection
        site = Site(database_url, pool, room, server)
        sites.append(site)
        return site

    yield make
    for site in sites:
        for running in site.running:
            await running.kill()
        await site.pool.release(site.room.connection)  # type: ignore[arg-type] # as above
        await site.pool.close()


@asynccontextmanager
async def in_order(running: RunningWorker) -> AsyncIterator[RunningWorker]:
    """Stop the worker in order at the end of the block."""
    try:
        yield running
    finally:
        await running.finish()
