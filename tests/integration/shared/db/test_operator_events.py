"""What operators are told: counted in memory, one row for each kind and subject."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from fakes.waiting import eventually
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.db import operator_events
from shared.db.engine import create_pool
from shared.db.migrate import upgrade
from shared.db.operator_events import Notice
from shared.errors import NotFound, ValidationFailed
from shared.events import OperatorEventKind
from shared.metrics import Metrics
from shared.worker import operator_events as collector
from shared.worker.operator_events import BEYOND, OperatorEvents

BLOCKED = OperatorEventKind.SOURCE_BLOCKED


def notice(subject: str, text: str = "blocked", **facts: str | int | None) -> Notice:
    return Notice(BLOCKED, subject, text, facts)


async def test_what_happens_often_is_one_row_with_a_count(database_url: str) -> None:
    pool = await create_pool(database_url, size=2, service="test")
    metrics = Metrics("test")
    told, stop = OperatorEvents(pool, metrics, seconds=0.01), asyncio.Event()
    running = asyncio.create_task(told.run(stop))
    for number in range(5000):
        told.tell(notice("a.test", f"block {number}", code=550))
        told.tell(notice("b.test"))
        if number % 1000 == 0:

            async def written(wanted: int = number) -> bool:
                return (await pool.fetchval("SELECT coalesce(sum(count), 0) FROM operator_event") or 0) > wanted

            await eventually(written)  # so that there are several writes
    stop.set()
    await running
    rows = await pool.fetch(
        "SELECT kind, subject, text, facts, count, first_at < last_at AS later FROM operator_event ORDER BY id"
    )
    assert [(row["subject"], row["count"], row["text"], row["facts"]) for row in rows] == [
        ("a.test", 5000, "block 4999", '{"code": 550}'),
        ("b.test", 5000, "blocked", "{}"),
    ]
    assert all(row["later"] for row in rows)
    assert b'posthouse_test_operator_events_total{kind="source_blocked"} 10000.0' in metrics.render()
    await pool.close()


async def test_two_processes_count_the_same_subjects(database_url: str) -> None:
    pool = await create_pool(database_url, size=4, service="test")

    async def process(turn: int) -> None:
        told, stop = OperatorEvents(pool, Metrics("test"), seconds=0.001), asyncio.Event()
        running = asyncio.create_task(told.run(stop))
        for number in range(300):
            told.tell(notice(f"{(number * (7 if turn else 11)) % 30}.test"))
            await asyncio.sleep(0)
        stop.set()
        await running

    await asyncio.gather(process(0), process(1))
    rows = await pool.fetch("SELECT count FROM operator_event")
    assert (len(rows), sum(row["count"] for row in rows)) == (30, 600)
    await pool.close()


async def test_nothing_is_lost_while_the_database_is_away(private_postgres: EmbeddedPostgres) -> None:
    await upgrade(private_postgres.url)
    pool = await create_pool(private_postgres.url, size=1, service="test")
    told, stop = OperatorEvents(pool, Metrics("test"), seconds=0.01), asyncio.Event()
    running = asyncio.create_task(told.run(stop))
    await asyncio.to_thread(private_postgres.stop)
    with capture_logs() as logged:
        for _ in range(10):
            told.tell(notice("a.test"))
        await eventually(lambda: any(line["event"] == "operator_events_wait" for line in logged), 60)
    private_postgres.start()  # its processes die with the thread that starts them

    async def written() -> bool:
        connection = await asyncpg.connect(private_postgres.url)
        try:
            return await connection.fetchval("SELECT sum(count) FROM operator_event") == 10
        finally:
            await connection.close()

    await eventually(written)
    stop.set()
    await running
    await pool.close()


async def test_subjects_without_end_do_not_fill_the_memory(
    database_url: str,
) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    told, stop = OperatorEvents(pool, Metrics("test")), asyncio.Event()
    for number in range(collector.SUBJECTS + 50):
        told.tell(notice(f"{number}.test"))
    stop.set()
    await told.run(stop)
    assert await pool.fetchval("SELECT count FROM operator_event WHERE subject = $1", BEYOND) == 50
    assert await pool.fetchval("SELECT sum(count) FROM operator_event") == collector.SUBJECTS + 50
    await pool.close()


async def test_text_from_the_network_cannot_stop_it(database_url: str) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    told, stop = OperatorEvents(pool, Metrics("test")), asyncio.Event()
    bad = "a\x00\udcff\x1b" + "x" * 10_000
    told.tell(notice(bad, bad, reply=bad, code=550, ip=None))
    stop.set()
    await told.run(stop)
    row = await pool.fetchrow("SELECT subject, text, facts ->> 'reply' AS reply FROM operator_event")
    assert row is not None
    assert (len(row["subject"].encode()), len(row["text"].encode()), len(row["reply"].encode())) == (500, 4096, 4096)
    await pool.close()


async def test_what_is_resolved_stays_and_the_next_time_begins_anew(
    sessions: async_sessionmaker[AsyncSession], connection: asyncpg.Connection
) -> None:
    await operator_events.count(connection, [(notice("a.test"), 3), (notice("b.test"), 1)])
    async with sessions() as session:
        b, a = (await operator_events.operator_list_events(session)).items
    assert [(row.subject, row.count) for row in (a, b)] == [("a.test", 3), ("b.test", 1)]
    times = []
    for _ in range(2):
        async with sessions() as session, session.begin():
            times.append((await operator_events.resolve_event(session, a.id)).resolved_at)
    assert times[0] == times[1] is not None
    await operator_events.count(connection, [(notice("a.test"), 2)])
    async with sessions() as session:
        now_open = (await operator_events.operator_list_events(session, is_open=True)).items
        resolved = (await operator_events.operator_list_events(session, is_open=False, kind=BLOCKED)).items
    assert [(row.subject, row.count) for row in now_open] == [("a.test", 2), ("b.test", 1)]
    assert [(row.id, row.count) for row in resolved] == [(a.id, 3)]


@pytest.mark.parametrize("event_id", [404, -1, 2**70])
async def test_what_is_not_there_is_not_resolved(session: AsyncSession, event_id: int) -> None:
    with pytest.raises(NotFound):
        await operator_events.resolve_event(session, event_id)


async def test_they_are_listed_in_pages(session: AsyncSession, connection: asyncpg.Connection) -> None:
    await operator_events.count(connection, [(notice(f"{n}.test"), 1) for n in range(5)])
    first = await operator_events.operator_list_events(session, limit=3)
    second = await operator_events.operator_list_events(session, limit=3, cursor=first.next_cursor)
    assert [row.subject for row in first.items + second.items] == [f"{n}.test" for n in (4, 3, 2, 1, 0)]
    assert second.next_cursor is None
    with pytest.raises(ValidationFailed):
        await operator_events.operator_list_events(session, cursor="x")
