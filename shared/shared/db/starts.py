"""The start gate of deliveries: the only way from claimed to started, just before MAIL FROM.

A hold, a cancel or a suppression that was committed before this statement is honoured, whatever raced with the claim; one
that comes later finds the mail in flight. One statement serves all sessions of a worker that are about to send.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.db.engine import Connection
from shared.db.hold_match import holding_rule

_WANTED = f"""
WITH wanted AS (
    SELECT w.*, q.attempt, q.hold, q.cancel_at, q.started_at, q.expires_at, q.released_at, q.operator_released_at
    FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::boolean[])
        AS w (delivery_id, account_id, recipient, recipient_domain, recipient_key, mox_key, sender, sender_domain, stream, repeated)
    JOIN delivery_queue q ON q.delivery_id = w.delivery_id
    WHERE q.worker_id = $1
    ORDER BY w.delivery_id
    FOR UPDATE OF q
), judged AS (
    SELECT delivery_id, attempt, CASE
        -- Our own start, whose answer was lost with the connection; nobody else may start what is started.
        WHEN started_at IS NOT NULL THEN CASE WHEN repeated THEN 'start' ELSE 'not_ours' END
        WHEN cancel_at IS NOT NULL THEN 'canceled'
        WHEN expires_at <= now() THEN 'expired'
        WHEN EXISTS (SELECT FROM suppression s WHERE s.account_id = wanted.account_id AND s.stream = wanted.stream AND s.kind = 'address'
                AND s.key = recipient_key AND NOT s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now()))
            OR EXISTS (SELECT FROM suppression s WHERE s.account_id = wanted.account_id AND s.stream = wanted.stream
                AND s.mox_key = wanted.mox_key AND s.match_by_mox_key AND (s.expires_at IS NULL OR s.expires_at > now()))
            THEN 'suppressed'
        WHEN hold OR EXISTS ({holding_rule("wanted", "wanted")}) THEN 'held'
        WHEN EXISTS (SELECT FROM account a WHERE a.id = wanted.account_id AND a.disabled_at IS NOT NULL)
            OR EXISTS (SELECT FROM domain d WHERE d.account_id = wanted.account_id AND d.name = wanted.sender_domain AND d.disabled_at IS NOT NULL)
            THEN 'disabled'
        ELSE 'start' END AS verdict,
        started_at IS NOT NULL AS again
    FROM wanted
"""
_JUDGE = _WANTED + ") SELECT delivery_id, verdict, attempt::integer AS attempt FROM judged"
_START = (
    _WANTED
    + """
), started AS (
    UPDATE delivery_queue q SET attempt = q.attempt + 1, started_at = now()
    FROM judged WHERE q.delivery_id = judged.delivery_id AND verdict = 'start' AND NOT again
), recorded AS (
    INSERT INTO attempt (delivery_id, n, worker_id) SELECT delivery_id, attempt + 1, $1 FROM judged WHERE verdict = 'start' AND NOT again
)
SELECT delivery_id, verdict, (attempt + (NOT again)::integer)::integer AS attempt FROM judged
"""
)
# Asked anew, for the rule may have ended since the verdict; then the row is due again.
_HOLD = f"""
WITH wanted AS (
    SELECT w.*, q.lane_id, q.hold, q.hold_rule_id, q.hold_by_account, q.hold_by_operator, q.released_at, q.operator_released_at
    FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[]) AS w (delivery_id, account_id, recipient, recipient_domain, sender, sender_domain)
    JOIN delivery_queue q ON q.delivery_id = w.delivery_id
    WHERE q.worker_id = $1 AND q.started_at IS NULL
    ORDER BY w.delivery_id
    FOR UPDATE OF q
), ruled AS (
    SELECT wanted.*, rule.id AS rule_id, rule.made_by_operator FROM wanted LEFT JOIN LATERAL ({holding_rule("wanted", "wanted")}) rule ON NOT wanted.hold
), given_back AS (
    UPDATE delivery_queue q SET worker_id = NULL, hold = ruled.hold OR ruled.rule_id IS NOT NULL, hold_rule_id = coalesce(ruled.rule_id, ruled.hold_rule_id),
        hold_by_account = ruled.hold_by_account OR coalesce(NOT ruled.made_by_operator, false),
        hold_by_operator = ruled.hold_by_operator OR coalesce(ruled.made_by_operator, false)
    FROM ruled WHERE q.delivery_id = ruled.delivery_id
    RETURNING q.lane_id, q.hold
)
INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM given_back WHERE NOT hold
"""


class Verdict(StrEnum):
    """What the gate says of one delivery."""

    START = "start"
    HELD = "held"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    """Its sender wanted it no later than that."""
    CANCELED = "canceled"
    DISABLED = "disabled"
    """The account or the sending domain is disabled for now."""
    NOT_OURS = "not_ours"
    """The row is settled, or another worker's since we were declared dead."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A claimed delivery that is about to be sent; everything here was fixed at acceptance."""

    delivery_id: int
    account_id: int
    recipient: str
    """The whole address, domain as A-label, as hold rules name it."""
    recipient_domain: str
    recipient_key: str
    mox_key: str
    sender: str
    sender_domain: str
    stream: str = ""
    """Whose suppressions count for it: empty, or that of sandbox keys."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate's answer; ``attempt`` is the number of the attempt that was started, or of those made so far."""

    verdict: Verdict
    attempt: int


async def start(
    connection: Connection, worker_id: int, candidates: Sequence[Candidate], *, repeated: Collection[int] = ()
) -> dict[int, Gate]:
    """Start what may be started: the attempt is recorded when this returns START.

    ``repeated`` names deliveries that are asked for again because the connection was lost before the answer came: where the
    first question had started them, the answer is that start. Whoever else asks for a started delivery gets NOT_OURS.
    """
    return await _ask(connection, _START, worker_id, candidates, repeated)


async def judge(connection: Connection, worker_id: int, candidates: Sequence[Candidate]) -> dict[int, Gate]:
    """Ask without starting, so that no connection is opened for what would be stopped anyway."""
    return await _ask(connection, _JUDGE, worker_id, candidates, ())


async def hold(connection: Connection, worker_id: int, candidates: Sequence[Candidate]) -> None:
    """Give back what the gate found held, noting which rule holds it and whose that is."""
    await connection.execute(
        _HOLD,
        worker_id,
        [c.delivery_id for c in candidates],
        [c.account_id for c in candidates],
        [c.recipient for c in candidates],
        [c.recipient_domain for c in candidates],
        [c.sender for c in candidates],
        [c.sender_domain for c in candidates],
    )


async def _ask(
    connection: Connection, sql: str, worker_id: int, candidates: Sequence[Candidate], repeated: Collection[int]
) -> dict[int, Gate]:
    rows = await connection.fetch(
        sql,
        worker_id,
        [c.delivery_id for c in candidates],
        [c.account_id for c in candidates],
        [c.recipient for c in candidates],
        [c.recipient_domain for c in candidates],
        [c.recipient_key for c in candidates],
        [c.mox_key for c in candidates],
        [c.sender for c in candidates],
        [c.sender_domain for c in candidates],
        [c.stream for c in candidates],
        [c.delivery_id in repeated for c in candidates],
    )
    answers = {row["delivery_id"]: Gate(Verdict(row["verdict"]), row["attempt"]) for row in rows}
    return {c.delivery_id: answers.get(c.delivery_id, Gate(Verdict.NOT_OURS, 0)) for c in candidates}
