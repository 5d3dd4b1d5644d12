"""Tells senders by mail what became of theirs: writes the notifications that settling left to be written.

They are stored in the account of the sender, as received mail; none of them goes over SMTP, so that none can bounce or loop.
"""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import asyncpg
import structlog

from shared.db import dsns
from shared.db.dsns import Owed, OwnDsn
from shared.db.engine import CONNECTION_LOST, Pool, with_fresh_plans
from shared.db.ids import IdBlocks
from shared.db.transaction import NoBell, transaction
from shared.events import EventType
from shared.mail import headers
from shared.mail.address import Address, parse
from shared.mail.dsn import Action, DsnRecipient
from shared.mail.dsn_write import SUBJECTS, DsnSpec, is_utf8, write_dsn
from shared.metrics import Metrics
from shared.worker.loop import Loop

_BATCH = 20
"""Half a millisecond each: more of them would keep the sessions waiting."""

_log = structlog.get_logger(__name__)


class DsnWriter:
    """One process's writer of notifications; any number of them share the work.

    Args:
        pool: read and written.
        hostname: our name; its postmaster writes.
        metrics: counts.
        random: for Message-IDs and MIME boundaries.
    """

    def __init__(
        self, pool: Pool, hostname: str, metrics: Metrics, *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._pool = pool
        self._hostname = hostname
        self._random = random
        self._ids = IdBlocks()
        self._one_by_one = 0
        """How many are still to be written alone, because a batch of them was refused."""
        self._taken: list[Owed] = []
        self._written = metrics.counter("dsns", "Status notifications to senders, by action.", ("action",))

    async def run(self, stop: asyncio.Event, *, poll_seconds: float, random: Random) -> None:
        """Write until ``stop``; what is left then is written by whoever starts next."""
        heard = asyncio.Event()  # nobody rings: a second more or less does not matter to a mail
        await Loop("dsn", self._turn, heard=heard, poll_seconds=poll_seconds, random=random).run(stop)

    async def _turn(self) -> bool:
        try:
            return await with_fresh_plans(self._write)
        except (ValueError, asyncpg.PostgresError) as error:
            if isinstance(error, CONNECTION_LOST) and not isinstance(error, ValueError):
                raise
            await self._single_out(error)
            return True

    async def _write(self) -> bool:
        self._taken = []
        limit = 1 if self._one_by_one else _BATCH
        # Nobody is rung: there is no event, and nothing that waits for it.
        async with transaction(self._pool, NoBell()) as (connection, _):
            self._taken = await dsns.take(connection, limit)
            ids = await self._ids.take(connection, len(self._taken))
            written = [
                dsn
                for inbound_id, owed in zip(ids, self._taken, strict=True)
                if (dsn := self._composed(inbound_id, owed)) is not None
            ]
            if written:
                await dsns.store(connection, written)
        for dsn in written:
            self._written.labels(_action(dsn.owed).value).inc()
            _log.info(
                "dsn_stored",
                inbound_message_id=dsn.id,
                event_id=dsn.owed.event_id,
                delivery_id=dsn.owed.delivery_id,
                account_id=dsn.owed.account_id,
                size=len(dsn.content),
                action=_action(dsn.owed).value,
            )
        self._one_by_one = max(0, self._one_by_one - 1)
        return len(self._taken) == limit

    async def _single_out(self, error: Exception) -> None:
        """A batch was refused for its data: write what was in it one by one, and let go of what cannot be stored."""
        events = [owed.event_id for owed in self._taken]
        if not events:
            raise error
        # The text of the error may quote the row, with its recipient.
        if len(events) > 1:
            self._one_by_one = len(events)
            _log.warning("dsns_refused", count=len(events), error=type(error).__name__, now="one by one")
            return
        async with self._pool.acquire() as connection:
            await dsns.drop(connection, events)
        self._one_by_one = max(0, self._one_by_one - 1)
        _log.error("dsn_not_stored", event_id=events[0], error=type(error).__name__)

    def _composed(self, inbound_id: int, owed: Owed) -> OwnDsn | None:
        try:
            spec = self._spec(owed)
            content = _as_delivered(owed.mail_from) + write_dsn(spec)
        except Exception as error:  # noqa: BLE001 - one that cannot be composed is let go, and harms no other; its event stands
            _log.error(
                "dsn_not_composed", event_id=owed.event_id, delivery_id=owed.delivery_id, error=type(error).__name__
            )
            return None
        return OwnDsn(inbound_id, owed, content, spec.message_id, SUBJECTS[_action(owed)], is_utf8(spec))

    def _spec(self, owed: Owed) -> DsnSpec:
        return DsnSpec(
            reporting_mta=self._hostname,
            sender=Address("postmaster", self._hostname),  # RFC 5321 4.5.1: there is always one
            to=parse(owed.mail_from),
            message_id=headers.message_id(self._random(16), self._hostname),
            date=owed.at,
            boundary=self._random(30).hex(),
            arrival_date=owed.accepted_at,
            recipients=(_recipient(owed),),
            original_message_id=owed.message_id,
            original_headers=owed.header,
            future_release=_future_release(owed.send_at),
            smtputf8=owed.smtputf8,
        )


def _future_release(send_at: datetime | None) -> str:
    """Return the request as RFC 4865 section 6 has it."""
    return "" if send_at is None else f"until; {send_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _action(owed: Owed) -> Action:
    return Action.DELAYED if owed.event is EventType.DELAYED else Action.FAILED


def _recipient(owed: Owed) -> DsnRecipient:
    action = _action(owed)
    # mox-compatible, and RFC 3464 2.3.4: the class says what became of the mail, a 4xx that was tried to its end has failed.
    detail = owed.enhanced[1:] or ".0.0"
    return DsnRecipient(
        final_recipient=owed.recipient,
        original_recipient="",
        action=action,
        status=("4" if action is Action.DELAYED else "5") + detail,
        reply_code=owed.code,
        enhanced=owed.enhanced,
        # The reply is kept without the code in front of its lines.
        diagnostic=f"{owed.code} {owed.text}".rstrip() if owed.code else owed.text,
        remote_mta=_host(owed) if owed.code else "",
        last_attempt=owed.last_attempt_at,
        will_retry_until=owed.retry_until if action is Action.DELAYED else None,
    )


def _host(owed: Owed) -> str:
    return f"{owed.host} ([{owed.ip}])" if owed.host and owed.ip else owed.host


def _as_delivered(mail_from: str) -> bytes:
    """Return what final delivery puts in front: the null return path (RFC 3464 2, RFC 5321 4.4), and for whom it is."""
    return f"Return-Path: <>\r\nDelivered-To: {mail_from}\r\n".encode()
