"""What hooks sends is what the api's OpenAPI document says; the two services share no code for it."""

from datetime import UTC, datetime

import orjson
import pytest

from api.schemas.webhooks import WebhookEvent
from hooks.payload import FORMAT, build
from shared.db.calls import LoadedCall, LoadedEvent, LoadedMail
from shared.events import EventType

MOMENT = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
MAIL = LoadedMail(
    770,
    "<a@example.com>",
    "grace@example.org",
    "mzxw6",
    "Grüße",
    '{"order": "4711", "": ""}',
    ("welcome",),
    is_test=True,
)
PLAIN = LoadedMail(770, "<a@example.com>", "grace@example.org", None, "", None, (), is_test=False)


@pytest.mark.parametrize("kind", [kind for kind in EventType if kind is not EventType.RECEIVED])
@pytest.mark.parametrize("mail", [MAIL, PLAIN], ids=["full", "plain"])
def test_the_document_describes_what_is_sent(kind: EventType, mail: LoadedMail) -> None:
    full = mail is MAIL
    event = LoadedEvent(
        id=9001,
        type=kind.value,
        created_at=MOMENT,
        delivery_id=771,
        report_id=5 if full else None,
        attempt=1 if full else None,
        code=550 if full else 0,
        enhanced="5.1.1" if full else "",
        text="no such user" if full else None,
        category="recipient" if full else None,
        suppressing=full,
        final_attempt_next=full,
    )

    sent = build(LoadedCall(1, 3, 1, MOMENT, event, mail), FORMAT)

    described = WebhookEvent.model_validate_json(sent, strict=True, extra="forbid")
    assert orjson.loads(described.model_dump_json()) == orjson.loads(sent)
