"""What operators are told."""

from pydantic import Field

from api.schemas.base import Output, PageOf, Time, example
from shared.models import OperatorEvent as Row

_EVENT: dict[str, object] = {
    "id": "12",
    "kind": "source_blocked",
    "subject": "receiver.example from 192.0.2.1",
    "text": "receiver.example refuses mail because of our address or name; its recipients are not suppressed for it",
    "facts": {
        "site": "domain:receiver.example",
        "source_ip": "192.0.2.1",
        "host": "mx.receiver.example",
        "host_ip": "198.51.100.25",
        "stage": "rcpt",
        "code": 550,
        "enhanced_code": "5.7.1",
        "reply": "Client host [192.0.2.1] blocked using zen.spamhaus.org",
        "delivery": "771",
    },
    "first_at": "2026-11-20T13:00:00.000000Z",
    "last_at": "2026-11-20T15:20:00.000000Z",
    "count": 1840,
    "resolved_at": None,
}


class OperatorEvent(Output):
    """Something that an operator should look at."""

    model_config = example(_EVENT)

    id: str
    kind: str = Field(description="What it is, for programs; more kinds may come.")
    subject: str = Field(description="What it happens to. There is one open event for each kind and subject.")
    text: str = Field(description="What it is, for people.")
    facts: dict[str, str | int | None] = Field(description="What is known of the last time; depends on the kind.")
    first_at: Time
    last_at: Time
    count: int = Field(description="How often it has happened; written every few seconds.")
    resolved_at: Time | None

    @classmethod
    def of(cls, row: Row) -> "OperatorEvent":
        """Show an operator event."""
        facts = {
            name: value for name, value in (row.facts or {}).items() if value is None or isinstance(value, str | int)
        }
        return cls(
            id=str(row.id),
            kind=row.kind,
            subject=row.subject,
            text=row.text,
            facts=facts,
            first_at=row.first_at,
            last_at=row.last_at,
            count=row.count,
            resolved_at=row.resolved_at,
        )


class OperatorEventPage(PageOf[OperatorEvent]):
    """Operator events, what began last first."""

    model_config = example({"data": [_EVENT], "next_cursor": None})
