"""``/v1/endpoints``: where an account's webhooks go. They tell of its mail in earnest too, so a sandbox key may only read them."""

from datetime import timedelta

from fastapi import APIRouter

from api.context import InContext
from api.routes import answers
from api.routes.guard import AccountAuth, GuardedRoute, LiveAuth
from api.routes.parameters import Id, InPages
from api.schemas.endpoints import Endpoint, EndpointPage, EndpointWithSecret, NewEndpoint, Rotation
from shared.db import endpoints
from shared.errors import NotAvailableYet
from shared.events import Subject
from shared.web.problems import responses

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], route_class=GuardedRoute)


@router.get("", operation_id="endpoints_list", summary="List endpoints", responses=answers.LIST)
async def list_(context: InContext, caller: AccountAuth, query: InPages) -> EndpointPage:
    """Return the endpoints of the account, the oldest first."""
    async with context.look() as session:
        page = await endpoints.list_endpoints(session, caller.account_id, cursor=query.cursor, limit=query.limit)
    return EndpointPage(data=[Endpoint.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "",
    operation_id="endpoints_create",
    summary="Register an endpoint",
    status_code=201,
    responses={**answers.CREATE, **responses(NotAvailableYet)},
)
async def create(new: NewEndpoint, context: InContext, caller: LiveAuth) -> EndpointWithSecret:
    """Register a URL for webhooks. The answer shows its signing secret, this once."""
    if new.format != "posthouse":
        raise NotAvailableYet("webhooks in format mox are not available yet; leave format out", field="format")
    if new.kind != "delivery":
        raise NotAvailableYet("webhooks for inbound mail are not available yet; leave kind out", field="kind")
    context.outbound.check_url(new.url)
    wanted = endpoints.NewEndpoint(
        url=new.url,
        description=new.description,
        events=tuple(event.value for event in new.events),
        delayed=new.delayed,
        authorization=new.authorization,
    )
    async with context.change(Subject.CONFIG_CHANGED, f"account:{caller.account_id}") as session:
        row, secret = await endpoints.create_endpoint(session, context.ring, caller.account_id, wanted)
    return EndpointWithSecret.with_secret(row, secret)


@router.get("/{endpoint}", operation_id="endpoints_get", summary="Get an endpoint", responses=answers.READ)
async def get(endpoint: Id, context: InContext, caller: AccountAuth) -> Endpoint:
    """Return an endpoint, without its secret."""
    async with context.look() as session:
        return Endpoint.of(await endpoints.get_endpoint(session, caller.account_id, int(endpoint)))


@router.delete(
    "/{endpoint}",
    operation_id="endpoints_delete",
    summary="Delete an endpoint",
    status_code=204,
    responses=answers.REMOVE,
)
async def delete(endpoint: Id, context: InContext, caller: LiveAuth) -> None:
    """Delete an endpoint: it gets no further calls, and those that wait for it are canceled."""
    async with context.change(Subject.CONFIG_CHANGED, f"account:{caller.account_id}") as session:
        await endpoints.delete_endpoint(session, caller.account_id, int(endpoint))


@router.post(
    "/{endpoint}/rotate-secret",
    operation_id="endpoints_rotate_secret",
    summary="Rotate a signing secret",
    responses=answers.READ,
)
async def rotate_secret(
    endpoint: Id, context: InContext, caller: LiveAuth, how: Rotation | None = None
) -> EndpointWithSecret:
    """Give an endpoint another signing secret, shown this once; for a while calls are signed with both."""
    overlap = timedelta(seconds=(how or Rotation()).overlap_seconds)
    async with context.change(Subject.CONFIG_CHANGED, f"account:{caller.account_id}") as session:
        row, secret = await endpoints.rotate_secret(
            session, context.ring, caller.account_id, int(endpoint), overlap=overlap
        )
    return EndpointWithSecret.with_secret(row, secret)
