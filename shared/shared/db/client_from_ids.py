"""from_ids that clients chose themselves: unique within their account as long as the delivery they name is kept.

They are compared without regard to case, because reports come back through systems that fold the case of local parts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.db.engine import Connection
from shared.mail.address import Address

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
_FIND = """
SELECT d.id FROM client_from_id c JOIN delivery d ON d.id = c.delivery_id
WHERE c.account_id = $1 AND c.token = ANY ($2::text[]) AND d.account_id = $1 AND lower(d.mail_from) = lower($3) ORDER BY d.id DESC LIMIT 1
"""


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


async def find(connection: Connection, account_id: int, recipient: Address) -> int | None:
    """Return the delivery of an account that went out with this return path, in whatever case it is written.

    A token that anybody could guess is not enough: the whole address has to be the one that was sent from. Where in it the
    token begins is not asked of today's separators, they may have been others.
    """
    local = recipient.local.lower()
    tokens = [local[place:] for place in range(1, len(local)) if not local[place - 1].isalnum()]
    if not tokens:
        return None
    delivery_id: int | None = await connection.fetchval(_FIND, account_id, tokens, recipient.text)
    return delivery_id
