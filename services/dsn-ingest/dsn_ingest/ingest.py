"""Store what came, before anything is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from dsn_ingest.addressing import Owner
from shared.db import inbound
from shared.db.engine import Pool, reachable
from shared.db.ids import IdBlocks
from shared.db.transaction import Bell, transaction
from shared.events import Subject
from shared.smtpd import Envelope


@dataclass(frozen=True, slots=True)
class Addressed:
    """A recipient and its owner."""

    recipient: str
    owner: Owner


class Ingest:
    """Writes raw messages."""

    def __init__(self, pool: Pool, bell: Bell, ids: IdBlocks) -> None:
        self._pool = pool
        self._bell = bell
        self._ids = ids

    async def store(self, envelope: Envelope, recipients: Sequence[Addressed]) -> list[int]:
        """Commit one inbound message for each recipient and return their ids; the 250 may follow.

        Raises:
            DatabaseUnavailable: nothing, or nothing certain, was stored; answer 451 and let the sender try again.
        """
        async with reachable():
            async with self._pool.acquire() as connection:
                ids = await self._ids.take(connection, len(recipients))
            messages = [
                inbound.NewInbound(
                    id=inbound_id,
                    body_id=ids[0],
                    account_id=addressed.owner.account_id,
                    mail_from=envelope.mail_from,
                    recipient=addressed.recipient,
                    remote_ip=envelope.peer_ip,
                    helo=envelope.ehlo_name,
                    size=len(envelope.content),
                    smtputf8=envelope.smtputf8,
                )
                for inbound_id, addressed in zip(ids, recipients, strict=True)
            ]
            async with transaction(self._pool, self._bell) as (connection, rings):
                await inbound.store(connection, messages, envelope.content)
                rings.add(Subject.INBOUND_STORED)
        return ids
