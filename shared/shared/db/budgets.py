"""What an account may send: recipients a day, first-time recipients a day, recipients a second; the same across all replicas.

Runs inside the accepting transaction, and only for accounts that have a limit. Whoever spends locks the account's row in
``account_budget`` until the commit, so what was refused was never counted and what was counted was committed. The day is kept in
pieces of ten minutes: what it holds is the sum of at most 145 rows, however much was sent.

The rate is the generic cell rate algorithm: ``paid_until`` moves on by the cost of each message, and a message may go as long as it
is less than a second ahead. So a burst of one second's worth passes at once, and a message to many recipients passes too,
after which the account waits until it is paid for.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg

from shared.db.engine import Connection
from shared.errors import LimitReached, MessageLimitReached, RateLimited, RecipientLimitReached

_DAY = timedelta(hours=24)
_PIECE = timedelta(minutes=10)
_AHEAD = timedelta(seconds=1)

_LIMITED = """
SELECT id, messages_per_day, first_time_recipients_per_day, messages_per_second FROM account
WHERE id = ANY ($1::bigint[]) AND (messages_per_day IS NOT NULL OR first_time_recipients_per_day IS NOT NULL OR messages_per_second IS NOT NULL)
"""
_OPEN = "INSERT INTO account_budget (account_id) SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING"
# In id order, as everybody locks them. The clock is read after the lock is held: the transaction may have begun long before.
_LOCK = """
SELECT account_id, greatest(paid_until, clock_timestamp() - interval '1 day') AS paid_until, clock_timestamp() AS moment
FROM account_budget WHERE account_id = ANY ($1::bigint[]) ORDER BY account_id FOR UPDATE
"""
_SPENT = """
SELECT account_id, begins_at, recipients, first_time FROM account_usage
WHERE account_id = ANY ($1::bigint[]) AND begins_at > $2 ORDER BY account_id, begins_at
"""
_KNOWN = """
SELECT k.account_id, k.key FROM unnest($1::bigint[], $2::text[]) AS w (account_id, key) JOIN known_recipient k USING (account_id, key)
"""
_PAY = """
UPDATE account_budget b SET paid_until = p.paid_until FROM unnest($1::bigint[], $2::timestamptz[]) AS p (account_id, paid_until)
WHERE b.account_id = p.account_id
"""
_SPEND = """
INSERT INTO account_usage AS u (account_id, begins_at, recipients, first_time)
SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::integer[], $4::integer[])
ON CONFLICT (account_id, begins_at) DO UPDATE SET recipients = u.recipients + excluded.recipients, first_time = u.first_time + excluded.first_time
"""
_MEET = "INSERT INTO known_recipient (account_id, key) SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING"
_MEET_ALL = """
INSERT INTO known_recipient (account_id, key) SELECT DISTINCT account_id, recipient_key FROM delivery WHERE account_id = $1 AND stream = ''
ON CONFLICT DO NOTHING
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


@dataclass(slots=True)
class _Budget:
    """One account with limits, while a batch is accepted."""

    account_id: int
    per_day: int | None
    first_time_per_day: int | None
    per_second: int | None
    moment: datetime
    paid_until: datetime
    spent: list[tuple[datetime, int, int]] = field(default_factory=list)
    """When each piece of the last day began, with its recipients and first-time recipients."""
    known: set[str] = field(default_factory=set)
    recipients: int = 0
    """In this batch."""
    met: set[str] = field(default_factory=set)
    """First-time recipients in this batch."""

    def take(self, want: Want) -> LimitReached | None:
        """Take what a message needs, all of it or nothing."""
        strangers = want.keys - self.known - self.met if self.first_time_per_day is not None else frozenset[str]()
        refusal = self._too_many(want.recipients) or self._too_many_strangers(len(strangers)) or self._too_fast()
        if refusal is not None:
            return refusal
        self.recipients += want.recipients
        self.met |= strangers
        if self.per_second is not None:
            self.paid_until = max(self.paid_until, self.moment) + timedelta(seconds=want.recipients / self.per_second)
        return None

    def _too_many(self, wanted: int) -> LimitReached | None:
        if self.per_day is None:
            return None
        used = [(begins_at, recipients) for begins_at, recipients, _ in self.spent]
        excess = sum(recipients for _, recipients in used) + self.recipients + wanted - self.per_day
        if excess <= 0:
            return None
        return MessageLimitReached(
            f"this account sends to at most {self.per_day} recipients a day, and {wanted} more would pass that",
            facts=self._wait(used, excess, never=wanted > self.per_day),
        )

    def _too_many_strangers(self, wanted: int) -> LimitReached | None:
        if self.first_time_per_day is None or not wanted:
            return None
        used = [(begins_at, first_time) for begins_at, _, first_time in self.spent]
        excess = sum(first_time for _, first_time in used) + len(self.met) + wanted - self.first_time_per_day
        if excess <= 0:
            return None
        return RecipientLimitReached(
            f"this account writes to at most {self.first_time_per_day} recipients a day that it has never written to, and {wanted} more would pass that",
            facts=self._wait(used, excess, never=wanted > self.first_time_per_day),
        )

    def _too_fast(self) -> LimitReached | None:
        if self.per_second is None or self.paid_until - self.moment < _AHEAD:
            return None
        return RateLimited(
            f"this account sends to at most {self.per_second} recipients a second",
            facts={"retry_after": _seconds(self.paid_until - self.moment - _AHEAD)},
        )

    def _wait(self, used: Iterable[tuple[datetime, int]], excess: int, *, never: bool) -> dict[str, object]:
        """Say when enough of the day is over; nothing where even an empty day would not do."""
        if never:
            return {}
        for begins_at, amount in used:
            excess -= amount
            if excess <= 0:
                return {"retry_after": _seconds(begins_at + _DAY + _PIECE - self.moment)}
        return {"retry_after": _seconds(_DAY + _PIECE)}  # what is in the way is this very batch


async def spend(connection: Connection, wants: Sequence[Want]) -> dict[int, LimitReached]:
    """Take what messages need of the budgets of their accounts; return why those were refused that were."""
    rows = await connection.fetch(_LIMITED, sorted({want.account_id for want in wants}))
    if not rows:
        return {}
    budgets = await _lock(connection, rows)
    await _look_up_known(connection, budgets, wants)
    refused: dict[int, LimitReached] = {}
    for want in wants:
        budget = budgets.get(want.account_id)
        refusal = budget.take(want) if budget is not None else None
        if refusal is not None:
            refused[want.message_id] = refusal
    await _write(connection, [budget for budget in budgets.values() if budget.recipients])
    return refused


async def meet_all(connection: Connection, account_id: int) -> None:
    """Count every recipient in an account's history as known, when it gets a limit on first-time recipients."""
    await connection.execute(_MEET_ALL, account_id)


async def sweep(connection: Connection, *, limit: int) -> int:
    """Delete at most ``limit`` pieces of days that are over; return how many there were."""
    status = await connection.execute(_SWEEP, limit)
    return int(status.split()[-1])


async def _lock(connection: Connection, limits: Sequence[asyncpg.Record]) -> dict[int, _Budget]:
    ids = sorted(row["id"] for row in limits)
    by_id = {row["id"]: row for row in limits}
    await connection.execute(_OPEN, ids)
    budgets: dict[int, _Budget] = {}
    for row in await connection.fetch(_LOCK, ids):
        limit = by_id[row["account_id"]]
        budgets[row["account_id"]] = _Budget(
            account_id=row["account_id"],
            per_day=limit["messages_per_day"],
            first_time_per_day=limit["first_time_recipients_per_day"],
            per_second=limit["messages_per_second"],
            moment=row["moment"],
            paid_until=row["paid_until"],
        )
    oldest = min(budget.moment for budget in budgets.values()) - _DAY - _PIECE
    for row in await connection.fetch(_SPENT, ids, oldest):
        budgets[row["account_id"]].spent.append((row["begins_at"], row["recipients"], row["first_time"]))
    return budgets


async def _look_up_known(connection: Connection, budgets: dict[int, _Budget], wants: Collection[Want]) -> None:
    asked = [
        (want.account_id, key)
        for want in wants
        if want.account_id in budgets and budgets[want.account_id].first_time_per_day is not None
        for key in want.keys
    ]
    if asked:
        rows = await connection.fetch(_KNOWN, [account_id for account_id, _ in asked], [key for _, key in asked])
        for row in rows:
            budgets[row["account_id"]].known.add(row["key"])


async def _write(connection: Connection, budgets: Sequence[_Budget]) -> None:
    if not budgets:
        return
    ids = [budget.account_id for budget in budgets]
    await connection.execute(_PAY, ids, [budget.paid_until for budget in budgets])
    await connection.execute(
        _SPEND,
        ids,
        [_piece(budget.moment) for budget in budgets],
        [budget.recipients for budget in budgets],
        [len(budget.met) for budget in budgets],
    )
    met = [(budget.account_id, key) for budget in budgets for key in budget.met]
    if met:
        await connection.execute(_MEET, [account_id for account_id, _ in met], [key for _, key in met])


def _piece(moment: datetime) -> datetime:
    seconds = _PIECE.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def _seconds(wait: timedelta) -> int:
    """Return whole seconds, rounded up, at least one (RFC 9110 10.2.3)."""
    return max(1, math.ceil(wait.total_seconds()))
