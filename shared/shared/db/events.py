"""Events as people read them: in the order they were committed, each exactly once, however long someone stays away.

The order is (xact, id), and a reader stops at the horizon, the oldest transaction still running: what commits later has a
place behind the cursor, never before it. A cursor of ids alone would skip, for ever, what a slow transaction commits late.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.db import inputs, paging
from shared.db.accept import TEST_STREAM
from shared.db.engine import Connection
from shared.errors import ValidationFailed
from shared.events import EventType

SCANNED = 20_000
"""Events that one page looks at; a filter that few match gives a short page and a cursor, never a slow query."""

_CURSOR = "event"


@dataclass(frozen=True, slots=True)
class EventView:
    """An event with what a person needs to know what it is about."""

    id: int
    type: EventType
    created_at: datetime
    delivery_id: int | None
    inbound_message_id: int | None
    report_id: int | None
    attempt: int | None
    code: int | None
    enhanced: str | None
    text: str | None
    category: str | None
    suppressing: bool
    """Whether this event put the recipient on the suppression list."""
    final_attempt_next: bool
    """For a delay: whether the next attempt is the last."""
    is_test: bool
    """Of mail that was handed in with a sandbox key."""
    recipient: str | None
    """Of the delivery, read now; None for an inbound message or once the delivery is forgotten."""
    from_id: str | None
    message_id: int | None
    message_id_header: str | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, the oldest first."""

    items: list[EventView]
    cursor: str
    """Where to go on, now or later; also when there was nothing new."""
    has_more: bool
    """Whether another page follows at once. A page may be short, even empty, and still have a next."""


_SCAN_ACCOUNT = """
SELECT * FROM event e WHERE e.account_id = $1 AND (e.xact, e.id) > ($2::text::xid8, $3)
    AND e.xact < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY e.xact, e.id LIMIT $4
"""
# OFFSET 0 keeps the ORDER BY from choosing the index: an account has millions of events, a delivery a dozen.
_SCAN_DELIVERY = """
SELECT * FROM (SELECT * FROM event WHERE delivery_id = $7 AND account_id = $1 OFFSET 0) e WHERE (e.xact, e.id) > ($2::text::xid8, $3)
    AND e.xact < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY e.xact, e.id LIMIT $4
"""
_LIST = """
WITH scanned AS MATERIALIZED ({scan}), last AS (
    SELECT xact, id, (SELECT count(*) FROM scanned) AS n FROM scanned ORDER BY xact DESC, id DESC LIMIT 1
), found AS (
    SELECT * FROM scanned WHERE stream = {stream} AND ($6::text[] IS NULL OR type = ANY ($6)) ORDER BY xact, id LIMIT $5
)
SELECT last.xact::text::numeric AS last_xact, last.id AS last_id, last.n AS scanned, f.xact::text::numeric AS xact, f.id, f.type,
    f.created_at, f.delivery_id, f.inbound_message_id, f.report_id, f.attempt, f.code, f.enhanced, f.text, f.category, f.suppressing,
    f.final_attempt_next, f.stream = 'test' AS is_test, d.recipient, d.from_id, m.id AS message_id, m.message_id AS message_id_header, m.subject
FROM last LEFT JOIN found f ON true LEFT JOIN delivery d ON d.id = f.delivery_id AND d.account_id = f.account_id LEFT JOIN message m ON m.id = d.message_id
ORDER BY f.xact, f.id
"""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to list; none given, all."""

    types: Sequence[str] = ()
    """Values of :class:`EventType`."""
    delivery_id: int | None = None
    stream: str = ""
    """Empty, or TEST_STREAM: nobody sees both."""


async def list_events(
    connection: Connection,
    account_id: int,
    wanted: EventFilter | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> EventPage:
    """Return the next page of the events of an account, the oldest first.

    Raises:
        ValidationFailed: cursor, limit or a type are not usable.
    """
    filters = wanted or EventFilter()
    size = inputs.page_size(limit)
    unknown = [name for name in filters.types if name not in set(EventType)]
    if unknown:
        raise ValidationFailed(f"a type is one of: {', '.join(EventType)}", field="type")
    xact, after = paging.decode(_CURSOR, cursor, count=2) if cursor else (0, 0)
    arguments: list[object] = [size + 1, list(filters.types) or None]
    if filters.delivery_id is not None:
        arguments.append(inputs.row_id(filters.delivery_id, "delivery"))
    # Without a filter on types, the first ones looked at are the page; unless those of the other stream lie among them.
    scanned = SCANNED if filters.types else size + 1
    while True:
        rows = await connection.fetch(_list_sql(filters), account_id, str(xact), after, scanned, *arguments)
        found = [row for row in rows if row["id"] is not None]
        if len(found) > size or not rows or rows[0]["scanned"] < scanned or scanned == SCANNED:
            break
        scanned = SCANNED
    items = [_event(dict(row)) for row in found[:size]]
    if len(found) > size:  # more match: go on behind the last one shown
        return EventPage(
            items, paging.encode(_CURSOR, int(found[size - 1]["xact"]), found[size - 1]["id"]), has_more=True
        )
    if rows:  # everything that was looked at is shown or filtered out: go on behind it
        end = paging.encode(_CURSOR, int(rows[0]["last_xact"]), rows[0]["last_id"])
        return EventPage(items, end, has_more=rows[0]["scanned"] == scanned)
    return EventPage([], paging.encode(_CURSOR, xact, after), has_more=False)


def _list_sql(filters: EventFilter) -> str:
    scan = _SCAN_ACCOUNT if filters.delivery_id is None else _SCAN_DELIVERY
    return _LIST.format(scan=scan, stream=f"'{TEST_STREAM}'" if filters.stream == TEST_STREAM else "''")


def _event(values: dict[str, object]) -> EventView:
    for name in ("last_xact", "last_id", "scanned", "xact"):
        del values[name]
    values["type"] = EventType(str(values["type"]))
    return EventView(**values)  # type: ignore[arg-type]  # the query's columns are the class's fields, which the tests read
