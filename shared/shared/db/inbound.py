"""Received mail: stored raw first, then claimed from its queue, read, and put where it belongs."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.db.accept import CHUNK
from shared.db.engine import Connection
from shared.db.outcomes import Outcome, report_event
from shared.db.outcomes import Source as OutcomeSource
from shared.events import Category

_STORE = """
INSERT INTO inbound_message (id, body_id, account_id, mail_from, recipient, remote_ip, helo, size, smtputf8)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::boolean[])
"""
_CLAIM = """
WITH due AS (
    SELECT inbound_message_id FROM inbound_queue WHERE worker_id IS NULL AND due_at <= now() AND EXISTS (SELECT FROM worker WHERE worker.id = $1)
    ORDER BY due_at, inbound_message_id LIMIT $2 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE inbound_queue q SET worker_id = $1, started_at = now() FROM due WHERE q.inbound_message_id = due.inbound_message_id
    RETURNING q.inbound_message_id
)
SELECT m.id, m.body_id, m.account_id, m.mail_from, m.recipient, m.size FROM claimed
JOIN inbound_message m ON m.id = claimed.inbound_message_id ORDER BY m.id
"""
_RELEASE = "UPDATE inbound_queue SET worker_id = NULL, started_at = NULL WHERE worker_id = $1"
_BODY = "SELECT bytes FROM inbound_body WHERE body_id = $1 ORDER BY seq"
_REPORT = """
INSERT INTO report (id, inbound_message_id, account_id, delivery_id, kind, action, code, enhanced, text, category, immediate, counted)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
_FILE = """
UPDATE inbound_message SET state = $2, kind = $3, account_id = $4, delivery_id = $5, message_id = $6, subject = $7, problem = $8 WHERE id = $1
"""
_DONE = "DELETE FROM inbound_queue WHERE inbound_message_id = $1 AND worker_id = $2 RETURNING true"


@dataclass(frozen=True, slots=True)
class NewInbound:
    """One received message for one recipient; those of one transaction share their body."""

    id: int
    body_id: int
    account_id: int | None
    mail_from: str
    recipient: str
    remote_ip: str
    helo: str
    size: int
    smtputf8: bool


@dataclass(frozen=True, slots=True)
class ClaimedInbound:
    """A received message whose turn it is to be read."""

    id: int
    body_id: int
    account_id: int | None
    mail_from: str
    recipient: str
    size: int


@dataclass(frozen=True, slots=True)
class NewReport:
    """What a received message says of one delivery."""

    id: int
    account_id: int
    delivery_id: int
    kind: str
    """``dsn``, ``arf`` or ``other``."""
    action: str
    """The RFC 3464 action; empty where the message says none."""
    code: int
    enhanced: str
    text: str
    category: Category
    immediate: bool = False
    counted: bool = False

    def outcome(self, inbound_message_id: int) -> Outcome:
        """Return what the report means for its delivery."""
        return Outcome(
            delivery_id=self.delivery_id,
            source=OutcomeSource.REPORT,
            event=report_event(self.kind, self.action),
            code=self.code,
            enhanced=self.enhanced,
            text=self.text,
            category=self.category,
            immediate=self.immediate,
            counted=self.counted,
            report_id=self.id,
            inbound_message_id=inbound_message_id,
        )


@dataclass(frozen=True, slots=True)
class Filed:
    """Where a received message belongs, once it has been read."""

    state: str
    """``filed``, or ``unreadable`` with a problem."""
    kind: str
    account_id: int | None
    delivery_id: int | None = None
    message_id: str | None = None
    subject: str | None = None
    problem: str | None = None


async def store(connection: Connection, messages: Sequence[NewInbound], content: bytes) -> None:
    """Store what one SMTP transaction brought, for each of its recipients, and queue it; in the caller's transaction."""
    body_id = messages[0].body_id
    chunks = [content[start : start + CHUNK] for start in range(0, max(len(content), 1), CHUNK)]
    await connection.execute(
        "INSERT INTO inbound_body (body_id, seq, bytes) SELECT $1, seq, bytes FROM unnest($2::integer[], $3::bytea[]) AS c (seq, bytes)",
        body_id,
        list(range(len(chunks))),
        chunks,
    )
    await connection.execute(
        _STORE,
        [m.id for m in messages],
        [m.body_id for m in messages],
        [m.account_id for m in messages],
        [m.mail_from for m in messages],
        [m.recipient for m in messages],
        [m.remote_ip for m in messages],
        [m.helo for m in messages],
        [m.size for m in messages],
        [m.smtputf8 for m in messages],
    )
    await connection.execute(
        "INSERT INTO inbound_queue (inbound_message_id) SELECT unnest($1::bigint[])", [m.id for m in messages]
    )


async def claim(connection: Connection, worker_id: int, limit: int) -> list[ClaimedInbound]:
    """Claim at most ``limit`` received messages, the oldest first."""
    return [ClaimedInbound(**row) for row in await connection.fetch(_CLAIM, worker_id, limit)]


async def release(connection: Connection, worker_id: int) -> None:
    """Give back all that a living worker has claimed and not finished; reading twice harms nobody, :func:`finish` writes once."""
    await connection.execute(_RELEASE, worker_id)


async def body(connection: Connection, body_id: int) -> bytes:
    """Return the raw bytes of a received message."""
    return b"".join([row["bytes"] for row in await connection.fetch(_BODY, body_id)])


async def finish(connection: Connection, worker_id: int, inbound_id: int) -> bool:
    """Take a message off the queue; False where it is not ours any more, and nothing may be written about it."""
    return bool(await connection.fetchval(_DONE, inbound_id, worker_id))


async def file(connection: Connection, inbound_id: int, filed: Filed) -> None:
    """Write where a message belongs."""
    await connection.execute(
        _FILE,
        inbound_id,
        filed.state,
        filed.kind,
        filed.account_id,
        filed.delivery_id,
        filed.message_id,
        filed.subject,
        filed.problem,
    )


async def add_report(connection: Connection, inbound_id: int, report: NewReport) -> None:
    """Store what a message says of a delivery."""
    await connection.execute(
        _REPORT,
        report.id,
        inbound_id,
        report.account_id,
        report.delivery_id,
        report.kind,
        report.action,
        report.code,
        report.enhanced,
        report.text,
        report.category.value,
        report.immediate,
        report.counted,
    )


async def give_up(connection: Connection, inbound_ids: Sequence[int], problem: str) -> None:
    """File messages as unreadable and take them off the queue: reading them killed several workers."""
    await connection.execute(
        "UPDATE inbound_message SET state = 'unreadable', kind = 'unreadable', problem = $2 WHERE id = ANY ($1::bigint[])",
        list(inbound_ids),
        problem,
    )
    await connection.execute(
        "DELETE FROM inbound_queue WHERE inbound_message_id = ANY ($1::bigint[])", list(inbound_ids)
    )
