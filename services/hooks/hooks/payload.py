"""The body of a webhook, format ``posthouse``: built when it is sent, from rows that never change.

So it is the same, byte for byte, in every attempt.
"""

from datetime import UTC, datetime

import orjson

from shared.db.calls import LoadedCall, LoadedEvent, LoadedMail
from shared.events import EventType

FORMAT = "posthouse"

# Reported by an RFC 3464 message, where there is a report at all: complaints come by RFC 5965, the unrecognized are neither. A
# bounce always is; that of a sandbox has no report.
_NOT_BY_DSN = frozenset({EventType.COMPLAINED.value, EventType.UNRECOGNIZED.value, EventType.RECEIVED.value})


class PayloadImpossible(Exception):
    """The payload cannot be built, now or later; the text says why."""


def build(call: LoadedCall | None, endpoint_format: str) -> bytes:
    """Return the body of a call.

    Raises:
        PayloadImpossible: what it tells of is gone, or this version does not speak the endpoint's format.
    """
    if call is None or call.event is None:
        raise PayloadImpossible("the event was removed by retention before it could be sent")
    if endpoint_format != FORMAT:
        raise PayloadImpossible(f"this version does not send format {endpoint_format}")
    if call.event.type == EventType.RECEIVED.value:
        raise PayloadImpossible("this version does not send events of received mail")
    if call.mail is None:
        raise PayloadImpossible("the message was removed by retention before its event could be sent")
    return orjson.dumps(
        {
            "type": call.event.type,
            "id": str(call.event.id),
            "created_at": _timestamp(call.event.created_at),
            "account_id": str(call.account_id),
            "test": call.mail.is_test,
            "data": _data(call.event, call.mail),
        }
    )


def _data(event: LoadedEvent, mail: LoadedMail) -> dict[str, object]:
    return {
        "message_id": mail.message_id,
        "message": str(mail.message),
        "delivery": str(event.delivery_id),
        "recipient": mail.recipient,
        "from_id": mail.from_id,
        "subject": mail.subject,
        "attempt": event.attempt,
        "code": event.code or None,
        "enhanced_code": event.enhanced or None,
        "text": event.text or "",
        "category": event.category,
        "suppressing": event.suppressing,
        "final_attempt_next": event.final_attempt_next,
        "dsn": event.type == EventType.BOUNCED.value or (event.report_id is not None and event.type not in _NOT_BY_DSN),
        "extra": orjson.loads(mail.extra) if mail.extra else {},
        "tags": list(mail.tags),
    }


def _timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, microseconds: always of one length, so that texts sort as times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
