"""The claim: everyone is served, nobody twice, and nothing waits for ever."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random

import asyncpg
import pytest

from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db import accept
from shared.db.engine import Pool, create_pool
from shared.db.queue import DELIVERIES, Claimed

Connection = asyncpg.Connection


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    opened = await create_pool(database_url, size=20, service="test")
    yield opened
    await opened.close()


async def _claim(
    connection: Connection, worker_id: int, *, sites: int = 10, lanes: int = 5, rows: int = 25
) -> list[Claimed]:
    await DELIVERIES.drain(connection)
    return await DELIVERIES.claim(connection, worker_id, sites=sites, lanes=lanes, rows=rows)


async def test_every_site_gets_a_slot_and_its_rows(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    ids = await room.accept(["a@one.test", "b@two.test", "c@two.test"])
    claimed = await _claim(connection, await new_worker(connection))
    assert sorted(row.id for row in claimed) == sorted(ids)
    assert len({row.site_id for row in claimed}) == len({row.slot_id for row in claimed}) == 2
    assert await connection.fetchval("SELECT sum(in_use) FROM site") == 2


async def test_a_full_site_is_served_again_only_when_a_slot_comes_back(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    await room.accept(["a@one.test"])
    await connection.execute("UPDATE site SET conn_limit = 1")
    worker = await new_worker(connection)
    first = await _claim(connection, worker)
    later = await room.accept(["b@one.test"])
    assert await _claim(connection, worker) == []
    await DELIVERIES.return_slots(connection, worker, [first[0].slot_id])
    assert [row.id for row in await _claim(connection, worker)] == later


async def test_the_holder_of_a_slot_refills_from_its_own_site_only(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    await room.accept(["a@one.test"])
    worker = await new_worker(connection)
    (first,) = await _claim(connection, worker)
    mine, _ = await room.accept(["b@one.test", "c@two.test"])
    await DELIVERIES.drain(connection)
    assert [row.id for row in await DELIVERIES.refill(connection, worker, first.slot_id, lanes=5, rows=25)] == [mine]
    stranger = await new_worker(connection)
    await room.accept(["d@one.test"])
    await DELIVERIES.drain(connection)
    assert await DELIVERIES.refill(connection, stranger, first.slot_id, lanes=5, rows=25) == []


async def test_rows_that_are_not_due_or_held_wait(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    due, future, held = await room.accept(["a@one.test", "b@one.test", "c@one.test"])
    await connection.execute(
        "UPDATE delivery_queue SET due_at = now() + interval '1 hour' WHERE delivery_id = $1", future
    )
    await connection.execute("UPDATE delivery_queue SET hold = true WHERE delivery_id = $1", held)
    worker = await new_worker(connection)
    assert [row.id for row in await _claim(connection, worker)] == [due]


async def test_a_released_row_is_claimable_at_once_and_a_postponed_one_when_due(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    one, two = await room.accept(["a@one.test", "b@two.test"])
    worker = await new_worker(connection)
    claimed = await _claim(connection, worker)
    await DELIVERIES.release(connection, worker, [one])
    await DELIVERIES.release(connection, worker, [two], due_in=timedelta(hours=1))
    await DELIVERIES.return_slots(connection, worker, [row.slot_id for row in claimed])
    assert [row.id for row in await _claim(connection, worker)] == [one]
    await connection.execute("UPDATE delivery_queue SET due_at = now() WHERE delivery_id = $1", two)
    await connection.execute("INSERT INTO delivery_wake SELECT lane_id FROM delivery_queue WHERE delivery_id = $1", two)
    assert [row.id for row in await _claim(connection, worker)] == [two]


async def test_a_worker_that_was_declared_dead_claims_nothing(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    await room.accept(["a@one.test"])
    worker = await new_worker(connection)
    await connection.execute("DELETE FROM worker WHERE id = $1", worker)
    assert await _claim(connection, worker) == []


async def test_a_million_mails_of_one_account_delay_nobody_else(connection: Connection) -> None:
    """Fair by lanes: of one site, the small account's mail is in the very first claim."""
    big = await Mailroom(connection).open("big")
    small = await Mailroom(connection).open("small")
    await big.accept([f"u{n}@provider.test" for n in range(500)])
    (wanted,) = await small.accept(["only@provider.test"])
    claimed = await _claim(connection, await new_worker(connection), sites=1, lanes=4, rows=10)
    assert wanted in {row.id for row in claimed}
    assert len(claimed) == 11


async def test_eight_workers_handle_two_thousand_rows_once_each(pool: Pool) -> None:
    async with pool.acquire() as connection:
        room = await Mailroom(connection).open()
        for start in range(0, 2000, 200):
            await room.accept([f"u{n}@site{n % 37}.test" for n in range(start, start + 200)])
    handled: list[int] = []

    async def work() -> None:
        async with pool.acquire() as connection:
            worker = await new_worker(connection)
            while True:
                claimed = await _claim(connection, worker, sites=3, lanes=2, rows=7)
                if not claimed:
                    if await connection.fetchval("SELECT true FROM delivery_queue LIMIT 1") is None:
                        return
                    continue
                handled.extend(row.id for row in claimed)
                await connection.execute(
                    "DELETE FROM delivery_queue WHERE delivery_id = ANY ($1::bigint[])", [row.id for row in claimed]
                )
                await DELIVERIES.return_slots(connection, worker, list({row.slot_id for row in claimed}))

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(8)))
    assert len(handled) == len(set(handled)) == 2000
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT sum(in_use) FROM site") == 0


async def test_no_wake_up_is_lost_between_accepting_and_parking(pool: Pool) -> None:
    """Acceptors commit while claimers empty and park the same lanes; at the end nothing may be left behind."""
    async with pool.acquire() as connection:
        account_id = (await Mailroom(connection).open()).account_id
    accepting = 6
    handled = 0

    async def accept_some(seed: int) -> None:
        nonlocal accepting
        random = Random(seed)
        async with pool.acquire() as connection:
            room = Mailroom(connection, account_id)
            for _ in range(150):
                messages = await room.messages([f"u@site{random.randrange(8)}.test"])
                async with connection.transaction():
                    await accept.accept(connection, messages)
                    await connection.execute("SELECT pg_sleep($1)", random.random() * 0.003)
        accepting -= 1

    async def work() -> None:
        nonlocal handled
        quiet = 0
        async with pool.acquire() as connection:
            worker = await new_worker(connection)
            while quiet < 50:  # polls without work after the last acceptor has finished
                claimed = await _claim(connection, worker, sites=2, lanes=2, rows=2)
                await connection.execute(
                    "DELETE FROM delivery_queue WHERE delivery_id = ANY ($1::bigint[])", [row.id for row in claimed]
                )
                await DELIVERIES.return_slots(connection, worker, list({row.slot_id for row in claimed}))
                handled += len(claimed)
                quiet = 0 if claimed or accepting else quiet + 1

    async with asyncio.timeout(120):
        await asyncio.gather(*(accept_some(seed) for seed in range(6)), *(work() for _ in range(4)))
    assert handled == 6 * 150
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM delivery_queue") == 0


async def test_a_claim_whose_answer_was_lost_is_given_back_and_what_is_known_stays(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    known_id, started_id = await room.accept(["a@one.test", "b@one.test"])
    worker = await new_worker(connection)
    known = await _claim(connection, worker)
    await connection.execute("UPDATE delivery_queue SET started_at = now() WHERE delivery_id = $1", started_id)
    lost = await room.accept(["c@two.test", "d@one.test"])
    await connection.execute("UPDATE site SET conn_limit = 5")
    assert len(await _claim(connection, worker)) == 2  # the answer that never came
    slots = {row.slot_id for row in known}
    assert await DELIVERIES.recover(connection, worker, [known_id], slots) == 2
    rows = await connection.fetch("SELECT delivery_id, worker_id FROM delivery_queue")
    assert {row["delivery_id"] for row in rows if row["worker_id"] == worker} == {known_id, started_id}
    assert (
        await connection.fetchval("SELECT sum(in_use) FROM site")
        == await connection.fetchval("SELECT count(*) FROM site_slot")
        == 1
    )
    other = await new_worker(connection)
    assert sorted(row.id for row in await _claim(connection, other)) == sorted(lost)
