"""What operators are told: one row for each kind and subject, with a count, however often it happens.

Whatever an operator should look at is a kind (:class:`~shared.events.OperatorEventKind`), and what it happens to is a subject.
Workers count in memory and write every few seconds (``shared.worker.operator_events``), so a million blocked mails are a few
updates of one row. What is resolved stays as it was; the next time begins a new row.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import NotFound
from shared.events import OperatorEventKind
from shared.mail.status import clean_text
from shared.models import OperatorEvent

_SUBJECT_OCTETS = 500
_CURSOR = "notice"

# One statement for all that a process has counted, in the order of kind and subject, so that two processes never wait for each other
# in a circle.
_COUNT = """
INSERT INTO operator_event (kind, subject, text, facts, count)
SELECT kind, subject, text, facts::jsonb, count
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS n (kind, subject, text, facts, count) ORDER BY kind, subject
ON CONFLICT (kind, subject) WHERE resolved_at IS NULL
DO UPDATE SET count = operator_event.count + excluded.count, last_at = now(), text = excluded.text, facts = excluded.facts
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened once."""

    kind: OperatorEventKind
    subject: str
    """What it happened to; notices of one kind and subject are one row."""
    text: str
    """For a person: what happened."""
    facts: Mapping[str, str | int | None] = field(default_factory=dict)
    """What else is known of this time; no addresses of recipients."""


async def count(connection: Connection, counted: Sequence[tuple[Notice, int]]) -> None:
    """Add notices, each with how often it happened; of one kind and subject there is one only."""
    await connection.execute(
        _COUNT,
        [notice.kind.value for notice, _ in counted],
        [clean_text(notice.subject, _SUBJECT_OCTETS) for notice, _ in counted],
        [clean_text(notice.text) for notice, _ in counted],
        [json.dumps({name: _storable(value) for name, value in notice.facts.items()}) for notice, _ in counted],
        [times for _, times in counted],
    )


def _storable(value: str | int | None) -> str | int | None:
    return clean_text(value) if isinstance(value, str) else value


async def operator_list_events(
    session: AsyncSession,
    *,
    kind: OperatorEventKind | None = None,
    is_open: bool | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[OperatorEvent]:
    """Return a page of what operators are told, what began last first; only of one kind, only open or only resolved, if so asked."""
    size = inputs.page_size(limit)
    query = select(OperatorEvent).order_by(col(OperatorEvent.id).desc()).limit(size + 1)
    if cursor:
        (before,) = paging.decode(_CURSOR, cursor)
        query = query.where(col(OperatorEvent.id) < before)
    if kind is not None:
        query = query.where(col(OperatorEvent.kind) == kind.value)
    if is_open is not None:
        resolved = col(OperatorEvent.resolved_at)
        query = query.where(resolved.is_(None) if is_open else resolved.is_not(None))
    return paging.page(_CURSOR, [(row.id, row) for row in await session.scalars(query)], size)


async def resolve_event(session: AsyncSession, event_id: int) -> OperatorEvent:
    """Say that something has been looked at; when it happens again it is told anew. A second time changes nothing.

    Raises:
        NotFound: there is no such event.
    """
    number = inputs.row_id(event_id, "operator event")
    first = func.coalesce(col(OperatorEvent.resolved_at), func.now())
    await session.execute(update(OperatorEvent).where(col(OperatorEvent.id) == number).values(resolved_at=first))
    row = await session.get(OperatorEvent, number, populate_existing=True)
    if row is None:
        raise NotFound(f"there is no operator event {event_id}")
    return row
