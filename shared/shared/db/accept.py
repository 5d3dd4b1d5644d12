"""Write accepted messages: everything one needs for its whole journey, for many messages in one statement per table.

Runs inside the accepting transaction; nothing in it depends on one item in a way that could fail the others. What may refuse a
message alone comes first: its idempotency key, the from_id its client chose, the budget of its account, always in this order and
sorted within, so that replicas never wait for each other in a circle. Beyond that it touches no shared row: lanes hear of their
new rows by insert-only wake rows. A recipient that is suppressed and due now is settled on the spot, with its event, and mail
that a hold rule matches is held; :mod:`shared.db.starts` checks both again when the others start.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared.db import budgets, client_from_ids, idempotency
from shared.db.budgets import Want
from shared.db.client_from_ids import ClientFromId
from shared.db.engine import Connection
from shared.db.hold_match import holding_rule
from shared.db.idempotency import First, IdempotencyKey
from shared.errors import FromIdTaken, IdempotencyConflict, PosthouseError
from shared.lifecycle import DeliveryState

CHUNK = 256 * 1024
"""Bodies are kept in chunks of this many bytes, so that none is ever held in memory whole by Postgres or a reader."""
TEST_STREAM = "test"
"""The stream of mail that was handed in with a sandbox key."""


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
    client_chose_from_id: bool = False
    """The from_id is the client's own: it must not name another delivery."""


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
    send_at: datetime | None = None
    """When its sender wants it to be tried first, as is shown; what counts is ``due_at`` of each delivery."""
    expires_at: datetime | None = None
    """What is not delivered by then fails; None: by the retry schedule."""
    save_sent: bool = False
    """Whether the account's mailbox Sent shall have a copy."""
    bcc: str | None = None
    """The header field Bcc for that copy: the mail itself has none."""
    is_test: bool = False
    """Handed in with a sandbox key: its outcomes are simulated, and it counts for no limit."""
    idempotency: IdempotencyKey | None = None

    @property
    def stream(self) -> str:
        """Whose suppressions and failures its deliveries share."""
        return TEST_STREAM if self.is_test else ""


@dataclass(frozen=True, slots=True)
class AcceptedDelivery:
    """One recipient of an accepted message."""

    id: int
    recipient: str
    from_id: str | None
    state: DeliveryState
    suppressed: bool
    """Whether the recipient is on the suppression list; what is not due yet is judged again at its start."""


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that is stored once the transaction commits, or that was stored before."""

    id: int
    message_id: str
    """The Message-ID header, with its angle brackets."""
    deliveries: tuple[AcceptedDelivery, ...]
    replayed: bool = False
    """An earlier submission had the same idempotency key, and this is its answer; nothing was stored."""


Result = AcceptedMessage | PosthouseError
"""What became of one message: stored, or refused for a reason of its own."""


async def accept(connection: Connection, messages: Sequence[NewMessage]) -> list[Result]:
    """Store messages with their deliveries and queue rows; return what became of each, in their order.

    The errors in the result are IdempotencyConflict, FromIdTaken and LimitReached; nothing of such a message is stored.
    """
    results: dict[int, Result] = {}
    waiting = list(messages)
    while waiting:  # of several with one key, the second must find what the first was answered
        turn, waiting = _each_key_once(waiting)
        results |= await _accept_each_key_once(connection, turn)
    return [results[message.id] for message in messages]


def _each_key_once(messages: Sequence[NewMessage]) -> tuple[list[NewMessage], list[NewMessage]]:
    now: list[NewMessage] = []
    later: list[NewMessage] = []
    seen: set[tuple[int, str]] = set()
    for message in messages:
        name = message.idempotency.name if message.idempotency is not None else None
        if name is not None and name in seen:
            later.append(message)
            continue
        if name is not None:
            seen.add(name)
        now.append(message)
    return now, later


async def _accept_each_key_once(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, Result]:
    results = await _repeated(connection, messages)
    fresh = [message for message in messages if message.id not in results]
    refused = await _refused(connection, fresh)
    await idempotency.forget(
        connection, [m.idempotency for m in fresh if m.id in refused and m.idempotency is not None]
    )
    results |= refused
    accepted = await _store(connection, [message for message in fresh if message.id not in refused])
    results |= {message.id: message for message in accepted}
    by_id = {message.id: message for message in accepted}
    await idempotency.answer(
        connection,
        [(m.idempotency, _to_json(by_id[m.id])) for m in fresh if m.id in by_id and m.idempotency is not None],
    )
    return results


async def _repeated(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, Result]:
    """Reserve idempotency keys; return what those get whose key is taken."""
    keyed = [(message, message.idempotency) for message in messages if message.idempotency is not None]
    taken = await idempotency.reserve(connection, [key for _, key in keyed])
    return {message.id: _to_repeat(message, key, taken[key.name]) for message, key in keyed if key.name in taken}


def _to_repeat(message: NewMessage, key: IdempotencyKey, first: First) -> Result:
    if first.digest != key.digest:
        return IdempotencyConflict()
    answer = _from_json(first.answer)
    # With the id of this very message: its transaction was given up for lost, and has committed since.
    return replace(answer, replayed=answer.id != message.id)


async def _refused(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, Result]:
    """Reserve the from_ids that clients chose and spend budgets; return why those are refused that are."""
    chosen = {
        d.id: ClientFromId(m.account_id, d.from_id, d.id)
        for m in messages
        for d in m.deliveries
        if d.client_chose_from_id and d.from_id
    }
    taken = await client_from_ids.reserve(connection, list(chosen.values()))
    refused: dict[int, Result] = {
        m.id: FromIdTaken(field="mail_from") for m in messages if any(d.id in taken for d in m.deliveries)
    }
    wants = [
        Want(m.id, m.account_id, len(m.deliveries), frozenset(d.recipient_key for d in m.deliveries))
        for m in messages
        if m.id not in refused and not m.is_test
    ]
    refused |= await budgets.spend(connection, wants)
    given_back = [
        chosen[d.id] for m in messages if m.id in refused for d in m.deliveries if d.id in chosen and d.id not in taken
    ]
    await client_from_ids.forget(connection, given_back)
    return refused


async def _store(connection: Connection, messages: Sequence[NewMessage]) -> list[AcceptedMessage]:
    if not messages:
        return []
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
        [_packed(m.tags) for m in messages],
        [m.require_tls for m in messages],
        [m.expires_at for m in messages],
        [m.save_sent for m in messages],
        [m.bcc for m in messages],
        [m.is_test for m in messages],
        [m.send_at for m in messages],
    )
    chunks = [(m.id, seq, chunk) for m in messages for seq, chunk in enumerate(_chunks(m.content))]
    await connection.execute(
        "INSERT INTO message_body (message_id, seq, bytes) SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bytea[])",
        [c[0] for c in chunks],
        [c[1] for c in chunks],
        [c[2] for c in chunks],
    )
    tags = [(m.account_id, m.stream, tag, m.id) for m in messages for tag in dict.fromkeys(m.tags or ())]
    if tags:
        await connection.execute(_TAGS, *([tag[place] for tag in tags] for place in range(4)))
    found = await _store_deliveries(connection, messages)
    return [_accepted(message, found) for message in messages]


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database found out about a delivery."""

    listed: bool = False
    settled: bool = False
    held: bool = False

    @property
    def state(self) -> DeliveryState:
        if self.settled:
            return DeliveryState.SUPPRESSED
        return DeliveryState.HELD if self.held else DeliveryState.QUEUED


_NOTHING = _Found()


async def _store_deliveries(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, _Found]:
    """Write deliveries and queue rows; return what was found out about those that something was."""
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
        [m.expires_at for m, _ in deliveries],
        [m.sender for m, _ in deliveries],
        [m.sender_domain for m, _ in deliveries],
        [m.stream for m, _ in deliveries],
    )
    return {row["id"]: _Found(row["listed"], row["suppressed"], row["held"]) for row in rows}


def _accepted(message: NewMessage, found: Mapping[int, _Found]) -> AcceptedMessage:
    deliveries = ((d, found.get(d.id, _NOTHING)) for d in message.deliveries)
    return AcceptedMessage(
        message.id,
        message.message_id,
        tuple(AcceptedDelivery(d.id, d.recipient, d.from_id, f.state, f.listed) for d, f in deliveries),
    )


async def stored(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, AcceptedMessage]:
    """Return those of some messages that exist, as they were accepted: the answer to "did it commit?" after a lost connection."""
    rows = await connection.fetch(_STORED, [message.id for message in messages])
    found: dict[int, dict[int, _Found]] = {}
    for row in rows:
        of_message = found.setdefault(row["message_id"], {})
        if row["delivery_id"] is not None:
            of_message[row["delivery_id"]] = _Found(row["suppressed"], row["suppressed"], row["held"])
    return {message.id: _accepted(message, found[message.id]) for message in messages if message.id in found}


def _to_json(message: AcceptedMessage) -> dict[str, Any]:
    deliveries = [[d.id, d.recipient, d.from_id, d.state.value, d.suppressed] for d in message.deliveries]
    return {"id": message.id, "message_id": message.message_id, "deliveries": deliveries}


def _from_json(document: Mapping[str, Any]) -> AcceptedMessage:
    deliveries = tuple(
        AcceptedDelivery(id_, recipient, from_id, DeliveryState(state), suppressed)
        for id_, recipient, from_id, state, suppressed in document["deliveries"]
    )
    return AcceptedMessage(document["id"], document["message_id"], deliveries, replayed=True)


def _packed(texts: Sequence[str] | None) -> str | None:
    """Return texts as one: an array of arrays cannot be unnested, and none of them holds the separator."""
    return "\x1f".join(texts) if texts else None


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(content), 1), CHUNK):
        yield content[start : start + CHUNK]


_MESSAGES = """
INSERT INTO message (id, account_id, door, credential_id, message_id, sender, sender_domain, subject, size, header_size, smtputf8, extra, tags,
    require_tls, expires_at, save_sent, bcc, is_test, send_at)
SELECT id, account_id, door, credential_id, message_id, sender, sender_domain, subject, size, header_size, smtputf8, extra::jsonb,
    string_to_array(tags, E'\\x1f'), require_tls, expires_at, save_sent, bcc, is_test, send_at
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::integer[], $10::integer[],
    $11::boolean[], $12::text[], $13::text[], $14::boolean[], $15::timestamptz[], $16::boolean[], $17::text[], $18::boolean[],
    $19::timestamptz[])
    AS m (id, account_id, door, credential_id, message_id, sender, sender_domain, subject, size, header_size, smtputf8, extra, tags,
        require_tls, expires_at, save_sent, bcc, is_test, send_at)
"""
_TAGS = "INSERT INTO message_tag (account_id, stream, tag, message_id) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[])"
_DELIVERIES = f"""
WITH d AS (
    SELECT *, listed AND rule_id IS NULL AND (due_at IS NULL OR due_at <= now()) AS suppressed, rule_id IS NOT NULL AS held
    FROM (
        SELECT u.*, rule.id AS rule_id, rule.made_by_operator,
            EXISTS (SELECT FROM suppression s WHERE s.account_id = u.account_id AND s.stream = u.stream AND s.kind = 'address'
                AND s.key = u.recipient_key AND NOT s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now()))
            OR EXISTS (SELECT FROM suppression s WHERE s.account_id = u.account_id AND s.stream = u.stream AND s.mox_key = u.mox_key
                AND s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now())) AS listed
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[],
            $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[], $15::text[])
            AS u (id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key, mox_key, lane_id, due_at, expires_at,
                sender, sender_domain, stream)
        CROSS JOIN (SELECT NULL::timestamptz AS released_at, NULL::timestamptz AS operator_released_at) never
        LEFT JOIN LATERAL ({holding_rule("u", "never")}) rule ON true
    ) judged
), records AS (
    INSERT INTO delivery (id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key, stream, state, settled_at, keep_until, text)
    SELECT d.id, message_id, account_id, mail_from, from_id, recipient, recipient_domain, recipient_key, stream,
        CASE WHEN suppressed THEN 'suppressed' ELSE 'queued' END,
        CASE WHEN suppressed THEN now() END,
        CASE WHEN suppressed THEN now() + make_interval(secs => account.keep_deliveries_seconds) END,
        CASE WHEN suppressed THEN 'the recipient is on the suppression list' END
    FROM d JOIN account ON account.id = d.account_id
), queued AS (
    INSERT INTO delivery_queue (delivery_id, lane_id, due_at, expires_at, hold, hold_rule_id, hold_by_account, hold_by_operator)
    SELECT id, lane_id, coalesce(due_at, now()), expires_at, held, rule_id, coalesce(NOT made_by_operator, false), coalesce(made_by_operator, false)
    FROM d WHERE NOT suppressed
), woken AS (
    INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM d WHERE NOT suppressed AND NOT held
), fact AS (
    SELECT nextval('event_id') AS event_id, d.* FROM d WHERE suppressed
), told AS (
    INSERT INTO event (id, account_id, delivery_id, type, code, enhanced, text, stream)
    SELECT event_id, account_id, id, 'suppressed', 0, '', 'the recipient is on the suppression list', stream FROM fact
), pending AS (
    INSERT INTO event_pending (event_id) SELECT event_id FROM fact
), owed AS (  -- as shared.db.outcomes decides it
    INSERT INTO dsn_pending (event_id) SELECT event_id FROM fact JOIN account ON account.id = fact.account_id
    WHERE account.dsn_to_sender AND fact.mail_from <> '' AND fact.stream = '' AND fact.account_id <> 0
)
SELECT id, listed, suppressed, held FROM d WHERE listed OR held
"""
_STORED = """
SELECT m.id AS message_id, d.id AS delivery_id, d.state = 'suppressed' AS suppressed, coalesce(q.hold, false) AS held
FROM message m LEFT JOIN delivery d ON d.message_id = m.id LEFT JOIN delivery_queue q ON q.delivery_id = d.id
WHERE m.id = ANY ($1::bigint[])
"""
