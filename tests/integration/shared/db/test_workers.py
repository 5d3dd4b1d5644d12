"""A dead worker's rows are claimable again; what it had started counts as lost; nobody ever unlocks by hand."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest

from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db import starts, workers
from shared.db.queue import DELIVERIES

Connection = asyncpg.Connection
SILENCE = timedelta(seconds=30)
DELAY = timedelta(minutes=1)


async def _nobody(_: Connection, ids: Sequence[int]) -> None:
    pytest.fail(f"{ids} were given up")


async def _reap(connection: Connection, exhausted: workers.Exhausted = _nobody) -> workers.Reaped | None:
    holding = workers.Holding(workers.DELIVERY_ROWS, exhausted, DELAY)
    async with connection.transaction():
        return await workers.reap_one(connection, "delivery", holding, dead_after=SILENCE)


async def _leave(connection: Connection, worker_id: int) -> None:
    async with connection.transaction():
        await workers.leave(connection, worker_id, workers.Holding(workers.DELIVERY_ROWS, _nobody))


async def _silence(connection: Connection, worker_id: int) -> None:
    await connection.execute("UPDATE worker SET heartbeat_at = now() - interval '31 seconds' WHERE id = $1", worker_id)


async def _hold_two(connection: Connection, room: Mailroom) -> tuple[int, int, int]:
    """Return a worker with one claimed and one started delivery."""
    claimed, started = await room.accept(["a@b.test", "c@b.test"])
    worker_id = await new_worker(connection)
    await DELIVERIES.drain(connection)
    assert len(await DELIVERIES.claim(connection, worker_id, sites=5, lanes=5, rows=5)) == 2
    candidate = starts.Candidate(
        started, room.account_id, "c@b.test", "b.test", "c@b.test", "c@b.test", "me@ours.test", "ours.test"
    )
    await starts.start(connection, worker_id, [candidate])
    return worker_id, claimed, started


async def test_a_worker_that_beats_is_left_alone(connection: Connection) -> None:
    worker_id = await new_worker(connection)
    assert await _reap(connection) is None
    assert await workers.beat(connection, worker_id)


async def test_rows_and_slots_of_a_dead_worker_are_freed_in_one_go(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    worker_id, claimed, started = await _hold_two(connection, room)
    await _silence(connection, worker_id)
    assert await _reap(connection) == workers.Reaped(worker_id, released=1, lost=1, exhausted=0)
    rows = {
        row["delivery_id"]: row
        for row in await connection.fetch("SELECT *, due_at - now() AS wait FROM delivery_queue")
    }
    assert rows[claimed]["worker_id"] is rows[started]["worker_id"] is None
    assert rows[claimed]["losses"] == 0
    assert rows[started]["losses"] == 1
    assert rows[started]["wait"] > timedelta(seconds=50)
    assert await connection.fetchval("SELECT outcome FROM attempt") == "lost"
    assert await connection.fetchval("SELECT sum(in_use) FROM site") == 0
    assert not await workers.beat(connection, worker_id)
    other = await new_worker(connection)
    await DELIVERIES.drain(connection)
    assert [row.id for row in await DELIVERIES.claim(connection, other, sites=5, lanes=5, rows=5)] == [claimed]


async def test_a_delivery_lost_three_times_ends_with_its_reason(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    worker_id, _, started = await _hold_two(connection, room)
    await connection.execute("UPDATE delivery_queue SET losses = $1", workers.MAX_LOSSES - 1)
    await _silence(connection, worker_id)
    given_up: list[int] = []

    async def exhausted(_: Connection, ids: Sequence[int]) -> None:
        given_up.extend(ids)

    await _reap(connection, exhausted)
    assert given_up == [started]


async def test_only_one_of_two_reapers_takes_a_dead_worker(database_url: str, connection: Connection) -> None:
    worker_id = await new_worker(connection)
    await _silence(connection, worker_id)
    other = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT id FROM worker WHERE id = $1 FOR UPDATE", worker_id)
            assert await _reap(other) is None
        assert await _reap(other) is not None
        assert await _reap(other) is None
    finally:
        await other.close()


async def test_a_worker_that_stops_in_order_gives_everything_back(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    ids = await room.accept(["a@b.test"])
    worker_id = await new_worker(connection)
    await DELIVERIES.drain(connection)
    await DELIVERIES.claim(connection, worker_id, sites=5, lanes=5, rows=5)
    await _leave(connection, worker_id)
    assert await connection.fetchval("SELECT count(*) FROM worker") == 0
    other = await new_worker(connection)
    await DELIVERIES.drain(connection)
    assert [row.id for row in await DELIVERIES.claim(connection, other, sites=5, lanes=5, rows=5)] == ids


async def test_a_worker_that_leaves_with_started_rows_stays_for_the_reaper(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    worker_id, _, started = await _hold_two(connection, room)
    await _leave(connection, worker_id)
    await _silence(connection, worker_id)
    assert await _reap(connection) == workers.Reaped(worker_id, released=0, lost=1, exhausted=0)
    assert await connection.fetchval("SELECT losses FROM delivery_queue WHERE delivery_id = $1", started) == 1
