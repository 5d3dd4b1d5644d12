"""``/v1/transports`` and ``/v1/routes``: which way mail takes; for operators."""

from fastapi import APIRouter

from api.context import InContext
from api.routes import answers
from api.routes.guard import GuardedRoute, OperatorAuth
from api.routes.parameters import Id, InPages
from api.schemas.transports import (
    NewRoute,
    NewTransport,
    Route,
    RouteChanges,
    RoutePage,
    Transport,
    TransportChanges,
    TransportPage,
)
from shared.db import routes, transports
from shared.db.routes import RouteOptions
from shared.db.transports import TransportOptions
from shared.events import Subject

router = APIRouter(prefix="/v1", tags=["routes"], route_class=GuardedRoute)


@router.get("/transports", operation_id="transports_list", summary="List transports", responses=answers.LIST)
async def list_transports(context: InContext, _caller: OperatorAuth, query: InPages) -> TransportPage:
    """Return all transports, the oldest first."""
    async with context.look() as session:
        page = await transports.list_transports(session, cursor=query.cursor, limit=query.limit)
    return TransportPage(data=[Transport.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "/transports",
    operation_id="transports_create",
    summary="Create a transport",
    status_code=201,
    responses=answers.CREATE,
)
async def create_transport(new: NewTransport, context: InContext, _caller: OperatorAuth) -> Transport:
    """Create a way out. Mail takes it once a route names it."""
    options = TransportOptions(**new.options())
    async with context.change(Subject.CONFIG_CHANGED, "routes") as session:
        return Transport.of(
            await transports.create_transport(session, context.ring, new.name, new.kind, options),
        )


@router.get("/transports/{transport}", operation_id="transports_get", summary="Get a transport", responses=answers.READ)
async def get_transport(transport: Id, context: InContext, _caller: OperatorAuth) -> Transport:
    """Return a transport, without its password."""
    async with context.look() as session:
        return Transport.of(await transports.get_transport(session, int(transport)))


@router.patch(
    "/transports/{transport}", operation_id="transports_update", summary="Change a transport", responses=answers.CREATE
)
async def update_transport(
    transport: Id, changes: TransportChanges, context: InContext, _caller: OperatorAuth
) -> Transport:
    """Change a transport; mail that waits takes it as it is then. Name and kind stay."""
    async with context.change(Subject.CONFIG_CHANGED, "routes") as session:
        return Transport.of(await transports.update_transport(session, context.ring, int(transport), changes.options()))


@router.delete(
    "/transports/{transport}",
    operation_id="transports_delete",
    summary="Remove a transport",
    status_code=204,
    responses=answers.CREATE,
)
async def delete_transport(transport: Id, context: InContext, _caller: OperatorAuth) -> None:
    """Remove a transport that no route names."""
    async with context.change(Subject.CONFIG_CHANGED, "routes") as session:
        await transports.delete_transport(session, int(transport))


@router.get("/routes", operation_id="routes_list", summary="List routes", responses=answers.LIST)
async def list_routes(context: InContext, _caller: OperatorAuth, query: InPages) -> RoutePage:
    """Return all routes, the oldest first."""
    async with context.look() as session:
        page = await routes.list_routes(session, cursor=query.cursor, limit=query.limit)
    return RoutePage(data=[Route.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "/routes", operation_id="routes_create", summary="Create a route", status_code=201, responses=answers.CREATE
)
async def create_route(new: NewRoute, context: InContext, _caller: OperatorAuth) -> Route:
    """Send mail that matches over a transport, mail that waits too."""
    options = RouteOptions(
        transport=new.transport,
        account_id=None if new.account_id is None else int(new.account_id),
        domain_id=None if new.domain_id is None else int(new.domain_id),
        position=new.position,
        sender_domains=new.sender_domains,
        recipient_domains=new.recipient_domains,
        min_attempts=new.min_attempts,
    )
    async with context.change(Subject.CONFIG_CHANGED, "routes") as session:
        return Route.of(await routes.create_route(session, options))


@router.get("/routes/{route}", operation_id="routes_get", summary="Get a route", responses=answers.READ)
async def get_route(route: Id, context: InContext, _caller: OperatorAuth) -> Route:
    """Return a route."""
    async with context.look() as session:
        return Route.of(await routes.get_route(session, int(route)))


@router.patch("/routes/{route}", operation_id="routes_update", summary="Change a route", responses=answers.CREATE)
async def update_route(route: Id, changes: RouteChanges, context: InContext, _caller: OperatorAuth) -> Route:
    """Change a route; mail that waits takes the way that is right then."""
    async with context.change(Subject.CONFIG_CHANGED, "routes") as session:
        return Route.of(await routes.update_route(session, int(route), changes.model_dump(exclude_unset=True)))


@router.delete(
    "/routes/{route}", operation_id="routes_delete", summary="Remove a route", status_code=204, responses=answers.REMOVE
)
async def delete_route(route: Id, context: InContext, _caller: OperatorAuth) -> None:
    """Remove a route; mail that waits takes the way that is right then."""
    async with context.change(Subject.CONFIG_CHANGED, "routes") as session:
        await routes.delete_route(session, int(route))
