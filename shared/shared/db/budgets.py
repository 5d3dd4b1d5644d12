"""What an account may send: recipients a day, first-time recipients a day, recipients a second; the same across all replicas.

Runs inside the accepting transaction. An account without limits costs one look-up and is not counted. Whoever spends for another
locks the account's row until the commit, so what was refused was never counted and what was counted was committed. The numbers
are kept in pieces of ten minutes (:mod:`shared.db.allowance`): what a day holds is the sum of at most 145 rows, however much
was sent.

The rate is the generic cell rate algorithm: ``paid_until`` moves on by the cost of each message, and a message may go as long as it
is less than a second ahead. So a burst of one second's worth passes at once, and a message to many recipients passes too,
after which the account waits until it is paid for.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from shared.db.allowance import DAY, PIECE, Allowance, Limits, Piece, begin_of_piece
from shared.db.engine import Connection
from shared.errors import LimitReached

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

# In id order, as everybody locks them. NO KEY: rows that refer to the account may be written meanwhile.
_LOCK = """
SELECT id, messages_per_day, first_time_recipients_per_day, messages_per_second FROM account
WHERE id = ANY ($1::bigint[]) AND (messages_per_day IS NOT NULL OR first_time_recipients_per_day IS NOT NULL OR messages_per_second IS NOT NULL)
ORDER BY id FOR NO KEY UPDATE
"""
# A statement of its own: only one that begins once the rows are locked sees what the holder before has spent, and what time it is.
_SPENT = """
SELECT a.id, day.recipients, day.first_time, last.paid_until, statement_timestamp() AS moment
FROM unnest($1::bigint[]) AS a (id)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(u.recipients), 0)::bigint AS recipients, coalesce(sum(u.first_time), 0)::bigint AS first_time FROM account_usage u
    WHERE u.account_id = a.id AND u.begins_at > statement_timestamp() - interval '24 hours 10 minutes'
) day
LEFT JOIN LATERAL (
    SELECT u.paid_until FROM account_usage u WHERE u.account_id = a.id ORDER BY u.begins_at DESC LIMIT 1
) last ON true
"""
_KNOWN = """
SELECT k.account_id, k.key FROM unnest($1::bigint[], $2::text[]) AS w (account_id, key) JOIN known_recipient k USING (account_id, key)
"""
_SPEND = """
INSERT INTO account_usage AS u (account_id, begins_at, recipients, first_time, paid_until)
SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::integer[], $4::integer[], $5::timestamptz[])
ON CONFLICT (account_id, begins_at) DO UPDATE
SET recipients = u.recipients + excluded.recipients, first_time = u.first_time + excluded.first_time, paid_until = excluded.paid_until
"""
_MEET = """
INSERT INTO known_recipient (account_id, key) SELECT account_id, key FROM unnest($1::bigint[], $2::text[]) AS m (account_id, key)
ORDER BY account_id, key ON CONFLICT DO NOTHING
"""
_PIECES = """
SELECT account_id, begins_at, recipients, first_time FROM account_usage
WHERE account_id = ANY ($1::bigint[]) AND begins_at > $2 ORDER BY account_id, begins_at
"""
_SWEEP = """
DELETE FROM account_usage WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM account_usage WHERE begins_at < now() - interval '2 days' LIMIT $1 FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True)
class Want:
    """What a message would take of its account's budget."""

    message_id: int
    account_id: int
    recipients: int
    keys: frozenset[str]
    """Suppression keys of the recipients: who these are, in whatever spelling."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """One account with limits, while a batch is accepted."""

    account_id: int
    allowance: Allowance


async def spend(connection: Connection, wants: Sequence[Want]) -> dict[int, LimitReached]:
    """Take what messages need of the budgets of their accounts; return why those were refused that were."""
    rows = await connection.fetch(_LOCK, sorted({want.account_id for want in wants}))
    if not rows:
        return {}
    limits = {account_id: Limits(*given) for account_id, *given in rows}
    budgets = await _open(connection, limits)
    await _look_up_known(connection, budgets, wants)
    refused = []
    for want in wants:
        budget = budgets.get(want.account_id)
        if budget is not None and not budget.allowance.take(want.recipients, want.keys):
            refused.append(want)
    await _write(connection, [budget for budget in budgets.values() if budget.allowance.taken])
    return await _explained(connection, budgets, refused)


async def _open(connection: Connection, limits: dict[int, Limits]) -> dict[int, _Budget]:
    return {
        row["id"]: _Budget(
            row["id"],
            Allowance(
                limits[row["id"]], row["moment"], row["paid_until"] or _LONG_AGO, row["recipients"], row["first_time"]
            ),
        )
        for row in await connection.fetch(_SPENT, list(limits))
    }


async def _look_up_known(connection: Connection, budgets: dict[int, _Budget], wants: Collection[Want]) -> None:
    asked = {
        (want.account_id, key)
        for want in wants
        if want.account_id in budgets and budgets[want.account_id].allowance.limits.first_time_per_day is not None
        for key in want.keys
    }
    if asked:
        rows = await connection.fetch(_KNOWN, [account_id for account_id, _ in asked], [key for _, key in asked])
        for row in rows:
            budgets[row["account_id"]].allowance.known.add(row["key"])


async def _write(connection: Connection, budgets: Sequence[_Budget]) -> None:
    if not budgets:
        return
    await connection.execute(
        _SPEND,
        [budget.account_id for budget in budgets],
        [begin_of_piece(budget.allowance.moment) for budget in budgets],
        [budget.allowance.taken for budget in budgets],
        [len(budget.allowance.met) for budget in budgets],
        [b.allowance.paid_until if b.allowance.limits.per_second is not None else None for b in budgets],
    )
    met = [(budget.account_id, key) for budget in budgets for key in budget.allowance.met]
    if met:
        await connection.execute(_MEET, [account_id for account_id, _ in met], [key for _, key in met])


async def _explained(
    connection: Connection, budgets: dict[int, _Budget], refused: Sequence[Want]
) -> dict[int, LimitReached]:
    if not refused:
        return {}
    ids = sorted({want.account_id for want in refused})
    pieces = await read_pieces(connection, ids, budgets[ids[0]].allowance.moment)
    return {
        want.message_id: budgets[want.account_id].allowance.refusal(
            want.recipients, want.keys, pieces.get(want.account_id, [])
        )
        for want in refused
    }


async def sweep(connection: Connection, *, limit: int) -> int:
    """Delete at most ``limit`` pieces of days that are over; return how many there were."""
    status = await connection.execute(_SWEEP, limit)
    return int(status.split()[-1])


async def read_pieces(connection: Connection, account_ids: Sequence[int], moment: datetime) -> dict[int, list[Piece]]:
    """Return what accounts have spent in the day before a moment, by account, the oldest first."""
    rows = await connection.fetch(_PIECES, account_ids, moment - DAY - PIECE)
    return {
        account_id: [Piece(row["begins_at"], row["recipients"], row["first_time"]) for row in of_account]
        for account_id, of_account in groupby(rows, lambda row: row["account_id"])
    }
