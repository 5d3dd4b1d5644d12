"""A whole RFC 5322 message that somebody hands in: read, checked and made ready to be sent.

What is not said in it (Message-ID, Date) is added; what is not for recipients (Bcc, Return-Path, X-Posthouse-) is taken out; its
line ends become CRLF and its bodies 7-bit safe. All else stays as it came, octet for octet.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.errors import BadInput, TooLarge, ValidationFailed
from shared.mail import headers
from shared.mail.compose import Composed
from shared.mail.fields import decode_words, message_id_text, unfold
from shared.mail.headers import Mailbox
from shared.mail.mailboxes import read_mailboxes
from shared.mail.seven_bit import LINE_OCTETS, is_seven_bit, seven_bit
from shared.mail.status import clean_text

HEADER_OCTETS: Final = 256 * 1024
HEADER_FIELDS: Final = 1_000
SUBJECT_OCTETS: Final = 8_000
"""Of the copy that is kept for people; the message has all of it."""

_FIELD: Final = re.compile(rb"([!-9;-~\x80-\xff]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_AT_MOST_ONCE: Final = (
    # RFC 5322 section 3.6, RFC 2045: of two, readers take different ones. To, Cc and Bcc are read together.
    *("from", "sender", "reply-to", "subject", "date", "message-id", "in-reply-to", "references"),
    *("mime-version", "content-type", "content-transfer-encoding"),
)
_TAKEN_OUT: Final = ("bcc", "resent-bcc", "return-path")
_LISTS: Final = ("to", "cc", "reply-to")
_PREFIX_TAKEN_OUT: Final = "x-posthouse-"


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message that was handed in whole, ready to be sent."""

    sender: Mailbox
    """The one in From."""
    subject: str
    """Decoded, cleaned and cut, for people."""
    message_id: str
    """As its field has it, with the angle brackets; or the one that was added."""
    fields: tuple[tuple[str, str], ...]
    """Every field as it came, also those that were taken out: name, and unfolded value."""
    composed: Composed

    def named(self) -> tuple[Mailbox, ...]:
        """Return whom To, Cc and Bcc name, in this order.

        Raises:
            AddressInvalid: an address among them is none; ``field`` is ``raw.to`` and so on.
            ValidationFailed: one of the fields is no list of addresses.
        """
        return (*self._mailboxes("to"), *self._mailboxes("cc"), *self.bcc())

    def bcc(self) -> tuple[Mailbox, ...]:
        """Return whom Bcc names.

        Raises: as :meth:`named`.
        """
        return self._mailboxes("bcc")

    def _mailboxes(self, wanted: str) -> tuple[Mailbox, ...]:
        return tuple(
            mailbox
            for name, value in self.fields
            if name.lower() == wanted
            for mailbox in read_mailboxes(value, field=f"raw.{wanted}")
        )


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    lower: str
    octets: bytes
    """With its CRLF."""

    @property
    def text(self) -> str:
        value = self.octets.partition(b":")[2]
        return unfold(value.decode("utf-8", "replace").rstrip("\r\n"))


def read_raw(octets: bytes, *, new_message_id: Callable[[], str], date: datetime) -> RawMessage:
    """Read and mend a message.

    Args:
        octets: CRLF or LF at the ends of all its lines.
        new_message_id: returns the Message-ID for a message without one.
        date: aware; for a message without one.

    Raises:
        AddressInvalid: an address in its header is none; ``field`` is ``raw.<name of the header field>``.
        TooLarge: its header is longer than anybody's.
        ValidationFailed: it is no message, or cannot be sent as it is.
    """
    message = with_crlf(octets)
    fields, body_at = _header(message)
    _check_counts(fields)
    texts = {field.lower: field.text for field in reversed(fields)}
    senders = read_mailboxes(texts["from"], field="raw.from")
    if len(senders) != 1:
        raise ValidationFailed(
            f"From has {len(senders)} addresses; a message is from exactly one (a further author can stand in Reply-To)",
            field="raw.from",
        )
    message_id = message_id_text(texts.get("message-id", ""))
    added, dropped = [], set(_TAKEN_OUT)
    if message_id is None:
        message_id = new_message_id()
        added.append(f"Message-Id: {message_id}\r\n".encode())
        dropped.add("message-id")
    if not texts.get("date"):
        added.append(f"Date: {headers.date(date)}\r\n".encode())
        dropped.add("date")
    kept = [
        _folded(field)
        for field in fields
        # RFC 6532 section 3.7: names of fields stay ASCII, so one that is not must not leave the house.
        if field.lower not in dropped and not field.lower.startswith(_PREFIX_TAKEN_OUT) and field.lower.isascii()
    ]
    return RawMessage(
        sender=senders[0],
        subject=clean_text(decode_words(texts.get("subject", "")).replace("\n", " "), SUBJECT_OCTETS),
        message_id=message_id,
        fields=tuple((field.name, field.text) for field in fields),
        composed=_composed(b"".join([*added, *kept]), message[body_at:]),
    )


def with_crlf(octets: bytes) -> bytes:
    """Return a message with CRLF at the end of every line, the last one included.

    Raises:
        ValidationFailed: its lines end in different ways, or in CR: what one reader takes for one line, another takes for two.
    """
    pairs, feeds, returns = octets.count(b"\r\n"), octets.count(b"\n"), octets.count(b"\r")
    if returns != pairs or pairs not in {0, feeds}:
        raise ValidationFailed(
            "the message has a CR or LF that stands alone; end every line with CRLF, or every line with LF", field="raw"
        )
    if pairs != feeds:
        octets = octets.replace(b"\n", b"\r\n")
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def _header(message: bytes) -> tuple[tuple[_Field, ...], int]:
    """Return the fields, and where the body begins."""
    fields: list[_Field] = []
    position = 0
    while not message.startswith(b"\r\n", position):
        found = _FIELD.match(message, position, HEADER_OCTETS + LINE_OCTETS)
        if found is None or found.end() > HEADER_OCTETS or len(fields) >= HEADER_FIELDS:
            raise _no_header(message, position, len(fields), found)
        name, position = found[1], found.end()
        if b"\0" in found[0]:
            raise ValidationFailed("the header has the control character U+0000; remove it", field="raw")
        try:
            found[0].decode()
        except UnicodeDecodeError:
            raise ValidationFailed(
                f"the header field {clean_text(name, 100)} is neither ASCII nor UTF-8; write it in encoded words (RFC 2047)",
                field="raw",
            ) from None
        fields.append(_Field(name.decode(), name.decode().lower(), found[0]))
    return tuple(fields), position + 2


def _no_header(message: bytes, position: int, count: int, found: re.Match[bytes] | None) -> BadInput:
    if count >= HEADER_FIELDS:
        return TooLarge(f"the header has more than {HEADER_FIELDS} fields", field="raw")
    if found is not None or position + len(message[position : position + HEADER_OCTETS]) > HEADER_OCTETS:
        return TooLarge(f"the header has more than {HEADER_OCTETS} octets", field="raw")
    if position >= len(message):
        return ValidationFailed("the message has no empty line after its header", field="raw")
    line = message.count(b"\n", 0, position) + 1
    return ValidationFailed(
        f"line {line} of the message is no header field; an empty line must follow the header",
        field="raw",
    )


def _check_counts(fields: tuple[_Field, ...]) -> None:
    counts = Counter(field.lower for field in fields)
    if not counts["from"]:
        raise ValidationFailed("the message has no From field", field="raw.from")
    for name in _AT_MOST_ONCE:
        if counts[name] > 1:
            raise ValidationFailed(
                f"the message has {counts[name]} {name} fields; it may have one", field=f"raw.{name}"
            )


def _folded(field: _Field) -> bytes:
    """Return a field with lines that fit; folding at white space changes nothing of it (RFC 5322 section 2.2.3)."""
    lines = []
    # Programs write long lists of addresses without a space; after a comma one may stand, if it is no comma within quotes.
    commas = field.lower in _LISTS and not re.search(rb'["(]', field.octets)
    for line in field.octets.removesuffix(b"\r\n").split(b"\r\n"):
        rest = line
        while len(rest) > LINE_OCTETS:
            at = max(rest.rfind(white, 1, LINE_OCTETS) for white in (b" ", b"\t"))
            if rest[: max(at, 0)].strip():
                lines.append(rest[:at])
                rest = rest[at:]
            elif commas and (at := rest.rfind(b",", 1, LINE_OCTETS)) > 0:
                lines.append(rest[: at + 1])
                rest = b" " + rest[at + 1 :]
            else:
                raise ValidationFailed(
                    f"the header field {field.name[:100]} has more than {LINE_OCTETS} octets without a space; a line of mail has no more",
                    field="raw",
                )
        lines.append(rest)
    return b"\r\n".join([*lines, b""])


def _composed(header: bytes, body: bytes) -> Composed:
    if is_seven_bit(body):
        return Composed(header, body, not header.isascii())
    message = seven_bit(b"".join((header, b"\r\n", body)))
    header, _, body = message.partition(b"\r\n\r\n")
    # RFC 6532 section 3.6: raw UTF-8 in the header of a part makes the whole message an internationalised one.
    return Composed(header + b"\r\n", body, not message.isascii())
