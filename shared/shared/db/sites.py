"""What replies and failures make of a site: how many connections it may have, and until when nobody tries it.

A new site, and one that did not answer, has one connection; each success doubles what it may have, up to ``conn_most``. While
nobody answers it is tried by one session at a time, after pauses that double. After "slow down" connections and pace are
halved, and come back one by one. Each statement changes one row by its id; the caller asks for each site at most once a
second.
"""

from dataclasses import dataclass
from datetime import timedelta

from shared.db.engine import Connection

_RECOVERY = "interval '1 minute'"
"""Between two steps back up after a "slow down"."""

_FAILED = """
-- Sessions that fail together are one failure: who comes while the site is left alone changes nothing.
UPDATE site SET failures = least(failures + 1, 30), proven = false, conn_limit = 1, next_at = 'infinity', changed_at = now(),
    backoff_until = now() + least($2::interval * power(2, failures), $3::interval) * $4::float8  -- a slot that returns opens it again
WHERE id = $1 AND backoff_until <= now()
RETURNING failures::integer, backoff_until - now() AS pause
"""
_SUCCEEDED = f"""
WITH now_at AS (
    SELECT id, pace < 1 AS slowed, changed_at < now() - {_RECOVERY} AS recovering FROM site
    WHERE id = $1 AND (NOT proven OR conn_limit < conn_most OR pace < 1) FOR UPDATE
), raised AS (
    SELECT id, slowed, recovering, CASE WHEN NOT slowed THEN 2 * conn_limit WHEN recovering THEN conn_limit + 1 ELSE conn_limit END AS conn_limit
    FROM now_at JOIN site USING (id)
)
UPDATE site SET proven = true, failures = 0, backoff_until = '-infinity', conn_limit = least(raised.conn_limit, site.conn_most),
    next_at = CASE WHEN site.in_use < least(raised.conn_limit, site.conn_most) THEN least(site.next_at, now()) ELSE site.next_at END,
    pace = CASE WHEN slowed AND recovering THEN least(pace + 0.1, 1) ELSE pace END,
    changed_at = CASE WHEN slowed AND NOT recovering THEN changed_at ELSE now() END
FROM raised WHERE site.id = raised.id
RETURNING site.conn_limit < site.conn_most OR site.pace < 1
"""
_SLOWED = """
WITH before AS (SELECT id, conn_limit FROM site WHERE id = $1 FOR UPDATE)
UPDATE site SET conn_limit = greatest(site.conn_limit / 2, 1), pace = greatest(pace / 2, 0.01), changed_at = now(),
    next_at = CASE WHEN in_use < greatest(site.conn_limit / 2, 1) THEN next_at ELSE 'infinity' END
FROM before WHERE site.id = before.id
RETURNING before.conn_limit > 1
"""
_ALLOW = """
WITH changed AS (
    UPDATE site SET conn_most = $2, conn_limit = least(conn_limit, $2), next_at = CASE WHEN in_use < least(conn_limit, $2) THEN next_at ELSE 'infinity' END
    WHERE id = $1 AND conn_most <> $2
)
SELECT pace FROM site WHERE id = $1
"""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a site is left alone that does not answer: the first time, and at most; doubling in between."""

    first: timedelta = timedelta(seconds=15)
    most: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Failure:
    """A site is left alone."""

    failures: int
    """In a row."""
    pause: timedelta


async def allow(connection: Connection, site_id: int, connections: int) -> float:
    """Say how many connections a site may have at all; return the share of its rate that it takes at the moment."""
    pace: float | None = await connection.fetchval(_ALLOW, site_id, connections)
    return 1.0 if pace is None else pace


async def failed(connection: Connection, site_id: int, backoff: Backoff, jitter: float) -> Failure | None:
    """Leave a site alone for a while, where no connection could be had.

    Args:
        connection: autocommit.
        site_id: the caller holds a slot of it, and gives it back afterwards.
        backoff: how long.
        jitter: a factor around 1.

    Returns:
        None where the site is left alone already.
    """
    row = await connection.fetchrow(_FAILED, site_id, backoff.first, backoff.most, jitter)
    return None if row is None else Failure(**row)


async def succeeded(connection: Connection, site_id: int) -> bool:
    """Raise what a site may have, because it answers; return whether it may be raised further."""
    return bool(await connection.fetchval(_SUCCEEDED, site_id))


async def slowed(connection: Connection, site_id: int) -> bool:
    """Halve what a site may have, because it asked for that; return whether it had more than one connection."""
    return bool(await connection.fetchval(_SLOWED, site_id))
