"""Which live deliveries somebody means: all conditions that are given must hold.

Rows are found in two steps, so that neither grows with the backlog: some hundred ids in the order of their keys, from where the
last page ended, then those of them that match, locked in the same order in which everybody locks queue rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any

import asyncpg

from shared.db.engine import Connection
from shared.db.hold_match import holding_rule

_MOMENTS = ("accepted_before", "accepted_after", "due_before", "due_after")


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on live deliveries; what is None does not matter, and with none at all every live delivery is meant."""

    account_id: int | None = None
    """None: of all accounts, which only an operator may say."""
    ids: tuple[int, ...] | None = None
    message_id: int | None = None
    rule_id: int | None = None
    """Held by this rule."""
    held: bool | None = None
    """False: queued, claimed or in flight."""
    tag: str | None = None
    sender: str | None = None
    """The whole address; its case does not matter."""
    sender_domain: str | None = None
    """As A-labels."""
    recipient: str | None = None
    recipient_domain: str | None = None
    accepted_before: datetime | None = None
    accepted_after: datetime | None = None
    due_before: datetime | None = None
    due_after: datetime | None = None
    stream: str | None = None
    """Empty, or that of sandbox keys; None: both, which an operator and a rule mean."""

    @property
    def is_bounded(self) -> bool:
        """Whether it names rows, so that nothing has to be searched."""
        return self.ids is not None or self.message_id is not None

    def to_json(self) -> dict[str, Any]:
        """Return the conditions that are given, for :meth:`from_json`."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        given |= {name: given[name].isoformat() for name in _MOMENTS if name in given}
        return given | ({"held": False} if self.held is False else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Selection":
        """Return what :meth:`to_json` wrote; conditions of a later version are an error, never ignored."""
        values = dict(document)
        values |= {name: datetime.fromisoformat(values[name]) for name in _MOMENTS if name in values}
        if "ids" in values:
            values["ids"] = tuple(values["ids"])
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            message = f"conditions that this version does not know: {', '.join(sorted(unknown))}"
            raise ValueError(message)
        return cls(**values)


_PAGE = "delivery_id > $1 AND delivery_id <= $2 ORDER BY delivery_id LIMIT $3"
_EVERY = f"SELECT delivery_id FROM delivery_queue WHERE {_PAGE}"
_HELD = f"SELECT delivery_id FROM delivery_queue WHERE hold AND {_PAGE}"
_BY_RULE = f"SELECT delivery_id FROM delivery_queue WHERE hold_rule_id = $4 AND {_PAGE}"
_BY_IDS = f"SELECT delivery_id FROM delivery_queue WHERE delivery_id = ANY ($4::bigint[]) AND {_PAGE}"
# OFFSET 0: from the message to its deliveries, and not through all deliveries in the order of their ids.
_BY_MESSAGE = f"""
SELECT delivery_id FROM (
    SELECT q.delivery_id FROM delivery d JOIN delivery_queue q ON q.delivery_id = d.id WHERE d.message_id = $4 OFFSET 0
) of_message WHERE {_PAGE}
"""
_MATCH = """
SELECT q.delivery_id, q.started_at IS NOT NULL AS started, q.cancel_at, q.hold, q.hold_by_account, q.hold_by_operator, q.hold_rule_id,
    rule.id AS rule_id, rule.made_by_operator AS rule_of_operator
FROM delivery_queue q
JOIN delivery d ON d.id = q.delivery_id
JOIN message m ON m.id = d.message_id
CROSS JOIN LATERAL (SELECT d.account_id, m.sender, m.sender_domain, d.recipient, d.recipient_domain) mail
CROSS JOIN LATERAL (SELECT {released} AS released_at, q.operator_released_at) released
{rule}
WHERE q.delivery_id = ANY ($1::bigint[])
    AND ($3::bigint IS NULL OR d.account_id = $3)
    AND ($4::bigint IS NULL OR d.message_id = $4)
    AND ($5::bigint IS NULL OR q.hold_rule_id = $5)
    AND ($6::boolean IS NULL OR q.hold = $6)
    AND ($7::text IS NULL OR m.tags @> ARRAY[$7::text])
    AND ($8::text IS NULL OR lower(m.sender) = lower($8))
    AND ($9::text IS NULL OR m.sender_domain = $9)
    AND ($10::text IS NULL OR lower(d.recipient) = lower($10))
    AND ($11::text IS NULL OR d.recipient_domain = $11)
    AND ($12::timestamptz IS NULL OR d.created_at < $12)
    AND ($13::timestamptz IS NULL OR d.created_at > $13)
    AND ($14::timestamptz IS NULL OR q.due_at < $14)
    AND ($15::timestamptz IS NULL OR q.due_at > $15)
    AND ($16::text IS NULL OR d.stream = $16)
    AND ({also})
ORDER BY q.delivery_id LIMIT $2
FOR UPDATE OF q
"""
_RULE = f"LEFT JOIN LATERAL ({holding_rule('mail', 'released')}) rule ON true"
_NO_RULE = "CROSS JOIN LATERAL (SELECT NULL::bigint AS id, NULL::boolean AS made_by_operator) rule"


class Asking(Enum):
    """What to ask the hold rules about the deliveries that match."""

    NOTHING = _MATCH.format(released="q.released_at", rule=_NO_RULE, also="true")
    WHICH_HOLDS = _MATCH.format(released="q.released_at", rule=_RULE, also="true")
    """Which one holds each now."""
    WHICH_HOLDS_IF_RELEASED = _MATCH.format(released="now()", rule=_RULE, also="true")
    """Which one would hold it if its account released it now."""
    WHICH_SHOULD_HOLD = _MATCH.format(released="q.released_at", rule=_RULE, also="NOT q.hold AND rule.id IS NOT NULL")
    """Only those that one should hold and nobody does: the others are not even locked."""


async def scan(connection: Connection, wanted: Selection, after: int, until: int, limit: int) -> list[int]:
    """Return ids of live deliveries between two ids, in their order, ``limit`` at most: candidates, not matches."""
    page: list[object] = [after, until, limit]
    if wanted.ids is not None:
        rows = await connection.fetch(_BY_IDS, *page, list(wanted.ids))
    elif wanted.message_id is not None:
        rows = await connection.fetch(_BY_MESSAGE, *page, wanted.message_id)
    elif wanted.rule_id is not None:
        rows = await connection.fetch(_BY_RULE, *page, wanted.rule_id)
    else:
        rows = await connection.fetch(_HELD if wanted.held else _EVERY, *page)
    return [row["delivery_id"] for row in rows]


async def lock(
    connection: Connection, wanted: Selection, ids: Sequence[int], limit: int, asking: Asking
) -> list[asyncpg.Record]:
    """Lock the first ``limit`` of some live deliveries that match, and return how they are held.

    Args:
        connection: in a transaction.
        wanted: the conditions.
        ids: from :func:`scan`.
        limit: rows at most.
        asking: what to ask the hold rules about each.
    """
    return await connection.fetch(
        asking.value,
        list(ids),
        limit,
        wanted.account_id,
        wanted.message_id,
        wanted.rule_id,
        wanted.held,
        wanted.tag,
        wanted.sender,
        wanted.sender_domain,
        wanted.recipient,
        wanted.recipient_domain,
        wanted.accepted_before,
        wanted.accepted_after,
        wanted.due_before,
        wanted.due_after,
        wanted.stream,
    )
