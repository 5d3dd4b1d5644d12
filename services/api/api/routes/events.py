"""``/v1/events``: what happened, in order, for those who would rather ask than be told."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from api.context import InContext
from api.routes import answers
from api.routes.guard import AccountAuth, GuardedRoute
from api.routes.parameters import ID_PATTERN, Paging
from api.schemas.events import Event, EventPage
from shared.db.events import EventFilter, list_events
from shared.events import EventType

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=GuardedRoute)


class EventQuery(Paging):
    """Which events."""

    type: list[EventType] = Field(default=[], description="Of these types; of all, without it. May be repeated.")
    delivery_id: str | None = Field(default=None, pattern=ID_PATTERN, description="Of this delivery.")


@router.get("", operation_id="events_list", summary="List events", responses=answers.LIST)
async def list_(context: InContext, caller: AccountAuth, query: Annotated[EventQuery, Query()]) -> EventPage:
    """Return events in the order they were committed, the oldest first. Keep `cursor` to go on later."""
    wanted = EventFilter(
        types=tuple(kind.value for kind in query.type),
        delivery_id=int(query.delivery_id) if query.delivery_id is not None else None,
        stream=caller.stream,
    )
    async with context.read() as connection:
        page = await list_events(connection, caller.account_id, wanted, cursor=query.cursor, limit=query.limit)
    return EventPage(
        data=[Event.of(caller.account_id, view) for view in page.items],
        next_cursor=page.cursor if page.has_more else None,
        cursor=page.cursor,
    )
