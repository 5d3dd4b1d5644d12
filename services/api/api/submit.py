"""The one use case of this service: take a submission, of whatever door, and answer once it is safe.

What is refused changes nothing. What is answered with ids is committed: the message, one delivery for each recipient in the
order To, Cc, Bcc, and its place in the queue.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import orjson

from api import idempotency
from api.metrics import ApiMetrics
from api.prepare import Makings, Prepared, Random, prepare, sender_of
from api.return_path import ReturnPath
from api.submission import Limits, Submission, check, check_times, message_too_large
from api.writer import Item, Writer
from shared import log
from shared.clock import Clock, monotonic, utc_now
from shared.db.accept import AcceptedMessage, NewDelivery, NewMessage
from shared.db.domains import SenderDomain, sender_allowed
from shared.db.engine import Connection, Pool, reachable
from shared.db.idempotency import IdempotencyKey, is_taken
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes, SiteName
from shared.db.providers import Providers
from shared.db.routing import Parcel, Routing, RoutingTable
from shared.errors import FromNotAllowed, PosthouseError, ValidationFailed
from shared.lifecycle import DeliveryState
from shared.mail import headers
from shared.mail.address import mox_key, suppression_key
from shared.mail.compose import Composed, Mailbox
from shared.mail.from_id import FromIds

T = TypeVar("T")

_LOOP_MAY_COMPOSE = 64 * 1024
"""Octets; composing more would keep other requests waiting, and is done in a thread."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation decides about submissions."""

    hostname: str
    relay: str | None
    """``host:port`` that mail goes through which no route is about."""
    routing: Routing
    """Routes and transports. Its copy may be a moment old: delivery looks again before it dials."""
    unverified_domains: bool
    """Whether a domain may be sent from that is not proven: in the local stack only."""
    limits: Limits
    from_ids: FromIds
    """Makes the tokens of return paths."""


class Submitter:
    """Takes submissions.

    Args:
        pool: for what is asked before anything is stored.
        writer: stores.
        rules: of the installation.
        metrics: counts.
        now: for Date and Received.
        random: for Message-IDs and MIME boundaries.
    """

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        rules: Rules,
        metrics: ApiMetrics,
        *,
        now: Clock = utc_now,
        random: Random = os.urandom,
    ) -> None:
        self._pool, self._writer = pool, writer
        self._rules, self._metrics = rules, metrics
        self._now, self._random = now, random
        self._ids = IdBlocks()
        self._lanes = Lanes()
        self._providers = Providers()

    async def submit(self, submission: Submission) -> AcceptedMessage:
        """Check, compose and store a submission.

        Raises:
            BadInput: what is wrong with it, with the field in the error; IdempotencyConflict where its key was used for another.
            LimitReached: its account may not send it now.
            Unavailable: it was not stored (or nobody can tell; the text says so); later it may be.
        """
        begun = monotonic()
        line = log.get(__name__).bind(
            account_id=submission.caller.account_id,
            credential_id=submission.caller.credential_id,
            door=submission.door,
            recipients=len(submission.recipients),
            files=len(submission.files),
        )
        try:
            accepted, size = await self._submit(submission)
        except PosthouseError as error:
            line.info("submission_refused", field=error.field, milliseconds=_since(begun), outcome=error.code)
            raise
        states = [delivery.state for delivery in accepted.deliveries]
        outcome = "repeated" if accepted.replayed else "accepted"
        if not accepted.replayed:
            for state in set(states):
                self._metrics.deliveries.labels(state.value).inc(states.count(state))
        self._metrics.submissions.labels(submission.door, outcome).inc()
        line.info(
            "submitted",
            message=accepted.id,
            size=size,
            suppressed=states.count(DeliveryState.SUPPRESSED),
            held=states.count(DeliveryState.HELD),
            milliseconds=_since(begun),
            outcome=outcome,
        )
        return accepted

    async def check_sender(self, submission: Submission) -> None:
        """Check nothing but whether the credential may use this From, for a door that has to refuse that first.

        Raises:
            AddressInvalid: From is no address.
            FromNotAllowed: it may not; the fact ``domain_disabled`` where its domain is switched off.
        """
        if submission.sender is not None:
            async with reachable(), self._pool.acquire() as connection:
                await self._sender_domain(connection, submission, sender_of(submission), submission.sender.field)

    async def _submit(self, submission: Submission) -> tuple[AcceptedMessage, int]:
        check(submission, self._rules.limits)
        # The whole of a raw message is read at once; parts are composed once it is sure that their sender may send.
        message = await self._aside(
            len(submission.raw or b""),
            lambda: prepare(submission, self._rules.limits, Makings(self._now(), self._rules.hostname, self._random)),
        )
        await self._check_times(submission, message)
        async with reachable(), self._pool.acquire() as connection:
            domain = await self._sender_domain(connection, submission, message.sender, message.sender_field)
            table = await self._rules.routing.known(connection)
            sites = await self._sites(connection, table, submission, message)
            message_id, *delivery_ids = await self._ids.take(connection, 1 + len(message.recipients))
            lanes = {
                site: await self._lanes.find(connection, site, submission.caller.account_id)
                for site in set(sites.values())
            }
        path = ReturnPath.of(submission, message, domain, self._rules.from_ids)
        deliveries = tuple(
            self._delivery(delivery_id, mailbox, lanes[sites[mailbox.address.domain]], path, submission.send_at)
            for delivery_id, mailbox in zip(delivery_ids, message.recipients, strict=True)
        )
        composed, key = await self._composed(submission, message)
        row = self._message(message_id, submission, message, composed, deliveries, key=key)
        if len(row.content) > self._rules.limits.message_bytes:
            raise message_too_large(len(row.content), self._rules.limits)
        return await self._writer.write(Item(row, frozenset(site.key for site in lanes))), len(row.content)

    async def _check_times(self, submission: Submission, message: Prepared) -> None:
        try:
            check_times(submission, message.expires_at, self._now())
        except ValidationFailed:
            # What comes again gets the answer of the first time, even where its times have passed since.
            key = idempotency.text_of(submission)
            if key is None:
                raise
            async with reachable(), self._pool.acquire() as connection:
                if not await is_taken(connection, submission.caller.account_id, key):
                    raise

    async def _sender_domain(
        self, connection: Connection, submission: Submission, sender: Mailbox, field: str
    ) -> SenderDomain:
        address = sender.address
        domain = await sender_allowed(
            connection,
            submission.caller.account_id,
            submission.caller.kind,
            address,
            unverified=self._rules.unverified_domains,
        )
        if domain is None and submission.caller.kind == "login":
            raise FromNotAllowed(
                "a login sends from the addresses of its account only, and this is none of them", field=field
            )
        if domain is None:
            raise FromNotAllowed(
                f"{address.domain_unicode} is not a verified domain of this account: add it and publish its DNS records, or send from one that is",
                field=field,
            )
        if domain.disabled:
            raise FromNotAllowed(
                f"sending from {address.domain_unicode} is switched off; ask the operator",
                field=field,
                facts={"domain_disabled": True},
            )
        if domain.unsigned:
            raise FromNotAllowed(
                f"{address.domain_unicode} requires DKIM signatures, and no key of it is active; ask the operator",
                field=field,
                facts={"dkim_key_missing": True},
            )
        return domain

    async def _composed(self, submission: Submission, message: Prepared) -> tuple[Composed, IdempotencyKey | None]:
        return await self._aside(submission.weight, lambda: (message.compose(), idempotency.key_of(submission)))

    @staticmethod
    async def _aside(weight: int, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work) if weight > _LOOP_MAY_COMPOSE else work()

    async def _sites(
        self, connection: Connection, table: RoutingTable, submission: Submission, message: Prepared
    ) -> dict[str, SiteName]:
        """Return the next hop of each recipient domain."""
        account_id, sender_domain = submission.caller.account_id, message.sender.address.domain
        sites = {
            domain: table.site(
                Parcel(account_id, sender_domain, domain, is_test=submission.caller.is_test), self._rules.relay
            )
            for domain in {mailbox.address.domain for mailbox in message.recipients}
        }
        known = await self._providers.find(connection, [name for name in sites if sites[name].kind == "domain"])
        return sites | {domain: SiteName("mx", provider) for domain, provider in known.items()}

    @staticmethod
    def _delivery(
        delivery_id: int, mailbox: Mailbox, lane_id: int, path: ReturnPath, due_at: datetime | None
    ) -> NewDelivery:
        mail_from, from_id = path.named(delivery_id)
        address = mailbox.address
        return NewDelivery(
            id=delivery_id,
            mail_from=mail_from,
            from_id=from_id,
            recipient=address.text,
            recipient_domain=address.domain,
            recipient_key=suppression_key(address),
            mox_key=mox_key(address),
            lane_id=lane_id,
            due_at=due_at,
            client_chose_from_id=path.chosen is not None,
        )

    def _message(
        self,
        message_id: int,
        submission: Submission,
        message: Prepared,
        composed: Composed,
        deliveries: tuple[NewDelivery, ...],
        *,
        key: IdempotencyKey | None,
    ) -> NewMessage:
        header = self._received(message_id, message.recipients) + composed.header
        return NewMessage(
            id=message_id,
            account_id=submission.caller.account_id,
            door=submission.door,
            credential_id=submission.caller.credential_id,
            message_id=message.message_id,
            sender=message.sender.address.text,
            sender_domain=message.sender.address.domain,
            subject=message.subject,
            header_size=len(header),
            content=b"".join((header, b"\r\n", composed.body)),
            # RFC 6531 section 3.4: an address of the envelope needs it as much as one in the header.
            smtputf8=composed.smtputf8 or not all(mailbox.address.is_ascii for mailbox in message.recipients),
            require_tls=submission.require_tls,
            extra=orjson.dumps(dict(message.extra)).decode() if message.extra else None,
            tags=message.tags or None,
            deliveries=deliveries,
            send_at=submission.send_at,
            expires_at=message.expires_at,
            save_sent=message.save_sent,
            bcc=headers.address_list("Bcc", message.bcc, utf8=composed.smtputf8).decode()
            if message.save_sent and message.bcc
            else None,
            is_test=submission.caller.is_test,
            idempotency=key,
        )

    def _received(self, message_id: int, recipients: Sequence[Mailbox]) -> bytes:
        """Return our trace field (RFC 5321 4.4, RFC 5322 3.6.7): it tells nobody the client's address, another recipient's, or the door."""
        lines = [f"Received: by {self._rules.hostname} id {message_id}"]
        if len(recipients) == 1:
            lines.append(f"for <{recipients[0].address.text}>")
        return "\r\n\t".join([*lines[:-1], lines[-1] + ";", headers.date(self._now()) + "\r\n"]).encode()


def _since(begun: float) -> float:
    return round((monotonic() - begun) * 1000, 1)
