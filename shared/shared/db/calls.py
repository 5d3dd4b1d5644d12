"""Calls, from the start gate to the settlement: one event for one endpoint, in order for each delivery.

* :func:`start_calls` is the only way from claimed to started, just before the request is sent.
* :func:`load_calls` reads what payloads are built from; only rows that never change.
* :func:`settle_calls` writes what became of an attempt. It may be repeated: what is settled stays settled.

Order within one delivery: a call starts only if no live call of the same endpoint and delivery has an earlier event, and no
earlier event of the delivery waits for its fan-out (another fan-out may hold it uncommitted). What comes too early goes back
until the one ahead is due, and is made due at once when that one is settled.

Locks are taken in the order of call ids everywhere.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from shared.db.engine import Connection
from shared.lifecycle import CallState
from shared.mail.status import clean_text

DISABLED_PAUSE = timedelta(minutes=10)
"""How long a call of a disabled endpoint waits before anyone looks again."""
DISABLED_LIMIT = timedelta(hours=72)
"""A call whose endpoint is still disabled this long after the event was fanned out is canceled."""
RESPONSE_OCTETS = 512
"""How much of a receiver's answer is kept."""


class CallVerdict(StrEnum):
    """What the gate says of one call; only START may be sent, everything else is written already."""

    START = "start"
    BLOCKED = "blocked"
    """An earlier call of the same delivery is not done: given back."""
    HELD = "held"
    DISABLED = "disabled"
    """The endpoint is disabled: given back, without an attempt."""
    EXPIRED = "expired"
    """The endpoint has been disabled for too long: canceled."""
    DELETED = "deleted"
    """The endpoint is deleted: canceled."""
    NOT_OURS = "not_ours"
    """Settled, or another worker's since we were declared dead."""


@dataclass(frozen=True, slots=True)
class CallGate:
    """The gate's answer; ``attempt`` is the number of the attempt that was started, or of those made so far."""

    verdict: CallVerdict
    attempt: int


@dataclass(frozen=True, slots=True)
class LoadedEvent:
    """The event a call tells of."""

    id: int
    type: str
    created_at: datetime
    delivery_id: int | None
    report_id: int | None
    attempt: int | None
    code: int | None
    enhanced: str | None
    text: str | None
    category: str | None
    suppressing: bool
    final_attempt_next: bool


@dataclass(frozen=True, slots=True)
class LoadedMail:
    """The delivery the event speaks of, and its message."""

    message: int
    """Our id of the message; ``message_id`` is the header field's."""
    message_id: str
    recipient: str
    from_id: str | None
    subject: str
    extra: str | None
    """JSON object of strings."""
    tags: tuple[str, ...]
    is_test: bool
    """Handed in with a sandbox key."""


@dataclass(frozen=True, slots=True)
class LoadedCall:
    """What the payload of a call is built from; None where retention has removed the row."""

    id: int
    endpoint_id: int
    account_id: int
    created_at: datetime
    event: LoadedEvent | None
    mail: LoadedMail | None


@dataclass(frozen=True, slots=True)
class CallResult:
    """What became of a call, by one attempt or without any."""

    call_id: int
    state: CallState | None
    """None: it is tried again after ``retry_in``."""
    worker_id: int | None = None
    """Who held the row; None for the reaper, which has taken it away."""
    attempt: int | None = None
    """The number the gate gave; None where there was no attempt."""
    retry_in: timedelta | None = None
    code: int = 0
    """HTTP status; 0 where there was no answer."""
    text: str = ""
    response: str = ""
    """The beginning of the answer's body."""
    disable_endpoint: bool = False


@dataclass(frozen=True, slots=True)
class CallsSettled:
    """Endpoints whose next call became due by a settlement, to be rung after the commit."""

    endpoints: frozenset[int]


async def start_calls(
    connection: Connection, worker_id: int, call_ids: Sequence[int], *, repeated: Collection[int] = ()
) -> dict[int, CallGate]:
    """Start what may be started: its attempt is recorded when this returns START.

    One statement for all calls that a worker is about to send; it needs no transaction around it. ``repeated`` names calls
    that are asked for again because the connection was lost before the answer came: where the first question had started
    them, the answer is that start. Whoever else asks for a started call gets NOT_OURS.
    """
    rows = await connection.fetch(_START, worker_id, list(call_ids), DISABLED_PAUSE, DISABLED_LIMIT, list(repeated))
    gates = {row["call_id"]: CallGate(CallVerdict(row["verdict"]), row["attempt"]) for row in rows}
    return {call_id: gates.get(call_id, CallGate(CallVerdict.NOT_OURS, 0)) for call_id in call_ids}


async def load_calls(connection: Connection, call_ids: Sequence[int]) -> dict[int, LoadedCall]:
    """Return what payloads need, by call id; a call whose record is gone is missing."""
    return {
        row["call_id"]: LoadedCall(
            id=row["call_id"],
            endpoint_id=row["endpoint_id"],
            account_id=row["account_id"],
            created_at=row["call_created_at"],
            event=None
            if row["event_id"] is None
            else LoadedEvent(
                id=row["event_id"],
                type=row["type"],
                created_at=row["created_at"],
                delivery_id=row["delivery_id"],
                report_id=row["report_id"],
                attempt=row["attempt"],
                code=row["code"],
                enhanced=row["enhanced"],
                text=row["text"],
                category=row["category"],
                suppressing=row["suppressing"],
                final_attempt_next=row["final_attempt_next"],
            ),
            mail=None
            if row["message"] is None
            else LoadedMail(
                message=row["message"],
                message_id=row["message_id"],
                recipient=row["recipient"],
                from_id=row["from_id"],
                subject=row["subject"],
                extra=row["extra"],
                tags=tuple(row["tags"] or ()),
                is_test=row["is_test"],
            ),
        )
        for row in await connection.fetch(_LOAD, list(call_ids))
    }


async def settle_calls(connection: Connection, results: Sequence[CallResult]) -> CallsSettled:
    """Write results: attempts end, calls are settled or due again, their successors are due now.

    A success counts even if the lease was lost in the meantime; any other result of a lost lease ends its attempt only.
    """
    endpoints: set[int] = set()
    waiting = list(results)
    while waiting:  # one result of each call at a time: the second must see what the first did
        turn: dict[int, CallResult] = {}
        later = []
        for result in waiting:
            if result.call_id in turn:
                later.append(result)
            else:
                turn[result.call_id] = result
        rows = await connection.fetch(_SETTLE, *_columns(list(turn.values())))
        endpoints.update(row["endpoint_id"] for row in rows)
        waiting = later
    return CallsSettled(frozenset(endpoints))


async def oldest_due_seconds(connection: Connection) -> float:
    """Return how overdue the longest waiting call is; 0 where none waits. Reads one row of each endpoint, not the backlog."""
    seconds: float | None = await connection.fetchval(_OLDEST_DUE)
    return seconds or 0.0


def _columns(results: list[CallResult]) -> list[list[object]]:
    return [
        [r.call_id for r in results],
        [r.state and r.state.value for r in results],
        [r.worker_id for r in results],
        [r.attempt for r in results],
        [r.retry_in or timedelta() for r in results],
        [r.code for r in results],
        [clean_text(r.text) for r in results],
        [clean_text(r.response, RESPONSE_OCTETS) for r in results],
        [r.disable_endpoint for r in results],
    ]


_START = """
WITH wanted AS (
    SELECT q.call_id, q.endpoint_id, q.order_key, q.event_id, q.attempt, q.hold, q.started_at,
        n.disabled_at IS NOT NULL AS disabled, n.id IS NULL OR n.deleted_at IS NOT NULL AS deleted
    FROM call_queue q LEFT JOIN endpoint n ON n.id = q.endpoint_id
    WHERE q.call_id = ANY ($2::bigint[]) AND q.worker_id = $1
    ORDER BY q.call_id
    FOR UPDATE OF q
), judged AS (
    SELECT wanted.*, ahead.until, started_at IS NOT NULL AS again, CASE
        -- Our own start, whose answer was lost with the connection; nobody else may start what is started.
        WHEN started_at IS NOT NULL THEN CASE WHEN wanted.call_id = ANY ($5::bigint[]) THEN 'start' ELSE 'not_ours' END
        WHEN deleted THEN 'deleted'
        WHEN hold THEN 'held'
        WHEN disabled THEN CASE WHEN (SELECT created_at FROM call WHERE call.id = wanted.call_id) < now() - $4::interval THEN 'expired' ELSE 'disabled' END
        WHEN ahead.until IS NOT NULL THEN 'blocked'
        -- A fan-out that has not committed shows as its notes. The subquery is scalar so that it stays a look-up by key.
        WHEN EXISTS (SELECT FROM event e WHERE e.delivery_id = wanted.order_key AND e.id < wanted.event_id
                AND (SELECT true FROM event_pending p WHERE p.event_id = e.id)) THEN 'blocked'
        ELSE 'start' END AS verdict
    FROM wanted CROSS JOIN LATERAL (
        SELECT max(CASE WHEN hold THEN now() + $3::interval ELSE due_at END) AS until FROM call_queue p
        WHERE p.endpoint_id = wanted.endpoint_id AND p.order_key = wanted.order_key AND p.event_id < wanted.event_id
    ) ahead
), started AS (
    UPDATE call_queue q SET attempt = q.attempt + 1, started_at = now()
    FROM judged WHERE q.call_id = judged.call_id AND verdict = 'start' AND NOT again
), recorded AS (
    INSERT INTO call_attempt (call_id, n, worker_id) SELECT call_id, attempt + 1, $1 FROM judged WHERE verdict = 'start' AND NOT again
), given_back AS (
    UPDATE call_queue q SET worker_id = NULL, due_at = CASE verdict
        WHEN 'blocked' THEN greatest(judged.until, now() + interval '1 second')  -- the settlement of the one ahead makes it due sooner
        WHEN 'disabled' THEN now() + $3::interval
        ELSE q.due_at END
    FROM judged WHERE q.call_id = judged.call_id AND verdict IN ('blocked', 'disabled', 'held')
    RETURNING q.lane_id
), woken AS (
    INSERT INTO call_wake (lane_id) SELECT DISTINCT lane_id FROM given_back
), gone AS (         -- those behind them meet the same verdict when they are due
    DELETE FROM call_queue q USING judged WHERE q.call_id = judged.call_id AND verdict IN ('deleted', 'expired')
), canceled AS (
    UPDATE call c SET state = 'canceled', attempts = judged.attempt, settled_at = now(), code = 0, text = CASE verdict
            WHEN 'deleted' THEN 'the endpoint was deleted'
            ELSE 'the endpoint was disabled for more than ' || trunc(extract(epoch FROM $4) / 3600) || ' hours' END,
        keep_until = now() + make_interval(secs => coalesce((SELECT keep_calls_seconds FROM account WHERE account.id = c.account_id), 0))
    FROM judged WHERE c.id = ANY ($2) AND c.id = judged.call_id AND verdict IN ('deleted', 'expired')
)
SELECT call_id, verdict, (attempt + (verdict = 'start' AND NOT again)::integer)::integer AS attempt FROM judged
"""
_LOAD = """
SELECT c.id AS call_id, c.endpoint_id, c.account_id, c.created_at AS call_created_at,
    e.id AS event_id, e.type, e.created_at, e.delivery_id, e.report_id, e.attempt::integer AS attempt, e.code, e.enhanced, e.text, e.category, e.suppressing,
    e.final_attempt_next,
    m.id AS message, m.message_id, d.recipient, d.from_id, m.subject, m.extra::text AS extra, m.tags, m.is_test
FROM call c LEFT JOIN event e ON e.id = c.event_id LEFT JOIN delivery d ON d.id = e.delivery_id LEFT JOIN message m ON m.id = d.message_id
WHERE c.id = ANY ($1::bigint[])
"""
_SETTLE = """
WITH result AS (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::smallint[], $5::interval[], $6::integer[], $7::text[], $8::text[], $9::boolean[])
        AS r (call_id, state, worker_id, attempt, retry_in, code, text, response, disables)
), next AS (         -- whose turn it is when these are done
    SELECT DISTINCT later.call_id FROM call_queue q CROSS JOIN LATERAL (
        SELECT call_id FROM call_queue l WHERE l.endpoint_id = q.endpoint_id AND l.order_key = q.order_key AND l.event_id > q.event_id
        ORDER BY event_id LIMIT 1
    ) later
    WHERE q.call_id IN (SELECT call_id FROM result WHERE state IS NOT NULL) AND later.call_id NOT IN (SELECT call_id FROM result)
), live AS (
    SELECT * FROM call_queue WHERE call_id IN (SELECT call_id FROM result UNION SELECT call_id FROM next) ORDER BY call_id FOR UPDATE
), applied AS (      -- a success counts in any case, everything else only from whoever holds the row
    SELECT result.*, live.attempt AS attempts, live.endpoint_id, live.order_key, live.event_id
    FROM result JOIN live USING (call_id)
    WHERE result.state = 'delivered' OR ((result.worker_id IS NULL OR result.worker_id = live.worker_id)
        AND (result.attempt IS NULL OR (result.attempt = live.attempt AND live.started_at IS NOT NULL)))
), finished AS (
    UPDATE call_attempt a SET finished_at = now(), outcome = coalesce(r.state, 'retry'), code = r.code, text = r.text, response = r.response
    FROM result r WHERE a.call_id = ANY ($1) AND a.call_id = r.call_id AND a.n = r.attempt AND (a.finished_at IS NULL OR a.outcome = 'lost')
), settled AS (
    UPDATE call c SET state = a.state, attempts = greatest(a.attempts, a.attempt), settled_at = now(), code = a.code, text = a.text,
        keep_until = now() + make_interval(secs => coalesce((SELECT keep_calls_seconds FROM account WHERE account.id = c.account_id), 0))
    FROM applied a WHERE c.id = ANY ($1) AND c.id = a.call_id AND a.state IS NOT NULL
), gone AS (
    DELETE FROM call_queue q USING applied a WHERE q.call_id = a.call_id AND a.state IS NOT NULL
), again AS (
    UPDATE call_queue q SET worker_id = NULL, started_at = NULL, due_at = now() + a.retry_in
    FROM applied a WHERE q.call_id = a.call_id AND a.state IS NULL
    RETURNING q.lane_id
), successors AS (   -- also where somebody holds one already: what it learns at the gate may be older than this
    UPDATE call_queue q SET due_at = least(q.due_at, now())
    FROM live WHERE q.call_id = live.call_id AND live.call_id IN (SELECT call_id FROM next) AND live.attempt = 0
        AND EXISTS (SELECT FROM applied a WHERE a.endpoint_id = live.endpoint_id AND a.order_key = live.order_key AND a.event_id < live.event_id)
    RETURNING q.lane_id, q.endpoint_id
), woken AS (
    INSERT INTO call_wake (lane_id) SELECT lane_id FROM again UNION SELECT lane_id FROM successors
), disabled AS (
    UPDATE endpoint n SET disabled_at = now()
    WHERE n.disabled_at IS NULL AND n.id IN (SELECT endpoint_id FROM applied WHERE disables)
)
SELECT DISTINCT endpoint_id FROM successors
"""
_OLDEST_DUE = """
SELECT extract(epoch FROM now() - min(oldest.due_at))::float8
FROM (
    SELECT lane.id FROM site JOIN lane ON lane.site_id = site.id WHERE site.queue = 'call' AND lane.next_at <= now() LIMIT 1000
) waiting CROSS JOIN LATERAL (
    SELECT due_at FROM call_queue WHERE lane_id = waiting.id AND worker_id IS NULL AND NOT hold AND due_at <= now() ORDER BY due_at LIMIT 1
) oldest
"""
