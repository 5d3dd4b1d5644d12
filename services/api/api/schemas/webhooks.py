"""What a webhook of format ``posthouse`` carries. The hooks service writes it; this is its documentation, and a test's oracle."""

from typing import Any

from pydantic import Field

from api.schemas.base import Output, Time, example
from shared.events import Category, EventType

_FACTS: dict[str, Any] = {
    "message_id": "<0Zk3v9hVqLk1W2x3Y4z5Aw@mail.example.com>",
    "message": "770",
    "delivery": "771",
    "recipient": "grace@example.org",
    "from_id": "mzxw6ytboi2gk3tunbuw4zzanf",
    "subject": "Grüße",
    "attempt": 1,
    "code": 250,
    "enhanced_code": "2.0.0",
    "text": "2.0.0 Ok: queued as 4F1A2",
    "category": None,
    "suppressing": False,
    "final_attempt_next": False,
    "dsn": False,
}
EVENT_EXAMPLE: dict[str, Any] = {
    "type": "delivered",
    "id": "9001",
    "created_at": "2026-11-20T13:00:00.480000Z",
    "account_id": "1",
    "test": False,
    "data": _FACTS,
}


class EventFacts(Output):
    """What an event says of its delivery."""

    model_config = example(_FACTS)

    message_id: str | None = Field(description="The Message-ID header, with its angle brackets.")
    message: str | None = Field(description="The id of the message.")
    delivery: str | None = Field(description="The id of the delivery.")
    recipient: str | None
    from_id: str | None
    subject: str | None
    attempt: int | None = Field(description="Which try it was; null where none was made.")
    code: int | None = Field(description="The SMTP reply code; null where nobody was asked.")
    enhanced_code: str | None = Field(description="RFC 3463, such as `5.1.1`.")
    text: str = Field(description="What the other side said, or what we say of it.")
    category: Category | None = Field(description="Whose trouble a failure is.")
    suppressing: bool = Field(description="Whether this event put the recipient on the suppression list.")
    final_attempt_next: bool = Field(
        description="With `delayed`: whether the next attempt is the last that the retry schedule, or the message's own time limit, allows."
    )
    dsn: bool = Field(description="Whether a delivery status notification says so (RFC 3464).")


class WebhookData(EventFacts):
    """What an event says of its delivery, with what came along when the message was handed in."""

    model_config = example({**_FACTS, "extra": {"order": "4711"}, "tags": ["welcome"]})

    extra: dict[str, str]
    tags: list[str]


class WebhookEvent(Output):
    """The body of a webhook: one event.

    It is signed as Standard Webhooks 1.0 has it (headers `webhook-id`, `webhook-timestamp`, `webhook-signature`). Answer with
    any status from 200 to 299 to take it; anything else is tried again. The same event may come more than once, under the
    same `webhook-id`.
    """

    model_config = example({**EVENT_EXAMPLE, "data": {**_FACTS, "extra": {"order": "4711"}, "tags": ["welcome"]}})

    type: EventType
    id: str = Field(description="The id of the event.")
    created_at: Time
    account_id: str
    test: bool = Field(
        description="Whether it is about mail of a sandbox key: nothing was sent, the outcome is simulated."
    )
    data: WebhookData
