"""Schedules of operators' own."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import accounts, retry_schedules
from shared.db.retry_schedules import NewSchedule
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.worker.backoff import DELIVERY_SCHEDULES, custom

OWN = NewSchedule([60, 600], give_up_seconds=86_400)


async def test_the_built_in_rows_say_what_the_code_does(session: AsyncSession) -> None:
    page = await retry_schedules.operator_list_schedules(session)
    assert {row.name for row in page.items} == DELIVERY_SCHEDULES.keys()
    for row in page.items:
        known = DELIVERY_SCHEDULES[row.name]
        read = custom(row.name, row.waits, row.max_attempts, row.give_up_seconds)
        assert (read.waits, read.max_attempts, read.give_up_after) == (
            known.waits,
            known.max_attempts,
            known.give_up_after,
        )
        assert row.built_in


async def test_a_schedule_is_made_changed_used_and_removed(session: AsyncSession) -> None:
    made = await retry_schedules.put_schedule(session, "own", OWN)
    assert (made.built_in, made.waits, made.max_attempts, made.give_up_seconds) == (False, [60, 600], None, 86_400)
    changed = await retry_schedules.put_schedule(session, "own", NewSchedule([30], max_attempts=3))
    assert (changed.id, changed.waits, changed.max_attempts, changed.give_up_seconds) == (made.id, [30], 3, None)
    account = await accounts.create_account(session, "one", accounts.AccountOptions(retry_schedule="own"))
    with pytest.raises(Conflict):
        await retry_schedules.remove_schedule(session, "own")
    assert (await retry_schedules.use_schedule(session, account.id, "mox")).retry_schedule == "mox"
    await retry_schedules.remove_schedule(session, "own")
    with pytest.raises(NotFound):
        await retry_schedules.get_schedule(session, "own")
    with pytest.raises(ValidationFailed) as refused:
        await retry_schedules.use_schedule(session, account.id, "own")
    assert refused.value.field == "retry_schedule"


@pytest.mark.parametrize("name", ["default", "mox"])
async def test_the_built_in_ones_stay_as_they_are(session: AsyncSession, name: str) -> None:
    with pytest.raises(Conflict):
        await retry_schedules.put_schedule(session, name, OWN)
    with pytest.raises(Conflict):
        await retry_schedules.remove_schedule(session, name)


@pytest.mark.parametrize("account", [0, 404, -1, 2**70])
async def test_only_accounts_use_schedules(session: AsyncSession, account: int) -> None:
    with pytest.raises(NotFound):
        await retry_schedules.use_schedule(session, account, "mox")


@pytest.mark.parametrize(
    ("name", "new", "field"),
    [
        ("", OWN, "name"),
        ("x" * 65, OWN, "name"),
        ("-x", OWN, "name"),
        ("A", OWN, "name"),
        ("a\x00", OWN, "name"),
        ("own", NewSchedule([], max_attempts=2), "waits"),
        ("own", NewSchedule([60] * 101, max_attempts=2), "waits"),
        ("own", NewSchedule([60, 9], max_attempts=2), "waits[1]"),
        ("own", NewSchedule([604_801], max_attempts=2), "waits[0]"),
        ("own", NewSchedule([60]), "max_attempts"),
        ("own", NewSchedule([60], max_attempts=0), "max_attempts"),
        ("own", NewSchedule([60], max_attempts=1001), "max_attempts"),
        ("own", NewSchedule([60], give_up_seconds=9), "give_up_seconds"),
        ("own", NewSchedule([60], give_up_seconds=2_592_001), "give_up_seconds"),
        # an end by attempts alone is an end within 30 days as well, and one by age is not a thousand attempts
        ("own", NewSchedule([604_800], max_attempts=6), "max_attempts"),
        ("own", NewSchedule([10], give_up_seconds=10_001), "waits"),
    ],
)
async def test_bad_schedules_are_refused_by_field(
    session: AsyncSession, name: str, new: NewSchedule, field: str
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await retry_schedules.put_schedule(session, name, new)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "new",
    [
        NewSchedule([604_800], max_attempts=5),
        NewSchedule([604_800], max_attempts=1000, give_up_seconds=2_592_000),
        NewSchedule([10], give_up_seconds=9_999),
        NewSchedule([10] * 100, max_attempts=1000, give_up_seconds=2_592_000),
    ],
)
async def test_schedules_at_the_bounds_are_taken(session: AsyncSession, new: NewSchedule) -> None:
    assert (await retry_schedules.put_schedule(session, "own", new)).waits == list(new.waits)


async def test_no_account_refers_to_a_schedule_that_is_not_there(session: AsyncSession) -> None:
    keys = await session.scalar(
        text(
            "SELECT count(*) FROM pg_constraint WHERE conrelid = 'account'::regclass AND confrelid = 'retry_schedule'::regclass"
        )
    )
    assert keys == 1
