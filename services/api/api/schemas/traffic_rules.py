"""Traffic rules."""

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Time, example
from shared.models import TrafficRule as Row

_RULE: dict[str, object] = {
    "pattern": "google.com",
    "connections": 20,
    "messages_per_second": 50.0,
    "messages_per_connection": None,
    "recipients_per_transaction": None,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "updated_at": "2026-11-20T13:00:00.000000Z",
}


class NewTrafficRule(Input):
    """How much is sent at once; at least one figure. Where it says nothing, a less telling rule counts."""

    model_config = example({"connections": 20, "messages_per_second": 50})

    connections: int | None = Field(
        default=None, ge=1, le=1000, description="At the same time, over all delivery processes."
    )
    messages_per_second: float | None = Field(
        default=None,
        ge=0.01,
        le=10_000,
        description="Over all delivery processes; each connection has an equal share, and each may send one message beyond it.",
    )
    messages_per_connection: int | None = Field(default=None, ge=1, le=100_000, description="Then a new one is opened.")
    recipients_per_transaction: int | None = Field(default=None, ge=1, le=1000, description="Of one message.")


class TrafficRule(Output):
    """How much is sent at once to what the pattern names."""

    model_config = example(_RULE)

    pattern: str
    connections: int | None
    messages_per_second: float | None
    messages_per_connection: int | None
    recipients_per_transaction: int | None
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, row: Row) -> "TrafficRule":
        """Show a rule."""
        return cls(
            pattern=row.pattern,
            connections=row.connections,
            messages_per_second=row.messages_per_second,
            messages_per_connection=row.messages_per_connection,
            recipients_per_transaction=row.recipients_per_transaction,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class TrafficRulePage(PageOf[TrafficRule]):
    """Rules of operators, the oldest first."""

    model_config = example({"data": [_RULE], "next_cursor": None})
