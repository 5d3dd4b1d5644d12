"""``/v1/accounts/{account}/domains``: for operators."""

from typing import cast

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from api.context import Context, InContext
from api.routes import answers
from api.routes.guard import GuardedRoute, OperatorAuth
from api.routes.parameters import AccountId, Id, InPages
from api.schemas.domains import (
    DkimKey,
    Domain,
    DomainChange,
    DomainPage,
    DomainWithRecords,
    NewDkimKey,
    NewDomain,
)
from shared.db import accounts, dkim_keys, domains
from shared.errors import Conflict, DatabaseUnavailable, Unavailable
from shared.events import Subject
from shared.models import Domain as Row
from shared.web.problems import responses

router = APIRouter(prefix="/v1/accounts/{account}/domains", tags=["domains"], route_class=GuardedRoute)


@router.get("", operation_id="domains_list", summary="List domains", responses=answers.READ)
async def list_(account: AccountId, context: InContext, _caller: OperatorAuth, query: InPages) -> DomainPage:
    """Return the domains of an account, the oldest first."""
    async with context.look() as session:
        row = await accounts.get_account(session, int(account))
        page = await domains.list_domains(session, row.id, cursor=query.cursor, limit=query.limit)
    return DomainPage(data=[Domain.of(item) for item in page.items], next_cursor=page.next_cursor)


@router.post("", operation_id="domains_create", summary="Add a domain", status_code=201, responses=answers.CREATE)
async def create(account: AccountId, new: NewDomain, context: InContext, _caller: OperatorAuth) -> DomainWithRecords:
    """Add a domain to an account, with DKIM keys. Publish the records of the answer, then have it verified."""
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        row = await domains.create_domain(
            session, int(account), new.name, separators=new.separators, bounce_domain=new.bounce_domain
        )
        for algorithm in dkim_keys.SELECTORS:
            await dkim_keys.create_dkim_key(session, context.ring, row, algorithm)
        return await _detail(context, session, row)


@router.get("/{domain}", operation_id="domains_get", summary="Get a domain", responses=answers.READ)
async def get(account: AccountId, domain: Id, context: InContext, _caller: OperatorAuth) -> DomainWithRecords:
    """Return a domain with its keys and the DNS records to publish."""
    async with context.look() as session:
        row = await accounts.get_account(session, int(account))
        return await _detail(context, session, await domains.get_domain(session, row.id, int(domain)))


@router.patch("/{domain}", operation_id="domains_update", summary="Change a domain", responses=answers.UPDATE)
async def update(
    account: AccountId, domain: Id, change: DomainChange, context: InContext, _caller: OperatorAuth
) -> DomainWithRecords:
    """Change what is given of how the mail of a domain is signed, and nothing else."""
    given = cast("domains.SigningChange", {name: getattr(change, name) for name in change.model_fields_set})
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        row = await domains.change_signing(session, owner.id, int(domain), given)
        return await _detail(context, session, row)


@router.post(
    "/{domain}/verify",
    operation_id="domains_verify",
    summary="Verify a domain",
    responses={**answers.CREATE, **responses(DatabaseUnavailable, Unavailable)},
)
async def verify(account: AccountId, domain: Id, context: InContext, _caller: OperatorAuth) -> DomainWithRecords:
    """Look for the verification record in DNS, and let the account send from the domain if it is there."""
    async with context.look() as session:
        owner = await accounts.get_account(session, int(account))
        row = await domains.get_domain(session, owner.id, int(domain))
    if row.verified_at is None and not await domains.is_proven(row, context.resolver):
        record = domains.dns_records(row, (), context.settings.hostname)[0]
        raise Conflict(
            f"there is no {record.type} record {record.value} at {record.name} yet; publish it, and allow DNS some minutes"
        )
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        row = await domains.mark_verified(session, row.account_id, row.id)
        return await _detail(context, session, row)


@router.post("/{domain}/disable", operation_id="domains_disable", summary="Disable a domain", responses=answers.READ)
async def disable(account: AccountId, domain: Id, context: InContext, _caller: OperatorAuth) -> DomainWithRecords:
    """Stop sending from a domain: what is handed in is refused from now on, and what was accepted before waits."""
    return await _switch(context, account, domain, disabled=True)


@router.post("/{domain}/enable", operation_id="domains_enable", summary="Enable a domain", responses=answers.READ)
async def enable(account: AccountId, domain: Id, context: InContext, _caller: OperatorAuth) -> DomainWithRecords:
    """Let the account send from a domain again; what waited goes out."""
    return await _switch(context, account, domain, disabled=False)


@router.post(
    "/{domain}/dkim-keys",
    operation_id="dkim_keys_create",
    summary="Add a DKIM key",
    status_code=201,
    responses=answers.CREATE,
)
async def create_key(
    account: AccountId, domain: Id, new: NewDkimKey, context: InContext, _caller: OperatorAuth
) -> DkimKey:
    """Make a further key, which signs the mail of a domain from now on, or once it is activated; publish its record at once.

    To replace a key without a gap: make the new one with `active` false, publish its record, activate it once DNS shows it,
    deactivate the old one, and remove that, with its record, after a week.
    """
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        row = await domains.get_domain(session, owner.id, int(domain))
        return DkimKey.of(
            await dkim_keys.create_dkim_key(
                session, context.ring, row, new.algorithm, selector=new.selector, active=new.active
            )
        )


@router.post(
    "/{domain}/dkim-keys/{key}/activate",
    operation_id="dkim_keys_activate",
    summary="Activate a DKIM key",
    responses=answers.UPDATE,
)
async def activate_key(account: AccountId, domain: Id, key: Id, context: InContext, _caller: OperatorAuth) -> DkimKey:
    """Have a key sign from now on, beside those that do. Its record should be in DNS by now."""
    return await _switch_key(context, account, domain, key, active=True)


@router.post(
    "/{domain}/dkim-keys/{key}/deactivate",
    operation_id="dkim_keys_deactivate",
    summary="Deactivate a DKIM key",
    responses=answers.UPDATE,
)
async def deactivate_key(account: AccountId, domain: Id, key: Id, context: InContext, _caller: OperatorAuth) -> DkimKey:
    """Have a key sign no longer. Leave its record in DNS while mail that it signed is under way."""
    return await _switch_key(context, account, domain, key, active=False)


@router.delete(
    "/{domain}/dkim-keys/{key}",
    operation_id="dkim_keys_remove",
    summary="Remove a DKIM key",
    status_code=204,
    responses=answers.UPDATE,
)
async def remove_key(account: AccountId, domain: Id, key: Id, context: InContext, _caller: OperatorAuth) -> None:
    """Remove a key that does not sign any more, for good."""
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        await dkim_keys.remove_dkim_key(session, owner.id, int(domain), int(key))


async def _switch_key(context: Context, account: str, domain: str, key: str, *, active: bool) -> DkimKey:
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        return DkimKey.of(await dkim_keys.set_dkim_key_active(session, owner.id, int(domain), int(key), active=active))


async def _switch(context: Context, account: str, domain: str, *, disabled: bool) -> DomainWithRecords:
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        row = await domains.set_domain_disabled(session, owner.id, int(domain), disabled=disabled)
        return await _detail(context, session, row)


async def _detail(context: Context, session: AsyncSession, row: Row) -> DomainWithRecords:
    keys = await dkim_keys.list_dkim_keys(session, row.account_id, row.id)
    warnings = dkim_keys.signing_warnings(context.ring, row, keys)
    return DomainWithRecords.detail(row, keys, domains.dns_records(row, keys, context.settings.hostname), warnings)
