"""Reading delivery status notifications (RFC 3464, and RFC 6533 for addresses beyond ASCII).

The journey of a report: find the part that holds the fields, split them into blocks, read each recipient's block, and take
the header of the returned message along. Reports are read as they come: fields may be folded wrongly, doubled, missing
or out of order, and one that is missing is taken from the others. Only who or what a block is about is never guessed.

A reader of reports in other forms makes the same :class:`Dsn` and can start from :func:`recipient`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from shared.mail.fields import address_text, decode_words, message_id_text, read_date, without_comments
from shared.mail.mime import Part, read
from shared.mail.status import clean_text, parse_enhanced, reply_codes


class Action(StrEnum):
    """What became of the mail for one recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class DsnRecipient:
    """What a report says about one recipient; text is cleaned, "" stands for a field that is missing."""

    final_recipient: (
        str  # as the reporting system knows it, Original-Recipient where it is missing; not checked to be an address
    )
    original_recipient: str  # as the sender wrote it
    action: Action | None  # None only where neither Action nor Status nor any text says it
    status: str  # `5.1.1`; our reading of action and text where the field is missing, "" only where action is None
    reply_code: int  # 550; of the diagnostic, else 400 or 500 by Status, else 0
    enhanced: str  # `5.1.1`, from where reply_code is from
    diagnostic: str  # without its type; the comment of Status where there is no Diagnostic-Code
    remote_mta: str
    last_attempt: datetime | None
    will_retry_until: datetime | None


@dataclass(frozen=True, slots=True)
class Dsn:
    """A delivery status notification."""

    envelope_id: str  # of the original, "" if missing
    reporting_mta: str
    arrival_date: datetime | None
    recipients: tuple[DsnRecipient, ...]  # one per block; empty where the report is there and its fields are not
    returned_headers: bytes  # header of the original as returned, b"" if it was not; at most 64 KiB
    returned_message_id: str | None  # with its angle brackets


STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_OTHER_REPORTS: Final = frozenset(
    {"message/feedback-report", "message/disposition-notification", "message/global-disposition-notification"}
)
MAX_RECIPIENTS: Final = 1000
_MAX_STATUS: Final = 1_048_576
_MAX_RETURNED: Final = 65_536


def read_dsn(message: Part) -> Dsn | None:
    """Return the delivery status notification that a message is or carries, None if it has no part of that type.

    Found at the top, and in a report that was forwarded or wrapped (RFC 3464 section 2). A
    report returned within another report is not looked at: the outer one is the news.
    """
    report = _find(message)
    if report is None:
        return None
    blocks = [block for part in _statuses(report) for block in _blocks(part.text(_MAX_STATUS))]
    # The fields about the message are due in the first block, and are taken from a recipient's where they strayed into it.
    of_message = _merged(sorted(blocks, key=_is_recipient))
    headers, message_id = returned(report)
    return Dsn(
        envelope_id=clean_text(of_message.get("original-envelope-id", ""), 998),
        reporting_mta=without_comments(_mta(of_message.get("reporting-mta", ""))),
        arrival_date=read_date(of_message.get("arrival-date", "")),
        recipients=tuple(recipient(block) for block in _recipient_blocks(blocks)),
        returned_headers=headers,
        returned_message_id=message_id,
    )


def recipient(fields: Mapping[str, str]) -> DsnRecipient:
    """Return what the fields of one block say, names in lower case and values unfolded (RFC 3464 section 2.3)."""
    final, original = (_address(fields.get(name, "")) for name in ("final-recipient", "original-recipient"))
    status_field = fields.get("status", "")
    stated = _stated_status(status_field)
    diagnostic = _diagnostic(fields.get("diagnostic-code", "")) or _comment(status_field)
    code, enhanced = reply_codes(diagnostic)
    action = _action(fields.get("action", ""), stated or enhanced or str(code))
    if action is Action.FAILED and stated[:1] == "4" and enhanced[:1] == "5" and code >= 500:
        stated = enhanced  # action and reply agree that it is final; systems that put a fixed Status there do not
    status = stated or enhanced or _status_of(action, code)
    if code == 0 or _BARE_CODE.fullmatch(diagnostic):
        # A reply without text is as good as none, so that Status decides (mox-compatible). RFC 3463 section 3.1: its first
        # digit is the class of a reply; 4 and 5 alone say that something went wrong.
        code, enhanced = (int(status[0]) * 100, status) if status[:1] in {"4", "5"} else (0, "")
    return DsnRecipient(
        final_recipient=final or original,
        original_recipient=original,
        action=action,
        status=status,
        reply_code=code,
        enhanced=enhanced,
        diagnostic=diagnostic,
        remote_mta=_mta(fields.get("remote-mta", "")),
        last_attempt=read_date(fields.get("last-attempt-date", "")),
        will_retry_until=read_date(fields.get("will-retry-until", "")),
    )


def returned(report: Part) -> tuple[bytes, str | None]:
    """Return the header of the message that a multipart/report returns (b"" if it does not) and its Message-ID, if any.

    RFC 3462 section 2: the third part, a whole message or text/rfc822-headers.
    """
    for part in report.parts:
        kind = part.content_type
        if (
            kind in STATUS_TYPES
            or kind in _OTHER_REPORTS
            or not (kind.startswith("message/") or kind == "text/rfc822-headers")
        ):
            continue
        original = part.parts[0] if part.parts else read(part.payload)
        return original.header_block[:_MAX_RETURNED], message_id_text(original.header("Message-ID"))
    return b"", None


# Finding the part and splitting it into blocks.


def _find(part: Part) -> Part | None:
    """Return the part whose children, or which itself, are of type delivery-status."""
    if part.content_type in STATUS_TYPES or any(child.content_type in STATUS_TYPES for child in part.parts):
        return part
    if any(child.content_type in _OTHER_REPORTS for child in part.parts):
        return None  # a complaint or receipt may be about a report: that one is not addressed to us
    return next(filter(None, (_find(child) for child in part.parts)), None)


def _statuses(report: Part) -> Iterator[Part]:
    return (part for part in (report, *report.parts) if part.content_type in STATUS_TYPES)


_FIELD: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,99})[ \t]*:(.*)")


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yield the groups of fields that blank lines separate (RFC 3464 section 2.1). Of a field that is doubled the first with a value counts.

    A line that is neither a field nor folded continues the field before it: that is how replies of several lines
    often come.
    """
    block: dict[str, list[str]] = {}
    value: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            if block:
                yield _joined(block)
            block, value = {}, []
        elif not line[0].isspace() and (field := _FIELD.match(line)) is not None:
            name = field[1].lower()
            if _starts_recipient(name, field[2], block):
                yield _joined(block)
                block = {}
            value = [field[2]]
            if not "".join(block.get(name, ())).strip():
                block[name] = value
        else:
            value.append(line)
    if block:
        yield _joined(block)


def _starts_recipient(name: str, value: str, block: Mapping[str, list[str]]) -> bool:
    """Whether this field begins another recipient without the blank line that is due before it."""
    return (
        name in {"final-recipient", "original-recipient"}
        and bool(block.keys() & {"action", "status"})
        and name in block
        and block[name][0].strip() != value.strip()
    )


def _joined(block: Mapping[str, list[str]]) -> dict[str, str]:
    return {name: " ".join(" ".join(lines).split()) for name, lines in block.items()}


def _merged(blocks: Iterable[Mapping[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for block in blocks:
        for name, text in block.items():
            merged.setdefault(name, text)
    return merged


_RECIPIENT_FIELDS: Final = frozenset({"final-recipient", "original-recipient", "action", "status", "diagnostic-code"})


def _is_recipient(block: Mapping[str, str]) -> bool:
    return not _RECIPIENT_FIELDS.isdisjoint(block)


def _recipient_blocks(blocks: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Return one block per recipient; one that a stray blank line tore apart is whole again."""
    found: list[dict[str, str]] = []
    for block in filter(_is_recipient, blocks):
        named = not {"final-recipient", "original-recipient"}.isdisjoint(block)
        if found and not named and found[-1].keys().isdisjoint(block.keys() & _RECIPIENT_FIELDS):
            found[-1] = {**block, **found[-1]}
        elif len(found) < MAX_RECIPIENTS:
            found.append(block)
    return found


# Reading one value.

_TYPED: Final = re.compile(r"\s*[A-Za-z][\w.-]{0,60}\s*;")
_HEX: Final = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_BARE_CODE: Final = re.compile(r"\d{3}")


def _untyped(value: str) -> str:
    """Return a value without the type before its semicolon (RFC 3464 section 2.1.2), which some forget and some double."""
    for _ in range(2):
        if (found := _TYPED.match(value)) is not None:
            value = value[found.end() :]
    return value.strip()


def _address(value: str) -> str:
    # RFC 6533 section 3: \x{HEX} stands for a character where only ASCII may be sent.
    return address_text(_HEX.sub(_character, decode_words(_untyped(value))))


def _character(escape: re.Match[str]) -> str:
    number = int(escape[1], 16)
    return chr(number) if number <= 0x10FFFF else escape[0]


def _mta(value: str) -> str:
    return clean_text(_untyped(value), 998)


def _diagnostic(value: str) -> str:
    found = _TYPED.match(value)
    return clean_text(value[found.end() :] if found is not None else value)


def _comment(status: str) -> str:
    """Return the text in the parentheses after a status code (RFC 3464 section 2.3.4)."""
    _, opened, rest = status.partition("(")
    return clean_text(rest.rpartition(")")[0] or rest) if opened else ""


_CLASS: Final = re.compile(r"\s*([245])(?:\d\d\b|\.|\b)")


def _stated_status(value: str) -> str:
    """Return the Status field as `5.1.1`; of `550`, `5.0` or `5` the class is kept, of anything else ""."""
    if (status := parse_enhanced(value) or reply_codes(value)[1]) != "":
        return status
    return f"{found[1]}.0.0" if (found := _CLASS.match(value)) is not None else ""


# The five words of RFC 3464 section 2.3.3, and what some reporting systems write for them.
_ACTIONS: Final[Mapping[str, Action]] = {action.value: action for action in Action} | {
    "failure": Action.FAILED,
    "fail": Action.FAILED,
    "expired": Action.FAILED,
    "delay": Action.DELAYED,
    "deferred": Action.DELAYED,
}


def _action(value: str, status: str) -> Action | None:
    """Return the action by its field, or by the class of a status or reply code where the field says nothing."""
    word = re.split(r"[\s(;,]", value.strip(), maxsplit=1)[0].lower()
    by_class = {"2": Action.DELIVERED, "4": Action.DELAYED, "5": Action.FAILED}
    return _ACTIONS.get(word) or by_class.get(status[:1])


def _status_of(action: Action | None, code: int) -> str:
    """Return the status that an action and a reply code without enhanced code amount to."""
    match action:
        case None:
            return ""
        case Action.FAILED | Action.DELAYED:
            return f"{code // 100 or (5 if action is Action.FAILED else 4)}.0.0"
        case Action.DELIVERED | Action.RELAYED | Action.EXPANDED:
            return "2.0.0"
