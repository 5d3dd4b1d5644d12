"""Events as a list to read."""

from pydantic import Field

from api.schemas.base import Output, PageOf, Time, example
from api.schemas.webhooks import EVENT_EXAMPLE, EventFacts
from shared.db.events import EventView
from shared.events import Category, EventType

# Reported by an RFC 3464 message where there is a report: complaints come by RFC 5965, the unrecognized are neither. A bounce
# always is; that of a sandbox has no report.
_NOT_BY_DSN = frozenset({EventType.COMPLAINED, EventType.UNRECOGNIZED, EventType.RECEIVED})


class Event(Output):
    """Something that happened: what a webhook tells too."""

    model_config = example(EVENT_EXAMPLE)

    type: EventType
    id: str
    created_at: Time
    account_id: str
    test: bool = Field(
        description="Whether it is about mail of a sandbox key: nothing was sent, the outcome is simulated."
    )
    data: EventFacts

    @classmethod
    def of(cls, account_id: int, view: EventView) -> "Event":
        """Show an event."""
        return cls(
            type=view.type,
            id=str(view.id),
            created_at=view.created_at,
            account_id=str(account_id),
            test=view.is_test,
            data=EventFacts(
                message_id=view.message_id_header,
                message=str(view.message_id) if view.message_id is not None else None,
                delivery=str(view.delivery_id) if view.delivery_id is not None else None,
                recipient=view.recipient,
                from_id=view.from_id,
                subject=view.subject,
                attempt=view.attempt,
                code=view.code or None,
                enhanced_code=view.enhanced or None,
                text=view.text or "",
                category=Category(view.category) if view.category else None,
                suppressing=view.suppressing,
                final_attempt_next=view.final_attempt_next,
                dsn=view.type is EventType.BOUNCED or (view.report_id is not None and view.type not in _NOT_BY_DSN),
            ),
        )


class EventPage(PageOf[Event]):
    """Events in the order they were committed, the oldest first. No event is ever inserted behind a cursor."""

    model_config = example({"data": [EVENT_EXAMPLE], "next_cursor": None, "cursor": "ZXZlbnQuODAxLjkwMDE"})

    cursor: str = Field(description="Where to go on later, once there is no next page: keep it and ask again.")
