"""Rows whose time is over go, by any process, a few at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.housekeeping import SWEEPS, Housekeeping
from fakes.waiting import eventually
from integration.api.conftest import StartApi
from integration.api.cut import CuttablePostgres
from integration.api.test_submission_outage import Silent
from shared.db.engine import Connection, Pool, create_pool

_KEYS = """
INSERT INTO idempotency (account_id, key, digest, answer, created_at)
SELECT 1, $1 || n, '', '{}', now() - $2::text::interval FROM generate_series(1, $3::integer) n
"""


async def old_and_new(pool: Pool, old: int, new: int) -> None:
    await pool.execute(_KEYS, "old", "25 hours 1 minute", old)
    await pool.execute(_KEYS, "new", "23 hours", new)
    await pool.execute(
        "INSERT INTO account_usage (account_id, begins_at, recipients, first_time)"
        " SELECT 1, now() - make_interval(hours => n), 1, 1 FROM generate_series(1, 72) n"
    )


async def left(pool: Pool) -> tuple[int, int, int]:
    """Return how many expired keys, fresh keys and expired pieces of days there are."""
    row = await pool.fetchrow(
        "SELECT count(*) FILTER (WHERE key LIKE 'old%'), count(*) FILTER (WHERE key LIKE 'new%'),"
        " (SELECT count(*) FROM account_usage WHERE begins_at < now() - interval '2 days') FROM idempotency"
    )
    assert row is not None
    return tuple(row)


@asynccontextmanager
async def running(*housekeepings: Housekeeping) -> AsyncIterator[list["asyncio.Task[None]"]]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(one.run(stop)) for one in housekeepings]
    yield tasks
    stop.set()
    await asyncio.gather(*tasks)


async def test_an_api_sweeps_by_itself(start_api: StartApi, pool: Pool) -> None:
    await old_and_new(pool, 2_500, 3)
    await start_api()
    await eventually(lambda: _is(pool, (0, 3, 0)), 20, what="a sweep")


async def test_several_sweep_together(pool: Pool) -> None:
    await old_and_new(pool, 1_000, 3)
    async with running(*(Housekeeping(pool, Silent(), limit=10) for _ in range(3))):
        await eventually(lambda: _is(pool, (0, 3, 0)), 20, what="a sweep")


async def test_what_another_process_has_in_hand_is_passed_over(pool: Pool) -> None:
    await old_and_new(pool, 20, 0)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM idempotency WHERE key = 'old7' FOR UPDATE")
        async with running(Housekeeping(pool, Silent(), limit=5, every_seconds=0.05)):
            await eventually(lambda: _is(pool, (1, 0, 0)), 20, what="all but the one")


async def test_it_takes_no_more_at_once_than_it_should(pool: Pool) -> None:
    await old_and_new(pool, 100, 0)
    sizes: list[int] = []

    async def counted(connection: Connection, *, limit: int) -> int:
        sizes.append(await SWEEPS["idempotency"](connection, limit=limit))
        return sizes[-1]

    async with running(Housekeeping(pool, Silent(), sweeps={"keys": counted}, limit=30)):
        await eventually(lambda: sizes == [30, 30, 30, 10], 20)


@pytest.mark.parametrize("cut", ["before commit", "after commit"])
async def test_it_outlives_a_lost_database(database_url: str, pool: Pool, cut: str) -> None:
    await old_and_new(pool, 50, 3)
    async with CuttablePostgres(database_url) as postgres:
        uncertain = await create_pool(postgres.url, size=1, service="test-sweeper")
        postgres.cut, postgres.then_down = "before commit" if cut == "before commit" else "after commit", True
        async with running(Housekeeping(uncertain, Silent(), limit=30, every_seconds=0.05)) as [task]:
            await eventually(lambda: postgres.down, 10, what="a cut")
            postgres.down = False
            await eventually(lambda: _is(pool, (0, 3, 0)), 20, what="a sweep")
            assert not task.done()
        uncertain.terminate()


async def test_a_process_ends_while_it_sweeps(start_api: StartApi, pool: Pool) -> None:
    await old_and_new(pool, 50, 0)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE idempotency IN ACCESS EXCLUSIVE MODE")
        api = await start_api()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'posthouse-api' AND wait_event_type = 'Lock'"
        # Asked outside the transaction: inside one, pg_stat_activity stays what it was when it was first looked at.
        await eventually(lambda: pool.fetchval(waiting), 20, what="a sweep at the lock")
        await asyncio.wait_for(api.finish(), 20)
    assert await left(pool) == (50, 0, 25)


async def _is(pool: Pool, wanted: tuple[int, int, int]) -> bool:
    return await left(pool) == wanted
