"""``/v1/hold-rules``: conditions under which mail waits; an account's own, or an operator's for one account or all."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.caller import Caller
from api.context import InContext
from api.routes import answers
from api.routes.guard import AnyAuth, GuardedRoute
from api.routes.parameters import ID_PATTERN, Id, Paging
from api.schemas.hold_rules import HoldRule, HoldRulePage, MadeHoldRule, NewHoldRule
from api.schemas.jobs import Job
from shared.clock import utc_now
from shared.db import hold_rules, jobs
from shared.db.hold_rules import NewRule
from shared.db.transaction import session_transaction
from shared.errors import Forbidden, ValidationFailed
from shared.mail.address import parse, parse_domain

router = APIRouter(prefix="/v1/hold-rules", tags=["hold rules"], route_class=GuardedRoute)


class HoldRuleQuery(Paging):
    """Which rules."""

    account: str | None = Field(default=None, pattern=ID_PATTERN, description="Whose; for operators.")


class RemovalQuery(BaseModel):
    """How to remove a rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: bool = Field(default=False, description="Release what it holds; otherwise that stays held.")


@router.get("", operation_id="hold_rules_list", summary="List hold rules", responses=answers.LIST)
async def list_(context: InContext, caller: AnyAuth, query: Annotated[HoldRuleQuery, Query()]) -> HoldRulePage:
    """Return hold rules, the newest first: an account's own, or all to an operator."""
    _check_account(caller, query.account)
    async with context.look() as session:
        page = await hold_rules.list_rules(
            session,
            account_id=caller.account_id,
            of_account=int(query.account) if query.account is not None else None,
            cursor=query.cursor,
            limit=query.limit,
        )
    return HoldRulePage(data=[HoldRule.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "", operation_id="hold_rules_create", summary="Make a hold rule", status_code=201, responses=answers.CREATE
)
async def create(new: NewHoldRule, context: InContext, caller: AnyAuth) -> MadeHoldRule:
    """Hold all mail that matches: what comes from now on, and by the job of the answer what is queued already.

    Nothing that matches starts to be sent after the answer, however far the job has come.
    """
    rule = _rule(new, caller)
    async with session_transaction(context.sessions, context.bell) as (session, _):
        row, job = await hold_rules.create_rule(session, rule)
    await context.jobs.begin(job.id)
    async with context.look() as session:
        return MadeHoldRule.made(
            row, Job.of(await jobs.get_job(session, job.id, account_id=caller.account_id, stream=caller.stream))
        )


@router.get("/{rule}", operation_id="hold_rules_get", summary="Get a hold rule", responses=answers.READ)
async def get(rule: Id, context: InContext, caller: AnyAuth) -> HoldRule:
    """Return a hold rule."""
    async with context.look() as session:
        return HoldRule.of(await hold_rules.get_rule(session, int(rule), account_id=caller.account_id))


@router.delete(
    "/{rule}",
    operation_id="hold_rules_remove",
    summary="Remove a hold rule",
    response_model=None,
    responses={
        **answers.REMOVE,
        200: {"model": Job, "description": "With `release`: the job that releases what it held."},
        204: {"description": "Without `release`: what it held stays held."},
    },
)
async def remove(
    rule: Id, context: InContext, caller: AnyAuth, query: Annotated[RemovalQuery, Query()]
) -> Job | Response:
    """End a hold rule. What it holds stays held until it is released, or is released at once with `release=true`.

    Even then stays held what somebody holds by hand, or what another rule matches.
    """
    _check_may_rule(caller)
    async with session_transaction(context.sessions, context.bell) as (session, _):
        made = await hold_rules.remove_rule(session, int(rule), account_id=caller.account_id, release=query.release)
    if made is None:
        return Response(status_code=204)
    await context.jobs.begin(made.id)
    async with context.look() as session:
        return Job.of(await jobs.get_job(session, made.id, account_id=caller.account_id, stream=caller.stream))


def _rule(new: NewHoldRule, caller: Caller) -> NewRule:
    _check_may_rule(caller)
    _check_account(caller, new.account)
    account_id = int(new.account) if new.account is not None else caller.account_id
    if new.expires_at is not None and new.expires_at <= utc_now():
        raise ValidationFailed("expires_at has passed already; give a time to come", field="expires_at")
    return NewRule(
        account_id=account_id,
        by_operator=caller.account_id is None,
        sender_domain=_domain(new.sender_domain, "sender_domain"),
        sender_address=parse(new.sender, field="sender").text if new.sender is not None else None,
        recipient_domain=_domain(new.recipient_domain, "recipient_domain"),
        recipient_address=parse(new.recipient, field="recipient").text if new.recipient is not None else None,
        reason=new.reason,
        expires_at=new.expires_at,
        release_on_expiry=new.release_on_expiry,
    )


def _check_account(caller: Caller, account: str | None) -> None:
    if account is not None and caller.account_id is not None:
        raise Forbidden("only an operator may say whose; this credential is for the rules of its own account")


def _check_may_rule(caller: Caller) -> None:
    if caller.is_test:
        raise Forbidden("a hold rule is for real mail as well: use a key that is not for the sandbox")


def _domain(text: str | None, field: str) -> str | None:
    return parse_domain(text, field=field) if text is not None else None
