"""API keys and logins of accounts, and the keys of operators: for operators."""

import secrets

from fastapi import APIRouter

from api.context import InContext
from api.routes import answers
from api.routes.guard import GuardedRoute, OperatorAuth
from api.routes.parameters import AccountId, Id, InPages
from api.schemas.credentials import (
    ApiKey,
    ApiKeyPage,
    ApiKeyWithSecret,
    Login,
    LoginPage,
    LoginWithPassword,
    NewApiKey,
    NewLogin,
    NewOperatorKey,
)
from shared.db import accounts, credentials
from shared.errors import Conflict, NotFound
from shared.events import Subject

router = APIRouter(prefix="/v1", tags=["credentials"], route_class=GuardedRoute)


@router.get("/accounts/{account}/keys", operation_id="keys_list", summary="List API keys", responses=answers.READ)
async def list_keys(account: AccountId, context: InContext, _caller: OperatorAuth, query: InPages) -> ApiKeyPage:
    """Return the API keys of an account, the oldest first, revoked ones too."""
    async with context.look() as session:
        owner = await accounts.get_account(session, int(account))
        page = await credentials.list_credentials(session, owner.id, cursor=query.cursor, limit=query.limit)
    rows = [row for row in page.items if row.kind == "api_key"]
    return ApiKeyPage(data=[ApiKey.of(row) for row in rows], next_cursor=page.next_cursor)


@router.post(
    "/accounts/{account}/keys",
    operation_id="keys_create",
    summary="Create an API key",
    status_code=201,
    responses=answers.CREATE,
)
async def create_key(account: AccountId, new: NewApiKey, context: InContext, _caller: OperatorAuth) -> ApiKeyWithSecret:
    """Create an API key of an account. The answer shows it, this once."""
    options = credentials.KeyOptions(
        name=new.name, uses_from_ids=new.uses_from_ids, expires_at=new.expires_at, is_test=new.test
    )
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        row, key = await credentials.create_api_key(session, context.ring, int(account), options)
    return ApiKeyWithSecret.with_key(row, key)


@router.delete(
    "/accounts/{account}/keys/{key}",
    operation_id="keys_revoke",
    summary="Revoke an API key",
    status_code=204,
    responses=answers.REMOVE,
)
async def revoke_key(account: AccountId, key: Id, context: InContext, _caller: OperatorAuth) -> None:
    """Make an API key useless from now on."""
    await _revoke(context, account, key, "api_key")


@router.get("/accounts/{account}/logins", operation_id="logins_list", summary="List logins", responses=answers.READ)
async def list_logins(account: AccountId, context: InContext, _caller: OperatorAuth, query: InPages) -> LoginPage:
    """Return the logins of an account, the oldest first, revoked ones too."""
    async with context.look() as session:
        owner = await accounts.get_account(session, int(account))
        page = await credentials.list_credentials(session, owner.id, cursor=query.cursor, limit=query.limit)
    rows = [row for row in page.items if row.kind == "login"]
    return LoginPage(data=[Login.of(row) for row in rows], next_cursor=page.next_cursor)


@router.post(
    "/accounts/{account}/logins",
    operation_id="logins_create",
    summary="Create a login",
    status_code=201,
    responses=answers.CREATE,
)
async def create_login(
    account: AccountId, new: NewLogin, context: InContext, _caller: OperatorAuth
) -> LoginWithPassword:
    """Create a login of an account. The answer shows its password, this once."""
    password = new.password if new.password is not None else secrets.token_urlsafe(18)
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        row = await credentials.create_login(session, owner.id, new.login, password, uses_from_ids=new.uses_from_ids)
    return LoginWithPassword.with_password(row, password)


@router.delete(
    "/accounts/{account}/logins/{login}",
    operation_id="logins_revoke",
    summary="Revoke a login",
    status_code=204,
    responses=answers.REMOVE,
)
async def revoke_login(account: AccountId, login: Id, context: InContext, _caller: OperatorAuth) -> None:
    """Make a login useless from now on."""
    await _revoke(context, account, login, "login")


async def _revoke(context: InContext, account: str, credential: str, kind: str) -> None:
    async with context.change(Subject.CONFIG_CHANGED, f"account:{account}") as session:
        owner = await accounts.get_account(session, int(account))
        row = await credentials.revoke(session, owner.id, int(credential))
        if row.kind != kind:  # leaving by an error undoes it
            raise NotFound(f"there is no {kind.replace('_', ' ')} {credential} in this account")


@router.get("/operator-keys", operation_id="operator_keys_list", summary="List operators' keys", responses=answers.LIST)
async def list_operator_keys(context: InContext, _caller: OperatorAuth, query: InPages) -> ApiKeyPage:
    """Return the API keys of operators, the oldest first, revoked ones too."""
    async with context.look() as session:
        page = await credentials.operator_list_credentials(session, cursor=query.cursor, limit=query.limit)
    return ApiKeyPage(data=[ApiKey.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.post(
    "/operator-keys",
    operation_id="operator_keys_create",
    summary="Create an operator's key",
    status_code=201,
    responses=answers.CREATE,
)
async def create_operator_key(new: NewOperatorKey, context: InContext, _caller: OperatorAuth) -> ApiKeyWithSecret:
    """Create an API key of an operator. The answer shows it, this once."""
    options = credentials.KeyOptions(name=new.name, expires_at=new.expires_at)
    async with context.change(Subject.CONFIG_CHANGED, "operators") as session:
        row, key = await credentials.create_operator_key(session, context.ring, options)
    return ApiKeyWithSecret.with_key(row, key)


@router.delete(
    "/operator-keys/{key}",
    operation_id="operator_keys_revoke",
    summary="Revoke an operator's key",
    status_code=204,
    responses={**answers.REMOVE, **answers.CREATE},
)
async def revoke_operator_key(key: Id, context: InContext, caller: OperatorAuth) -> None:
    """Make an operator's API key useless from now on. Nobody revokes the key in hand, so one always remains."""
    if int(key) == caller.credential_id:
        raise Conflict("this is the key you are using; create another, and revoke this one with that")
    async with context.change(Subject.CONFIG_CHANGED, "operators") as session:
        row = await credentials.operator_revoke(session, int(key))
        if row.role != "operator":  # leaving by an error undoes it
            raise NotFound(f"there is no operator's key {key}")
