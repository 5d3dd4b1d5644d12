"""Endpoints: where webhooks go."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.events import EventType
from shared.models import Endpoint as Row

_ENDPOINT: dict[str, object] = {
    "id": "3",
    "url": "https://app.example.com/hooks/mail",
    "description": "production",
    "kind": "delivery",
    "format": "posthouse",
    "events": ["delivered", "failed", "bounced"],
    "delayed": "every",
    "has_authorization": False,
    "previous_secret_until": None,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "disabled_at": None,
}
_DELAYED = (
    "Which failed attempts it is told of while others follow, as `delayed`: `every` one; only the `first` attempt; only the `last` "
    "one before the final attempt (`final_attempt_next`). What a report says of a delay is told in any case."
)
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1dI0Q7g8n2s="  # noqa: S105 - an example for the documentation


class NewEndpoint(Input):
    """A URL that shall be told of events."""

    model_config = example({"url": "https://app.example.com/hooks/mail", "events": ["delivered", "failed", "bounced"]})

    url: Text = Field(max_length=2048, description="https, or http; it may not lead into a private network.")
    description: Text = Field(default="", max_length=1000)
    events: list[Annotated[EventType, Field(strict=False)]] = Field(
        default=[], description="Which types of events; all, where it is empty."
    )
    delayed: Literal["every", "first", "last"] = Field(default="every", description=_DELAYED)
    kind: Literal["delivery", "inbound"] = "delivery"
    format: Literal["posthouse", "mox"] = "posthouse"
    authorization: Text | None = Field(
        default=None,
        description="Value of the Authorization header of every call; never shown again.",
        examples=["Bearer 31e1"],
    )


class Endpoint(Output):
    """A URL that is told of events."""

    model_config = example(_ENDPOINT)

    id: str
    url: str
    description: str
    kind: str
    format: str
    events: list[EventType] = Field(description="Which types of events; all, where it is empty.")
    delayed: str = Field(description=_DELAYED)
    has_authorization: bool = Field(description="Whether calls carry an Authorization header.")
    previous_secret_until: Time | None = Field(description="Until when calls are signed with the previous secret too.")
    created_at: Time
    disabled_at: Time | None = Field(
        description="Since when it is not called, for example because it answered 410 Gone."
    )

    @classmethod
    def of(cls, row: Row) -> "Endpoint":
        """Show an endpoint."""
        return cls(**_fields(row))


class EndpointWithSecret(Endpoint):
    """An endpoint with its signing secret, which is shown this once."""

    model_config = example({**_ENDPOINT, "secret": _SECRET})

    secret: str = Field(description="Verifies the signatures of calls (Standard Webhooks).")

    @classmethod
    def with_secret(cls, row: Row, secret: str) -> "EndpointWithSecret":
        """Show an endpoint and its secret."""
        return cls(**_fields(row), secret=secret)


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "url": row.url,
        "description": row.description,
        "kind": row.kind,
        "format": row.format,
        "events": [EventType(name) for name in row.events],
        "delayed": row.delayed,
        "has_authorization": row.authorization_sealed is not None,
        "previous_secret_until": row.previous_secret_until,
        "created_at": row.created_at,
        "disabled_at": row.disabled_at,
    }


class EndpointPage(PageOf[Endpoint]):
    """Endpoints, the oldest first."""

    model_config = example({"data": [_ENDPOINT], "next_cursor": None})


class Rotation(Input):
    """How to change a signing secret."""

    model_config = example({"overlap_seconds": 86400})

    overlap_seconds: int = Field(
        default=86_400, ge=0, le=30 * 86_400, description="For how long calls are signed with the previous secret too."
    )
