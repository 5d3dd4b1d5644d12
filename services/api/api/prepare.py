"""From a submission to what is stored: addresses parsed, and the bytes either composed from parts or taken from a raw message.

What is heavy is not done here but by ``compose``, so that the caller may do it in a thread, and after it is sure of the sender.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.metadata import extra as extra_of
from api.metadata import options as options_of
from api.submission import (
    Disposition,
    Limits,
    Party,
    Submission,
    check_extra,
    check_recipients,
    check_tags,
)
from shared.errors import ValidationFailed
from shared.mail import headers
from shared.mail.address import Address, parse
from shared.mail.compose import Composed, Draft, Mailbox, Part, compose
from shared.mail.raw import read_raw

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Makings:
    """What a message needs that its sender did not give."""

    now: datetime
    hostname: str
    random: Random

    def message_id(self) -> str:
        """Return a new Message-ID."""
        return headers.message_id(self.random(16), self.hostname)

    def boundary(self) -> str:
        """Return a new MIME boundary."""
        return self.random(30).hex()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message whose sender and recipients are known."""

    sender: Mailbox
    sender_field: str
    """Where in the input the sender stands."""
    mail_from: Address | None
    """The return path, before a from_id is put into it; None: the null reverse-path (RFC 5321 section 4.5.5)."""
    recipients: tuple[Mailbox, ...]
    """In the order To, Cc, Bcc."""
    subject: str
    message_id: str
    bcc: tuple[Mailbox, ...]
    """Those that the header does not name, for the copy in Sent."""
    extra: Mapping[str, str]
    """What comes back with every event, like the tags."""
    tags: tuple[str, ...]
    expires_at: datetime | None
    save_sent: bool
    compose: Callable[[], Composed]
    """Makes the bytes. Raises ValidationFailed in terms of the submission."""


def prepare(submission: Submission, limits: Limits, makings: Makings) -> Prepared:
    """Parse addresses; for a raw message, read all of it.

    Raises:
        BadInput: what is wrong with it, with the field in the error.
    """
    if submission.raw is not None:
        return _of_raw(submission, submission.raw, limits, makings)
    return _of_parts(submission, makings)


def sender_of(submission: Submission) -> Mailbox:
    """Return From of a submission in parts.

    Raises:
        AddressInvalid: it is no address.
        ValidationFailed: there is none.
    """
    if submission.sender is None:
        raise ValidationFailed("the message names no sender", field="from")
    return _mailbox(submission.sender)


def _of_raw(submission: Submission, raw: bytes, limits: Limits, makings: Makings) -> Prepared:
    message = read_raw(raw, new_message_id=makings.message_id, date=makings.now)
    recipients = _mailboxes(submission.to) if submission.to else message.named()
    check_recipients(recipients, limits)
    # Of one key in both, what the request says outside of the message counts.
    extra = {**extra_of(message.fields), **(submission.extra or {})}
    check_extra(extra, limits)
    asked = options_of(message.fields)
    tags = tuple(dict.fromkeys((*submission.tags, *asked.tags)))
    check_tags(tags, limits)
    save_sent = submission.save_sent or asked.save_sent
    mail_from: Address | None = message.sender.address
    if submission.mail_from is not None:
        envelope = submission.mail_from
        mail_from = parse(envelope.address, field=envelope.field) if envelope.address else None
    return Prepared(
        sender=message.sender,
        sender_field="raw.from",
        mail_from=mail_from,
        recipients=recipients,
        subject=message.subject,
        message_id=message.message_id,
        bcc=message.bcc() if save_sent else (),
        extra=extra,
        tags=tags,
        expires_at=submission.expires_at or asked.expires_at,
        save_sent=save_sent,
        compose=lambda: message.composed,
    )


def _of_parts(submission: Submission, makings: Makings) -> Prepared:
    sender = sender_of(submission)
    bcc = _mailboxes(submission.bcc)
    draft = Draft(
        sender=sender,
        to=_mailboxes(submission.to),
        cc=_mailboxes(submission.cc),
        reply_to=_mailboxes(submission.reply_to),
        subject=submission.subject,
        text=submission.text,
        html=submission.html,
        message_id=submission.message_id or makings.message_id(),
        date=submission.date or makings.now,
        references=submission.references,
        headers=submission.headers,
        alternatives=_parts(submission, "alternative"),
        inline=_parts(submission, "inline"),
        attachments=_parts(submission, "attachment"),
        user_agent=submission.user_agent,
        smtputf8=not all(mailbox.address.is_ascii for mailbox in bcc),
    )

    def run() -> Composed:
        try:
            return compose(draft, boundaries=makings.boundary)
        except ValidationFailed as error:
            raise _in_terms_of(submission, error) from None

    return Prepared(
        sender=sender,
        sender_field=submission.sender.field if submission.sender is not None else "from",
        mail_from=sender.address,
        recipients=(*draft.to, *draft.cc, *bcc),
        subject=draft.subject,
        message_id=draft.message_id,
        bcc=bcc,
        extra=submission.extra or {},
        tags=submission.tags,
        expires_at=submission.expires_at,
        save_sent=submission.save_sent,
        compose=run,
    )


def _mailbox(party: Party) -> Mailbox:
    return Mailbox(party.name, parse(party.address, field=party.field))


def _mailboxes(parties: Iterable[Party]) -> tuple[Mailbox, ...]:
    return tuple(_mailbox(party) for party in parties)


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
