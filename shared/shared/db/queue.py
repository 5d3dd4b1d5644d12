"""Who is served next: claim, refill, release, for deliveries and calls alike.

The choice is made on summary rows (site, lane), never on the backlog, so its cost does not grow with it::

    site (next hop or endpoint)  --next_at-->  lane (one account's work for it)  --due_at-->  queue rows

* A **claim** takes k sites, l lanes of each, m rows of each, and one *slot* per site that has rows: the right to one session.
* Whoever was served goes to the end of its line (``next_at = now()``); whoever was empty parks until its earliest row is due,
  or for ever; a site with all slots taken parks until one is returned.
* Whatever makes a row claimable inserts a **wake** row; claimers fold those into lanes and sites first (``drain``).

Why ``wakes`` is counted: a claim sees rows by its snapshot but locks the lane a moment later. Where a drain came in between,
the counter that was locked is not the counter the snapshot shows, the lane may hold rows the snapshot cannot see, and it is
not parked. Without this a mail could wait for ever (docs/adr/0007).

Every statement can be pasted into psql: ``$1`` is a worker id, the rest are numbers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from shared.db.engine import Connection

_DRAIN = """
WITH woken AS (      -- what became claimable since somebody looked
    DELETE FROM {wake} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {wake} LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING lane_id
), lanes AS (        -- in id order, as everybody locks them
    SELECT id, site_id FROM lane WHERE id IN (SELECT lane_id FROM woken) ORDER BY id FOR UPDATE
), pulled AS (
    UPDATE lane SET next_at = least(lane.next_at, now()), wakes = lane.wakes + 1 FROM lanes WHERE lane.id = lanes.id
), sites AS (
    SELECT id FROM site WHERE id IN (SELECT site_id FROM lanes) ORDER BY id FOR UPDATE
), opened AS (       -- a full site waits for a slot to come back
    UPDATE site SET wakes = site.wakes + 1,
        next_at = CASE WHEN site.in_use < site.conn_limit THEN greatest(site.backoff_until, least(site.next_at, now())) ELSE site.next_at END
    FROM sites WHERE site.id = sites.id
)
SELECT count(*) FROM woken
"""

_ROWS = """
), lanes AS (
    SELECT lane.id, sites.id AS site_id, lane.wakes, (SELECT seen.wakes FROM lane seen WHERE seen.id = lane.id) AS seen_wakes
    FROM sites CROSS JOIN LATERAL (
        SELECT id, wakes FROM lane WHERE site_id = sites.id AND next_at <= now() ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ) lane
), picked AS (
    SELECT row.{id}, lanes.id AS lane_id, lanes.site_id
    FROM lanes CROSS JOIN LATERAL (
        SELECT {id} FROM {table} WHERE lane_id = lanes.id AND worker_id IS NULL AND NOT hold AND due_at <= now()
        ORDER BY due_at, {id} LIMIT $4 FOR UPDATE SKIP LOCKED
    ) row
), served_lanes AS (
    UPDATE lane SET next_at = CASE
        WHEN EXISTS (SELECT FROM picked WHERE picked.lane_id = lane.id) OR lanes.wakes <> lanes.seen_wakes THEN now()
        ELSE coalesce((SELECT min(due_at) FROM {table} WHERE lane_id = lanes.id AND worker_id IS NULL AND NOT hold), 'infinity') END
    FROM lanes WHERE lane.id = lanes.id
"""

_CLAIM = (
    """
WITH sites AS (
    SELECT id, conn_limit, in_use, proven, wakes, (SELECT seen.wakes FROM site seen WHERE seen.id = site.id) AS seen_wakes
    FROM site
    WHERE queue = '{name}' AND next_at <= now() AND in_use < conn_limit{proven} AND EXISTS (SELECT FROM worker WHERE worker.id = $1)
    ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
    + _ROWS
    + """
), slots AS (
    INSERT INTO site_slot (site_id, worker_id) SELECT DISTINCT site_id, $1::bigint FROM picked RETURNING id, site_id
), known AS (
    SELECT slots.id, slots.site_id, sites.proven FROM slots JOIN sites ON sites.id = slots.site_id
), served_sites AS (
    UPDATE site SET
        in_use = sites.in_use + (EXISTS (SELECT FROM picked WHERE picked.site_id = site.id))::integer,
        next_at = CASE
            WHEN EXISTS (SELECT FROM picked WHERE picked.site_id = site.id)
                THEN CASE WHEN sites.in_use + 1 >= sites.conn_limit THEN 'infinity' ELSE now() END
            WHEN sites.wakes <> sites.seen_wakes THEN now()
            ELSE coalesce((SELECT min(lane.next_at) FROM lane WHERE lane.site_id = sites.id), 'infinity') END
    FROM sites WHERE site.id = sites.id
)
UPDATE {table} SET worker_id = $1 FROM picked JOIN known slots USING (site_id)
WHERE {table}.{id} = picked.{id}
RETURNING {table}.{id} AS id, {table}.attempt, picked.lane_id, picked.site_id, slots.id AS slot_id, slots.proven
"""
)

_REFILL = (
    """
WITH sites AS (      -- the holder of a slot serves its site's lanes in turn, unless the site may have fewer by now
    SELECT site.id, site.proven FROM site_slot slot JOIN site ON site.id = slot.site_id
    WHERE slot.id = $2 AND slot.worker_id = $1
        AND (SELECT count(*) FROM site_slot older WHERE older.site_id = slot.site_id AND older.id <= slot.id) <= site.conn_limit
"""
    + _ROWS
    + """
)
UPDATE {table} SET worker_id = $1 FROM picked
WHERE {table}.{id} = picked.{id}
RETURNING {table}.{id} AS id, {table}.attempt, picked.lane_id, picked.site_id, $2::bigint AS slot_id, (SELECT proven FROM sites) AS proven
"""
)

_RETURN_SLOTS = """
WITH returned AS (
    DELETE FROM site_slot WHERE id = ANY ($2::bigint[]) AND worker_id = $1 RETURNING site_id
), counted AS (
    SELECT site_id, count(*) AS n FROM returned GROUP BY site_id
), sites AS (
    SELECT id FROM site WHERE id IN (SELECT site_id FROM counted) ORDER BY id FOR UPDATE
)
UPDATE site SET in_use = site.in_use - counted.n, next_at = CASE WHEN site.in_use - counted.n < site.conn_limit THEN greatest(site.backoff_until, least(site.next_at, now())) ELSE 'infinity' END
FROM sites JOIN counted ON counted.site_id = sites.id WHERE site.id = sites.id
"""

_RELEASE = """
WITH released AS (
    UPDATE {table} SET worker_id = NULL, started_at = NULL, hold = hold OR $4, due_at = CASE WHEN $3::interval IS NULL THEN due_at ELSE now() + $3 END
    WHERE {id} = ANY ($2::bigint[]) AND worker_id = $1 AND started_at IS NULL
    RETURNING lane_id
)
INSERT INTO {wake} (lane_id) SELECT DISTINCT lane_id FROM released
"""


_RECOVER = """
WITH released AS (
    UPDATE {table} SET worker_id = NULL WHERE worker_id = $1 AND started_at IS NULL AND {id} <> ALL ($2::bigint[]) RETURNING lane_id
), woken AS (
    INSERT INTO {wake} (lane_id) SELECT DISTINCT lane_id FROM released
), returned AS (
    DELETE FROM site_slot WHERE worker_id = $1 AND id <> ALL ($3::bigint[]) RETURNING site_id
), counted AS (
    SELECT site_id, count(*) AS n FROM returned GROUP BY site_id
), sites AS (
    SELECT id FROM site WHERE id IN (SELECT site_id FROM counted) ORDER BY id FOR UPDATE
), freed AS (
    UPDATE site SET in_use = site.in_use - counted.n, next_at = CASE WHEN site.in_use - counted.n < site.conn_limit THEN greatest(site.backoff_until, least(site.next_at, now())) ELSE 'infinity' END
    FROM sites JOIN counted ON counted.site_id = sites.id WHERE site.id = sites.id
)
SELECT count(*) FROM released
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A queue row that is now ours: until it is settled, released, or our heartbeat stops."""

    id: int
    attempt: int
    """Attempts started before this claim."""
    lane_id: int
    site_id: int
    slot_id: int
    proven: bool = True
    """The last contact with the site was a success."""


class Queue:
    """The statements for one queue table."""

    def __init__(self, name: Literal["delivery", "call"]) -> None:
        names = {"name": name, "table": f"{name}_queue", "id": f"{name}_id", "wake": f"{name}_wake"}
        self.name = name
        self.drain_sql = _DRAIN.format(**names)
        self.claim_sql = _CLAIM.format(**names, proven="")
        self.claim_proven_sql = _CLAIM.format(**names, proven=" AND proven")
        self.refill_sql = _REFILL.format(**names)
        self.release_sql = _RELEASE.format(**names)
        self.recover_sql = _RECOVER.format(**names)

    async def drain(self, connection: Connection, *, limit: int = 1000) -> int:
        """Fold at most ``limit`` wake rows into lanes and sites; return how many there were."""
        count: int = await connection.fetchval(self.drain_sql, limit)
        return count

    async def claim(
        self, connection: Connection, worker_id: int, *, sites: int, lanes: int, rows: int, proven: bool = False
    ) -> list[Claimed]:
        """Claim due rows of at most ``sites`` sites, ``lanes`` lanes each, ``rows`` rows each, with one slot per site.

        With ``proven`` only of sites whose last contact was a success.

        Returns nothing where nothing is due, or where the worker has been declared dead.
        """
        sql = self.claim_proven_sql if proven else self.claim_sql
        return [Claimed(**row) for row in await connection.fetch(sql, worker_id, sites, lanes, rows)]

    async def refill(
        self, connection: Connection, worker_id: int, slot_id: int, *, lanes: int, rows: int
    ) -> list[Claimed]:
        """Claim more rows for a slot that is held already."""
        return [Claimed(**row) for row in await connection.fetch(self.refill_sql, worker_id, slot_id, lanes, rows)]

    async def return_slots(self, connection: Connection, worker_id: int, slot_ids: Sequence[int]) -> None:
        """Give slots back; their sites are looked at again."""
        if slot_ids:
            await connection.execute(_RETURN_SLOTS, worker_id, list(slot_ids))

    async def recover(
        self, connection: Connection, worker_id: int, held: Collection[int], slots: Collection[int]
    ) -> int:
        """Give back rows and slots that are ours and that we do not know of; return how many rows there were.

        A claim may commit and its answer be lost with the connection: then they belong to a worker that lives and does not
        know. A claim that is just being answered may lose its rows to this; the start gate then says that they are not ours.
        """
        count: int = await connection.fetchval(self.recover_sql, worker_id, list(held), list(slots))
        return count

    async def release(
        self,
        connection: Connection,
        worker_id: int,
        ids: Sequence[int],
        *,
        due_in: timedelta | None = None,
        hold: bool = False,
    ) -> None:
        """Give back rows that were claimed and not started: due as before, or after ``due_in``, or held."""
        if ids:
            await connection.execute(self.release_sql, worker_id, list(ids), due_in, hold)


DELIVERIES = Queue("delivery")
CALLS = Queue("call")
