"""Idempotency keys: the first submission with a key wins, and every other one gets its answer.

Runs inside the accepting transaction. Two replicas may come with the same keys at once: whoever is second waits in ``INSERT``
for the first to commit, and then finds its answer; both insert in the order of (account, key), so that neither waits for the
other in a circle.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from shared.db.engine import Connection

KEPT = timedelta(hours=24)
"""For so long a key stands for its first submission."""

_SWEPT_LATER = timedelta(hours=1)
"""A row is swept so long after it ended, so that nobody who has just found its key misses its answer."""

_RESERVE = """
INSERT INTO idempotency (account_id, key, digest)
SELECT account_id, key, digest FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS k (account_id, key, digest)
ORDER BY account_id, key
ON CONFLICT (account_id, key) DO UPDATE SET digest = excluded.digest, answer = NULL, created_at = now()
WHERE idempotency.created_at <= now() - $4::interval
RETURNING account_id, key
"""
# A statement of its own: only a new snapshot shows what the winner has committed since.
_FIRST = """
SELECT i.account_id, i.key, i.digest, i.answer::text AS answer
FROM unnest($1::bigint[], $2::text[]) AS k (account_id, key) JOIN idempotency i USING (account_id, key)
"""
_TAKEN = (
    "SELECT EXISTS (SELECT FROM idempotency WHERE account_id = $1 AND key = $2 AND created_at > now() - $3::interval)"
)
_ANSWER = """
UPDATE idempotency i SET answer = a.answer::jsonb
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS a (account_id, key, answer)
WHERE i.account_id = a.account_id AND i.key = a.key
"""
_FORGET = """
DELETE FROM idempotency i USING unnest($1::bigint[], $2::text[]) AS k (account_id, key)
WHERE i.account_id = k.account_id AND i.key = k.key
"""
_SWEEP = """
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE created_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key of an account, and what was submitted with it."""

    account_id: int
    text: str
    digest: bytes
    """Of everything that makes the submission what it is; another digest under the same key is a conflict."""

    @property
    def name(self) -> tuple[int, str]:
        """What is unique."""
        return self.account_id, self.text


@dataclass(frozen=True, slots=True)
class First:
    """The first submission with a key."""

    digest: bytes
    answer: Mapping[str, Any]


async def reserve(connection: Connection, keys: Sequence[IdempotencyKey]) -> dict[tuple[int, str], First]:
    """Take keys, no two of which are the same; return those that are taken already, with their first submission."""
    if not keys:
        return {}
    rows = await connection.fetch(
        _RESERVE, [k.account_id for k in keys], [k.text for k in keys], [k.digest for k in keys], KEPT
    )
    ours = {(row["account_id"], row["key"]) for row in rows}
    others = [key for key in keys if key.name not in ours]
    if not others:
        return {}
    rows = await connection.fetch(_FIRST, [k.account_id for k in others], [k.text for k in others])
    return {(row["account_id"], row["key"]): First(row["digest"], orjson.loads(row["answer"])) for row in rows}


async def is_taken(connection: Connection, account_id: int, text: str) -> bool:
    """Say whether a key stands for a submission that was made."""
    return bool(await connection.fetchval(_TAKEN, account_id, text, KEPT))


async def answer(connection: Connection, answers: Sequence[tuple[IdempotencyKey, Mapping[str, Any]]]) -> None:
    """Note what was answered to reserved keys."""
    if answers:
        await connection.execute(
            _ANSWER,
            [key.account_id for key, _ in answers],
            [key.text for key, _ in answers],
            [orjson.dumps(document).decode() for _, document in answers],
        )


async def forget(connection: Connection, keys: Collection[IdempotencyKey]) -> None:
    """Give reserved keys back: what came with them was refused, and may be tried again."""
    if keys:
        await connection.execute(_FORGET, [k.account_id for k in keys], [k.text for k in keys])


async def sweep(connection: Connection, *, limit: int) -> int:
    """Delete at most ``limit`` keys whose time is over; return how many there were."""
    status = await connection.execute(_SWEEP, KEPT + _SWEPT_LATER, limit)
    return int(status.split()[-1])
