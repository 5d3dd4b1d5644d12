"""``/v1/operator-events``: what operators should look at."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from api.context import InContext
from api.routes import answers
from api.routes.guard import GuardedRoute, OperatorAuth
from api.routes.parameters import Id, Paging
from api.schemas.operator_events import OperatorEvent, OperatorEventPage
from shared.db import operator_events
from shared.events import OperatorEventKind

router = APIRouter(prefix="/v1/operator-events", tags=["operator events"], route_class=GuardedRoute)


class OperatorEventQuery(Paging):
    """Which operator events."""

    kind: OperatorEventKind | None = Field(default=None, description="Of this kind; of all, without it.")
    open: bool | None = Field(
        default=None, description="True: only what is not resolved; false: only what is; both, without it."
    )


@router.get("", operation_id="operator_events_list", summary="List operator events", responses=answers.LIST)
async def list_(
    context: InContext, _caller: OperatorAuth, query: Annotated[OperatorEventQuery, Query()]
) -> OperatorEventPage:
    """Return what operators should look at, what began last first."""
    async with context.look() as session:
        page = await operator_events.operator_list_events(
            session, kind=query.kind, is_open=query.open, cursor=query.cursor, limit=query.limit
        )
    return OperatorEventPage(data=[OperatorEvent.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "/{event}/resolve",
    operation_id="operator_events_resolve",
    summary="Resolve an operator event",
    responses=answers.READ,
)
async def resolve(event: Id, context: InContext, _caller: OperatorAuth) -> OperatorEvent:
    """Say that something has been looked at; when it happens again, that is another event."""
    async with context.change_quietly() as session:
        return OperatorEvent.of(await operator_events.resolve_event(session, int(event)))
