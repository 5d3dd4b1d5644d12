"""The budget of an account in the database: what is kept of it, what it costs, and who waits for whom."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from shared.db import budgets
from shared.db.budgets import Want
from shared.db.engine import PLANS_BY_INDEX, SETTINGS
from shared.errors import LimitReached

Connection = asyncpg.Connection
ALL = "messages_per_day = 2000000000, first_time_recipients_per_day = 2000000000, messages_per_second = 2000000000"
PER_DAY = "messages_per_day = 5"

_TABLES = ("account", "account_usage", "known_recipient")
_TOUCHED = f"""
SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0))::bigint FROM pg_statio_user_tables
WHERE relname IN {_TABLES}
"""
_SCANNED = f"SELECT relname FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN {_TABLES}"


async def account(connection: Connection, name: str, limits: str | None) -> int:
    account_id: int = await connection.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", name)
    if limits is not None:
        await connection.execute(f"UPDATE account SET {limits} WHERE id = $1", account_id)
    return account_id


def wants(account_id: int, *, of: int = 1, count: int = 1, first: int = 0) -> list[Want]:
    return [Want(first + n, account_id, of, frozenset(f"r{first + n}.{m}@x" for m in range(of))) for n in range(count)]


async def spend(connection: Connection, asked: list[Want]) -> dict[int, LimitReached]:
    async with connection.transaction():
        return await budgets.spend(connection, asked)


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def pages(database_url: str, *, sent: int, known: int, statistics: str) -> tuple[int, list[str]]:
    """Return how many pages a batch of fifty costs an account that has sent so much today, and which tables it scans."""
    connection = await asyncpg.connect(database_url, server_settings={**SETTINGS, **PLANS_BY_INDEX})
    try:
        account_id = await account(connection, f"of {sent}", ALL)
        if statistics == "of empty tables":
            await connection.execute("ANALYZE account_usage, known_recipient")
        await connection.execute(
            f"""INSERT INTO known_recipient SELECT {account_id}, 'k' || n || '@x' FROM generate_series(1, {known}) n;
                INSERT INTO account_usage SELECT {account_id}, date_trunc('hour', now()) - n * interval '10 minutes', {sent} / 140, 0
                FROM generate_series(0, {140 if sent else -1}) n"""
        )
        if statistics == "of full tables":
            await connection.execute("ANALYZE account_usage, known_recipient")
        assert await spend(connection, wants(account_id, count=50)) == {}
        for reset in ("pg_stat_force_next_flush()", "pg_stat_reset()"):
            await connection.execute(f"SELECT {reset}")
        before = await connection.fetchval(_TOUCHED) or 0
        assert await spend(connection, wants(account_id, count=50, first=50)) == {}
        await connection.execute("SELECT pg_stat_force_next_flush()")
        touched: int = await connection.fetchval(_TOUCHED)
        scanned = [row["relname"] for row in await connection.fetch(_SCANNED)]
    finally:
        await connection.close()
    return touched - before, scanned


@pytest.mark.parametrize("statistics", ["of full tables", "of empty tables"])
async def test_a_million_sent_today_cost_as_much_as_none(database_url: str, statistics: str) -> None:
    none, _ = await pages(database_url, sent=0, known=0, statistics=statistics)
    million, scanned = await pages(database_url, sent=1_000_000, known=1_000_000, statistics=statistics)

    assert scanned == []
    assert none > 50
    # Each of fifty is looked up and met, which is three descents of an index; one of a million is two levels deeper.
    assert million < none + 6 * 50 + 20


async def spend_and_wait(
    connection: Connection, asked: list[Want], spent: asyncio.Event, go_on: asyncio.Event, *, commit: bool = True
) -> None:
    """Spend, and stay in the transaction until told to go on."""
    transaction = connection.transaction()
    await transaction.start()
    assert await budgets.spend(connection, asked) == {}
    spent.set()
    await go_on.wait()
    await (transaction.commit() if commit else transaction.rollback())


@pytest.mark.parametrize("commit", [True, False])
async def test_whoever_spends_for_an_account_with_a_limit_waits_for_the_one_before(
    connection: Connection, second: Connection, *, commit: bool
) -> None:
    account_id = await account(connection, "limited", PER_DAY)
    spent, go_on = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(spend_and_wait(connection, wants(account_id, of=3), spent, go_on, commit=commit))
    await spent.wait()
    waiting = asyncio.create_task(spend(second, wants(account_id, of=3, first=10)))
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()

    go_on.set()
    await holding

    refused = await waiting
    assert [error.code for error in refused.values()] == (["message_limit_reached"] if commit else [])
    assert await second.fetchval("SELECT sum(recipients) FROM account_usage") == 3


async def test_nobody_waits_for_an_account_without_limits_and_nothing_is_counted(
    connection: Connection, second: Connection
) -> None:
    account_id = await account(connection, "free", None)
    spent, go_on = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(spend_and_wait(connection, wants(account_id), spent, go_on))
    await spent.wait()

    assert await asyncio.wait_for(spend(second, wants(account_id, first=10)), 30) == {}

    go_on.set()
    await holding
    assert await second.fetchval("SELECT count(*) FROM account_usage") == 0


async def test_batches_of_the_same_accounts_in_other_orders_do_not_deadlock(
    connection: Connection, second: Connection
) -> None:
    ids = [await account(connection, f"a{n}", ALL) for n in range(20)]

    async def often(on: Connection, order: list[int]) -> None:
        for turn in range(10):
            assert await spend(on, [want for n in order for want in wants(n, first=turn * 1000 + n)]) == {}

    await asyncio.gather(often(connection, ids), often(second, ids[::-1]))

    rows = await connection.fetch("SELECT sum(recipients) FROM account_usage GROUP BY account_id")
    assert [row[0] for row in rows] == [20] * 20


async def test_days_that_are_over_are_swept_a_few_at_a_time(connection: Connection) -> None:
    account_id = await account(connection, "limited", PER_DAY)
    await spend(connection, wants(account_id))
    for hours in (47, 49, 50, 51):
        await connection.execute(
            "INSERT INTO account_usage VALUES ($1, now() - $2::interval, 1, 0)", account_id, timedelta(hours=hours)
        )

    assert [await budgets.sweep(connection, limit=2) for _ in range(3)] == [2, 1, 0]

    assert await connection.fetchval("SELECT count(*) FROM account_usage") == 2
