"""The one function that settles a delivery: what an attempt, the start gate, a report or an operator says becomes state.

:func:`record` runs in the caller's transaction. In one go it ends the attempt, writes the record, appends the event and its
``event_pending`` row, counts failures of the recipient, adds suppressions, and deletes the queue row or makes it due again.
It may be repeated: what is settled stays settled. Locks are taken in one order everywhere: queue rows by id, then records by id.

What wins over what:

* a 250 is a delivery, even if the lease was lost in the meantime or a cancel came while the mail was in flight;
* any other result of an attempt whose lease was lost ends that attempt only;
* a cancel that met a temporary failure becomes ``canceled``;
* a report on a delivery in flight is parked and applied by the settle; one with action failed settles a delivery that waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import asyncpg

from shared.db.dsns import is_owed
from shared.db.engine import Connection
from shared.events import Category, EventType
from shared.lifecycle import DeliveryState
from shared.mail.address import mox_key, parse
from shared.mail.status import clean_text

FAILURES_IN_A_ROW = 3
"""So many failures of a recipient without a success between them suppress it (mox-compatible); counted by account and base address."""


class Source(StrEnum):
    """Who says so."""

    ATTEMPT = "attempt"
    GATE = "gate"
    OPERATOR = "operator"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """Where an attempt got to; empty strings where it did not get that far."""

    stage: str = ""
    host: str = ""
    ip: str = ""
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery, in the words of whoever knows."""

    delivery_id: int
    source: Source
    event: EventType
    worker_id: int | None = None
    """For ATTEMPT and GATE: who held the row."""
    attempt: int | None = None
    """For ATTEMPT: the number the start gate gave."""
    code: int = 0
    """SMTP reply code; 0 where no reply was seen."""
    enhanced: str = ""
    """Enhanced status code such as ``5.1.1``; empty where none was given (RFC 3463)."""
    text: str = ""
    category: Category | None = None
    immediate: bool = False
    """This failure alone suppresses the recipient."""
    counted: bool = False
    """This failure is one of those in a row that together do."""
    final_attempt_next: bool = False
    """For a DELAYED attempt: no more than one follows."""
    retry_in: timedelta | None = None
    """For a DELAYED attempt: when it is due again."""
    facts: AttemptFacts = field(default_factory=AttemptFacts)
    report_id: int | None = None
    inbound_message_id: int | None = None
    late: bool = False
    """For a DELAYED attempt: so late that its sender should hear of it."""
    tried_for: timedelta | None = None
    """For a DELAYED attempt: how long it is tried from now on."""
    report: "Outcome | None" = None
    """What a report will say of this delivery, which only a simulation knows beforehand; recorded in the same go."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What :func:`record` wrote, for the doorbell."""

    accounts: frozenset[int]
    """Accounts that have a new event."""
    suppressing: frozenset[int]
    """Accounts whose suppression list grew."""

    def __or__(self, other: "Recorded") -> "Recorded":
        return Recorded(self.accounts | other.accounts, self.suppressing | other.suppressing)


NOTHING = Recorded(frozenset(), frozenset())


@dataclass(slots=True)
class _Effect:
    outcome: Outcome
    delivery: asyncpg.Record
    state: DeliveryState | None = None
    retry_in: timedelta | None = None
    event: EventType | None = None
    attempts: int = 0
    park: bool = False
    suppressing: bool = False
    tells_sender: bool = False


async def record(connection: Connection, outcomes: Sequence[Outcome]) -> Recorded:
    """Write what became of some deliveries; call it inside a transaction, ring after its commit."""
    recorded = NOTHING
    waiting = list(outcomes)
    while waiting:  # one outcome of each delivery at a time: the second must see what the first did
        turn: dict[int, Outcome] = {}
        later: list[Outcome] = []
        for outcome in waiting:
            if outcome.delivery_id in turn:
                later.append(outcome)
            else:
                turn[outcome.delivery_id] = outcome
        recorded |= await _record_each_once(connection, [turn[key] for key in sorted(turn)])
        waiting = later
    return recorded


async def _record_each_once(connection: Connection, outcomes: list[Outcome]) -> Recorded:
    ids = [outcome.delivery_id for outcome in outcomes]
    live = {row["delivery_id"]: row for row in await connection.fetch(_LOCK_LIVE, ids)}
    deliveries = {row["id"]: row for row in await connection.fetch(_READ, ids)}
    settled = [delivery_id for delivery_id in ids if delivery_id not in live]
    if settled:  # what is live is locked by its queue row; the rest by the record itself
        deliveries |= {row["id"]: row for row in await connection.fetch(_READ + " ORDER BY id FOR UPDATE", settled)}
    effects = [
        _decide(outcome, deliveries[outcome.delivery_id], live.get(outcome.delivery_id))
        for outcome in outcomes
        if outcome.delivery_id in deliveries
    ]
    parked = [(e.outcome.delivery_id, e.outcome.report_id) for e in effects if e.park]
    if parked:
        await connection.executemany(
            "INSERT INTO parked_report (delivery_id, report_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", parked
        )
    suppressing = await _suppress(connection, effects)
    rows = await connection.fetch(_WRITE, *_columns(effects))
    recorded = Recorded(frozenset(row["account_id"] for row in rows), suppressing)
    ended = [e.outcome.delivery_id for e in effects if e.outcome.source is not Source.REPORT]
    if ended:
        reports = await connection.fetch(_UNPARK, ended)
        if reports:
            recorded |= await record(connection, [_outcome_of_report(row) for row in reports])
    foreseen = [e.outcome.report for e in effects if e.outcome.report is not None and e.state is not None]
    if foreseen:  # only of those that this settled: a repeat must not report again
        recorded |= await record(connection, foreseen)
    return recorded


def _decide(outcome: Outcome, delivery: asyncpg.Record, live: asyncpg.Record | None) -> _Effect:
    effect = _Effect(outcome, delivery, attempts=live["attempt"] if live else 0)
    if outcome.source is Source.REPORT:
        _decide_report(effect, live)
    elif live is None:
        pass  # settled before: this only ends the attempt
    elif outcome.event is EventType.DELIVERED:
        effect.event, effect.state = outcome.event, DeliveryState.DELIVERED
        effect.attempts = max(effect.attempts, outcome.attempt or 0)
    elif outcome.source is Source.OPERATOR or _lease_holds(outcome, live):
        if outcome.event is not EventType.DELAYED:
            effect.event, effect.state = outcome.event, DeliveryState(outcome.event.value)
        elif live["cancel_at"] is not None:
            effect.event, effect.state = EventType.CANCELED, DeliveryState.CANCELED
        else:
            effect.event, effect.retry_in = outcome.event, outcome.retry_in or timedelta()
    told = live is not None and live["delay_told_at"] is not None
    effect.tells_sender = (
        effect.event is not None
        and outcome.source is not Source.REPORT  # that came by mail already
        and is_owed(effect.event, delivery, late=outcome.late and not told)
    )
    return effect


def _lease_holds(outcome: Outcome, live: asyncpg.Record) -> bool:
    return live["worker_id"] == outcome.worker_id and (outcome.attempt is None or live["attempt"] == outcome.attempt)


def _decide_report(effect: _Effect, live: asyncpg.Record | None) -> None:
    failed = effect.outcome.event is EventType.FAILED
    if live is not None and live["started_at"] is not None:
        effect.park = True
    elif failed and live is not None:
        effect.event, effect.state = EventType.FAILED, DeliveryState.FAILED
    elif failed and effect.delivery["state"] == DeliveryState.DELIVERED:
        effect.event = EventType.BOUNCED
    else:
        effect.event = effect.outcome.event


async def _suppress(connection: Connection, effects: list[_Effect]) -> frozenset[int]:
    """Count failures, clear them after success, add suppressions; mark the effects that added one."""
    cleared = [e.delivery for e in effects if e.event is EventType.DELIVERED and e.outcome.source is Source.ATTEMPT]
    if cleared:
        await connection.execute(
            _CLEAR_FAILURES,
            [row["account_id"] for row in cleared],
            [row["stream"] for row in cleared],
            [row["recipient_key"] for row in cleared],
        )
    grew = set()
    for effect in effects:
        outcome, delivery = effect.outcome, effect.delivery
        reason = "complaint" if effect.event is EventType.COMPLAINED else None
        # Only a reply speaks of the recipient: a connection that failed says nothing, however often.
        speaks = outcome.code != 0 and (outcome.immediate or outcome.counted)
        if effect.event in (EventType.FAILED, EventType.BOUNCED) and speaks:
            failures = await connection.fetchval(
                _COUNT_FAILURE, delivery["account_id"], delivery["stream"], delivery["recipient_key"]
            )
            if outcome.immediate:
                reason = "hard_bounce"
            elif failures is not None and failures >= FAILURES_IN_A_ROW:
                reason = "failures_in_a_row"
        if reason is None:
            continue
        effect.suppressing = bool(
            await connection.fetchval(
                _ADD_SUPPRESSION,
                delivery["account_id"],
                delivery["recipient_key"],
                mox_key(parse(delivery["recipient"])),
                delivery["recipient"],
                reason,
                outcome.code,
                outcome.enhanced,
                clean_text(outcome.text),
                outcome.delivery_id,
                outcome.report_id,
                delivery["stream"],
            )
        )
        if effect.suppressing:
            grew.add(delivery["account_id"])
    return frozenset(grew)


def _columns(effects: list[_Effect]) -> list[list[object]]:
    return [
        [e.outcome.delivery_id for e in effects],
        [e.delivery["account_id"] for e in effects],
        [e.outcome.attempt for e in effects],
        [e.state and e.state.value for e in effects],
        [e.attempts for e in effects],
        [e.retry_in for e in effects],
        [e.event and e.event.value for e in effects],
        [e.outcome.event.value for e in effects],
        [e.outcome.code for e in effects],
        [clean_text(e.outcome.enhanced) for e in effects],
        [clean_text(e.outcome.text) for e in effects],
        [e.outcome.category and e.outcome.category.value for e in effects],
        [e.suppressing for e in effects],
        [clean_text(e.outcome.facts.stage) for e in effects],
        [clean_text(e.outcome.facts.host) for e in effects],
        [clean_text(e.outcome.facts.ip) for e in effects],
        [clean_text(e.outcome.facts.tls) for e in effects],
        [e.outcome.report_id for e in effects],
        [e.outcome.inbound_message_id for e in effects],
        [e.delivery["stream"] for e in effects],
        [e.outcome.final_attempt_next and e.event is EventType.DELAYED for e in effects],
        [e.tells_sender for e in effects],
        [e.outcome.tried_for if e.event is EventType.DELAYED else None for e in effects],
    ]


_REPORT_EVENTS = {
    "failed": EventType.FAILED,
    "delayed": EventType.DELAYED,
    "delivered": EventType.DELIVERED,
    "relayed": EventType.RELAYED,
    "expanded": EventType.EXPANDED,
}


def report_event(kind: str, action: str) -> EventType:
    """Return the event a report asks for: the RFC 3464 action of a DSN, a complaint for an ARF, else unrecognized."""
    if kind == "arf":
        return EventType.COMPLAINED
    return _REPORT_EVENTS.get(action, EventType.UNRECOGNIZED)


def _outcome_of_report(row: asyncpg.Record) -> Outcome:
    return Outcome(
        delivery_id=row["delivery_id"],
        source=Source.REPORT,
        event=report_event(row["kind"], row["action"]),
        code=row["code"],
        enhanced=row["enhanced"],
        text=row["text"],
        category=Category(row["category"]),
        immediate=row["immediate"],
        counted=row["counted"],
        report_id=row["id"],
        inbound_message_id=row["inbound_message_id"],
    )


_LOCK_LIVE = """
SELECT delivery_id, worker_id, attempt::integer AS attempt, started_at, cancel_at, delay_told_at
FROM delivery_queue WHERE delivery_id = ANY ($1::bigint[]) ORDER BY delivery_id FOR UPDATE
"""
_READ = """
SELECT id, account_id, stream, state, recipient, recipient_key, mail_from <> '' AS has_return_path FROM delivery WHERE id = ANY ($1::bigint[])
"""
_COUNT_FAILURE = """
INSERT INTO recipient_state (account_id, stream, key, failures)
SELECT id, $2, $3, 1 FROM account WHERE id = $1 AND keep_deliveries_seconds > 0  -- who keeps no deliveries has no failures before this one (mox)
ON CONFLICT (account_id, stream, key) DO UPDATE SET failures = least(recipient_state.failures + 1, 1000), updated_at = now()
RETURNING failures::integer
"""
_CLEAR_FAILURES = """
DELETE FROM recipient_state r USING unnest($1::bigint[], $2::text[], $3::text[]) AS d (account_id, stream, key)
WHERE r.account_id = d.account_id AND r.stream = d.stream AND r.key = d.key
"""
_ADD_SUPPRESSION = """
INSERT INTO suppression (account_id, key, mox_key, address, manual, reason, code, enhanced, text, delivery_id, report_id, stream)
SELECT $1::bigint, $2, $3, $4, false, $5, $6, $7, $8, $9, $10, $11 WHERE $1::bigint <> 0  -- the installation's own mail suppresses nobody
ON CONFLICT (account_id, stream, kind, key) DO UPDATE SET mox_key = excluded.mox_key, match_by_mox_key = false, address = excluded.address,
    manual = false, reason = excluded.reason, code = excluded.code, enhanced = excluded.enhanced, text = excluded.text,
    delivery_id = excluded.delivery_id, report_id = excluded.report_id, created_at = now(), expires_at = NULL
WHERE suppression.expires_at <= now()  -- an entry that has run out is no entry
RETURNING true
"""
_UNPARK = """
WITH parked AS (DELETE FROM parked_report WHERE delivery_id = ANY ($1::bigint[]) RETURNING report_id)
SELECT r.* FROM report r WHERE r.id IN (SELECT report_id FROM parked) ORDER BY r.id
"""
_WRITE = """
WITH effect AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::smallint[], $6::interval[], $7::text[], $8::text[], $9::integer[],
        $10::text[], $11::text[], $12::text[], $13::boolean[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[], $19::bigint[],
        $20::text[], $21::boolean[], $22::boolean[], $23::interval[])
    WITH ORDINALITY AS e (delivery_id, account_id, attempt, state, attempts, retry_in, event, outcome, code, enhanced, text, category, suppressing,
        stage, host, ip, tls, report_id, inbound_message_id, stream, final_attempt_next, tells_sender, tried_for, place)
), finished AS (
    UPDATE attempt a SET finished_at = now(), outcome = e.outcome, stage = e.stage, code = e.code, enhanced = e.enhanced, text = e.text,
        host = e.host, ip = e.ip, tls = e.tls
    FROM effect e WHERE a.delivery_id = ANY ($1) AND a.delivery_id = e.delivery_id AND a.n = e.attempt AND (a.finished_at IS NULL OR a.outcome = 'lost')
), settled AS (
    UPDATE delivery d SET state = e.state, attempts = e.attempts, settled_at = now(), code = e.code, enhanced = e.enhanced, text = e.text,
        keep_until = now() + make_interval(secs => account.keep_deliveries_seconds)
    FROM effect e JOIN account ON account.id = e.account_id
    WHERE d.id = ANY ($1) AND d.id = e.delivery_id AND e.state IS NOT NULL
), reported AS (
    UPDATE delivery d SET bounced_at = CASE WHEN e.event = 'bounced' THEN coalesce(d.bounced_at, now()) ELSE d.bounced_at END,
        complained_at = CASE WHEN e.event = 'complained' THEN coalesce(d.complained_at, now()) ELSE d.complained_at END
    FROM effect e WHERE d.id = ANY ($1) AND d.id = e.delivery_id AND e.state IS NULL AND e.event IN ('bounced', 'complained')
), gone AS (
    DELETE FROM delivery_queue q USING effect e WHERE q.delivery_id = e.delivery_id AND e.state IS NOT NULL
), again AS (
    UPDATE delivery_queue q SET worker_id = NULL, started_at = NULL, due_at = least(now() + e.retry_in, q.expires_at),  -- where the gate ends it
        delay_told_at = CASE WHEN e.tells_sender THEN now() ELSE q.delay_told_at END
    FROM effect e WHERE q.delivery_id = e.delivery_id AND e.retry_in IS NOT NULL
    RETURNING q.lane_id
), woken AS (
    INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM again
), fact AS (
    SELECT nextval('event_id') AS id, ordered.* FROM (SELECT * FROM effect WHERE event IS NOT NULL ORDER BY place) AS ordered
), told AS (
    INSERT INTO event (id, account_id, delivery_id, inbound_message_id, report_id, type, attempt, code, enhanced, text, category, suppressing, stream,
        final_attempt_next)
    SELECT id, account_id, delivery_id, inbound_message_id, report_id, event, attempt, code, enhanced, text, category, suppressing, stream,
        final_attempt_next
    FROM fact
), pending AS (
    INSERT INTO event_pending (event_id) SELECT id FROM fact
), owed AS (
    INSERT INTO dsn_pending (event_id, retry_until)
    SELECT f.id, CASE WHEN f.tried_for IS NOT NULL THEN least(now() + f.tried_for, q.expires_at) END
    FROM fact f JOIN account a ON a.id = f.account_id LEFT JOIN delivery_queue q ON q.delivery_id = f.delivery_id
    WHERE f.tells_sender AND a.dsn_to_sender
)
SELECT id, account_id FROM fact
"""
