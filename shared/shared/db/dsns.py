"""Status notifications to senders: owed in the transaction that makes their event true, written later by whoever comes first.

Settling adds one row to ``dsn_pending`` and nothing else, so that it is neither slower nor able to fail for a mail that is still
to be composed. :func:`take` and :func:`store` share a transaction: a notification is stored exactly when its row is deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from shared.db.accept import CHUNK
from shared.db.engine import Connection
from shared.events import EventType

OWN_DSN = "own_dsn"
"""The kind of an inbound message that we wrote ourselves: it came over no wire, is read by nobody's queue, and makes no event."""
LARGEST_HEADER = 64 * 1024
"""Octets of the original's header that are returned."""


def is_owed(event: EventType, delivery: asyncpg.Record, *, late: bool) -> bool:
    """Say whether the sender hears of an event by mail, where the account wants that: of an end without a delivery, and once of a long delay.

    Nobody is told of a mail with the null return path (RFC 5321 6.1), of sandbox mail, and of the installation's own.

    Args:
        event: what an attempt, the start gate or an operator brought about.
        delivery: ``has_return_path``, ``stream`` and ``account_id`` of its record.
        late: this delay is the one to tell of.
    """
    if not delivery["has_return_path"] or delivery["stream"] or delivery["account_id"] == 0:
        return False
    return event in (EventType.FAILED, EventType.SUPPRESSED) or (event is EventType.DELAYED and late)


@dataclass(frozen=True, slots=True)
class Owed:
    """An event of which the sender is to be told, and all that the notification says."""

    event_id: int
    account_id: int
    delivery_id: int
    event: EventType
    at: datetime
    code: int
    """SMTP reply code; 0 where there was no reply."""
    enhanced: str
    text: str
    retry_until: datetime | None
    """For a delay: when the last attempt comes."""
    mail_from: str
    recipient: str
    accepted_at: datetime
    send_at: datetime | None
    """When its sender wanted it to be tried first."""
    last_attempt_at: datetime | None
    host: str
    """Who replied; empty where nobody did."""
    ip: str
    message_id: str
    """Of the original, with its angle brackets."""
    smtputf8: bool
    header: bytes
    """Of the original, whole fields of it; empty where it is gone."""
    keep_seconds: int


@dataclass(frozen=True, slots=True)
class OwnDsn:
    """A notification as it is stored in the mail of the sender's account."""

    id: int
    owed: Owed
    content: bytes
    message_id: str
    subject: str
    smtputf8: bool


async def take(connection: Connection, limit: int) -> list[Owed]:
    """Take the oldest notifications that are owed and that nobody else is writing; in the caller's transaction."""
    rows = await connection.fetch(_TAKE, limit, LARGEST_HEADER)
    return [_owed(row) for row in rows]


def _owed(row: asyncpg.Record) -> Owed:
    facts = {**row, "event": EventType(row["event"])}
    if facts.pop("header_size") > len(facts["header"]):
        facts["header"] = _whole_fields(facts["header"])
    return Owed(**facts)


def _whole_fields(header: bytes) -> bytes:
    """Return a header that was cut somewhere, cut behind its last whole field: a line that begins with white space goes on with one."""
    end = len(header)
    while (end := header.rfind(b"\r\n", 0, end)) >= 0:
        if header[end + 2 : end + 3] not in (b" ", b"\t", b""):
            return header[: end + 2]
    return b""


async def store(connection: Connection, dsns: Sequence[OwnDsn]) -> None:
    """Store notifications as received mail of their accounts, read and filed, with the null return path (RFC 3464 2)."""
    chunks = [
        (dsn.id, place // CHUNK, dsn.content[place : place + CHUNK])
        for dsn in dsns
        for place in range(0, len(dsn.content), CHUNK)
    ]
    await connection.execute(
        "INSERT INTO inbound_body (body_id, seq, bytes) SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bytea[])",
        [chunk[0] for chunk in chunks],
        [chunk[1] for chunk in chunks],
        [chunk[2] for chunk in chunks],
    )
    await connection.execute(
        _STORE,
        [dsn.id for dsn in dsns],
        [dsn.owed.account_id for dsn in dsns],
        [dsn.owed.delivery_id for dsn in dsns],
        [dsn.owed.mail_from for dsn in dsns],
        [len(dsn.content) for dsn in dsns],
        [dsn.smtputf8 for dsn in dsns],
        [dsn.message_id for dsn in dsns],
        [dsn.subject for dsn in dsns],
        [dsn.owed.keep_seconds for dsn in dsns],
        OWN_DSN,
    )


async def drop(connection: Connection, event_ids: Sequence[int]) -> None:
    """Forget notifications that cannot be written."""
    await connection.execute("DELETE FROM dsn_pending WHERE event_id = ANY ($1::bigint[])", list(event_ids))


_TAKE = """
WITH due AS (
    SELECT event_id FROM dsn_pending ORDER BY event_id LIMIT $1 FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM dsn_pending p USING due WHERE p.event_id = due.event_id RETURNING p.event_id, p.retry_until
)
SELECT taken.event_id, e.account_id, e.delivery_id, e.type AS event, e.created_at AS at, coalesce(e.code, 0) AS code,
    coalesce(e.enhanced, '') AS enhanced, coalesce(e.text, '') AS text, taken.retry_until, d.mail_from, d.recipient,
    d.created_at AS accepted_at, m.send_at, last.started_at AS last_attempt_at, coalesce(own.host, '') AS host, coalesce(own.ip, '') AS ip,
    m.message_id, m.smtputf8, coalesce(substring(b.bytes FROM 1 FOR least(m.header_size, $2::integer)), '') AS header,
    CASE WHEN b.bytes IS NULL THEN 0 ELSE m.header_size END AS header_size, a.keep_deliveries_seconds AS keep_seconds
FROM taken
JOIN event e ON e.id = taken.event_id
JOIN delivery d ON d.id = e.delivery_id
JOIN message m ON m.id = d.message_id
JOIN account a ON a.id = e.account_id
LEFT JOIN message_body b ON b.message_id = m.id AND b.seq = 0
LEFT JOIN attempt own ON own.delivery_id = d.id AND own.n = e.attempt
LEFT JOIN LATERAL (SELECT started_at FROM attempt WHERE attempt.delivery_id = d.id ORDER BY n DESC LIMIT 1) last ON true
ORDER BY taken.event_id
"""
_STORE = """
INSERT INTO inbound_message (id, body_id, account_id, delivery_id, mail_from, recipient, remote_ip, helo, size, smtputf8, kind, state,
    message_id, subject, keep_until)
SELECT id, id, account_id, delivery_id, '', recipient, '', '', size, smtputf8, $10, 'filed', message_id, subject,
    now() + make_interval(secs => keep_seconds)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::integer[], $6::boolean[], $7::text[], $8::text[], $9::integer[])
    AS dsn (id, account_id, delivery_id, recipient, size, smtputf8, message_id, subject, keep_seconds)
"""
