"""Writing delivery status notifications: RFC 3464 in ASCII, or RFC 6533 where the original and its reader know UTF-8.

The report has three parts: a text for a person, the fields for a machine, and the header of the original, never its body.
Nothing here is random and no clock is read: dates, Message-ID and boundary come in.
"""

import base64
import binascii
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shared.mail.address import Address
from shared.mail.dsn import Action, DsnRecipient
from shared.mail.fields import message_id_text
from shared.mail.headers import Mailbox, address_list, date, tokens, unstructured, with_parameters
from shared.mail.status import clean_text, reply_codes

COLUMNS: Final = 77
_LONGEST_LINE: Final = 998  # octets, RFC 5322 section 2.1.1
_LONGEST_WORD: Final = 900  # characters; longer than any address, escaped or not


@dataclass(frozen=True, slots=True)
class DsnSpec:
    """What a report is to say. Text may be anything: line breaks and controls in it are made harmless."""

    reporting_mta: str  # our host name
    sender: Address  # From, a postmaster; the null return path (RFC 3464 section 2) is for the caller to use
    to: Address  # MAIL FROM of the original
    message_id: str  # of the report, with its angle brackets
    date: datetime  # aware
    boundary: str  # of at most 70 characters and at random, since the original's header must not hold it
    arrival_date: datetime  # of the original, aware
    recipients: Sequence[
        DsnRecipient
    ]  # at least one; action not None; reply_code and enhanced stand in diagnostic already
    original_message_id: str = ""  # with its angle brackets
    original_headers: bytes = b""  # header of the original as sent; b"" leaves the third part out
    envelope_id: str = ""
    future_release: str = ""  # of the original: `for; 3600` or `until; 2026-...` (RFC 4865 section 6)
    smtputf8: bool = False  # the original needed SMTPUTF8 and who reads this takes it


SUBJECTS: Final = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.DELIVERED: "Your message was delivered",
    Action.RELAYED: "Your message was relayed",
    Action.EXPANDED: "Your message was sent on to a list",
}
_SENTENCES: Final = {
    Action.FAILED: "could not be delivered. We have given up.",
    Action.DELAYED: "could not be delivered yet. We keep trying; there is nothing you have to do.",
    Action.DELIVERED: "was delivered.",
    Action.RELAYED: "was passed on to a system that does not report delivery.",
    Action.EXPANDED: "was delivered to a list, which sends it on.",
}
_DEFAULT_STATUS: Final = {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0"}


def write_dsn(spec: DsnSpec) -> bytes:
    """Return the report as a message with CRLF line ends, without Return-Path and signature.

    The ASCII form is 7-bit throughout. The UTF-8 form is taken if ``smtputf8`` is set and anything in the report is beyond
    ASCII, and where ``to`` cannot be written otherwise; it must be sent with SMTPUTF8 and 8BITMIME (RFC 6533 section 4).

    Raises:
        ValueError: there is no recipient, or one without an action.
        ValidationFailed: a date is without zone.
    """
    if not spec.recipients:
        raise ValueError("a report needs at least one recipient")
    utf8 = is_utf8(spec)
    text = _text(spec)
    parts = [
        _part("text/plain", text, utf8=utf8),
        _part(
            "message/global-delivery-status" if utf8 else "message/delivery-status", _status(spec, utf8=utf8), utf8=utf8
        ),
    ]
    if spec.original_headers:
        parts.append(_original(spec.original_headers, utf8=utf8))
    delimiter = f"--{spec.boundary}".encode("ascii")
    body = b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts)
    return _header(spec, utf8=utf8) + b"\r\n" + body + delimiter + b"--\r\n"


def is_utf8(spec: DsnSpec) -> bool:
    """Whether the report takes the form of RFC 6533 and so needs SMTPUTF8."""
    if not spec.to.is_ascii:
        return True
    texts = (text for one in spec.recipients for text in (one.final_recipient, one.original_recipient, one.diagnostic))
    return spec.smtputf8 and not (spec.original_headers.isascii() and all(text.isascii() for text in texts))


def _header(spec: DsnSpec, *, utf8: bool) -> bytes:
    parameters = (("report-type", "delivery-status"), ("boundary", spec.boundary))
    return b"".join(
        (
            address_list("From", [Mailbox("Mail delivery", spec.sender)], utf8=utf8),
            address_list("To", [Mailbox("", spec.to)], utf8=utf8),
            unstructured("Subject", SUBJECTS[_main_action(spec)]),
            f"Date: {date(spec.date)}\r\n".encode("ascii"),
            tokens("Message-ID", [spec.message_id]),
            _references(spec.original_message_id, utf8=utf8),
            b"Auto-Submitted: auto-replied\r\n",  # RFC 3834 section 3.1.7
            b"MIME-Version: 1.0\r\n",
            with_parameters("Content-Type", "multipart/report", parameters),  # RFC 3462 section 1
        )
    )


def _references(message_id: str, *, utf8: bool) -> bytes:
    """Return the field, or nothing for an id that is none or that this form cannot hold; it comes from the original's sender."""
    if (
        message_id_text(message_id) != message_id
        or not message_id.isprintable()  # a line end would begin another field
        or not (utf8 or message_id.isascii())
        or len(message_id) > _LONGEST_WORD // 4
    ):
        return b""
    return tokens("References", [message_id])


def _main_action(spec: DsnSpec) -> Action:
    """Return the worst of the actions, for the subject."""
    actions = {_stated(one) for one in spec.recipients}
    return next(action for action in Action if action in actions)


def _stated(one: DsnRecipient) -> Action:
    if one.action is None:
        raise ValueError("each recipient of a report needs an action")
    return one.action


# The three parts.


def _text(spec: DsnSpec) -> str:
    paragraphs = [f"This is the mail system at {_line(spec.reporting_mta)}."]
    for one in spec.recipients:
        said = clean_text(one.diagnostic)
        lines = [f"Your message to {_line(one.final_recipient)}", _SENTENCES[_stated(one)]]
        if one.will_retry_until is not None:
            lines.append(f"We try until {date(one.will_retry_until.astimezone(UTC))}.")
        if said:
            lines.append(f"The answer of {_line(one.remote_mta)} was:" if one.remote_mta else "The reason:")
        paragraphs.append("\n".join(lines))
        if said:
            wrapped = (textwrap.wrap(line, COLUMNS - 4, break_on_hyphens=False) for line in said.split("\n"))
            paragraphs.append("\n".join(f"    {line}" for lines in wrapped for line in lines))
    if spec.original_headers:
        paragraphs.append("The header of your message is attached.")
    return "\n\n".join(paragraphs) + "\n"


def _status(spec: DsnSpec, *, utf8: bool) -> str:
    """Return the fields of RFC 3464 sections 2.2 and 2.3, in that order."""
    fields: list[tuple[str, str]] = [
        ("Original-Envelope-ID", spec.envelope_id),
        ("Reporting-MTA", f"dns; {spec.reporting_mta}"),
        ("Arrival-Date", date(spec.arrival_date)),
        ("Future-Release-Request", spec.future_release),
    ]
    for one in spec.recipients:
        fields.append(_BLANK_LINE)
        fields.extend(_recipient(one, utf8=utf8))
    return "".join(_folded(name, value if utf8 else _ascii(value)) for name, value in fields)


_BLANK_LINE: Final = ("", "")


def _recipient(one: DsnRecipient, *, utf8: bool) -> list[tuple[str, str]]:
    action = _stated(one)
    status = one.status or _DEFAULT_STATUS.get(action, "2.0.0")
    diagnostic = _line(one.diagnostic)
    # RFC 3464 section 2.3.6: a Diagnostic-Code of type smtp is what a server said; our own words are a comment.
    replied = reply_codes(diagnostic)[0] != 0
    if diagnostic and not replied:
        status = f"{status} ({diagnostic.translate(_NO_PARENTHESES)})"
    return [
        ("Original-Recipient", _typed_address(one.original_recipient, utf8=utf8)),
        ("Final-Recipient", _typed_address(one.final_recipient, utf8=utf8)),
        ("Action", action.value),
        ("Status", status),
        ("Remote-MTA", f"dns; {one.remote_mta}" if one.remote_mta else ""),
        ("Diagnostic-Code", f"smtp; {diagnostic}" if replied else ""),
        ("Last-Attempt-Date", date(one.last_attempt) if one.last_attempt else ""),
        ("Will-Retry-Until", date(one.will_retry_until) if one.will_retry_until else ""),
    ]


def _original(header: bytes, *, utf8: bool) -> bytes:
    text = re.sub(rb"\r\n|\r|\n", b"\n", header).rstrip(b"\n") + b"\n"
    kind = "message/global-headers" if utf8 else "text/rfc822-headers"
    if (utf8 or text.isascii()) and b"\0" not in text and _fits(text):
        return _with_header(kind, "8bit" if utf8 else "7bit", "", text.replace(b"\n", b"\r\n"))
    charset = "" if utf8 or text.isascii() else "utf-8"
    octets = base64.b64encode(text.replace(b"\n", b"\r\n"))
    lines = [octets[at : at + 76] for at in range(0, len(octets), 76)]  # RFC 2045 section 6.8
    return _with_header(kind, "base64", charset, b"\r\n".join(lines) + b"\r\n")


def _part(kind: str, text: str, *, utf8: bool) -> bytes:
    octets = text.encode()
    charset = "" if kind.startswith("message/") else "us-ascii" if octets.isascii() else "utf-8"
    if (utf8 or octets.isascii()) and _fits(octets):
        return _with_header(kind, "8bit" if utf8 else "7bit", charset, octets.replace(b"\n", b"\r\n"))
    encoded = binascii.b2a_qp(octets, istext=True).replace(b"\n", b"\r\n")
    return _with_header(kind, "quoted-printable", charset, encoded)


def _with_header(kind: str, encoding: str, charset: str, content: bytes) -> bytes:
    parameter = f"; charset={charset}" if charset else ""
    return f"Content-Type: {kind}{parameter}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + content


def _fits(text: bytes) -> bool:
    return max(map(len, text.split(b"\n"))) <= _LONGEST_LINE


# Single values.

_NO_PARENTHESES: Final = str.maketrans("()\\", "[]/")
_XTEXT: Final = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 section 3: not printable ASCII, or one of `\`, `+`, `=`


def _line(text: str) -> str:
    """Return text on one line, with single spaces."""
    return " ".join(clean_text(text).split())


def _typed_address(address: str, *, utf8: bool) -> str:
    text = _line(address)
    if not text:
        return ""
    if utf8:
        return f"{'rfc822' if text.isascii() else 'utf-8'}; {text}"
    # The escapes are for addresses of type utf-8 alone; an ASCII address stays as it is.
    return f"rfc822; {text}" if text.isascii() else f"utf-8; {_XTEXT.sub(_escaped, text)}"


def _escaped(character: re.Match[str]) -> str:
    return f"\\x{{{ord(character[0]):X}}}"


def _ascii(value: str) -> str:
    return re.sub(r"[^\x00-\x7f]", _escaped, value)


def _folded(name: str, value: str) -> str:
    """Return a field, folded at spaces to 77 columns (RFC 3464 section 2.1.1); for an empty value nothing, without name a blank line."""
    if not name:
        return "\n"
    words = [
        word[at : at + _LONGEST_WORD] for word in _line(value).split() for at in range(0, len(word), _LONGEST_WORD)
    ]
    if not words:
        return ""
    out = [f"{name}:"]
    column = len(out[0])
    for word in words:
        fold = column + 1 + len(word) > COLUMNS and column > len(out[0])
        out.append(f"\n {word}" if fold else f" {word}")
        column = (0 if fold else column) + 1 + len(word)
    return "".join(out) + "\n"
