"""``/v1/deliveries/.../hold``, ``release``, ``cancel``: of one by its id, or of all that fulfil some conditions."""

from typing import Any, Literal

from fastapi import APIRouter, Response

from api.caller import Caller
from api.context import Context, InContext
from api.routes import answers
from api.routes.guard import AnyAuth, GuardedRoute
from api.routes.parameters import Id
from api.schemas.actions import DeliveryAction, DeliverySelection
from api.schemas.jobs import Job
from api.schemas.messages import DeliveryWithAttempts
from shared.db import accounts, holds, inputs, jobs
from shared.db.engine import reachable
from shared.db.holds import Action, Applied, Kind
from shared.db.messages import DeliveryDetail, get_delivery, operator_get_delivery
from shared.db.selections import Selection
from shared.db.transaction import session_transaction, transaction
from shared.errors import Conflict, Forbidden, NotFound
from shared.lifecycle import SETTLED, DeliveryState
from shared.mail.address import parse, parse_domain

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"], route_class=GuardedRoute)

_LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": Job, "description": "It is not finished yet and goes on by itself: see `/v1/jobs/{job}`."}
}


@router.post("/hold", operation_id="deliveries_hold_all", summary="Hold deliveries", responses=answers.CREATE | _LATER)
async def hold_all(which: DeliverySelection, response: Response, context: InContext, caller: AnyAuth) -> Job:
    """Hold all live deliveries that fulfil the conditions; what is being sent is held if the attempt fails for now."""
    return await _all(context, caller, Kind.HOLD, which, response)


@router.post(
    "/release", operation_id="deliveries_release_all", summary="Release deliveries", responses=answers.CREATE | _LATER
)
async def release_all(which: DeliverySelection, response: Response, context: InContext, caller: AnyAuth) -> Job:
    """Release all held deliveries that fulfil the conditions; they are due when they were before.

    They go though a hold rule that was made before still matches. What an operator holds, only an operator releases; an
    operator's release lifts every hold.
    """
    return await _all(context, caller, Kind.RELEASE, which, response)


@router.post(
    "/cancel", operation_id="deliveries_cancel_all", summary="Cancel deliveries", responses=answers.CREATE | _LATER
)
async def cancel_all(which: DeliverySelection, response: Response, context: InContext, caller: AnyAuth) -> Job:
    """Cancel all live deliveries that fulfil the conditions; what is being sent is canceled if the attempt fails for now."""
    return await _all(context, caller, Kind.CANCEL, which, response)


@router.post("/{delivery}/hold", operation_id="deliveries_hold", summary="Hold a delivery", responses=answers.CREATE)
async def hold(delivery: Id, context: InContext, caller: AnyAuth) -> DeliveryAction:
    """Hold a delivery until it is released."""
    return await _one(context, caller, Kind.HOLD, int(delivery))


@router.post(
    "/{delivery}/release", operation_id="deliveries_release", summary="Release a delivery", responses=answers.CREATE
)
async def release(delivery: Id, context: InContext, caller: AnyAuth) -> DeliveryAction:
    """Release a delivery: it is due when it was before, whatever hold rule that was made before still matches."""
    return await _one(context, caller, Kind.RELEASE, int(delivery))


@router.post(
    "/{delivery}/cancel", operation_id="deliveries_cancel", summary="Cancel a delivery", responses=answers.CREATE
)
async def cancel(delivery: Id, context: InContext, caller: AnyAuth) -> DeliveryAction:
    """Withdraw a delivery. One that is being sent may still be delivered: its event says what happened."""
    return await _one(context, caller, Kind.CANCEL, int(delivery))


async def _all(context: Context, caller: Caller, kind: Kind, which: DeliverySelection, response: Response) -> Job:
    account_id = _account(caller, which.account)
    wanted = _selection(caller, account_id, which, kind)
    action = Action(kind, by_operator=caller.account_id is None)
    async with session_transaction(context.sessions, context.bell) as (session, _):
        if which.account is not None:
            await accounts.get_account(session, int(which.account))
        made = await jobs.create_job(session, action, wanted, account_id=account_id)
    await context.jobs.begin(made.id)
    async with context.look() as session:
        job = Job.of(await jobs.get_job(session, made.id, account_id=caller.account_id, stream=caller.stream))
    response.status_code = 200 if job.finished_at is not None else 202
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


def _account(caller: Caller, account: str | None) -> int | None:
    if caller.account_id is None:
        return inputs.row_id(int(account), "account") if account is not None else None
    if account is not None:
        raise Forbidden("only an operator may say whose deliveries; this credential is for those of its own account")
    return caller.account_id


def _selection(caller: Caller, account_id: int | None, which: DeliverySelection, kind: Kind) -> Selection:
    held = which.state == "held" if which.state is not None else None
    domains = {
        name: parse_domain(getattr(which, name), field=name) if getattr(which, name) is not None else None
        for name in ("sender_domain", "recipient_domain")
    }
    return Selection(
        account_id=account_id,
        ids=tuple(sorted({inputs.row_id(int(one), "delivery") for one in which.ids}))
        if which.ids is not None
        else None,
        message_id=inputs.row_id(int(which.message), "message") if which.message is not None else None,
        held=True if held is None and kind is Kind.RELEASE else held,
        tag=which.tag,
        sender=parse(which.sender, field="sender").text if which.sender is not None else None,
        sender_domain=domains["sender_domain"],
        recipient=parse(which.recipient, field="recipient").text if which.recipient is not None else None,
        recipient_domain=domains["recipient_domain"],
        accepted_before=which.accepted_before,
        accepted_after=which.accepted_after,
        due_before=which.due_before,
        due_after=which.due_after,
        stream=caller.stream,
    )


async def _one(context: Context, caller: Caller, kind: Kind, delivery_id: int) -> DeliveryAction:
    number = inputs.row_id(delivery_id, "delivery")
    wanted = Selection(account_id=caller.account_id, ids=(number,), stream=caller.stream)
    action = Action(kind, by_operator=caller.account_id is None)
    async with reachable(), transaction(context.pool, context.bell) as (connection, rings):
        applied = await holds.apply(connection, action, wanted, [number], limit=1)
        applied.ring(rings)
    detail = await _detail(context, caller, number)
    if not applied.matched:
        _check_is_so_already(kind, detail)
    if number in applied.kept_held and caller.account_id is not None:
        raise Forbidden("an operator holds this delivery: only an operator can release it")
    return DeliveryAction(
        result=_result(applied, number),
        delivery=DeliveryWithAttempts.detail(detail, to_operator=caller.account_id is None),
    )


async def _detail(context: Context, caller: Caller, delivery_id: int) -> DeliveryDetail:
    async with context.read() as connection:
        if caller.account_id is None:
            detail = await operator_get_delivery(connection, delivery_id)
        else:
            detail = await get_delivery(connection, caller.account_id, delivery_id, stream=caller.stream or "")
    if detail is None:
        raise NotFound(
            f"there is no delivery {delivery_id}" + ("" if caller.account_id is None else " in this account")
        )
    return detail


def _check_is_so_already(kind: Kind, detail: DeliveryDetail) -> None:
    """Pass what was canceled before and is asked to be again; all else that is settled stays as it is."""
    state = detail.delivery.state
    if kind is Kind.CANCEL and state is DeliveryState.CANCELED:
        return
    if state in SETTLED:
        raise Conflict(f"this delivery is {state.value} already; nothing can be changed about it")
    raise Conflict("this delivery was just being stored or settled; ask again")


def _result(applied: Applied, delivery_id: int) -> Literal["done", "unchanged", "in_flight"]:
    if delivery_id in applied.in_flight:
        return "in_flight"
    return "done" if delivery_id in applied.changed else "unchanged"
