"""Rules of operators about how much sites are sent at once."""

from dataclasses import asdict, fields

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import LimitReached, NotFound, ValidationFailed
from shared.mail.traffic import MOST, NOTHING, SLOWEST, Traffic, check_pattern
from shared.models import TrafficRule

MOST_RULES = 10_000
"""All of them are in the memory of each delivery process."""

_CURSOR = "traffic"
_ALL = "SELECT pattern, connections, messages_per_second, messages_per_connection, recipients_per_transaction FROM traffic_rule"


async def all_rules(connection: Connection) -> dict[str, Traffic]:
    """Return the rules by pattern."""
    rows = await connection.fetch(_ALL)
    return {
        row["pattern"]: Traffic(**{name: value for name, value in row.items() if name != "pattern"}) for row in rows
    }


async def put_rule(session: AsyncSession, pattern: str, traffic: Traffic) -> TrafficRule:
    """Make a rule, or give the one of this pattern other figures.

    Raises:
        ValidationFailed: the pattern is none, a figure is out of range, or there is no figure.
        LimitReached: there are too many rules.
    """
    check_pattern(pattern)
    _check(traffic)
    if await session.scalar(select(func.count()).select_from(TrafficRule)) >= MOST_RULES:  # type: ignore[operator] # a count is never null
        raise LimitReached(f"there are {MOST_RULES} traffic rules already; remove some first")
    values = asdict(traffic)
    statement = insert(TrafficRule).values(pattern=pattern, **values)
    changed = statement.on_conflict_do_update(index_elements=["pattern"], set_={**values, "updated_at": func.now()})
    done = await session.execute(changed.returning(TrafficRule), execution_options={"populate_existing": True})
    row: TrafficRule = done.scalar_one()
    return row


def _check(traffic: Traffic) -> None:
    if traffic == NOTHING:
        raise ValidationFailed("a rule has at least one figure", field="connections")
    for field in fields(traffic):
        value, most = getattr(traffic, field.name), getattr(MOST, field.name)
        least = SLOWEST if field.name == "messages_per_second" else 1
        if value is not None and not least <= value <= most:
            raise ValidationFailed(f"{field.name} is {least} to {most:g}, not {value:g}", field=field.name)


async def get_rule(session: AsyncSession, pattern: str) -> TrafficRule:
    """Return a rule.

    Raises:
        NotFound: there is none of this pattern.
    """
    row = await session.scalar(select(TrafficRule).where(col(TrafficRule.pattern) == pattern))
    if row is None:
        raise NotFound(f"there is no traffic rule for {pattern[:100]!r}")
    return row


async def operator_list_rules(
    session: AsyncSession, *, cursor: str | None = None, limit: int = 50
) -> Page[TrafficRule]:
    """Return a page of the rules of operators, the oldest first."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    query = select(TrafficRule).where(col(TrafficRule.id) > after).order_by(col(TrafficRule.id)).limit(size + 1)
    return paging.page(_CURSOR, [(row.id, row) for row in await session.scalars(query)], size)


async def remove_rule(session: AsyncSession, pattern: str) -> None:
    """Delete a rule; what the code brings along for its pattern holds again.

    Raises:
        NotFound: there is none of this pattern.
    """
    gone = await session.scalar(
        delete(TrafficRule).where(col(TrafficRule.pattern) == pattern).returning(col(TrafficRule.id))
    )
    if gone is None:
        raise NotFound(f"there is no traffic rule for {pattern[:100]!r}")
