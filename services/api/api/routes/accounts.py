"""``/v1/accounts`` and the addresses of accounts: for operators; and what an account has used of its limits, for itself too."""

from typing import cast

from fastapi import APIRouter

from api.context import InContext
from api.routes import answers
from api.routes.guard import AccountAuth, GuardedRoute, OperatorAuth
from api.routes.parameters import AccountId, Id, InPages
from api.schemas.accounts import (
    Account,
    AccountChange,
    AccountPage,
    Address,
    AddressPage,
    NewAccount,
    NewAddress,
    Usage,
)
from shared.db import accounts, inputs, usage
from shared.events import Subject

router = APIRouter(prefix="/v1/accounts", tags=["accounts"], route_class=GuardedRoute)
own = APIRouter(prefix="/v1/usage", tags=["usage"], route_class=GuardedRoute)


@router.get("", operation_id="accounts_list", summary="List accounts", responses=answers.LIST)
async def list_(context: InContext, _caller: OperatorAuth, query: InPages) -> AccountPage:
    """Return all accounts, the oldest first."""
    async with context.look() as session:
        page = await accounts.operator_list_accounts(session, cursor=query.cursor, limit=query.limit)
    return AccountPage(data=[Account.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post("", operation_id="accounts_create", summary="Create an account", status_code=201, responses=answers.CREATE)
async def create(new: NewAccount, context: InContext, _caller: OperatorAuth) -> Account:
    """Create an account."""
    options = accounts.AccountOptions(
        keep_deliveries_seconds=new.keep_deliveries_seconds,
        keep_calls_seconds=new.keep_calls_seconds,
        messages_per_day=new.messages_per_day,
        first_time_recipients_per_day=new.first_time_recipients_per_day,
        messages_per_second=new.messages_per_second,
        retry_schedule=new.retry_schedule,
        dsn_to_sender=new.dsn_to_sender,
    )
    async with context.change(Subject.CONFIG_CHANGED, "accounts") as session:
        row = await accounts.create_account(session, new.name, options)
    return Account.of(row)


@router.get("/{account}", operation_id="accounts_get", summary="Get an account", responses=answers.READ)
async def get(account: AccountId, context: InContext, _caller: OperatorAuth) -> Account:
    """Return an account."""
    async with context.look() as session:
        return Account.of(await accounts.get_account(session, int(account)))


@router.patch("/{account}", operation_id="accounts_update", summary="Change an account", responses=answers.UPDATE)
async def update(account: AccountId, change: AccountChange, context: InContext, _caller: OperatorAuth) -> Account:
    """Change what is given of an account, its limits for example, and nothing else. It holds for the next message."""
    given = cast("accounts.AccountChange", {name: getattr(change, name) for name in change.model_fields_set})
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        return Account.of(await accounts.update_account(session, int(account), given))


@router.get("/{account}/usage", operation_id="accounts_usage", summary="See what is used", responses=answers.READ)
async def account_usage(account: AccountId, context: InContext, _caller: OperatorAuth) -> Usage:
    """Return what an account has used of its limits, and when there is room again."""
    async with context.read() as connection:
        return Usage.of(await usage.usage(connection, inputs.row_id(int(account), "account")))


@own.get("", operation_id="usage_get", summary="See what is used", responses=answers.LIST)
async def own_usage(context: InContext, caller: AccountAuth) -> Usage:
    """Return what your account has used of its limits, and when there is room again."""
    async with context.read() as connection:
        return Usage.of(await usage.usage(connection, caller.account_id))


@router.get("/{account}/addresses", operation_id="addresses_list", summary="List addresses", responses=answers.READ)
async def list_addresses(account: AccountId, context: InContext, _caller: OperatorAuth, query: InPages) -> AddressPage:
    """Return the addresses of an account, the oldest first."""
    async with context.look() as session:
        row = await accounts.get_account(session, int(account))
        page = await accounts.list_addresses(session, row.id, cursor=query.cursor, limit=query.limit)
    return AddressPage(data=[Address.of(item) for item in page.items], next_cursor=page.next_cursor)


@router.post(
    "/{account}/addresses",
    operation_id="addresses_add",
    summary="Add an address",
    status_code=201,
    responses=answers.CREATE,
)
async def add_address(account: AccountId, new: NewAddress, context: InContext, _caller: OperatorAuth) -> Address:
    """Give an account an address, or with `@example.com` every address of the domain."""
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        row = await accounts.get_account(session, int(account))
        return Address.of(await accounts.add_address(session, row.id, new.address))


@router.delete(
    "/{account}/addresses/{address}",
    operation_id="addresses_remove",
    summary="Remove an address",
    status_code=204,
    responses=answers.REMOVE,
)
async def remove_address(account: AccountId, address: Id, context: InContext, _caller: OperatorAuth) -> None:
    """Take an address away from an account."""
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        row = await accounts.get_account(session, int(account))
        await accounts.remove_address(session, row.id, int(address))
