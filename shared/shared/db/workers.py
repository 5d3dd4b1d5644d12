"""Leases belong to workers, by the database's clock.

A worker is a row with a heartbeat; queue rows and slots carry its id. When the heartbeat stops, any other worker of the
service frees what the dead one held, in one transaction: what it had only claimed is claimable at once, what it had started
is recorded as lost and comes due after one loss delay per loss, and ends after :data:`MAX_LOSSES`, with its reason.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from shared.db.engine import Connection

MAX_LOSSES = 3
DEAD_AFTER_BEATS = 6
MAY_START_BEATS = 4
"""A worker that could not beat for this many beats starts nothing, well before anyone may take its rows."""

_DEAD = """
SELECT id FROM worker WHERE service = $1 AND heartbeat_at < now() - $2::interval ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_FREE_SLOTS = """
WITH freed AS (DELETE FROM site_slot WHERE worker_id = $1 RETURNING site_id),
counted AS (SELECT site_id, count(*) AS n FROM freed GROUP BY site_id),
sites AS (SELECT id FROM site WHERE id IN (SELECT site_id FROM counted) ORDER BY id FOR UPDATE)
UPDATE site SET in_use = site.in_use - counted.n, next_at = CASE WHEN site.in_use - counted.n < site.conn_limit THEN greatest(site.backoff_until, least(site.next_at, now())) ELSE 'infinity' END
FROM sites JOIN counted ON counted.site_id = sites.id WHERE site.id = sites.id
"""


@dataclass(frozen=True, slots=True)
class LeasedTable:
    """A queue table whose rows workers hold."""

    table: str
    id: str
    wake: str | None
    """Where to say that rows became claimable; None for a queue without lanes."""
    attempts: str | None
    """The table of attempts, None where attempts are not recorded."""


DELIVERY_ROWS = LeasedTable("delivery_queue", "delivery_id", "delivery_wake", "attempt")
CALL_ROWS = LeasedTable("call_queue", "call_id", "call_wake", "call_attempt")
INBOUND_ROWS = LeasedTable("inbound_queue", "inbound_message_id", None, None)

Exhausted = Callable[[Connection, Sequence[int]], Awaitable[None]]
"""Settles rows that were lost too often, in the reaper's transaction."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the workers of a service hold, and what becomes of it when one dies."""

    rows: LeasedTable
    exhausted: Exhausted
    loss_delay: timedelta = timedelta(minutes=1)
    """A lost row comes due after this times its losses."""


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one dead worker left behind."""

    worker_id: int
    released: int
    lost: int
    exhausted: int


async def register(connection: Connection, *, service: str, version: str, host: str, pid: int) -> int:
    """Enter a worker and return its id."""
    worker_id: int = await connection.fetchval(
        "INSERT INTO worker (service, version, host, pid) VALUES ($1, $2, $3, $4) RETURNING id",
        service,
        version,
        host,
        pid,
    )
    return worker_id


async def beat(connection: Connection, worker_id: int) -> bool:
    """Say that the worker lives; False where it has been declared dead in the meantime."""
    return bool(
        await connection.fetchval("UPDATE worker SET heartbeat_at = now() WHERE id = $1 RETURNING true", worker_id)
    )


async def leave(connection: Connection, worker_id: int, holding: Holding | None) -> None:
    """Take a worker out that stops in order; what it still holds unstarted is claimable at once. Call it in a transaction."""
    held = False
    if holding is not None:
        await _release_unstarted(connection, worker_id, holding.rows)
        held = await connection.fetchval(
            f"SELECT true FROM {holding.rows.table} WHERE worker_id = $1 LIMIT 1", worker_id
        )
    await connection.execute(_FREE_SLOTS, worker_id)
    if not held:  # with started rows left the row stays, unbeaten, for the reaper to count their loss
        await connection.execute("DELETE FROM worker WHERE id = $1", worker_id)


async def reap_one(
    connection: Connection, service: str, holding: Holding | None, *, dead_after: timedelta
) -> Reaped | None:
    """Free what one dead worker of ``service`` held; None where all are alive. Call it in a transaction of its own."""
    worker_id = await connection.fetchval(_DEAD, service, dead_after)
    if worker_id is None:
        return None
    released = lost = 0
    ended: list[int] = []
    if holding is not None:
        released = await _release_unstarted(connection, worker_id, holding.rows)
        lost, ended = await _count_losses(connection, worker_id, holding.rows, holding.loss_delay)
        if ended:
            await holding.exhausted(connection, ended)
    await connection.execute(_FREE_SLOTS, worker_id)
    await connection.execute("DELETE FROM worker WHERE id = $1", worker_id)
    return Reaped(worker_id, released, lost, len(ended))


async def _release_unstarted(connection: Connection, worker_id: int, rows: LeasedTable) -> int:
    sql = f"UPDATE {rows.table} SET worker_id = NULL WHERE worker_id = $1 AND started_at IS NULL RETURNING {rows.id} AS id"
    return await _with_wakes(connection, sql, rows, worker_id)


async def _count_losses(
    connection: Connection, worker_id: int, rows: LeasedTable, loss_delay: timedelta
) -> tuple[int, list[int]]:
    if rows.attempts is not None:
        await connection.execute(
            f"""UPDATE {rows.attempts} a SET finished_at = now(), outcome = 'lost',
                    text = 'the worker stopped during this attempt; its outcome is not known'
                FROM {rows.table} q
                WHERE q.worker_id = $1 AND q.started_at IS NOT NULL AND a.{rows.id} = q.{rows.id} AND a.n = q.attempt AND a.finished_at IS NULL""",
            worker_id,
        )
    sql = f"""UPDATE {rows.table} SET losses = losses + 1, worker_id = NULL, started_at = NULL, due_at = now() + $2::interval * (losses + 1)
        WHERE worker_id = $1 AND losses + 1 < {MAX_LOSSES} RETURNING {rows.id} AS id"""
    lost = await _with_wakes(connection, sql, rows, worker_id, loss_delay)
    ended = await connection.fetch(
        f"UPDATE {rows.table} SET losses = losses + 1, worker_id = NULL, started_at = NULL WHERE worker_id = $1 RETURNING {rows.id} AS id",
        worker_id,
    )
    return lost, [row["id"] for row in ended]


async def _with_wakes(connection: Connection, update: str, rows: LeasedTable, *arguments: object) -> int:
    if rows.wake is None:
        return len(await connection.fetch(update, *arguments))
    count: int = await connection.fetchval(
        f"""WITH moved AS ({update}, lane_id), woken AS (INSERT INTO {rows.wake} (lane_id) SELECT DISTINCT lane_id FROM moved)
            SELECT count(*) FROM moved""",
        *arguments,
    )
    return count
