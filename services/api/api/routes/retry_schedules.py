"""``/v1/retry-schedules``, and which one an account uses: for operators."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.context import InContext
from api.routes import answers
from api.routes.guard import GuardedRoute, OperatorAuth
from api.routes.parameters import AccountId, InPages
from api.schemas.accounts import Account
from api.schemas.retry_schedules import ChosenSchedule, NewSchedule, Schedule, SchedulePage
from shared.db import retry_schedules

router = APIRouter(prefix="/v1", tags=["retry schedules"], route_class=GuardedRoute)

Name = Annotated[
    str,
    Path(pattern=r"^[a-z0-9_-]{1,64}$", description="The schedule's name.", examples=["patient"]),
]


@router.get(
    "/retry-schedules", operation_id="retry_schedules_list", summary="List retry schedules", responses=answers.LIST
)
async def list_(context: InContext, _caller: OperatorAuth, query: InPages) -> SchedulePage:
    """Return all retry schedules: Posthouse's own, then those of operators, the oldest first."""
    async with context.look() as session:
        page = await retry_schedules.operator_list_schedules(session, cursor=query.cursor, limit=query.limit)
    return SchedulePage(data=[Schedule.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.put(
    "/retry-schedules/{schedule}",
    operation_id="retry_schedules_put",
    summary="Make or change a retry schedule",
    responses=answers.CREATE,
)
async def put(schedule: Name, new: NewSchedule, context: InContext, _caller: OperatorAuth) -> Schedule:
    """Make a schedule, or change the one of this name. Mail of its accounts goes by it from its next attempt on."""
    wanted = retry_schedules.NewSchedule(new.waits, new.max_attempts, new.give_up_seconds)
    async with context.change_quietly() as session:
        return Schedule.of(await retry_schedules.put_schedule(session, schedule, wanted))


@router.get(
    "/retry-schedules/{schedule}",
    operation_id="retry_schedules_get",
    summary="Get a retry schedule",
    responses=answers.READ,
)
async def get(schedule: Name, context: InContext, _caller: OperatorAuth) -> Schedule:
    """Return a retry schedule."""
    async with context.look() as session:
        return Schedule.of(await retry_schedules.get_schedule(session, schedule))


@router.delete(
    "/retry-schedules/{schedule}",
    operation_id="retry_schedules_remove",
    summary="Remove a retry schedule",
    status_code=204,
    responses=answers.CREATE,
)
async def remove(schedule: Name, context: InContext, _caller: OperatorAuth) -> None:
    """Remove a retry schedule that no account uses."""
    async with context.change_quietly() as session:
        await retry_schedules.remove_schedule(session, schedule)


@router.put(
    "/accounts/{account}/retry-schedule",
    operation_id="retry_schedules_use",
    summary="Give an account a retry schedule",
    responses=answers.READ,
)
async def use(account: AccountId, chosen: ChosenSchedule, context: InContext, _caller: OperatorAuth) -> Account:
    """Give an account another retry schedule. It holds for mail that waits already, too, from its next attempt on."""
    async with context.change_quietly() as session:
        return Account.of(await retry_schedules.use_schedule(session, int(account), chosen.name))
