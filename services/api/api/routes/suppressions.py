"""``/v1/suppressions``: who an account does not send to; for a sandbox key, who its own mail does not go to."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from api.context import InContext
from api.routes import answers
from api.routes.guard import AccountAuth, GuardedRoute
from api.routes.parameters import Id, Paging
from api.schemas.base import Text
from api.schemas.suppressions import NewSuppression, Suppression, SuppressionPage
from shared.db import suppressions
from shared.events import Subject
from shared.mail.address import parse

router = APIRouter(prefix="/v1/suppressions", tags=["suppressions"], route_class=GuardedRoute)


class SuppressionQuery(Paging):
    """Which entries."""

    address: Text | None = Field(default=None, description="The entry that stands for this address, in any spelling.")


@router.get("", operation_id="suppressions_list", summary="List suppressions", responses=answers.LIST)
async def list_(
    context: InContext, caller: AccountAuth, query: Annotated[SuppressionQuery, Query()]
) -> SuppressionPage:
    """Return the suppression list, the newest entries first."""
    if query.address is not None:
        address = parse(query.address, field="address")
        async with context.look() as session:
            row = await suppressions.find_suppression(session, caller.account_id, address, stream=caller.stream)
        return SuppressionPage(data=[Suppression.of(row)] if row is not None else [], next_cursor=None)
    async with context.look() as session:
        page = await suppressions.list_suppressions(
            session, caller.account_id, stream=caller.stream, cursor=query.cursor, limit=query.limit
        )
    return SuppressionPage(data=[Suppression.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "", operation_id="suppressions_add", summary="Suppress an address", status_code=201, responses=answers.CREATE
)
async def add(new: NewSuppression, context: InContext, caller: AccountAuth) -> Suppression:
    """Put an address on the list: nothing more is sent to it, not even what is queued already."""
    options = suppressions.SuppressionOptions(reason=new.reason, expires_at=new.expires_at)
    address = parse(new.address, field="address")
    async with context.change(Subject.SUPPRESSION_CHANGED, f"account:{caller.account_id}") as session:
        row = await suppressions.add_suppression(session, caller.account_id, address, options, stream=caller.stream)
    return Suppression.of(row)


@router.get("/{suppression}", operation_id="suppressions_get", summary="Get a suppression", responses=answers.READ)
async def get(suppression: Id, context: InContext, caller: AccountAuth) -> Suppression:
    """Return one entry of the list."""
    async with context.look() as session:
        row = await suppressions.get_suppression(session, caller.account_id, int(suppression), stream=caller.stream)
    return Suppression.of(row)


@router.delete(
    "/{suppression}",
    operation_id="suppressions_remove",
    summary="Remove a suppression",
    status_code=204,
    responses=answers.REMOVE,
)
async def remove(suppression: Id, context: InContext, caller: AccountAuth) -> None:
    """Take an entry off the list: mail to the address is sent again."""
    async with context.change(Subject.SUPPRESSION_CHANGED, f"account:{caller.account_id}") as session:
        await suppressions.remove_suppression(session, caller.account_id, int(suppression), stream=caller.stream)
