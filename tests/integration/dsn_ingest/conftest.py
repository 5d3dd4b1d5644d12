"""The listener and the reader of dsn-ingest in the test's own loop, over real SMTP and Postgres."""

import asyncio
import secrets
import smtplib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random

import pytest

from dsn_ingest.addressing import Addressing
from dsn_ingest.ingest import Ingest
from dsn_ingest.listener import InboundHandler
from dsn_ingest.simulate import Bouncer
from dsn_ingest.worker import Worker, give_up
from integration.shared.db.queue_data import Mailroom
from shared.clock import utc_now
from shared.db import workers
from shared.db.accept import NewDelivery, NewMessage, accept
from shared.db.engine import Pool, create_pool
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes
from shared.db.transaction import NoBell
from shared.mail.from_id import FromIds
from shared.metrics import Metrics
from shared.smtpd import Listener, SmtpdConfig, serve
from shared.worker.lease import Lease

FROM_IDS = FromIds([b"k" * 16])


@dataclass
class Inbox:
    """dsn-ingest, with an account of ours that owns ours.test."""

    pool: Pool
    room: Mailroom
    listener: Listener
    worker: Worker

    async def sent(
        self,
        recipient: str,
        *,
        state: str = "delivered",
        delivery_id: int | None = None,
        chosen: str | None = None,
        mail_from: str | None = None,
    ) -> tuple[int, str]:
        """Accept a mail with a from_id, made or ``chosen``, and settle it; return the delivery and its return path."""
        (message,) = await self.room.messages([recipient])
        old = message.deliveries[0]
        delivery_id = delivery_id or old.id
        token = chosen or FROM_IDS.make(delivery_id)
        mail_from = mail_from or f"me+{token}@ours.test"
        delivery = NewDelivery(
            delivery_id,
            mail_from,
            token,
            old.recipient,
            old.recipient_domain,
            old.recipient_key,
            old.mox_key,
            old.lane_id,
            client_chose_from_id=chosen is not None,
        )
        async with self.room.connection.transaction():
            await accept(self.room.connection, [_with(message, delivery)])
            if state != "queued":
                await self.room.connection.execute(
                    "UPDATE delivery SET state = $2, settled_at = now() WHERE id = $1", delivery_id, state
                )
                await self.room.connection.execute("DELETE FROM delivery_queue WHERE delivery_id = $1", delivery_id)
        return delivery_id, mail_from

    async def receive(self, content: bytes, *recipients: str, sender: str = "") -> dict[str, tuple[int, bytes]]:
        """Hand a message in over SMTP as any MTA would; return the recipients that were refused."""

        def send() -> dict[str, tuple[int, bytes]]:
            with smtplib.SMTP("127.0.0.1", self.listener.port, local_hostname="mx.elsewhere.test", timeout=20) as smtp:
                return smtp.sendmail(sender, list(recipients), content)

        return await asyncio.to_thread(send)

    async def events(self, delivery_id: int) -> list[str]:
        rows = await self.pool.fetch("SELECT type FROM event WHERE delivery_id = $1 ORDER BY id", delivery_id)
        return [row["type"] for row in rows]

    async def read_all(self) -> bool:
        return await self.pool.fetchval("SELECT count(*) FROM inbound_queue") == 0


def _with(message: NewMessage, delivery: NewDelivery) -> NewMessage:
    return NewMessage(
        message.id, message.account_id, message.door, None, message.message_id, message.sender, message.sender_domain, message.subject,
        message.header_size, message.content, False, None, None, (delivery,),
    )  # fmt: skip


async def _open(database_url: str, *, local: bool) -> AsyncIterator[Inbox]:
    pool = await create_pool(database_url, size=8, service="test")
    async with pool.acquire() as connection:
        room = await Mailroom(connection).open("demo" if local else "acme")  # type: ignore[arg-type] # a pool's proxy of a connection
        domain_id = await connection.fetchval(
            "INSERT INTO domain (account_id, name, verification_token, verified_at) VALUES ($1, $2, 't', now()) RETURNING id",
            room.account_id, "posthouse.test" if local else "ours.test",
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO address (account_id, domain_id, local) VALUES ($1, $2, 'me')", room.account_id, domain_id
        )
        ids = IdBlocks()
        addressing = Addressing(FROM_IDS, local=local)
        lease = Lease(
            pool, NoBell(), "dsn-ingest", beat_seconds=5, holding=workers.Holding(workers.INBOUND_ROWS, give_up)
        )
        bouncer = Bouncer(pool, NoBell(), ids, Lanes(), "us.test", utc_now, secrets.token_bytes) if local else None
        metrics = Metrics("dsn-ingest")
        handler = InboundHandler(pool, addressing, Ingest(pool, NoBell(), ids), bouncer, metrics)
        worker = Worker(pool, NoBell(), lease, addressing=addressing, ids=ids, metrics=metrics)
        await lease.join("test")
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop, poll_seconds=0.05, random=Random(1)))
        listener = await serve(SmtpdConfig(hostname="us.test", max_size=1_000_000), handler, "127.0.0.1", 0)
        yield Inbox(pool, room, listener, worker)
        stop.set()
        await running
        await listener.close(1)
    await pool.close()


@pytest.fixture
async def inbox(database_url: str) -> AsyncIterator[Inbox]:
    """As in production."""
    async for opened in _open(database_url, local=False):
        yield opened


@pytest.fixture
async def local_inbox(database_url: str) -> AsyncIterator[Inbox]:
    """As in the local stack."""
    async for opened in _open(database_url, local=True):
        yield opened
