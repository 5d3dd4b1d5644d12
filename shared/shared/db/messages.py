"""Messages and deliveries as people read them. Nothing here writes; a live delivery's state is read off its queue row."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from shared.db import inputs, paging
from shared.db.accept import TEST_STREAM
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.db.tags import tagged_messages
from shared.lifecycle import DeliveryState, live_state

SCANNED = 20_000
"""Deliveries that one page looks at; a filter that few match gives a short page and a cursor, never a slow query."""

TAGGED_SCANNED = 200
"""Messages that one page looks at where tags are not all that is asked for."""

_CURSOR = "delivery"
_TAGGED_CURSOR = "tagged"
_LARGEST = 2**63 - 1
_CHUNKS_AT_ONCE = 4
_RECIPIENT_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One SMTP try of a delivery."""

    n: int
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    stage: str | None
    code: int | None
    enhanced: str | None
    text: str | None
    host: str | None
    ip: str | None
    tls: str | None


@dataclass(frozen=True, slots=True)
class HoldView:
    """Who holds a delivery, and by which rule."""

    by_operator: bool
    rule_id: int | None
    """None: by hand."""
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A delivery as it stands."""

    id: int
    message_id: int
    recipient: str
    mail_from: str
    from_id: str | None
    state: DeliveryState
    attempts: int
    created_at: datetime
    due_at: datetime | None
    """When it is tried next; None when settled."""
    settled_at: datetime | None
    bounced_at: datetime | None
    """When a report said that the delivered mail came back."""
    complained_at: datetime | None
    keep_until: datetime | None
    code: int | None
    enhanced: str | None
    text: str | None
    hold: HoldView | None = None
    """Also of one that is in flight and will be held if this attempt fails for now."""


@dataclass(frozen=True, slots=True)
class DeliveryDetail:
    """A delivery and its attempts, the first one first."""

    delivery: DeliveryView
    attempts: tuple[AttemptView, ...]


@dataclass(frozen=True, slots=True)
class MessageView:
    """A submission without its content."""

    id: int
    created_at: datetime
    door: str
    message_id: str
    """The Message-ID header, with its angle brackets."""
    sender: str
    subject: str
    size: int
    """In octets, header included."""
    smtputf8: bool
    is_test: bool
    """Handed in with a sandbox key."""
    extra: Mapping[str, str]
    tags: tuple[str, ...]
    send_at: datetime | None
    """When its sender wanted it to be tried first; None: at once."""
    expires_at: datetime | None
    require_tls: bool | None
    save_sent: bool


@dataclass(frozen=True, slots=True)
class MessageDetail:
    """A submission with all that became of it so far."""

    message: MessageView
    deliveries: tuple[DeliveryDetail, ...]


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; what is None does not matter."""

    state: DeliveryState | None = None
    message_id: int | None = None
    recipient: str | None = None
    """The whole address as it was stored."""
    tags: tuple[str, ...] = ()
    """All of which their message has."""
    stream: str = ""
    """Empty, or TEST_STREAM: nobody sees both."""


_DELIVERY = """
d.id, d.message_id, d.recipient, d.mail_from, d.from_id, d.state, d.attempts, d.created_at, d.settled_at, d.bounced_at,
    d.complained_at, d.keep_until, d.code, d.enhanced, d.text, q.delivery_id IS NOT NULL AS live, q.due_at, q.hold AS held,
    q.worker_id IS NOT NULL AS claimed, q.started_at IS NOT NULL AS started, q.attempt, q.hold_by_operator, q.hold_rule_id,
    (SELECT h.reason FROM hold_rule h WHERE h.id = q.hold_rule_id) AS hold_reason
"""
MESSAGE = """
SELECT id, created_at, door, message_id, sender, subject, size, smtputf8, is_test, extra::text AS extra, tags, send_at, expires_at, require_tls, save_sent
FROM message
"""
_MESSAGE_OF_ID = MESSAGE + "WHERE account_id = $1 AND id = $2 AND is_test = ($3 = 'test')"
_OF_MESSAGE = f"""
SELECT {_DELIVERY} FROM delivery d LEFT JOIN delivery_queue q ON q.delivery_id = d.id
WHERE d.account_id = $1 AND d.message_id = $2 ORDER BY d.id
"""
_ONE = f"""
SELECT {_DELIVERY} FROM delivery d LEFT JOIN delivery_queue q ON q.delivery_id = d.id
WHERE d.account_id = $1 AND d.id = $2 AND d.stream = $3
"""
_ATTEMPTS = """
SELECT delivery_id, n, started_at, finished_at, outcome, stage, code, enhanced, text, host, ip, tls
FROM attempt WHERE delivery_id = ANY ($1::bigint[]) ORDER BY delivery_id, n
"""
# The same reading of a queue row as shared.lifecycle.live_state; a test holds one against the other.
_STATE = """
CASE WHEN q.delivery_id IS NULL THEN d.state WHEN q.started_at IS NOT NULL THEN 'started' WHEN q.hold THEN 'held'
    WHEN q.worker_id IS NOT NULL THEN 'claimed' ELSE 'queued' END
"""
# A generic plan knows neither the account nor the limit, and for "account_id = $1 ... ORDER BY id" it may walk the primary key
# through everybody's mail. Ordered by (account_id, id) and bounded by a row comparison, only delivery_account can serve it.
_SCAN = """
SELECT * FROM delivery WHERE account_id >= $1 AND (account_id, id) < ($1, $2) ORDER BY account_id DESC, id DESC LIMIT $3
"""
# The same rows by an index that holds no others.
_SCAN_TEST = """
SELECT * FROM delivery WHERE stream = 'test' AND account_id >= $1 AND (account_id, id) < ($1, $2) ORDER BY account_id DESC, id DESC LIMIT $3
"""
# OFFSET 0 keeps the ORDER BY from choosing the index.
_SCAN_MESSAGE = """
SELECT * FROM (SELECT * FROM delivery WHERE message_id = $7 AND account_id = $1 AND id < $2 OFFSET 0) of_message ORDER BY id DESC LIMIT $3
"""
# Messages in order, each with its deliveries: what is not older than the place reached is left out. OFFSET 0 as above: a plan
# that knows nothing of the table would rather read all that the account has.
_TAGGED = f"""
SELECT {_DELIVERY} FROM unnest($2::bigint[]) AS tagged (id)
CROSS JOIN LATERAL (SELECT * FROM delivery WHERE message_id = tagged.id OFFSET 0) d LEFT JOIN delivery_queue q ON q.delivery_id = d.id
WHERE d.account_id = $1 AND (d.message_id, d.id) < ($3, $4)
    AND ($6::text IS NULL OR {_STATE} = $6) AND ($7::text IS NULL OR d.recipient = $7) AND ($8::bigint IS NULL OR d.message_id = $8)
ORDER BY d.message_id DESC, d.id DESC LIMIT $5
"""
# The last row scanned comes along even where nothing matches, so that the next page can begin there.
_LIST = """
WITH scanned AS MATERIALIZED ({scan}), last AS (SELECT min(id) AS id, count(*) AS n FROM scanned), found AS (
    SELECT {delivery} FROM scanned d LEFT JOIN delivery_queue q ON q.delivery_id = d.id
    WHERE d.stream = {stream} AND ($5::text IS NULL OR {state} = $5) AND ($6::text IS NULL OR d.recipient = $6)
    ORDER BY d.id DESC LIMIT $4
)
SELECT last.id AS last_id, last.n AS scanned, found.* FROM last LEFT JOIN found ON true ORDER BY found.id DESC
"""
_BODY = "SELECT seq, bytes FROM message_body WHERE message_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3"


async def get_message(
    connection: Connection, account_id: int, message_id: int, *, stream: str = ""
) -> MessageDetail | None:
    """Return a message of a stream with its deliveries and their attempts; None where the account has none of this id there."""
    row = await connection.fetchrow(_MESSAGE_OF_ID, account_id, inputs.row_id(message_id, "message"), stream)
    if row is None:
        return None
    rows = await connection.fetch(_OF_MESSAGE, account_id, message_id)
    attempts = await _attempts(connection, [r["id"] for r in rows])
    return MessageDetail(
        message_view(row), tuple(DeliveryDetail(_delivery(r), tuple(attempts.get(r["id"], ()))) for r in rows)
    )


async def get_delivery(
    connection: Connection, account_id: int, delivery_id: int, *, stream: str = ""
) -> DeliveryDetail | None:
    """Return a delivery of a stream with its attempts; None where the account has none of this id there."""
    row = await connection.fetchrow(_ONE, account_id, inputs.row_id(delivery_id, "delivery"), stream)
    if row is None:
        return None
    attempts = await _attempts(connection, [row["id"]])
    return DeliveryDetail(_delivery(row), tuple(attempts.get(row["id"], ())))


async def operator_get_delivery(connection: Connection, delivery_id: int) -> DeliveryDetail | None:
    """Return a delivery of whatever account and stream, for an operator; None where there is none of this id."""
    whose = await connection.fetchrow(
        "SELECT account_id, stream FROM delivery WHERE id = $1", inputs.row_id(delivery_id, "delivery")
    )
    if whose is None:
        return None
    return await get_delivery(connection, whose["account_id"], delivery_id, stream=whose["stream"])


async def list_deliveries(
    connection: Connection,
    account_id: int,
    wanted: DeliveryFilter | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[DeliveryView]:
    """Return a page of the deliveries of an account, the newest first.

    A page looks at no more than 20,000 deliveries: it may be short, or empty, and still have a next one. With tags it looks at
    no more than 200 messages, and the newest message comes first, with the newest of its deliveries.

    Raises:
        ValidationFailed: cursor, limit, recipient or tags are not usable.
    """
    filters = wanted or DeliveryFilter()
    if filters.recipient is not None:
        inputs.text(filters.recipient, field="recipient", longest=_RECIPIENT_CHARACTERS)
    size = inputs.page_size(limit)
    if filters.tags:
        return await _list_tagged(connection, account_id, filters, cursor, size)
    before = paging.decode(_CURSOR, cursor)[0] if cursor else _LARGEST
    arguments: list[object] = [size + 1, filters.state and filters.state.value, filters.recipient]
    if filters.message_id is not None:
        arguments.append(inputs.row_id(filters.message_id, "message"))
    # Without a filter on rows, the first ones looked at are the page; unless those of a sandbox lie among them.
    scanned = size + 1 if filters.state is None and filters.recipient is None else SCANNED
    while True:
        rows = await connection.fetch(_list_sql(filters), account_id, before, scanned, *arguments)
        found = [_delivery(row) for row in rows if row["id"] is not None]
        if len(found) > size or rows[0]["scanned"] < scanned or scanned == SCANNED:
            break
        scanned = SCANNED
    page = paging.page(_CURSOR, [(view.id, view) for view in found], size)
    if page.next_cursor is None and rows[0]["scanned"] == scanned:
        return Page(page.items, paging.encode(_CURSOR, rows[0]["last_id"]))
    return page


async def _list_tagged(
    connection: Connection, account_id: int, filters: DeliveryFilter, cursor: str | None, size: int
) -> Page[DeliveryView]:
    message, delivery = paging.decode(_TAGGED_CURSOR, cursor, count=2) if cursor else (_LARGEST, _LARGEST)
    only = inputs.row_id(filters.message_id, "message") if filters.message_id is not None else None
    one_each = filters.state is None and filters.recipient is None  # each message has a delivery to show
    tagged = await tagged_messages(
        connection,
        account_id,
        filters.tags,
        stream=filters.stream,
        newest=message if only is None else min(message, only),
        limit=1 if only is not None else size + 1 if one_each else TAGGED_SCANNED,
    )
    state = filters.state and filters.state.value
    rows = await connection.fetch(
        _TAGGED, account_id, tagged.message_ids, message, delivery, size + 1, state, filters.recipient, only
    )
    views = [_delivery(row) for row in rows]
    if len(views) > size:
        last = views[size - 1]
        return Page(views[:size], paging.encode(_TAGGED_CURSOR, last.message_id, last.id))
    if tagged.next_id is None or only is not None:
        return Page(views, None)
    return Page(views, paging.encode(_TAGGED_CURSOR, tagged.next_id, _LARGEST))


def _list_sql(filters: DeliveryFilter) -> str:
    of_account = _SCAN_TEST if filters.stream == TEST_STREAM else _SCAN
    scan = of_account if filters.message_id is None else _SCAN_MESSAGE
    stream = f"'{TEST_STREAM}'" if filters.stream == TEST_STREAM else "''"
    return _LIST.format(scan=scan, delivery=_DELIVERY, state=_STATE, stream=stream)


async def body(connection: Connection, message_id: int) -> AsyncIterator[bytes]:
    """Yield the content of a message in chunks of 256 KiB, nothing where it is gone; one MiB is held at a time.

    Each read is a statement of its own: no transaction is open while the caller sends a chunk. It takes no account because
    delivery reads here; for a customer, ask :func:`get_message` first.
    """
    seq = 0
    while rows := await connection.fetch(_BODY, message_id, seq, _CHUNKS_AT_ONCE):
        for row in rows:
            yield row["bytes"]
        seq = rows[-1]["seq"] + 1
        if len(rows) < _CHUNKS_AT_ONCE:
            return


async def _attempts(connection: Connection, delivery_ids: list[int]) -> dict[int, list[AttemptView]]:
    attempts: dict[int, list[AttemptView]] = {}
    for row in await connection.fetch(_ATTEMPTS, delivery_ids):
        values = dict(row)
        attempts.setdefault(values.pop("delivery_id"), []).append(AttemptView(**values))
    return attempts


def message_view(row: asyncpg.Record) -> MessageView:
    """Return a row of :data:`MESSAGE`."""
    return MessageView(
        id=row["id"],
        created_at=row["created_at"],
        door=row["door"],
        message_id=row["message_id"],
        sender=row["sender"],
        subject=row["subject"],
        size=row["size"],
        smtputf8=row["smtputf8"],
        is_test=row["is_test"],
        extra=json.loads(row["extra"]) if row["extra"] is not None else {},
        tags=tuple(row["tags"] or ()),
        send_at=row["send_at"],
        expires_at=row["expires_at"],
        require_tls=row["require_tls"],
        save_sent=row["save_sent"],
    )


def _delivery(row: asyncpg.Record) -> DeliveryView:
    live = row["live"]
    state = (
        live_state(held=row["held"], claimed=row["claimed"], started=row["started"])
        if live
        else DeliveryState(row["state"])
    )
    return DeliveryView(
        id=row["id"],
        message_id=row["message_id"],
        recipient=row["recipient"],
        mail_from=row["mail_from"],
        from_id=row["from_id"],
        state=state,
        attempts=row["attempt"] if live else row["attempts"],
        created_at=row["created_at"],
        due_at=row["due_at"],
        settled_at=row["settled_at"],
        bounced_at=row["bounced_at"],
        complained_at=row["complained_at"],
        keep_until=row["keep_until"],
        code=row["code"],
        enhanced=row["enhanced"],
        text=row["text"],
        hold=HoldView(row["hold_by_operator"], row["hold_rule_id"], row["hold_reason"] or "") if row["held"] else None,
    )
