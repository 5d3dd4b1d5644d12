"""Retry schedules by name: two that Posthouse brings along and nobody changes, and those that operators make."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.paging import Page
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.models import Account, RetrySchedule

MOST_STEPS = 100
SHORTEST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(days=7)
LATEST_END = timedelta(days=30)
MOST_ATTEMPTS = 1000

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?", re.ASCII)
_CURSOR = "schedule"


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """Waits and an end; all times in whole seconds."""

    waits: Sequence[int]
    """After attempt 1, 2, ...; the last one repeats."""
    max_attempts: int | None = None
    give_up_seconds: int | None = None
    """No attempt is planned later than this after the first one. One of the two ends is needed; with both, whichever comes first."""


async def put_schedule(session: AsyncSession, name: str, new: NewSchedule) -> RetrySchedule:
    """Make a schedule, or give the one of this name other waits; mail that waits goes on by them after its next attempt.

    Raises:
        ValidationFailed: name, waits or end are out of range.
        Conflict: Posthouse brings this one along.
    """
    if not _NAME.fullmatch(name):
        raise ValidationFailed("a name has 1 to 64 of a-z, 0-9, - and _, inside - and _ only", field="name")
    _check(new)
    values = {
        "waits": list(new.waits),
        "max_attempts": new.max_attempts,
        "give_up_seconds": new.give_up_seconds,
    }
    statement = insert(RetrySchedule).values(name=name, **values)
    changed = statement.on_conflict_do_update(
        index_elements=["name"], set_={**values, "updated_at": func.now()}, where=~col(RetrySchedule.built_in)
    )
    row: RetrySchedule | None = await session.scalar(
        changed.returning(RetrySchedule), execution_options={"populate_existing": True}
    )
    if row is None:
        raise Conflict(
            f"{name} is one of Posthouse's own schedules and stays as it is; take another name", field="name"
        )
    return row


def _check(new: NewSchedule) -> None:
    if not 1 <= len(new.waits) <= MOST_STEPS:
        raise ValidationFailed(f"waits has 1 to {MOST_STEPS} steps, not {len(new.waits)}", field="waits")
    least, most = _seconds(SHORTEST_WAIT), _seconds(LONGEST_WAIT)
    for place, wait in enumerate(new.waits):
        if not least <= wait <= most:
            raise ValidationFailed(f"a wait is {least} to {most} seconds, not {wait}", field=f"waits[{place}]")
    end = _seconds(LATEST_END)
    if new.max_attempts is None and new.give_up_seconds is None:
        raise ValidationFailed("a schedule needs an end: max_attempts, give_up_seconds or both", field="max_attempts")
    if new.max_attempts is not None and not 1 <= new.max_attempts <= MOST_ATTEMPTS:
        raise ValidationFailed(f"max_attempts is 1 to {MOST_ATTEMPTS}, not {new.max_attempts}", field="max_attempts")
    if new.give_up_seconds is not None and not least <= new.give_up_seconds <= end:
        raise ValidationFailed(
            f"give_up_seconds is {least} to {end}, not {new.give_up_seconds}", field="give_up_seconds"
        )
    if new.give_up_seconds is None and new.max_attempts is not None:
        last = _moment(new.waits, new.max_attempts)
        if last > end:
            raise ValidationFailed(
                f"the last of {new.max_attempts} attempts would come after {last} seconds, later than {end}; set give_up_seconds",
                field="max_attempts",
            )
    elif new.max_attempts is None and _moment(new.waits, MOST_ATTEMPTS + 1) <= (new.give_up_seconds or 0):
        raise ValidationFailed(
            f"that is more than {MOST_ATTEMPTS} attempts; wait longer, or set max_attempts", field="waits"
        )


def _moment(waits: Sequence[int], attempt: int) -> int:
    """Return when attempt ``attempt`` comes, in seconds after the first."""
    steps = attempt - 1
    return sum(waits[:steps]) + max(0, steps - len(waits)) * waits[-1]


def _seconds(value: timedelta) -> int:
    return int(value.total_seconds())


async def get_schedule(session: AsyncSession, name: str, *, lock: bool = False) -> RetrySchedule:
    """Return a schedule; with ``lock`` it stays until the caller's transaction ends.

    Raises:
        NotFound: there is none of this name.
    """
    query = select(RetrySchedule).where(col(RetrySchedule.name) == name)
    row = await session.scalar(query.with_for_update(key_share=True, read=True) if lock else query)
    if row is None:
        raise NotFound(f"there is no retry schedule {name[:100]!r}")
    return row


async def operator_list_schedules(
    session: AsyncSession, *, cursor: str | None = None, limit: int = 50
) -> Page[RetrySchedule]:
    """Return a page of the schedules, the oldest first: Posthouse's own, then those of operators."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    query = select(RetrySchedule).where(col(RetrySchedule.id) > after).order_by(col(RetrySchedule.id)).limit(size + 1)
    return paging.page(_CURSOR, [(row.id, row) for row in await session.scalars(query)], size)


async def remove_schedule(session: AsyncSession, name: str) -> None:
    """Delete a schedule.

    Raises:
        NotFound: there is none of this name.
        Conflict: accounts use it, or it is one of Posthouse's own.
    """
    # Whoever gives it to an account holds a lock that this one waits for.
    row = await session.scalar(select(RetrySchedule).where(col(RetrySchedule.name) == name).with_for_update())
    if row is None:
        raise NotFound(f"there is no retry schedule {name[:100]!r}")
    if row.built_in:
        raise Conflict(f"{name} is one of Posthouse's own schedules and stays", field="name")
    users = await session.scalar(select(func.count()).where(col(Account.retry_schedule) == name))
    if users:
        raise Conflict(f"{users} accounts use this schedule; give them another one first", field="name")
    await session.delete(row)
    await session.flush()


async def use_schedule(session: AsyncSession, account_id: int, name: str) -> Account:
    """Give an account another schedule; it holds for mail that waits already, too.

    Raises:
        NotFound: there is no such account, or it is the installation's own.
        ValidationFailed: there is no such schedule.
    """
    account = await session.get(Account, inputs.row_id(account_id, "account"))
    if account is None or account.id == 0:
        raise NotFound(f"there is no account {account_id}")
    await named_by_account(session, name)
    await session.execute(update(Account).where(col(Account.id) == account.id).values(retry_schedule=name))
    await session.refresh(account)
    return account


async def named_by_account(session: AsyncSession, name: str) -> None:
    """See to it that a schedule is there and stays while an account comes to refer to it.

    Raises:
        ValidationFailed: there is none of this name.
    """
    try:
        await get_schedule(session, name, lock=True)
    except NotFound:
        raise ValidationFailed(
            f"there is no retry schedule {name[:100]!r}: take default, mox, or make it first", field="retry_schedule"
        ) from None
