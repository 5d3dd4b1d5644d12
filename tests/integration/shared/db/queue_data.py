"""Rows for tests of the queue, written the way the accepting transaction writes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shared.db import accept, workers
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes, SiteName

if TYPE_CHECKING:
    import asyncpg


@dataclass
class Mailroom:
    """Accepts plain messages for one account."""

    connection: asyncpg.Connection
    account_id: int = 0
    lanes: Lanes = field(default_factory=Lanes)
    ids: IdBlocks = field(default_factory=IdBlocks)

    async def open(self, name: str = "acme") -> Mailroom:
        self.account_id = await self.connection.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", name)
        return self

    async def messages(
        self, recipients: list[str], *, content: bytes = b"Subject: hi\r\n\r\nbody\r\n", site: SiteName | None = None
    ) -> list[accept.NewMessage]:
        """One message with one delivery for each recipient, not stored yet."""
        made = []
        for recipient in recipients:
            domain = recipient.rpartition("@")[2]
            lane_id = await self.lanes.find(self.connection, site or SiteName("domain", domain), self.account_id)
            message_id, delivery_id = await self.ids.take(self.connection, 2)
            delivery = accept.NewDelivery(
                delivery_id, "me@ours.test", None, recipient, domain, recipient, recipient, lane_id
            )
            made.append(
                accept.NewMessage(
                    message_id, self.account_id, "rest", None, f"<{message_id}@ours.test>", "me@ours.test", "ours.test", "hi",
                    content.index(b"\r\n\r\n") + 2, content, False, None, None, (delivery,),
                )
            )  # fmt: skip
        return made

    async def one_message(self, recipients: list[str], *, site: SiteName, **options: object) -> accept.NewMessage:
        """One message to all the recipients, not stored yet; ``due_at`` is of its deliveries, the rest of the message."""
        due_at = options.pop("due_at", None)
        alone = await self.messages(recipients, site=site)
        deliveries = tuple(replace(message.deliveries[0], due_at=due_at) for message in alone)  # type: ignore[arg-type] # a time
        return replace(alone[0], deliveries=deliveries, send_at=due_at, **options)  # type: ignore[arg-type] # passed on

    async def accept(self, recipients: list[str]) -> list[int]:
        """Store one message for each recipient; return the delivery ids."""
        return await self.store(await self.messages(recipients))

    async def store(self, messages: list[accept.NewMessage]) -> list[int]:
        """Store messages; return the delivery ids."""
        async with self.connection.transaction():
            await accept.accept(self.connection, messages)
        return [message.deliveries[0].id for message in messages]


async def new_worker(connection: asyncpg.Connection, service: str = "delivery") -> int:
    return await workers.register(connection, service=service, version="test", host="test", pid=1)
