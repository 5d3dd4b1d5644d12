"""Whose is a recipient? From_id addresses belong to their delivery, the others to the account of their address.

A from_id that was made here is looked at first: nobody can guess it. One that a client chose counts only at a domain that its own
account has proven, so nobody comes by another account's reports by choosing the same.
"""

from dataclasses import dataclass

from shared.db import client_from_ids
from shared.db.engine import Connection
from shared.errors import AddressInvalid
from shared.mail.address import Address, canonical, parse
from shared.mail.from_id import FromIds, token_of

_LOCAL_DOMAIN = "posthouse.test"
_DELIVERY = "SELECT account_id, mail_from FROM delivery WHERE id = $1 AND from_id IS NOT NULL"
_DOMAINS = """
SELECT d.id, d.account_id, d.catchall_separators, d.name = $1 AS own FROM domain d
WHERE (d.name = $1 OR d.bounce_domain = $1) AND (d.verified_at IS NOT NULL OR $2) ORDER BY own DESC, d.verified_at NULLS LAST, d.id
"""
_ADDRESS = (
    "SELECT account_id FROM address WHERE domain_id = $1 AND local = ANY ($2::text[]) ORDER BY local DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who gets what arrives for a recipient."""

    account_id: int
    delivery_id: int | None
    """The delivery whose return path the recipient is."""


class Addressing:
    """Finds the owners of recipients.

    Args:
        from_ids: reads the tokens of return paths.
        local: in local mode every recipient belongs to somebody: to the sender's account, else to the demo account.
    """

    def __init__(self, from_ids: FromIds, *, local: bool) -> None:
        self._from_ids = from_ids
        self._local = local

    async def owner(self, connection: Connection, recipient: str) -> Owner | None:
        """Return who gets mail for ``recipient``, None where nobody here does.

        A token that was not made here, or not for this delivery, is no token: the address is looked up like any other.
        """
        address = _parsed(recipient)
        if address is None:
            return None
        rows = await connection.fetch(_DOMAINS, address.domain, self._local)
        owner = await self._delivery(connection, address) if rows else None
        if owner is not None and any(row["account_id"] == owner.account_id for row in rows):
            return owner
        for row in rows:
            if not row["own"]:
                continue
            delivery_id = await client_from_ids.find(connection, row["account_id"], address)
            if delivery_id is not None:
                return Owner(row["account_id"], delivery_id)
            local = canonical(Address(address.local.lower(), address.domain), row["catchall_separators"]).local
            account_id = await connection.fetchval(_ADDRESS, row["id"], [local, ""])
            if account_id is not None:
                return Owner(account_id, None)
        return None

    async def fallback(self, connection: Connection, mail_from: str) -> Owner | None:
        """Return whom mail for a stranger goes to in local mode: the account that sent it, else the demo account."""
        if not self._local:
            return None
        sender = await self.owner(connection, mail_from) if mail_from else None
        if sender is not None:
            return Owner(sender.account_id, None)
        row = await connection.fetchrow(_DOMAINS, _LOCAL_DOMAIN, True)
        return Owner(row["account_id"], None) if row is not None else None

    async def _delivery(self, connection: Connection, address: Address) -> Owner | None:
        token = token_of(address.local)
        delivery_id = self._from_ids.read(token) if token is not None else None
        if token is None or delivery_id is None:
            return None
        row = await connection.fetchrow(_DELIVERY, delivery_id)
        sent_from = _parsed(row["mail_from"]) if row is not None else None
        # After a change of keys an old token may read as another delivery's id; that one went out with another.
        if row is None or sent_from is None or token_of(sent_from.local.lower()) != token.lower():
            return None
        return Owner(row["account_id"], delivery_id)


def _parsed(text: str) -> Address | None:
    try:
        return parse(text)
    except AddressInvalid:
        return None
