"""``/v1/traffic-rules``: how much providers and domains are sent at once. For operators."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.context import InContext
from api.routes import answers
from api.routes.guard import GuardedRoute, OperatorAuth
from api.routes.parameters import InPages
from api.schemas.traffic_rules import NewTrafficRule, TrafficRule, TrafficRulePage
from shared.db import traffic_rules
from shared.events import Subject
from shared.mail.traffic import Traffic

router = APIRouter(prefix="/v1", tags=["traffic rules"], route_class=GuardedRoute)

Pattern = Annotated[
    str,
    Path(
        max_length=254,
        description="A provider (the registrable domain of its MX hosts), a recipient domain that is its own mail host or a relay's host; `.suffix` for all below a name; `*` for all.",
        examples=["google.com"],
    ),
]


@router.get("/traffic-rules", operation_id="traffic_rules_list", summary="List traffic rules", responses=answers.LIST)
async def list_(context: InContext, _caller: OperatorAuth, query: InPages) -> TrafficRulePage:
    """Return the rules of operators, the oldest first. Those that Posthouse brings along hold where these say nothing."""
    async with context.look() as session:
        page = await traffic_rules.operator_list_rules(session, cursor=query.cursor, limit=query.limit)
    return TrafficRulePage(data=[TrafficRule.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.put(
    "/traffic-rules/{pattern}",
    operation_id="traffic_rules_put",
    summary="Make or change a traffic rule",
    responses=answers.CREATE,
)
async def put(pattern: Pattern, new: NewTrafficRule, context: InContext, _caller: OperatorAuth) -> TrafficRule:
    """Make a rule, or change the one of this pattern. It holds within a second or so, without a restart."""
    wanted = Traffic(
        new.connections, new.messages_per_second, new.messages_per_connection, new.recipients_per_transaction
    )
    async with context.change(Subject.CONFIG_CHANGED, "traffic-rules") as session:
        return TrafficRule.of(await traffic_rules.put_rule(session, pattern, wanted))


@router.get(
    "/traffic-rules/{pattern}",
    operation_id="traffic_rules_get",
    summary="Get a traffic rule",
    responses=answers.READ,
)
async def get(pattern: Pattern, context: InContext, _caller: OperatorAuth) -> TrafficRule:
    """Return an operator's rule."""
    async with context.look() as session:
        return TrafficRule.of(await traffic_rules.get_rule(session, pattern))


@router.delete(
    "/traffic-rules/{pattern}",
    operation_id="traffic_rules_remove",
    summary="Remove a traffic rule",
    status_code=204,
    responses=answers.READ,
)
async def remove(pattern: Pattern, context: InContext, _caller: OperatorAuth) -> None:
    """Remove an operator's rule; what Posthouse brings along for its pattern holds again."""
    async with context.change(Subject.CONFIG_CHANGED, "traffic-rules") as session:
        await traffic_rules.remove_rule(session, pattern)
