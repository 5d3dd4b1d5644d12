"""Messages as a list shows them: without what became of them."""

from typing import Any

from pydantic import Field

from api.schemas.base import Output, PageOf, Time, example
from shared.db.messages import MessageView

MESSAGE: dict[str, object] = {
    "id": "770",
    "created_at": "2026-11-20T13:00:00.000000Z",
    "door": "rest",
    "message_id": "<0Zk3v9hVqLk1W2x3Y4z5Aw@mail.example.com>",
    "sender": "ada@example.com",
    "subject": "Grüße",
    "size": 1843,
    "smtputf8": False,
    "test": False,
    "extra": {"order": "4711"},
    "tags": ["welcome"],
    "send_at": None,
    "expires_at": "2026-11-21T13:00:00.000000Z",
    "require_tls": None,
    "save_sent": False,
}


class MessageSummary(Output):
    """A submission."""

    model_config = example(MESSAGE)

    id: str
    created_at: Time
    door: str = Field(description="How it was handed in.")
    message_id: str = Field(description="The Message-ID header, with its angle brackets.")
    sender: str
    subject: str
    size: int = Field(description="In octets, header included.")
    smtputf8: bool = Field(
        description="Whether it can only be sent to hosts that know internationalised mail (RFC 6531)."
    )
    test: bool = Field(description="Whether a sandbox key handed it in: its outcomes are simulated.")
    extra: dict[str, str]
    tags: list[str]
    send_at: Time | None = Field(description="When its sender wanted it to be tried first; null: at once.")
    expires_at: Time | None = Field(description="When what is not delivered fails; null: by the retry schedule.")
    require_tls: bool | None
    save_sent: bool

    @classmethod
    def summary(cls, view: MessageView) -> "MessageSummary":
        """Show a message."""
        return cls(**message_fields(view))


def message_fields(view: MessageView) -> dict[str, Any]:
    """Return what every form of a message shows."""
    return {
        "id": str(view.id),
        "created_at": view.created_at,
        "door": view.door,
        "message_id": view.message_id,
        "sender": view.sender,
        "subject": view.subject,
        "size": view.size,
        "smtputf8": view.smtputf8,
        "test": view.is_test,
        "extra": dict(view.extra),
        "tags": list(view.tags),
        "send_at": view.send_at,
        "expires_at": view.expires_at,
        "require_tls": view.require_tls,
        "save_sent": view.save_sent,
    }


class MessagePage(PageOf[MessageSummary]):
    """Messages, the newest first."""

    model_config = example({"data": [MESSAGE], "next_cursor": None})
