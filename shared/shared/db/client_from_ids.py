"""from_ids that clients chose themselves: unique within their account as long as the delivery they name is kept.

They are compared without regard to case, because reports come back through systems that fold the case of local parts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.db.engine import Connection

# Sorted, so that two replicas with the same tokens do not wait for each other in a circle.
_RESERVE = """
INSERT INTO client_from_id (account_id, token, delivery_id)
SELECT account_id, token, delivery_id FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS c (account_id, token, delivery_id)
ORDER BY account_id, token
ON CONFLICT (account_id, token) DO UPDATE SET delivery_id = excluded.delivery_id
WHERE NOT EXISTS (SELECT FROM delivery d WHERE d.id = client_from_id.delivery_id AND (d.keep_until IS NULL OR d.keep_until > now()))
RETURNING delivery_id
"""
_FORGET = "DELETE FROM client_from_id WHERE (account_id, token) IN (SELECT * FROM unnest($1::bigint[], $2::text[]))"
_FIND = "SELECT delivery_id FROM client_from_id WHERE account_id = $1 AND token = $2"


@dataclass(frozen=True, slots=True)
class ClientFromId:
    """A token that a client chose for a delivery."""

    account_id: int
    token: str
    """As it was written."""
    delivery_id: int

    @property
    def folded(self) -> str:
        """The token as it is compared."""
        return self.token.lower()


async def reserve(connection: Connection, chosen: Sequence[ClientFromId]) -> set[int]:
    """Take tokens; return the deliveries whose token is taken: by an earlier delivery, or by one earlier in ``chosen``."""
    first: dict[tuple[int, str], ClientFromId] = {}
    for choice in chosen:
        first.setdefault((choice.account_id, choice.folded), choice)
    wanted = list(first.values())
    if not wanted:
        return set()
    rows = await connection.fetch(
        _RESERVE, [c.account_id for c in wanted], [c.folded for c in wanted], [c.delivery_id for c in wanted]
    )
    return {c.delivery_id for c in chosen} - {row["delivery_id"] for row in rows}


async def forget(connection: Connection, chosen: Collection[ClientFromId]) -> None:
    """Give tokens back: what came with them was refused."""
    if chosen:
        await connection.execute(_FORGET, [c.account_id for c in chosen], [c.folded for c in chosen])


async def find(connection: Connection, account_id: int, token: str) -> int | None:
    """Return the delivery of an account that a client gave this token, in whatever case it is written."""
    delivery_id: int | None = await connection.fetchval(_FIND, account_id, token.lower())
    return delivery_id
