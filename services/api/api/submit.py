"""The one use case of this service: take a submission, of whatever door, and answer once it is safe.

What is refused changes nothing. What is answered with ids is committed: the message, one delivery for each recipient in the
order To, Cc, Bcc, and its place in the queue.
"""

import asyncio
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from api.metrics import ApiMetrics
from api.submission import Disposition, Limits, Party, Submission, check, message_too_large
from api.writer import Item, Writer
from shared import log
from shared.clock import Clock, monotonic, utc_now
from shared.db.accept import NewDelivery, NewMessage
from shared.db.domains import SenderDomain, sender_allowed
from shared.db.engine import Connection, Pool, reachable
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes, SiteName
from shared.errors import FromNotAllowed, PosthouseError, ValidationFailed
from shared.lifecycle import DeliveryState
from shared.mail import headers
from shared.mail.address import mox_key, parse, suppression_key
from shared.mail.compose import Composed, Draft, Mailbox, Part, compose
from shared.mail.from_id import FromIds, return_path

_LOOP_MAY_COMPOSE = 64 * 1024
"""Octets; composing more would keep other requests waiting, and is done in a thread."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation decides about submissions."""

    hostname: str
    relay: str | None
    """``host:port`` that all mail goes through."""
    unverified_domains: bool
    """Whether a domain may be sent from that is not proven: in the local stack only."""
    limits: Limits
    from_ids: FromIds
    """Makes the tokens of return paths."""


@dataclass(frozen=True, slots=True)
class SubmittedDelivery:
    """One recipient of an accepted message."""

    id: int
    recipient: str
    from_id: str | None
    state: DeliveryState


@dataclass(frozen=True, slots=True)
class Submitted:
    """An accepted message."""

    id: int
    message_id: str
    """The Message-ID header, with its angle brackets."""
    deliveries: tuple[SubmittedDelivery, ...]


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
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._pool, self._writer = pool, writer
        self._rules, self._metrics = rules, metrics
        self._now, self._random = now, random
        self._ids = IdBlocks()
        self._lanes = Lanes()

    async def submit(self, submission: Submission) -> Submitted:
        """Check, compose and store a submission.

        Raises:
            BadInput: what is wrong with it, with the field in the error.
            Unavailable: it was not stored (or nobody can tell; the text says so); later it may be.
        """
        begun = monotonic()
        line = log.get(__name__).bind(
            account_id=submission.account_id,
            credential_id=submission.credential_id,
            door=submission.door,
            recipients=len(submission.recipients),
            files=len(submission.files),
        )
        try:
            submitted, size = await self._submit(submission)
        except PosthouseError as error:
            self._metrics.submissions.labels(submission.door, error.code).inc()
            line.info("submission_refused", field=error.field, milliseconds=_since(begun), outcome=error.code)
            raise
        states = [delivery.state for delivery in submitted.deliveries]
        for state in set(states):
            self._metrics.deliveries.labels(state.value).inc(states.count(state))
        self._metrics.submissions.labels(submission.door, "accepted").inc()
        line.info(
            "submitted",
            message=submitted.id,
            size=size,
            suppressed=states.count(DeliveryState.SUPPRESSED),
            milliseconds=_since(begun),
            outcome="accepted",
        )
        return submitted

    async def check_sender(self, submission: Submission) -> None:
        """Check nothing but whether the credential may use this From, for a door that has to refuse that first.

        Raises:
            AddressInvalid: From is no address.
            FromNotAllowed: it may not; the fact ``domain_disabled`` where its domain is switched off.
        """
        if submission.sender is not None:
            async with reachable(), self._pool.acquire() as connection:
                await self._sender_domain(connection, submission, _mailbox(submission.sender))

    async def _submit(self, submission: Submission) -> tuple[Submitted, int]:
        check(submission, self._rules.limits)
        draft = self._draft(submission)
        bcc = _mailboxes(submission.bcc)
        recipients = (*draft.to, *draft.cc, *bcc)
        sites = {mailbox.address.domain: self._site(mailbox) for mailbox in recipients}
        async with reachable(), self._pool.acquire() as connection:
            domain = await self._sender_domain(connection, submission, draft.sender)
            message_id, *delivery_ids = await self._ids.take(connection, 1 + len(recipients))
            lanes = {
                site: await self._lanes.find(connection, site, submission.account_id) for site in set(sites.values())
            }
        composed = await self._compose(submission, draft)
        deliveries = tuple(
            self._delivery(
                delivery_id,
                mailbox,
                lanes[sites[mailbox.address.domain]],
                _ReturnPath(submission, draft.sender, domain),
            )
            for delivery_id, mailbox in zip(delivery_ids, recipients, strict=True)
        )
        message = self._message(message_id, submission, draft, composed, deliveries)
        if len(message.content) > self._rules.limits.message_bytes:
            raise message_too_large(len(message.content), self._rules.limits)
        suppressed = await self._writer.write(Item(message, frozenset(site.key for site in lanes)))
        told = tuple(
            SubmittedDelivery(
                d.id, d.recipient, d.from_id, DeliveryState.SUPPRESSED if d.id in suppressed else DeliveryState.QUEUED
            )
            for d in deliveries
        )
        return Submitted(message_id, draft.message_id, told), len(message.content)

    def _draft(self, submission: Submission) -> Draft:
        if submission.sender is None:
            raise ValidationFailed("the message names no sender", field="from")
        message_id = submission.message_id or headers.message_id(self._random(16), self._rules.hostname)
        return Draft(
            sender=_mailbox(submission.sender),
            to=_mailboxes(submission.to),
            cc=_mailboxes(submission.cc),
            reply_to=_mailboxes(submission.reply_to),
            subject=submission.subject,
            text=submission.text,
            html=submission.html,
            message_id=message_id,
            date=submission.date or self._now(),
            references=submission.references,
            headers=submission.headers,
            alternatives=_parts(submission, "alternative"),
            inline=_parts(submission, "inline"),
            attachments=_parts(submission, "attachment"),
            user_agent=submission.user_agent,
        )

    async def _sender_domain(self, connection: Connection, submission: Submission, sender: Mailbox) -> SenderDomain:
        address, field = sender.address, _sender_field(submission)
        domain = await sender_allowed(
            connection,
            submission.account_id,
            submission.credential_kind,
            address,
            unverified=self._rules.unverified_domains,
        )
        if domain is None and submission.credential_kind == "login":
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
        return domain

    async def _compose(self, submission: Submission, draft: Draft) -> Composed:
        def run() -> Composed:
            return compose(draft, boundaries=lambda: self._random(30).hex())

        try:
            return await asyncio.to_thread(run) if submission.weight > _LOOP_MAY_COMPOSE else run()
        except ValidationFailed as error:
            raise _in_terms_of(submission, error) from None

    def _site(self, mailbox: Mailbox) -> SiteName:
        if self._rules.relay is not None:
            return SiteName("relay", self._rules.relay)
        return SiteName("domain", mailbox.address.domain)

    def _delivery(self, delivery_id: int, mailbox: Mailbox, lane_id: int, path: "_ReturnPath") -> NewDelivery:
        from_id = self._rules.from_ids.make(delivery_id) if path.submission.uses_from_ids else None
        address = mailbox.address
        return NewDelivery(
            id=delivery_id,
            mail_from=path.text(from_id),
            from_id=from_id,
            recipient=address.text,
            recipient_domain=address.domain,
            recipient_key=suppression_key(address),
            mox_key=mox_key(address),
            lane_id=lane_id,
            due_at=path.submission.send_at,
        )

    def _message(
        self,
        message_id: int,
        submission: Submission,
        draft: Draft,
        composed: Composed,
        deliveries: tuple[NewDelivery, ...],
    ) -> NewMessage:
        header = self._received(message_id, submission) + composed.header
        return NewMessage(
            id=message_id,
            account_id=submission.account_id,
            door=submission.door,
            credential_id=submission.credential_id,
            message_id=draft.message_id,
            sender=draft.sender.address.text,
            sender_domain=draft.sender.address.domain,
            subject=draft.subject,
            header_size=len(header),
            content=b"".join((header, b"\r\n", composed.body)),
            smtputf8=composed.smtputf8,
            require_tls=submission.require_tls,
            extra=orjson.dumps(dict(submission.extra)).decode() if submission.extra else None,
            tags=submission.tags or None,
            deliveries=deliveries,
        )

    def _received(self, message_id: int, submission: Submission) -> bytes:
        """Return our trace field (RFC 5321 4.4, RFC 5322 3.6.7): neither the client's address nor a recipient is anybody's business."""
        moment = headers.date(self._now())
        return f"Received: by {self._rules.hostname} with {submission.protocol} id {message_id};\r\n\t{moment}\r\n".encode()


@dataclass(frozen=True, slots=True)
class _ReturnPath:
    """Where the deliveries of one submission come back to."""

    submission: Submission
    sender: Mailbox
    domain: SenderDomain

    def text(self, from_id: str | None) -> str:
        """Return MAIL FROM with a from_id, or the plain sender without one."""
        if from_id is None:
            return self.sender.address.text
        separator = self.domain.separators[0]
        try:
            return return_path(
                self.sender.address, from_id, separator=separator, bounce_domain=self.domain.bounce_domain
            )
        except ValidationFailed as error:
            raise ValidationFailed(error.message, field=_sender_field(self.submission)) from None


def _mailbox(party: Party) -> Mailbox:
    return Mailbox(party.name, parse(party.address, field=party.field))


def _mailboxes(parties: Iterable[Party]) -> tuple[Mailbox, ...]:
    return tuple(_mailbox(party) for party in parties)


def _sender_field(submission: Submission) -> str:
    return submission.sender.field if submission.sender is not None else "from"


def _parts(submission: Submission, disposition: Disposition) -> tuple[Part, ...]:
    return tuple(
        Part(file.filename, file.content_type, file.content, file.content_id)
        for file in submission.files
        if file.disposition == disposition
    )


_LISTS: Final[dict[str, Disposition]] = {
    "alternatives": "alternative",
    "inline": "inline",
    "attachments": "attachment",
}
"""What a draft calls its lists of files."""


def _in_terms_of(submission: Submission, error: ValidationFailed) -> ValidationFailed:
    """Return an error about a draft's file as one about the submission's, which has one list for all kinds."""
    found = re.fullmatch(r"(\w+)\[(\d+)\](.*)", error.field or "")
    if found is None or found[1] not in _LISTS:
        return error
    files = [
        file.field or f"attachments[{place}]"
        for place, file in enumerate(submission.files)
        if file.disposition == _LISTS[found[1]]
    ]
    return ValidationFailed(error.message, field=files[int(found[2])] + found[3], facts=error.facts)


def _since(begun: float) -> float:
    return round((monotonic() - begun) * 1000, 1)
