"""Load what was claimed: the facts fixed at acceptance, and the bytes, within a budget of memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import structlog

from shared.db.accept import TEST_STREAM
from shared.db.engine import Connection, Pool, with_fresh_plans
from shared.db.queue import Claimed
from shared.db.starts import Candidate
from shared.errors import AddressInvalid
from shared.mail.address import mox_key, parse
from shared.worker.backoff import DELIVERY_DEFAULT, DELIVERY_SCHEDULES, Schedule, custom

SMALL = 64 * 1024
"""Bodies up to this size are loaded with their batch."""

_LOAD = """
SELECT d.id, d.account_id, d.message_id, d.mail_from, d.from_id IS NOT NULL AS has_from_id, d.recipient, d.recipient_domain, d.recipient_key, d.stream,
    m.sender, m.sender_domain, m.size, m.header_size, m.smtputf8, m.require_tls IS TRUE AS require_tls, m.expires_at,
    a.retry_schedule, r.waits, r.max_attempts, r.give_up_seconds, q.due_at
FROM delivery d JOIN message m ON m.id = d.message_id JOIN account a ON a.id = d.account_id
    LEFT JOIN delivery_queue q ON q.delivery_id = d.id  -- a report may have settled it meanwhile
    LEFT JOIN retry_schedule r ON r.name = a.retry_schedule AND NOT r.built_in
WHERE d.id = ANY ($1::bigint[])
"""
_SMALL_BODIES = "SELECT message_id, bytes FROM message_body WHERE message_id = ANY ($1::bigint[]) AND seq = 0"
_TRIED = "SELECT delivery_id, started_at, stage, host, ip FROM attempt WHERE delivery_id = ANY ($1::bigint[]) ORDER BY delivery_id, n"
_BODY = "SELECT bytes FROM message_body WHERE message_id = $1 ORDER BY seq"


_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mail:
    """One claimed delivery, ready to be judged and sent."""

    claimed: Claimed
    candidate: Candidate
    message_id: int
    mail_from: str
    has_from_id: bool
    """Whether a from_id stands in ``mail_from``."""
    recipient: str
    due_at: datetime | None
    """Since when it waits for this attempt; None where it is settled meanwhile."""
    tried_since: datetime | None
    """When its first attempt began, None before it. A mail that was scheduled or held is as young as its first attempt."""
    expires_at: datetime | None
    """Its sender wants it no later than that."""
    size: int
    header_size: int
    smtputf8: bool
    require_tls: bool
    """The sender asked for TLS on the whole way (RFC 8689)."""
    schedule: Schedule
    content: bytes | None
    """The stored bytes of a small message; None: read them when its turn comes."""
    dialed: tuple[tuple[str, str], ...] = ()
    """Hosts and addresses that earlier attempts had sessions with, in their order."""

    @property
    def delivery_id(self) -> int:
        """The delivery's id."""
        return self.claimed.id

    def is_overdue(self, now: datetime) -> bool:
        """Say whether it has waited for this attempt as long as its schedule has it wait after one that fails."""
        return self.due_at is not None and now - self.due_at >= self.schedule.plain_wait(self.claimed.attempt + 1)

    @property
    def is_test(self) -> bool:
        """Whether it was handed in with a sandbox key, and must not leave the house."""
        return self.candidate.stream == TEST_STREAM


async def load(pool: Pool, rows: Sequence[Claimed]) -> list[Mail]:
    """Return the mails of ``rows`` in their order; a row whose record is gone or cannot be read is left out."""
    facts, bodies, tries = await with_fresh_plans(lambda: _fetch(pool, rows))
    mails = []
    for row in rows:
        record = facts.get(row.id)
        if record is None:
            continue
        try:
            mails.append(_mail(row, record, bodies.get(record["message_id"]), tries.get(row.id, [])))
        except AddressInvalid as error:
            _log.error("record_unreadable", delivery_id=row.id, problem=error.code)
    return mails


_Tries = dict[int, list[asyncpg.Record]]


async def _fetch(pool: Pool, rows: Sequence[Claimed]) -> tuple[dict[int, asyncpg.Record], dict[int, bytes], _Tries]:
    tries: _Tries = {}
    again = [row.id for row in rows if row.attempt > 0]
    async with pool.acquire() as connection:
        facts = {record["id"]: record for record in await connection.fetch(_LOAD, [row.id for row in rows])}
        small = {
            record["message_id"]
            for record in facts.values()
            if record["size"] <= SMALL and record["stream"] != TEST_STREAM  # of sandbox mail nobody reads the content
        }
        bodies = (
            {record["message_id"]: record["bytes"] for record in await connection.fetch(_SMALL_BODIES, list(small))}
            if small
            else {}
        )
        for tried in await connection.fetch(_TRIED, again) if again else ():
            tries.setdefault(tried["delivery_id"], []).append(tried)
    return facts, bodies, tries


def _mail(row: Claimed, record: asyncpg.Record, content: bytes | None, tries: Sequence[asyncpg.Record]) -> Mail:
    candidate = Candidate(
        delivery_id=row.id,
        account_id=record["account_id"],
        recipient=record["recipient"],
        recipient_domain=record["recipient_domain"],
        recipient_key=record["recipient_key"],
        mox_key=mox_key(parse(record["recipient"])),
        sender=record["sender"],
        sender_domain=record["sender_domain"],
        stream=record["stream"],
    )
    return Mail(
        claimed=row,
        candidate=candidate,
        message_id=record["message_id"],
        mail_from=record["mail_from"],
        has_from_id=record["has_from_id"],
        recipient=record["recipient"],
        due_at=record["due_at"],
        tried_since=tries[0]["started_at"] if tries else None,
        expires_at=record["expires_at"],
        size=record["size"],
        header_size=record["header_size"],
        smtputf8=record["smtputf8"],
        require_tls=record["require_tls"],
        schedule=_schedule(record),
        content=content,
        dialed=tuple((one["host"], one["ip"]) for one in tries if one["ip"] and one["stage"] != "connect"),
    )


def _schedule(record: asyncpg.Record) -> Schedule:
    name = record["retry_schedule"]
    if record["waits"] is None:
        return DELIVERY_SCHEDULES.get(name, DELIVERY_DEFAULT)
    return custom(name, record["waits"], record["max_attempts"], record["give_up_seconds"])


class BodyBudget:
    """Bounds the bytes of large bodies in memory: who does not fit waits."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def content(self, pool: Pool, mail: Mail) -> AsyncIterator[bytes]:
        """Yield the bytes of ``mail``; those of a large one are freed afterwards."""
        if mail.content is not None:
            yield mail.content
            return
        async with self._freed:
            # A message larger than the whole budget goes when it is alone.
            await self._freed.wait_for(lambda: self._used == 0 or self._used + mail.size <= self._budget)
            self._used += mail.size
        try:
            async with pool.acquire() as connection:
                content = await _read_body(connection, mail.message_id)
            yield content
        finally:
            async with self._freed:
                self._used -= mail.size
                self._freed.notify_all()


async def _read_body(connection: Connection, message_id: int) -> bytes:
    return b"".join([record["bytes"] for record in await connection.fetch(_BODY, message_id)])
