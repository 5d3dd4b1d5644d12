"""``/v1/deliveries``: what became of each recipient."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from api.context import InContext
from api.routes import answers
from api.routes.guard import AccountAuth, GuardedRoute
from api.routes.parameters import ID_PATTERN, Id, Paging
from api.schemas.base import Text
from api.schemas.messages import Delivery, DeliveryPage, DeliveryWithAttempts
from shared.db.messages import DeliveryFilter, get_delivery, list_deliveries
from shared.db.tags import MOST_TAGS
from shared.errors import NotFound
from shared.lifecycle import DeliveryState
from shared.mail.address import parse

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"], route_class=GuardedRoute)


class DeliveryQuery(Paging):
    """Which deliveries."""

    state: DeliveryState | None = None
    message_id: str | None = Field(default=None, pattern=ID_PATTERN, description="The id of their message.")
    recipient: Text | None = Field(default=None, description="The whole address.")
    tag: list[Text] = Field(
        default=[], max_length=MOST_TAGS, description="Of messages with this tag; repeated, with all of them."
    )


@router.get("", operation_id="deliveries_list", summary="List deliveries", responses=answers.LIST)
async def list_(context: InContext, caller: AccountAuth, query: Annotated[DeliveryQuery, Query()]) -> DeliveryPage:
    """Return deliveries, the newest first; by tag, those of the newest message first."""
    wanted = DeliveryFilter(
        state=query.state,
        message_id=int(query.message_id) if query.message_id is not None else None,
        recipient=parse(query.recipient, field="recipient").text if query.recipient is not None else None,
        tags=tuple(query.tag),
        stream=caller.stream,
    )
    async with context.read() as connection:
        page = await list_deliveries(connection, caller.account_id, wanted, cursor=query.cursor, limit=query.limit)
    return DeliveryPage(data=[Delivery.of(view) for view in page.items], next_cursor=page.next_cursor)


@router.get("/{delivery}", operation_id="deliveries_get", summary="Get a delivery", responses=answers.READ)
async def get(delivery: Id, context: InContext, caller: AccountAuth) -> DeliveryWithAttempts:
    """Return a delivery with every attempt at it."""
    async with context.read() as connection:
        detail = await get_delivery(connection, caller.account_id, int(delivery), stream=caller.stream)
    if detail is None:
        raise NotFound(f"there is no delivery {delivery} in this account")
    return DeliveryWithAttempts.detail(detail)
