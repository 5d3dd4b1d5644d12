"""Reading feedback reports: complaints about our mail, as mailbox providers send them (ARF, RFC 5965)."""

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.mail.dsn import STATUS_TYPES, returned
from shared.mail.fields import address_text, message_id_text, read_date
from shared.mail.mime import Part, read
from shared.mail.status import clean_text

MAX_RECIPIENTS: Final = 1000
_MAX_REPORT: Final = 1_048_576
_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


@dataclass(frozen=True, slots=True)
class Feedback:
    """A feedback report; "" or None stands for a field that is missing, as nearly all may be."""

    feedback_type: (
        str  # in lower case: abuse, fraud, virus, not-spam, auth-failure, opt-out, other (RFC 5965 section 7.3)
    )
    original_recipients: tuple[str, ...]  # Original-Rcpt-To, in order; empty where the provider keeps them to itself
    original_mail_from: str
    envelope_id: str
    arrival_date: datetime | None  # at the provider
    source_ip: str  # that the provider had the mail from, in canonical form
    user_agent: str
    returned_headers: bytes  # header of the message complained about, often redacted; at most 64 KiB
    returned_message_id: str | None  # with its angle brackets, if it had any


def read_feedback(message: Part) -> Feedback | None:
    """Return the feedback report that a message is or carries, None if it has none.

    RFC 5965 section 2. A missing or broken Feedback-Type is `other`.
    """
    report = _find(message)
    if report is None:
        return None
    part = next(part for part in report.parts if part.content_type == "message/feedback-report")
    # RFC 5965 section 3: one block of fields, which some tear apart with blank lines.
    fields = read(re.sub(rb"\n(?:[ \t]*\r?\n)+", b"\n", part.payload[:_MAX_REPORT].lstrip()))
    headers, message_id = returned(report)
    kind = fields.header("Feedback-Type").strip().lower()
    recipients = dict.fromkeys(address_text(value) for value in fields.headers("Original-Rcpt-To"))
    return Feedback(
        feedback_type=kind if _TYPE.fullmatch(kind) else "other",
        original_recipients=tuple(filter(None, recipients))[:MAX_RECIPIENTS],
        original_mail_from=address_text(fields.header("Original-Mail-From")),
        envelope_id=clean_text(fields.header("Original-Envelope-Id"), 998),
        arrival_date=read_date(fields.header("Arrival-Date") or fields.header("Received-Date")),
        source_ip=_ip(fields.header("Source-IP")),
        user_agent=clean_text(fields.header("User-Agent"), 998),
        returned_headers=headers,
        returned_message_id=message_id or message_id_text(fields.header("Original-Message-ID")),
    )


def _find(part: Part) -> Part | None:
    """Return the part that has a feedback report among its children; a complaint returned in a bounce is none."""
    children = {child.content_type for child in part.parts}
    if "message/feedback-report" in children:
        return part
    if not STATUS_TYPES.isdisjoint(children):
        return None
    return next(filter(None, (_find(child) for child in part.parts)), None)


def _ip(value: str) -> str:
    text = value.strip().strip("[]").removeprefix("IPv6:")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
