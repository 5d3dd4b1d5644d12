"""Jobs: a hold, release or cancel of many deliveries, in steps of one short transaction each.

A step locks the job's row, does something to a few hundred deliveries in the order of their ids, and moves the position; so a job
goes on wherever a process died, and is stepped by one process at a time however many look for work. What a worker holds meanwhile
is the gate's affair. A job ends at the newest delivery that was live when it was made: mail that comes later is not what was
meant, or is held by the rule itself.
"""

import json
from bisect import bisect_right
from dataclasses import dataclass

import asyncpg
import structlog
from sqlalchemy import func, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from shared.db import holds, inputs, paging
from shared.db.engine import CONNECTION_LOST, Connection, Pool
from shared.db.holds import Action, Applied, Kind
from shared.db.paging import Page
from shared.db.selections import Selection, scan
from shared.db.transaction import Bell, Rings, transaction
from shared.errors import Conflict, NotFound
from shared.models import Job

SCANNED = 1000
"""Deliveries that one step looks at."""
CHANGED = 200
"""Deliveries that one step changes: what a worker's settle may have to wait for."""
UNFINISHED = 20
"""Jobs of an account, or of operators, that may wait at once."""

_CURSOR = "job"
_log = structlog.get_logger(__name__)

# Filters of one party are worked off in the order they were given: a release after a hold must find it done. Rules are not
# waited for: what they hold is asked anew at every step, so their order does not matter.
_TAKE = """
SELECT id, account_id, by_operator, kind, filter::text AS filter, hold_rule_id, last_id, position FROM job
WHERE finished_at IS NULL AND ($1::bigint IS NULL OR id = $1) AND (hold_rule_id IS NOT NULL OR NOT EXISTS (
    SELECT FROM job earlier WHERE earlier.finished_at IS NULL AND earlier.id < job.id AND earlier.hold_rule_id IS NULL
        AND earlier.by_operator = job.by_operator AND (job.by_operator OR earlier.account_id = job.account_id)))
ORDER BY updated_at LIMIT 1 FOR UPDATE OF job SKIP LOCKED
"""
_MOVE = """
UPDATE job SET position = $2, seen = seen + $3, changed = changed + $4, in_flight = in_flight + $5, kept_held = kept_held + $6,
    updated_at = now(), finished_at = CASE WHEN $7 THEN now() END
WHERE id = $1
"""
_GIVE_UP = """
UPDATE job SET error = $2, updated_at = now(), finished_at = now() WHERE id = $1 AND finished_at IS NULL
"""
_FORGET = """
DELETE FROM job WHERE id = ANY (ARRAY(SELECT id FROM job WHERE finished_at < now() - interval '7 days' ORDER BY finished_at LIMIT $1))
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was made."""

    job_id: int
    finished: bool
    seen: int
    changed: int


async def create_job(session: AsyncSession, action: Action, wanted: Selection, *, account_id: int | None) -> Job:
    """Enter a job over the deliveries that are live now.

    Raises:
        Conflict: too many wait already.
    """
    if action.rule_id is None:
        await _check_room(session, account_id, by_operator=action.by_operator)
    bounds = (await session.execute(text("SELECT min(delivery_id), max(delivery_id) FROM delivery_queue"))).one()
    first, last = (bounds[0] or 0), (bounds[1] or 0)
    job = Job(
        account_id=account_id,
        by_operator=action.by_operator,
        kind=action.kind.value,
        filter=wanted.to_json(),
        hold_rule_id=action.rule_id,
        first_id=first,
        last_id=last,
        position=first - 1,
    )
    session.add(job)
    await session.flush()
    await session.refresh(job)
    return job


async def _check_room(session: AsyncSession, account_id: int | None, *, by_operator: bool) -> None:
    query = select(func.count()).select_from(Job).where(col(Job.finished_at).is_(None))
    query = query.where(col(Job.hold_rule_id).is_(None), col(Job.by_operator).is_(by_operator))
    if not by_operator:
        query = query.where(col(Job.account_id) == account_id)
    if (await session.scalar(query) or 0) >= UNFINISHED:
        raise Conflict(f"{UNFINISHED} jobs wait already; ask again when some of them have finished")


async def get_job(session: AsyncSession, job_id: int, *, account_id: int | None, stream: str | None) -> Job:
    """Return a job; to an account only one that it made itself, in the same stream.

    Raises:
        NotFound: there is none, or it is not theirs.
    """
    query = _visible(account_id, stream).where(col(Job.id) == inputs.row_id(job_id, "job"))
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return row


async def list_jobs(
    session: AsyncSession,
    *,
    account_id: int | None,
    stream: str | None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Job]:
    """Return a page of jobs, the newest first: those an account made itself, or all of them to an operator."""
    size = inputs.page_size(limit)
    query = _visible(account_id, stream)
    if cursor:
        query = query.where(col(Job.id) < paging.decode(_CURSOR, cursor)[0])
    rows = await session.scalars(query.order_by(col(Job.id).desc()).limit(size + 1))
    return paging.page(_CURSOR, [(row.id, row) for row in rows], size)


def _visible(account_id: int | None, stream: str | None) -> SelectOfScalar[Job]:
    query = select(Job)
    if account_id is None:
        return query
    of_stream = func.coalesce(col(Job.filter)["stream"].astext, "") == (stream or "")
    return query.where(col(Job.account_id) == account_id, col(Job.by_operator).is_(False), of_stream)


async def step(pool: Pool, bell: Bell, job_id: int | None = None) -> Step | None:
    """Make one step of a job, or of whichever waited longest; None where none can be stepped now.

    A job whose step fails for a reason of its own ends with that error, and harms no other.

    Raises:
        CONNECTION_LOST: the database cannot do it now; the step was not made.
    """
    taken: int | None = None
    try:
        async with transaction(pool, bell) as (connection, rings):
            row = await connection.fetchrow(_TAKE, job_id)
            if row is None:
                return None
            taken = row["id"]
            return await _step(connection, rings, row)
    except CONNECTION_LOST:
        raise
    except Exception as error:  # one job that trips ends with its error and is not tried for ever
        if taken is None:
            raise
        _log.exception("job_failed", job_id=taken)
        async with transaction(pool, bell) as (connection, _):
            await connection.execute(
                _GIVE_UP, taken, f"internal error ({type(error).__name__}); see the log of the api"
            )
        return Step(taken, finished=True, seen=0, changed=0)


async def _step(connection: Connection, rings: Rings, row: asyncpg.Record) -> Step:
    wanted = Selection.from_json(json.loads(row["filter"]))
    action = Action(Kind(row["kind"]), row["by_operator"], row["hold_rule_id"])
    ids = await scan(connection, wanted, row["position"], row["last_id"], SCANNED)
    applied = await holds.apply(connection, action, wanted, ids, limit=CHANGED) if ids else Applied()
    full = len(applied.matched) == CHANGED
    position = applied.matched[-1] if full else (ids[-1] if ids else row["position"])
    finished = len(ids) < SCANNED and not full
    seen = bisect_right(ids, position)
    await connection.execute(
        _MOVE,
        row["id"],
        position,
        seen,
        len(applied.changed),
        len(applied.in_flight),
        len(applied.kept_held),
        finished,
    )
    applied.ring(rings)
    return Step(row["id"], finished, seen, len(applied.changed))


async def forget_finished(connection: Connection, *, limit: int = 500) -> int:
    """Delete some jobs that finished a week ago; return how many."""
    return int((await connection.execute(_FORGET, limit)).rpartition(" ")[2])
