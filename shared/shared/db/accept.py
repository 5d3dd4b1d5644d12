"""Write accepted messages: everything one needs for its whole journey, for many messages in one statement per table.

Runs inside the accepting transaction; nothing in it depends on one item in a way that could fail the others. It touches no
shared row: lanes hear of their new rows by insert-only wake rows. A recipient that is suppressed and due now is settled on
the spot, with its event; :mod:`shared.db.starts` checks again when the others start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.db.engine import Connection

CHUNK = 256 * 1024
"""Bodies are kept in chunks of this many bytes, so that none is ever held in memory whole by Postgres or a reader."""


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """One recipient of a message that is being accepted."""

    id: int
    mail_from: str
    """Return path, empty for the null reverse-path (RFC 5321 4.5.5)."""
    from_id: str | None
    recipient: str
    recipient_domain: str
    recipient_key: str
    mox_key: str
    lane_id: int
    due_at: datetime | None = None
    """None: now."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """One submission, ready to be stored: the bytes are final but for DKIM."""

    id: int
    account_id: int
    door: str
    credential_id: int | None
    message_id: str
    sender: str
    sender_domain: str
    subject: str
    header_size: int
    """How many of the content's first bytes are header fields, without the empty line."""
    content: bytes
    smtputf8: bool
    extra: str | None
    """JSON object of strings."""
    tags: tuple[str, ...] | None
    deliveries: tuple[NewDelivery, ...]
    require_tls: bool | None = None
    """True: only over verified TLS (RFC 8689); False: also where policy asks for TLS; None: by policy."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What :func:`accept` found out while writing."""

    suppressed: frozenset[int]
    """Deliveries that were settled as suppressed at once."""


async def accept(connection: Connection, messages: Sequence[NewMessage]) -> Accepted:
    """Store messages with their deliveries and queue rows."""
    await connection.execute(
        _MESSAGES,
        [m.id for m in messages],
        [m.account_id for m in messages],
        [m.door for m in messages],
        [m.credential_id for m in messages],
        [m.message_id for m in messages],
        [m.sender for m in messages],
        [m.sender_domain for m in messages],
        [m.subject for m in messages],
        [len(m.content) for m in messages],
        [m.header_size for m in messages],
        [m.smtputf8 for m in messages],
        [m.extra for m in messages],
        ["\x1f".join(m.tags) if m.tags else None for m in messages],
        [m.require_tls for m in messages],
    )
    chunks = [(m.id, seq, chunk) for m in messages for seq, chunk in enumerate(_chunks(m.content))]
    await connection.execute(
        "INSERT INTO message_body (message_id, seq, bytes) SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bytea[])",
        [c[0] for c in chunks],
        [c[1] for c in chunks],
        [c[2] for c in chunks],
    )
    deliveries = [(m, d) for m in messages for d in m.deliveries]
    rows = await connection.fetch(
        _DELIVERIES,
        [d.id for _, d in deliveries],
        [m.id for m, _ in deliveries],
        [m.account_id for m, _ in deliveries],
        [d.mail_from for _, d in deliveries],
        [d.from_id for _, d in deliveries],
        [d.recipient for _, d in deliveries],
        [d.recipient_domain for _, d in deliveries],
        [d.recipient_key for _, d in deliveries],
        [d.mox_key for _, d in deliveries],
        [d.lane_id for _, d in deliveries],
        [d.due_at for _, d in deliveries],
    )
    return Accepted(frozenset(row["id"] for row in rows))


async def stored(connection: Connection, message_ids: Sequence[int]) -> set[int]:
    """Return which of these messages exist: the answer to "did it commit?" after a lost connection."""
    rows = await connection.fetch("SELECT id FROM message WHERE id = ANY ($1::bigint[])", list(message_ids))
    return {row["id"] for row in rows}


async def suppressed(connection: Connection, message_ids: Sequence[int]) -> set[int]:
    """Return the deliveries of these messages that were suppressed."""
    rows = await connection.fetch(
        "SELECT id FROM delivery WHERE message_id = ANY ($1::bigint[]) AND state = 'suppressed'", list(message_ids)
    )
    return {row["id"] for row in rows}


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(content), 1), CHUNK):
        yield content[start : start + CHUNK]


_MESSAGES = """
INSERT INTO message (id, account_id, door, credential_id, message_id, sender, sender_domain, subject, size, header_size, smtputf8, extra, tags, require_tls)
SELECT id, account_id, door, credential_id, message_id, sender, sender_domain, subject, size, header_size, smtputf8, extra::jsonb,
    string_to_array(tags, E'\\x1f'), require_tls
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::integer[], $10::integer[],
    $11::boolean[], $12::text[], $13::text[], $14::boolean[])
    AS m (id, account_id, door, credential_id, message_id, sender, sender_domain, subject, size, header_size, smtputf8, extra, tags, require_tls)
"""
_DELIVERIES = """
WITH d AS (
    SELECT *, (due_at IS NULL OR due_at <= now()) AND (
        EXISTS (SELECT FROM suppression s WHERE s.account_id = u.account_id AND s.stream = '' AND s.kind = 'address' AND s.key = u.recipient_key
            AND NOT s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now()))
        OR EXISTS (SELECT FROM suppression s WHERE s.account_id = u.account_id AND s.mox_key = u.mox_key AND s.match_by_mox_key
            AND (s.expires_at IS NULL OR s.expires_at > now()))) AS suppressed
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[],
        $11::timestamptz[])
        AS u (id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key, mox_key, lane_id, due_at)
), records AS (
    INSERT INTO delivery (id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key, state, settled_at, keep_until, text)
    SELECT d.id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key,
        CASE WHEN suppressed THEN 'suppressed' ELSE 'queued' END,
        CASE WHEN suppressed THEN now() END,
        CASE WHEN suppressed THEN now() + make_interval(secs => account.keep_deliveries_seconds) END,
        CASE WHEN suppressed THEN 'the recipient is on the suppression list' END
    FROM d JOIN account ON account.id = d.account_id
), queued AS (
    INSERT INTO delivery_queue (delivery_id, lane_id, due_at) SELECT id, lane_id, coalesce(due_at, now()) FROM d WHERE NOT suppressed
), woken AS (
    INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM d WHERE NOT suppressed
), told AS (
    INSERT INTO event (id, account_id, delivery_id, type, code, enhanced, text)
    SELECT nextval('event_id'), account_id, id, 'suppressed', 0, '', 'the recipient is on the suppression list' FROM d WHERE suppressed
    RETURNING id
), pending AS (
    INSERT INTO event_pending (event_id) SELECT id FROM told
)
SELECT id FROM d WHERE suppressed
"""
