"""What an account has used of its limits, for people; and what its history says when it gets a limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.db.allowance import AHEAD, Limits, Piece, when_room
from shared.db.budgets import read_pieces
from shared.db.engine import Connection
from shared.errors import NotFound

_LIMITS = """
SELECT messages_per_day, first_time_recipients_per_day, messages_per_second, statement_timestamp() AS moment,
    (SELECT u.paid_until FROM account_usage u WHERE u.account_id = a.id ORDER BY u.begins_at DESC LIMIT 1) AS paid_until
FROM account a WHERE id = $1
"""
_MEET_ALL = """
INSERT INTO known_recipient (account_id, key) SELECT DISTINCT account_id, recipient_key FROM delivery WHERE account_id = $1 AND stream = ''
ORDER BY account_id, recipient_key ON CONFLICT DO NOTHING
"""
_HISTORY = """
SELECT to_timestamp(floor(extract(epoch FROM created_at) / 600) * 600) AS begins_at, count(*) AS recipients,
    count(*) FILTER (WHERE is_first) AS first_time
FROM (
    SELECT created_at, row_number() OVER (PARTITION BY recipient_key ORDER BY id) = 1 AS is_first FROM delivery
    WHERE account_id = $1 AND stream = ''
) d
WHERE created_at > now() - interval '24 hours 10 minutes' GROUP BY 1 ORDER BY 1
"""
_CATCH_UP = """
INSERT INTO account_usage AS u (account_id, begins_at, recipients, first_time)
SELECT $1, * FROM unnest($2::timestamptz[], $3::integer[], $4::integer[])
ON CONFLICT (account_id, begins_at) DO UPDATE
SET recipients = greatest(u.recipients, excluded.recipients), first_time = greatest(u.first_time, excluded.first_time)
"""
_FORGIVE = "UPDATE account_usage SET paid_until = NULL WHERE account_id = $1 AND paid_until IS NOT NULL"


@dataclass(frozen=True, slots=True)
class DayUse:
    """Of one limit per day."""

    limit: int | None
    used: int | None
    """None: not counted, because nothing limits it."""
    room_at: datetime | None
    """When one more is allowed; None: now, or not before the limit changes."""

    @property
    def left(self) -> int | None:
        """How many more are allowed now."""
        return None if self.limit is None or self.used is None else max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account has used of its limits."""

    recipients: DayUse
    first_time: DayUse
    per_second: int | None
    rate_room_at: datetime | None
    """When the next message is allowed by the rate; None: now."""


async def usage(connection: Connection, account_id: int) -> Usage:
    """Return what an account has used of its limits.

    Raises:
        NotFound: there is no such account.
    """
    row = await connection.fetchrow(_LIMITS, account_id)
    if row is None:
        raise NotFound(f"there is no account {account_id}")
    per_day, first_time_per_day, per_second, moment, paid_until = row
    limits = Limits(per_day, first_time_per_day, per_second)
    pieces = (await read_pieces(connection, [account_id], moment)).get(account_id, [])
    late = per_second is not None and paid_until is not None and paid_until - moment >= AHEAD
    return Usage(
        _use(per_day, [(piece, piece.recipients) for piece in pieces], counted=limits.any),
        _use(
            first_time_per_day, [(piece, piece.first_time) for piece in pieces], counted=first_time_per_day is not None
        ),
        per_second,
        paid_until - AHEAD if late else None,
    )


def _use(limit: int | None, spent: Sequence[tuple[Piece, int]], *, counted: bool) -> DayUse:
    used = sum(amount for _, amount in spent)
    full = limit is not None and used >= limit
    return DayUse(limit, used if counted else None, when_room(spent, used + 1 - limit) if full and limit else None)


async def meet_all(connection: Connection, account_id: int) -> None:
    """Count every recipient in an account's history as known, for a limit on first-time recipients."""
    await connection.execute(_MEET_ALL, account_id)


async def read_past(connection: Connection, account_id: int) -> list[Piece]:
    """Return what an account sent in the last day by its history, as far as that is kept."""
    rows = await connection.fetch(_HISTORY, account_id)
    return [Piece(row["begins_at"], row["recipients"], row["first_time"]) for row in rows]


async def catch_up(connection: Connection, account_id: int, past: Sequence[Piece]) -> None:
    """Count what was not counted before; what was stays as it is. The caller holds the account's row."""
    await connection.execute(
        _CATCH_UP,
        account_id,
        [piece.begins_at for piece in past],
        [piece.recipients for piece in past],
        [piece.first_time for piece in past],
    )


async def forgive(connection: Connection, account_id: int) -> None:
    """Forget by how much an account is ahead of its rate, when it gets another one. The caller holds the account's row."""
    await connection.execute(_FORGIVE, account_id)
