"""A submission as every door hands it in, and the limits that hold for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from api.caller import AccountCaller
from shared.db import inputs
from shared.errors import NoRecipients, TooLarge, ValidationFailed

Door = Literal["rest", "webapi", "smtp"]
FURTHEST_SEND: Final = timedelta(days=60)
FURTHEST_EXPIRY: Final = timedelta(days=90)
Disposition = Literal["attachment", "inline", "alternative"]
"""Beside the body; shown by the HTML; another form of the text (its files become parts of multipart/alternative)."""


@dataclass(frozen=True, slots=True)
class Party:
    """A mailbox as its sender wrote it."""

    name: str
    """Empty where there is none."""
    address: str
    """Not checked yet."""
    field: str
    """Where in the input the address stands, e.g. ``to[1].address``."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of any disposition."""

    filename: str
    content: bytes
    content_type: str | None = None
    """None: told from its first octets, and its name where these leave it open."""
    content_id: str | None = None
    disposition: Disposition = "attachment"
    field: str = ""
    """Where in the input the file stands, e.g. ``attachments[0]``; empty: ``attachments[n]`` by its place in the list."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A message as it was handed in: nothing of it is checked yet but its types.

    Either its parts, or ``raw``: then the header says who it is from, what it is called and when it was written, and of the other
    fields only ``to`` (the envelope), ``mail_from`` and the options from ``send_at`` on count.
    """

    door: Door
    caller: AccountCaller
    sender: Party | None = None
    """From; None only with ``raw``."""
    to: tuple[Party, ...] = ()
    cc: tuple[Party, ...] = ()
    bcc: tuple[Party, ...] = ()
    reply_to: tuple[Party, ...] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    files: tuple[File, ...] = ()
    """Of each disposition in this order."""
    headers: tuple[tuple[str, str], ...] = ()
    message_id: str | None = None
    """With angle brackets; None: a new one."""
    date: datetime | None = None
    """Aware; None: now."""
    references: tuple[str, ...] = ()
    user_agent: str | None = "Posthouse"
    """None: no User-Agent."""
    raw: bytes | None = None
    """A whole RFC 5322 message. Without ``to`` it goes to whom its To, Cc and Bcc name; its header may add to ``extra``."""
    mail_from: Party | None = None
    """The return path of the envelope, with ``raw`` only; None: the address in From."""
    send_at: datetime | None = None
    """Aware; when it may be tried first, at most 60 days ahead. None: now."""
    require_tls: bool | None = None
    """True: only over verified TLS (RFC 8689); False: also where policy asks for TLS; None: by policy."""
    expires_at: datetime | None = None
    """Aware; what is not delivered by then fails, at most 90 days ahead. None: by the retry schedule."""
    save_sent: bool = False
    """Whether the account's mailbox Sent shall have a copy."""
    extra: Mapping[str, str] | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    """Under which it is handed in once, however often it comes."""
    as_said: Mapping[str, str | datetime] | None = None
    """By field of this class, what the client wrote where the door took the moment into account, as in a wait: the fields may
    differ from one try to the next, and this decides whether it is the same submission."""

    @property
    def recipients(self) -> tuple[Party, ...]:
        """Everyone it goes to, in the order To, Cc, Bcc; who is named twice gets it twice."""
        return (*self.to, *self.cc, *self.bcc)

    @property
    def weight(self) -> int:
        """About how many octets there are to compose."""
        texts = len(self.text or "") + len(self.html or "")
        return texts + sum(len(file.content) for file in self.files) + len(self.raw or b"")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one message may bring along."""

    message_bytes: int = 50 * 1024 * 1024
    recipients: int = 1000
    headers: int = 100
    header_bytes: int = 64 * 1024
    files: int = 100
    extra_keys: int = 100
    extra_bytes: int = 64 * 1024
    tags: int = 20
    tag_characters: int = 64


def check(submission: Submission, limits: Limits) -> None:
    """Refuse what is too much, or cannot be stored.

    Raises:
        NoRecipients: to, cc and bcc are empty; of a raw message the header may still name some.
        TooLarge: ``field`` names what there is too much of.
        ValidationFailed: a tag or an extra value holds what no database column can.
    """
    if submission.raw is None or submission.to:
        check_recipients(submission.recipients, limits)
    _at_most(limits.recipients, submission.reply_to, "addresses in reply_to", "reply_to")
    _at_most(limits.headers, submission.headers, "headers", "headers")
    _at_most(limits.files, submission.files, "files", "attachments")
    _bytes_at_most(limits.header_bytes, (part for header in submission.headers for part in header), "headers")
    _bytes_at_most(limits.header_bytes, submission.references, "references")
    check_extra(submission.extra or {}, limits)
    check_tags(submission.tags, limits)
    if submission.weight > limits.message_bytes:
        raise message_too_large(submission.weight, limits)


def check_recipients(recipients: Sequence[object], limits: Limits) -> None:
    """Refuse none, and more than one message may have.

    Raises:
        NoRecipients: there are none.
        TooLarge: there are too many.
    """
    if not recipients:
        raise NoRecipients(field="to")
    _at_most(limits.recipients, recipients, "recipients", "to")


def check_extra(extra: Mapping[str, str], limits: Limits) -> None:
    """Refuse metadata that is too much, or cannot be stored.

    Raises:
        TooLarge: there are too many keys, or octets.
        ValidationFailed: it holds what no database column can.
    """
    if len(extra) > limits.extra_keys:
        raise TooLarge(f"extra has {len(extra)} keys; at most {limits.extra_keys} are accepted", field="extra")
    _bytes_at_most(limits.extra_bytes, (part for item in extra.items() for part in item), "extra")
    for key, value in extra.items():
        inputs.text(key, field="extra", longest=limits.extra_bytes)
        inputs.text(value, field="extra", longest=limits.extra_bytes)


def check_tags(tags: Sequence[str], limits: Limits) -> None:
    """Refuse tags that are too many, or no tags.

    Raises:
        TooLarge: there are too many, or one is too long.
        ValidationFailed: one is empty or cannot be printed.
    """
    _at_most(limits.tags, tags, "tags", "tags")
    for index, tag in enumerate(tags):
        _check_tag(tag, f"tags[{index}]", limits)


def check_times(submission: Submission, expires_at: datetime | None, now: datetime) -> None:
    """Refuse times that cannot be kept.

    Args:
        submission: what was handed in.
        expires_at: its own, or what its header says.
        now: aware.

    Raises:
        ValidationFailed: one lies in the past, too far ahead, or before the other.
    """
    send_at = submission.send_at
    if send_at is not None and send_at > now + FURTHEST_SEND:
        raise ValidationFailed(f"send_at is more than {FURTHEST_SEND.days} days ahead", field="send_at")
    # mox takes a past one as now, and so does the webapi; SMTP has held it against the clock at MAIL.
    if send_at is not None and send_at <= now and submission.door == "rest":
        raise ValidationFailed("send_at lies in the past; leave it out to send now", field="send_at")
    if expires_at is None:
        return
    if expires_at <= now:
        raise ValidationFailed("expires_at lies in the past", field="expires_at")
    if send_at is not None and expires_at <= send_at:
        raise ValidationFailed("expires_at lies before send_at: nothing could be sent", field="expires_at")
    if expires_at > now + FURTHEST_EXPIRY:
        raise ValidationFailed(f"expires_at is more than {FURTHEST_EXPIRY.days} days ahead", field="expires_at")


def message_too_large(size: int, limits: Limits) -> TooLarge:
    """Return the error for a message of ``size`` octets."""
    return TooLarge(
        f"the message has at least {size} octets; at most {limits.message_bytes} are accepted: link to large files instead"
    )


def _at_most(most: int, items: Sequence[object], what: str, field: str) -> None:
    if len(items) > most:
        raise TooLarge(f"there are {len(items)} {what}; a message has at most {most}", field=field)


def _bytes_at_most(most: int, texts: Iterable[str], field: str) -> None:
    size = sum(len(text.encode(errors="replace")) for text in texts)
    if size > most:
        raise TooLarge(f"{field} have {size} octets together; at most {most} are accepted", field=field)


def _check_tag(tag: str, field: str, limits: Limits) -> None:
    if len(tag) > limits.tag_characters:
        raise TooLarge(f"a tag has at most {limits.tag_characters} characters, not {len(tag)}", field=field)
    if not tag or not tag.isprintable():
        raise ValidationFailed(f"a tag has 1 to {limits.tag_characters} printable characters", field=field)
