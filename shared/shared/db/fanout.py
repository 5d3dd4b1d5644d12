"""Fan-out: each recorded event becomes one call for each endpoint that wants it.

One statement takes the notes of new events away and writes the calls, so it needs no lease: it happens whole or not at all,
and whoever comes at the same time takes other notes. It does no I/O but this.
"""

from dataclasses import dataclass

from shared.db.engine import Connection
from shared.events import EventType

BATCH = 500
"""Events in one statement at most."""

_FAN_OUT = f"""
WITH noted AS (
    DELETE FROM event_pending WHERE ctid = ANY (ARRAY(SELECT ctid FROM event_pending ORDER BY event_id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING event_id
), wanted AS (
    SELECT e.id AS event_id, e.account_id, e.delivery_id, n.id AS endpoint_id, n.lane_id,
        coalesce(e.delivery_id, -e.inbound_message_id, 0) AS order_key
    FROM noted JOIN event e ON e.id = noted.event_id JOIN endpoint n ON n.account_id = e.account_id
    WHERE n.disabled_at IS NULL AND n.deleted_at IS NULL
        AND n.kind = CASE WHEN e.type = '{EventType.RECEIVED.value}' THEN 'inbound' ELSE 'delivery' END
        AND (n.events = '{{}}' OR e.type = ANY (n.events))
        -- What a report says of a delay has no attempt, and is told in any case.
        AND (e.type <> '{EventType.DELAYED.value}' OR e.attempt IS NULL OR CASE n.delayed
            WHEN 'first' THEN e.attempt = 1 WHEN 'last' THEN e.final_attempt_next ELSE true END)
), numbered AS (     -- ids of calls rise with those of their events
    SELECT nextval('call_id') AS call_id, ordered.* FROM (SELECT * FROM wanted ORDER BY event_id, endpoint_id) AS ordered
), queued AS (
    INSERT INTO call_queue (call_id, lane_id, endpoint_id, order_key, event_id)
    SELECT call_id, lane_id, endpoint_id, order_key, event_id FROM numbered
    ON CONFLICT (endpoint_id, order_key, event_id) DO NOTHING
    RETURNING call_id, lane_id, endpoint_id
), recorded AS (
    INSERT INTO call (id, event_id, endpoint_id, account_id, delivery_id)
    SELECT call_id, event_id, numbered.endpoint_id, account_id, delivery_id FROM numbered JOIN queued USING (call_id)
), woken AS (
    INSERT INTO call_wake (lane_id) SELECT DISTINCT lane_id FROM queued
)
SELECT (SELECT count(*) FROM noted) AS events, (SELECT count(*) FROM queued) AS calls,
    ARRAY(SELECT DISTINCT endpoint_id FROM queued) AS endpoints
"""
_OLDEST = """
SELECT extract(epoch FROM now() - created_at)::float8 FROM event WHERE id = (SELECT event_id FROM event_pending ORDER BY event_id LIMIT 1)
"""


@dataclass(frozen=True, slots=True)
class FannedOut:
    """What one batch became."""

    events: int
    """Events taken; fewer than the limit means that no more waited."""
    calls: int
    endpoints: frozenset[int]
    """Endpoints that have something to send, to be rung after the commit."""


async def fan_out(connection: Connection, *, limit: int = BATCH) -> FannedOut:
    """Make calls of at most ``limit`` events, the oldest first."""
    row = await connection.fetchrow(_FAN_OUT, limit)
    if row is None:
        message = "a SELECT without FROM returned no row"
        raise AssertionError(message)
    return FannedOut(row["events"], row["calls"], frozenset(row["endpoints"]))


async def oldest_pending_seconds(connection: Connection) -> float:
    """Return how long the oldest event has waited for its fan-out; 0 where none waits. Reads one row."""
    seconds: float | None = await connection.fetchval(_OLDEST)
    return seconds or 0.0
