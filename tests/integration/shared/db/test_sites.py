"""What replies and failures make of a site's row."""

from datetime import timedelta
from typing import Any

import asyncpg

from integration.shared.db.queue_data import Mailroom, new_worker
from shared.db import sites
from shared.db.queue import DELIVERIES, Claimed
from shared.db.sites import Backoff

Connection = asyncpg.Connection

BACKOFF = Backoff(timedelta(seconds=100), timedelta(seconds=350))


async def _site(connection: Connection) -> Any:
    return await connection.fetchrow(
        """SELECT id, conn_limit, conn_most, proven, failures, pace, in_use,
            CASE WHEN isfinite(backoff_until) THEN extract(epoch FROM backoff_until - now())::float8 END AS pause FROM site"""
    )


async def _claimed(connection: Connection, *, limit: int = 1) -> tuple[int, list[Claimed]]:
    """A site with that many connections, as many slots taken, and a row that waits behind each."""
    room = await Mailroom(connection).open()
    await room.accept(["a@one.test"])
    await connection.execute("UPDATE site SET conn_limit = $1", limit)
    worker = await new_worker(connection)
    claimed = []
    for _ in range(limit):
        await DELIVERIES.drain(connection)
        claimed += await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25)
        await room.accept(["b@one.test"])
    return worker, claimed


async def test_a_new_site_has_one_connection_and_success_doubles_it_up_to_the_most(connection: Connection) -> None:
    await Mailroom(connection).open()
    room = await Mailroom(connection).open("other")
    await room.accept(["a@one.test"])
    site = await _site(connection)
    assert (site["conn_limit"], site["conn_most"], site["proven"]) == (1, 5, False)
    seen = []
    for _ in range(4):
        more = await sites.succeeded(connection, site["id"])
        now = await _site(connection)
        seen.append((now["conn_limit"], now["proven"], more))
    assert seen == [(2, True, True), (4, True, True), (5, True, False), (5, True, False)]


async def test_pauses_double_up_to_the_longest_and_sessions_that_fail_together_are_one_failure(
    connection: Connection,
) -> None:
    await _claimed(connection)
    site = await _site(connection)
    pauses = []
    for count in range(1, 5):
        failure = await sites.failed(connection, site["id"], BACKOFF, 1.0)
        assert failure is not None
        assert failure.failures == count
        assert await sites.failed(connection, site["id"], BACKOFF, 1.0) is None
        pauses.append(round((await _site(connection))["pause"], -1))
        await connection.execute("UPDATE site SET backoff_until = now()")
    assert pauses == [100, 200, 350, 350]
    assert await sites.succeeded(connection, site["id"])
    now = await _site(connection)
    assert (now["failures"], now["proven"], now["pause"], now["conn_limit"]) == (0, True, None, 2)


async def test_nobody_is_given_a_site_that_is_left_alone_until_the_pause_is_over(connection: Connection) -> None:
    worker, claimed = await _claimed(connection)
    await sites.failed(connection, claimed[0].site_id, BACKOFF, 1.0)
    await DELIVERIES.return_slots(connection, worker, [claimed[0].slot_id])
    await DELIVERIES.release(connection, worker, [row.id for row in claimed])
    await DELIVERIES.drain(connection)
    assert await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25) == []
    await connection.execute("UPDATE site SET backoff_until = now(), next_at = now()")
    assert len(await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25)) == 2


async def test_where_fewer_connections_are_allowed_only_the_oldest_slots_go_on(connection: Connection) -> None:
    worker, claimed = await _claimed(connection, limit=4)
    slots = [row.slot_id for row in claimed]
    await connection.execute("UPDATE site SET proven = true")
    assert await sites.slowed(connection, claimed[0].site_id)
    assert (await _site(connection))["conn_limit"] == 2
    await DELIVERIES.drain(connection)
    assert await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25) == []
    served = [slot for slot in reversed(slots) if await DELIVERIES.refill(connection, worker, slot, lanes=5, rows=1)]
    assert served == [slots[1]]  # one row waits; the third and the fourth got none of it
    await DELIVERIES.return_slots(connection, worker, slots[2:3])
    assert await connection.fetchval("SELECT in_use = 3 AND next_at = 'infinity' FROM site")
    await DELIVERIES.release(
        connection, worker, [row["delivery_id"] for row in await connection.fetch("SELECT * FROM delivery_queue")]
    )
    await DELIVERIES.drain(connection)
    assert await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25) == []
    await DELIVERIES.return_slots(connection, worker, [slots[3], slots[1]])
    assert len({row.slot_id for row in await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25)}) == 1


async def test_after_slow_down_connections_and_pace_come_back_one_by_one(connection: Connection) -> None:
    await _claimed(connection, limit=4)
    site_id = (await _site(connection))["id"]
    await sites.succeeded(connection, site_id)
    assert await sites.slowed(connection, site_id)
    assert [await sites.succeeded(connection, site_id) for _ in range(3)] == [True] * 3
    now = await _site(connection)
    assert (now["conn_limit"], round(now["pace"], 2)) == (2, 0.5)
    seen = []
    for _ in range(5):
        await connection.execute("UPDATE site SET changed_at = now() - interval '61 seconds'")
        await sites.succeeded(connection, site_id)
        now = await _site(connection)
        seen.append((now["conn_limit"], round(now["pace"], 2)))
    assert seen == [(3, 0.6), (4, 0.7), (5, 0.8), (5, 0.9), (5, 1.0)]


async def test_a_site_with_one_connection_cannot_have_less_and_never_stops(connection: Connection) -> None:
    await _claimed(connection)
    site_id = (await _site(connection))["id"]
    for _ in range(20):
        assert not await sites.slowed(connection, site_id)
    now = await _site(connection)
    assert (now["conn_limit"], round(now["pace"], 2)) == (1, 0.01)


async def test_only_sites_that_answer_are_claimed_where_that_is_asked_for(connection: Connection) -> None:
    room = await Mailroom(connection).open()
    await room.accept(["a@one.test", "b@two.test"])
    await connection.execute("UPDATE site SET proven = true WHERE name = 'domain:two.test'")
    worker = await new_worker(connection)
    await DELIVERIES.drain(connection)
    (row,) = await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25, proven=True)
    assert row.proven
    assert await connection.fetchval("SELECT name FROM site WHERE id = $1", row.site_id) == "domain:two.test"
    (row,) = await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=25)
    assert not row.proven
