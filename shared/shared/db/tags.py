"""Which messages of a stream have some tags: walked from the newest down, index entry by index entry.

A step asks each tag for its newest message at or below the place reached, and goes on at the oldest of these: where all are the
same, the message has them all. So the rarest tag decides how many steps there are, and neither the length of the history nor a
frequent tag beside it costs anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.db import inputs
from shared.db.engine import Connection
from shared.errors import ValidationFailed

MOST_TAGS = 20
STEPS = 2_000
"""Of one walk; tags that are frequent and never together give few messages and a place to go on, never a slow query."""

_TAG_CHARACTERS = 1_000
_WALK = """
WITH RECURSIVE walk AS (
    SELECT 0 AS step, 0 AS found, false AS hit, $3::bigint AS at
    UNION ALL
    SELECT walk.step + 1, walk.found + (low = high)::integer, low = high, low - (low = high)::integer
    FROM walk CROSS JOIN LATERAL (
        SELECT min(newest.message_id) AS low, max(newest.message_id) AS high, count(newest.message_id) AS n
        FROM unnest($2::text[]) AS wanted (tag) LEFT JOIN LATERAL (
            SELECT message_id FROM message_tag t WHERE t.account_id = $1 AND t.stream = $6 AND t.tag = wanted.tag AND t.message_id <= walk.at
            ORDER BY t.message_id DESC LIMIT 1
        ) newest ON true
    ) near
    WHERE walk.step < $5 AND walk.found < $4 AND near.n = cardinality($2)
)
SELECT step, found, hit, at FROM walk ORDER BY step
"""


@dataclass(frozen=True, slots=True)
class Tagged:
    """Some messages, the newest first."""

    message_ids: list[int]
    next_id: int | None
    """The walk may go on here; None: there are no more."""


async def tagged_messages(
    connection: Connection, account_id: int, tags: Sequence[str], *, stream: str = "", newest: int, limit: int
) -> Tagged:
    """Return at most ``limit`` messages of a stream with an id up to ``newest`` that have all the tags.

    Raises:
        ValidationFailed: there are too many tags, or one cannot be stored.
    """
    wanted = list(dict.fromkeys(tags))
    if len(wanted) > MOST_TAGS:
        raise ValidationFailed(f"at most {MOST_TAGS} tags can be asked for at once, not {len(wanted)}", field="tag")
    for tag in wanted:
        inputs.text(tag, field="tag", longest=_TAG_CHARACTERS)
    rows = await connection.fetch(_WALK, account_id, wanted, newest, limit, STEPS, stream)
    last = rows[-1]
    ended = last["step"] < STEPS and last["found"] < limit
    return Tagged([row["at"] + 1 for row in rows if row["hit"]], None if ended else last["at"])
