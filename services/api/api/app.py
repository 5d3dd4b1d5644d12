"""The HTTP application of the api: routes, their frame, health, documentation."""

from fastapi import FastAPI

from api.context import Context
from api.metrics import RequestTimer
from api.openapi import application
from api.routes import (
    accounts,
    batch,
    credentials,
    deliveries,
    delivery_actions,
    domains,
    endpoints,
    events,
    hold_rules,
    jobs,
    messages,
    operator_events,
    pages,
    retry_schedules,
    suppressions,
    traffic_rules,
    transports,
)
from api.webapi.door import routes as webapi_routes
from api.webapi.faults import respond
from shared.metrics import Metrics
from shared.web import problems
from shared.web.health import Readiness, health_router

SERVICE = "api"

ROUTERS = (
    batch.router,
    messages.router,
    deliveries.router,
    delivery_actions.router,
    hold_rules.router,
    jobs.router,
    suppressions.router,
    endpoints.router,
    events.router,
    accounts.own,
    accounts.router,
    domains.router,
    credentials.router,
    transports.router,
    retry_schedules.router,
    traffic_rules.router,
    operator_events.router,
    pages.router,
)


def create_app(context: Context, readiness: Readiness, metrics: Metrics) -> FastAPI:
    """Return the application that serves ``context``; it answers ``/readyz`` by ``readiness``."""
    app = application()
    app.state.context = context
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(health_router(SERVICE, readiness, metrics))
    app.routes.extend(webapi_routes())
    problems.install(app, body_limit=context.settings.max_request_bytes, answer=respond)
    app.add_middleware(RequestTimer, metrics=context.metrics)
    return app
