"""Hold, release, cancel: what people and rules do to deliveries that are live.

An account and an operator hold a delivery independently of each other; it is due again when neither does. Who releases lifts
what they may: an account its own hold, an operator every hold, a rule that ended only what it held itself, and then whatever
other rule matches holds on. The start gate (:mod:`shared.db.starts`) sees all of this, whatever was claimed meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import asyncpg

from shared.db import outcomes
from shared.db.engine import Connection
from shared.db.outcomes import NOTHING, Outcome, Recorded, Source
from shared.db.selections import Asking, Selection, lock
from shared.db.transaction import Rings
from shared.events import Category, EventType, Subject

EXPIRED = "expired: it was held until the time its sender had set had passed"


class Kind(StrEnum):
    """What is done."""

    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done to deliveries, and by whom."""

    kind: Kind
    by_operator: bool
    rule_id: int | None = None
    """The rule that holds, or that ended; None: by hand."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the deliveries that matched, by their ids; a delivery may be among those in flight and the changed ones."""

    matched: tuple[int, ...] = ()
    changed: frozenset[int] = frozenset()
    in_flight: frozenset[int] = frozenset()
    """Started: a hold or cancel counts if the attempt fails for now."""
    kept_held: frozenset[int] = frozenset()
    """Should have been released, and somebody else holds them still."""
    recorded: Recorded = NOTHING
    released: bool = False

    def ring(self, rings: Rings) -> None:
        """Say whom to ring after the commit."""
        if self.released:
            rings.add(Subject.DELIVERY_DUE)
        if self.recorded.accounts:
            rings.add(Subject.EVENT_RECORDED, *(str(account_id) for account_id in self.recorded.accounts))


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds a delivery, and by which rule; that of the operator where both do."""

    account: bool = False
    operator: bool = False
    rule_id: int | None = None

    def by_hand(self, *, operator: bool) -> "Holders":
        """Return it held by a person: a rule of theirs that ends does not release it any more."""
        if operator:
            return replace(self, operator=True, rule_id=None)
        return replace(self, account=True, rule_id=self.rule_id if self.operator else None)

    def by_rule(self, rule_id: int, *, operator: bool) -> "Holders":
        """Return it held by a rule as well."""
        return Holders(self.account or not operator, self.operator or operator, rule_id)

    def without(self, *, operator: bool) -> "Holders":
        """Return it as it is without one of the two."""
        account_holds, operator_holds = self.account and operator, self.operator and not operator
        keeps_rule = operator_holds and self.rule_id is not None  # where both held, the rule shown is the operator's
        return Holders(account_holds, operator_holds, self.rule_id if keeps_rule else None)


def _holders_after(action: Action, row: asyncpg.Record) -> Holders:
    now = Holders(row["hold_by_account"], row["hold_by_operator"], row["hold_rule_id"])
    if action.kind is Kind.HOLD and action.rule_id is None:
        return now.by_hand(operator=action.by_operator)
    if action.kind is Kind.RELEASE and action.rule_id is None and action.by_operator:
        return Holders()
    if action.kind is Kind.RELEASE:
        now = now.without(operator=action.by_operator)
    elif row["hold"]:
        return now  # whoever releases it asks the rules again
    if row["rule_id"] is not None and not now.operator:
        return now.by_rule(row["rule_id"], operator=row["rule_of_operator"])
    return now


async def apply(
    connection: Connection, action: Action, wanted: Selection, ids: Sequence[int], *, limit: int
) -> Applied:
    """Do something to those of some live deliveries that match, ``limit`` at most; call it in a transaction."""
    rows = await lock(connection, wanted, ids, limit, _asking(action))
    if action.kind is Kind.CANCEL:
        return await _cancel(connection, action, rows)
    matched = tuple(row["delivery_id"] for row in rows)
    if action.kind is Kind.RELEASE:
        rows = [row for row in rows if row["hold"]]
    after = {row["delivery_id"]: _holders_after(action, row) for row in rows}
    before = {
        row["delivery_id"]: Holders(row["hold_by_account"], row["hold_by_operator"], row["hold_rule_id"])
        for row in rows
    }
    moved = [one for one in after if after[one] != before[one] or action.kind is Kind.RELEASE]
    held = {one for one in after if after[one].account or after[one].operator}
    if moved:
        await _write(connection, action, {one: after[one] for one in moved})
    releases = action.kind is Kind.RELEASE
    return Applied(
        matched,
        changed=frozenset(one for one in moved if not (releases and one in held)),
        in_flight=frozenset(row["delivery_id"] for row in rows if row["started"] and not releases),
        kept_held=frozenset(held) if releases else frozenset(),
        released=releases and len(held) < len(after),
    )


def _asking(action: Action) -> Asking:
    match action:
        case Action(Kind.HOLD, rule_id=int()):
            return Asking.WHICH_SHOULD_HOLD
        case Action(Kind.RELEASE, rule_id=int()):
            return Asking.WHICH_HOLDS
        case Action(Kind.RELEASE, by_operator=False):
            return Asking.WHICH_HOLDS_IF_RELEASED
        case _:
            return Asking.NOTHING


async def _write(connection: Connection, action: Action, holders: dict[int, Holders]) -> None:
    ids = sorted(holders)
    by_hand = action.kind is Kind.RELEASE and action.rule_id is None
    await connection.execute(
        _SET,
        ids,
        [holders[one].account for one in ids],
        [holders[one].operator for one in ids],
        [holders[one].rule_id for one in ids],
        by_hand,
        by_hand and action.by_operator,
    )


async def _cancel(connection: Connection, action: Action, rows: Sequence[asyncpg.Record]) -> Applied:
    started = [row["delivery_id"] for row in rows if row["started"]]
    waiting = [row["delivery_id"] for row in rows if not row["started"]]
    if started:
        await connection.execute(_ASK_TO_CANCEL, started)
    text = "canceled by an operator" if action.by_operator else "canceled by its account"
    recorded = await outcomes.record(
        connection, [Outcome(one, Source.OPERATOR, EventType.CANCELED, text=text) for one in waiting]
    )
    return Applied(tuple(row["delivery_id"] for row in rows), frozenset(waiting), frozenset(started), recorded=recorded)


async def fail_expired(connection: Connection, *, limit: int = 500) -> tuple[int, Recorded]:
    """End held mail that its sender wanted no later than now; return how many there were. Call it in a transaction."""
    ids = [row["delivery_id"] for row in await connection.fetch(_HELD_TOO_LONG, limit)]
    text = EXPIRED
    recorded = await outcomes.record(
        connection,
        [Outcome(one, Source.OPERATOR, EventType.FAILED, category=Category.TRANSIENT, text=text) for one in ids],
    )
    return len(ids), recorded


async def count_held(connection: Connection) -> int:
    """Return how many deliveries are held, by an index that has only those."""
    count: int = await connection.fetchval("SELECT count(*) FROM delivery_queue WHERE hold")
    return count


_SET = """
WITH moved AS (
    UPDATE delivery_queue q SET hold = n.account OR n.operator, hold_by_account = n.account, hold_by_operator = n.operator, hold_rule_id = n.rule_id,
        released_at = CASE WHEN $5 THEN now() ELSE q.released_at END,
        operator_released_at = CASE WHEN $6 THEN now() ELSE q.operator_released_at END
    FROM unnest($1::bigint[], $2::boolean[], $3::boolean[], $4::bigint[]) AS n (delivery_id, account, operator, rule_id)
    WHERE q.delivery_id = n.delivery_id
    RETURNING q.lane_id, q.hold
)
INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM moved WHERE NOT hold
"""
_ASK_TO_CANCEL = """
UPDATE delivery_queue SET cancel_at = coalesce(cancel_at, now()) WHERE delivery_id = ANY ($1::bigint[])
"""
# What is claimed is for the gate, which says the same. Locked in the order of ids, as everybody does.
_HELD_TOO_LONG = """
SELECT q.delivery_id FROM delivery_queue q
WHERE q.delivery_id = ANY (ARRAY(
        SELECT delivery_id FROM delivery_queue WHERE hold AND expires_at IS NOT NULL AND expires_at <= now() ORDER BY expires_at LIMIT $1))
    AND q.hold AND q.expires_at <= now() AND q.worker_id IS NULL
ORDER BY q.delivery_id FOR UPDATE OF q
"""
