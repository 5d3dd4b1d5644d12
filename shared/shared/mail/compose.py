"""A message from its parts: header fields in a fixed order, the MIME tree, bodies that are safe on seven bits.

The tree has only the levels that are needed::

    multipart/mixed            if there are attachments
      multipart/related        if there are inline files
        multipart/alternative  if there are both text and HTML, or alternative files
          text/plain, text/html, alternative files
        inline files
      attachments

Nothing is ever sent as 8bit: no hop has a reason to change the body, so the DKIM body hash holds. Bcc is not part of a draft.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.errors import ValidationFailed
from shared.mail import headers, mime_write
from shared.mail.headers import Mailbox
from shared.mail.mime_write import Part

__all__ = ["Composed", "Draft", "Mailbox", "Part", "compose"]

_OURS = frozenset(
    [
        *("from", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version"),
        *("dkim-signature", "received", "return-path", "received-spf", "authentication-results", "delivered-to"),
    ]
)
_OUR_PREFIXES = ("content-", "resent-", "arc-", "x-posthouse-")
_AT_MOST_ONCE = frozenset({"sender", "reply-to", "in-reply-to", "references"})  # RFC 5322 section 3.6
_MESSAGE_ID = re.compile(r"<[^<>\s]+>")


@dataclass(frozen=True, slots=True)
class Draft:
    """What a message is made of."""

    sender: Mailbox
    """From."""
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    reply_to: tuple[Mailbox, ...]
    subject: str
    """No Subject field where it is empty."""
    text: str | None
    """Any line ends; None or empty where there is none. Text or HTML is needed."""
    html: str | None
    message_id: str
    """With angle brackets."""
    date: datetime
    """Aware; its zone offset is kept."""
    references: tuple[str, ...] = ()
    """Message ids, oldest first; the last one becomes In-Reply-To."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further fields, in order, none of those that are made here."""
    alternatives: tuple[Part, ...] = ()
    inline: tuple[Part, ...] = ()
    attachments: tuple[Part, ...] = ()
    user_agent: str | None = "Posthouse"
    """Left out where headers name a User-Agent or X-Mailer."""
    smtputf8: bool = False
    """Whether the message is an internationalised one even where no address in it says so: a recipient in Bcc may."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A message, as bytes with CRLF line ends."""

    header: bytes
    """Whole fields, ends with CRLF, without the empty line."""
    body: bytes
    smtputf8: bool
    """Whether the message needs SMTPUTF8 (RFC 6531): something in a header of it is not ASCII, or the draft said so."""

    @property
    def message(self) -> bytes:
        """Header, empty line, body."""
        return self.header + b"\r\n" + self.body


def compose(draft: Draft, *, boundaries: Callable[[], str]) -> Composed:
    """Compose a message.

    Args:
        draft: see there.
        boundaries: returns a new random MIME boundary, 60 hexadecimal digits, each time.

    Raises:
        ValidationFailed: something in the draft cannot become a mail; ``field`` names it by the names of the draft.
    """
    mailboxes = (draft.sender, *draft.to, *draft.cc, *draft.reply_to)
    utf8 = draft.smtputf8 or not all(mailbox.address.is_ascii for mailbox in mailboxes)
    _check(draft, utf8=utf8)
    content = _tree(draft, boundaries)
    fields = [
        *_own_fields(draft, utf8=utf8),
        b"MIME-Version: 1.0\r\n",
        *_custom_fields(draft, utf8=utf8),
        content.header,
    ]
    return Composed(b"".join(fields), content.body, utf8)


def _own_fields(draft: Draft, *, utf8: bool) -> list[bytes]:
    """From to In-Reply-To, in the order mox writes them."""
    fields = [headers.address_list("From", (draft.sender,), utf8=utf8)]
    for name, mailboxes in (("Reply-To", draft.reply_to), ("To", draft.to), ("Cc", draft.cc)):
        if mailboxes:
            fields.append(headers.address_list(name, mailboxes, utf8=utf8))
    if draft.subject:
        fields.append(headers.unstructured("Subject", draft.subject, utf8=utf8))
    fields.append(f"Date: {headers.date(draft.date)}\r\nMessage-Id: {draft.message_id}\r\n".encode())
    if draft.references:
        fields.append(headers.tokens("References", draft.references))
        fields.append(headers.tokens("In-Reply-To", draft.references[-1:]))
    return fields


def _custom_fields(draft: Draft, *, utf8: bool) -> list[bytes]:
    fields = [
        headers.literal(name, value, utf8=utf8, field=f"headers[{index}]")
        for index, (name, value) in enumerate(draft.headers)
    ]
    names = {name.lower() for name, _ in draft.headers}
    if draft.user_agent and not names & {"user-agent", "x-mailer"}:
        fields.append(headers.literal("User-Agent", draft.user_agent, utf8=utf8))
    return fields


def _tree(draft: Draft, boundaries: Callable[[], str]) -> mime_write.Entity:
    alternatives = []
    for subtype, text in (("plain", draft.text), ("html", draft.html)):
        if text:
            alternatives.append(mime_write.text_entity(subtype, text, field="text" if subtype == "plain" else "html"))
    alternatives += _files(draft.alternatives, "inline", "alternatives")
    root = (
        alternatives[0] if len(alternatives) == 1 else mime_write.multipart("alternative", alternatives, boundaries())
    )
    if draft.inline:
        root = mime_write.multipart("related", [root, *_files(draft.inline, "inline", "inline")], boundaries())
    if draft.attachments:
        root = mime_write.multipart(
            "mixed", [root, *_files(draft.attachments, "attachment", "attachments")], boundaries()
        )
    return root


def _files(parts: Sequence[Part], disposition: str, field: str) -> list[mime_write.Entity]:
    return [mime_write.file_entity(part, disposition, field=f"{field}[{index}]") for index, part in enumerate(parts)]


def _check(draft: Draft, *, utf8: bool) -> None:
    """Refuse what would break out of its field, or fields that are not the caller's to write."""
    if not draft.text and not draft.html:
        raise ValidationFailed("a message needs text or HTML", field="text")
    for field, mailboxes in (
        ("from", (draft.sender,)),
        ("to", draft.to),
        ("cc", draft.cc),
        ("reply_to", draft.reply_to),
    ):
        for index, mailbox in enumerate(mailboxes):
            path = "from.name" if field == "from" else f"{field}[{index}].name"
            headers.check_text(mailbox.name, what="the display name", field=path)
    headers.check_text(draft.subject, what="the subject", field="subject")
    if draft.user_agent:
        headers.check_text(draft.user_agent, what="the user agent", field="user_agent")
    _check_id(draft.message_id, "the Message-ID", "message_id", utf8=utf8)
    if not _MESSAGE_ID.fullmatch(draft.message_id):
        raise ValidationFailed(
            "the Message-ID has the form <unique@example.com>, with the angle brackets", field="message_id"
        )
    for index, reference in enumerate(draft.references):
        _check_id(reference, "the reference", f"references[{index}]", utf8=utf8)
    _check_custom(draft)


def _check_id(text: str, what: str, field: str, *, utf8: bool) -> None:
    headers.check_text(text, what=what, field=field)
    if not text.strip():
        raise ValidationFailed(f"{what} is empty", field=field)
    if not utf8 and not text.isascii():
        raise ValidationFailed(f"{what} has characters that are not ASCII", field=field)
    if len(text.encode()) > 900:
        raise ValidationFailed(
            f"{what} is longer than 900 octets; a line of mail has at most 998", field=field
        )  # RFC 5322 section 2.1.1


def _check_custom(draft: Draft) -> None:
    taken = {
        "reply-to": bool(draft.reply_to),
        "references": bool(draft.references),
        "in-reply-to": bool(draft.references),
    }
    seen: Counter[str] = Counter()
    for index, (name, value) in enumerate(draft.headers):
        field = f"headers[{index}]"
        headers.check_name(name, field=field)
        headers.check_text(value, what=f"the header {name}", field=field)
        folded = name.lower()
        if folded in _OURS or folded.startswith(_OUR_PREFIXES) or taken.get(folded):
            raise ValidationFailed(
                f"the header {name} is written by Posthouse and cannot be set; use the field of the request for it, if there is one",
                field=field,
            )
        seen[folded] += 1
        if folded in _AT_MOST_ONCE and seen[folded] > 1:
            raise ValidationFailed(f"the header {name} can be given only once", field=field)
