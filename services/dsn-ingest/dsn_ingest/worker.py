"""Reads stored messages one by one; a message that kills its worker three times is filed as unreadable."""

import asyncio
from collections.abc import Sequence
from random import Random

import structlog

from dsn_ingest.addressing import Addressing
from dsn_ingest.identify import identify
from dsn_ingest.outcome import decide
from shared.db import inbound, outcomes
from shared.db.engine import Connection, Pool
from shared.db.ids import IdBlocks
from shared.db.inbound import ClaimedInbound, Filed
from shared.db.transaction import Bell, transaction
from shared.db.workers import MAX_LOSSES
from shared.events import Subject
from shared.metrics import Metrics
from shared.worker.lease import Lease
from shared.worker.loop import Loop

_BATCH = 16
_IN_THREAD = 64 * 1024

_log = structlog.get_logger(__name__)


class Worker:
    """One process's reader of received mail."""

    def __init__(
        self, pool: Pool, bell: Bell, lease: Lease, *, addressing: Addressing, ids: IdBlocks, metrics: Metrics
    ) -> None:
        self.heard = asyncio.Event()
        self._pool = pool
        self._bell = bell
        self._lease = lease
        self._addressing = addressing
        self._ids = ids
        self._interrupted = False
        """The last turn did not come to its end, because the database went away: what it had claimed waits under our name."""
        self._read = metrics.counter("read", "Received messages read, by kind.", ("kind",))

    async def run(self, stop: asyncio.Event, *, poll_seconds: float, random: Random) -> None:
        """Read until ``stop``; what is being read is finished first."""
        await Loop("inbound", self._turn, heard=self.heard, poll_seconds=poll_seconds, random=random).run(stop)

    async def _turn(self) -> bool:
        if not self._lease.may_start:
            return False
        worker_id = self._lease.worker_id
        async with self._pool.acquire() as connection:
            if self._interrupted:
                await inbound.release(connection, worker_id)
            self._interrupted = True
            claimed = await inbound.claim(connection, worker_id, _BATCH)
        for message in claimed:
            await self._handle(worker_id, message)
        self._interrupted = False
        return bool(claimed)

    async def _handle(self, worker_id: int, message: ClaimedInbound) -> None:
        async with self._pool.acquire() as connection:
            raw = await inbound.body(connection, message.body_id)
            owner = await self._addressing.owner(connection, message.recipient)
            (report_id,) = await self._ids.take(connection, 1)
        read = await asyncio.to_thread(identify, raw) if len(raw) > _IN_THREAD else identify(raw)
        delivery_id = owner.delivery_id if owner is not None else None
        events: list[str] = []
        async with transaction(self._pool, self._bell) as (connection, rings):
            if not await inbound.finish(connection, worker_id, message.id):
                return
            account_id = owner.account_id if owner is not None and delivery_id is not None else message.account_id
            filed = Filed("filed", read.kind, account_id, delivery_id, read.message_id, read.subject)
            await inbound.file(connection, message.id, filed)
            if delivery_id is not None and account_id is not None:
                recipient = await connection.fetchval("SELECT recipient FROM delivery WHERE id = $1", delivery_id)
                report = decide(read, report_id, account_id, delivery_id, recipient)
                await inbound.add_report(connection, message.id, report)
                recorded = await outcomes.record(connection, [report.outcome(message.id)])
                events = [str(account) for account in recorded.accounts]
                if recorded.suppressing:
                    rings.add(Subject.SUPPRESSION_CHANGED, *(str(account) for account in recorded.suppressing))
            if events:
                rings.add(Subject.EVENT_RECORDED, *events)
        self._read.labels(read.kind).inc()
        _log.info(
            "report_read",
            inbound_message_id=message.id,
            account_id=account_id,
            delivery_id=delivery_id,
            kind=read.kind,
            size=message.size,
        )


async def give_up(connection: Connection, inbound_ids: Sequence[int]) -> None:
    """File what was lost too often; runs in the reaper's transaction."""
    await inbound.give_up(connection, inbound_ids, f"{MAX_LOSSES} workers died while they were reading this message")
