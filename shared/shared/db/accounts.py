"""Accounts and their addresses. The demo account of the local stack is made by ``shared.db.demo``."""

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging, retry_schedules
from shared.db.paging import Page
from shared.errors import AddressInvalid, Conflict, NotFound, ValidationFailed
from shared.mail.address import canonical, parse, parse_domain, quoted_local
from shared.models import Account, Address, Domain

_NAME_CHARACTERS = 200
_LONGEST_KEEP = 10 * 366 * 86_400
_MOST_PER_DAY = 2**31 - 1
_ACCOUNTS, _ADDRESSES = "account", "address"


@dataclass(frozen=True, slots=True)
class AccountOptions:
    """Limits and habits of an account."""

    keep_deliveries_seconds: int = 259_200
    """How long a settled delivery is kept; 0: not at all."""
    keep_calls_seconds: int = 259_200
    """How long a settled webhook call is kept; 0: not at all."""
    messages_per_day: int | None = None
    """None: no limit."""
    first_time_recipients_per_day: int | None = None
    """None: no limit."""
    retry_schedule: str = "default"
    """Name of a schedule: ``default``, ``mox``, or one that an operator made."""


async def create_account(session: AsyncSession, name: str, options: AccountOptions | None = None) -> Account:
    """Make an account.

    Raises:
        ValidationFailed: the name is empty or too long, a limit is out of range, or there is no such retry schedule.
        Conflict: there is an account of this name.
    """
    given = options or AccountOptions()
    statement = insert(Account).values(
        name=inputs.text(name, field="name", longest=_NAME_CHARACTERS, empty=False),
        keep_deliveries_seconds=_within("keep_deliveries_seconds", given.keep_deliveries_seconds, _LONGEST_KEEP),
        keep_calls_seconds=_within("keep_calls_seconds", given.keep_calls_seconds, _LONGEST_KEEP),
        messages_per_day=_within("messages_per_day", given.messages_per_day, _MOST_PER_DAY),
        first_time_recipients_per_day=_within(
            "first_time_recipients_per_day", given.first_time_recipients_per_day, _MOST_PER_DAY
        ),
        retry_schedule=given.retry_schedule,
    )
    await retry_schedules.named_by_account(session, given.retry_schedule)
    row: Account | None = await session.scalar(statement.on_conflict_do_nothing().returning(Account))
    if row is None:
        raise Conflict("there is an account of this name already", field="name")
    return row


def _within(field: str, value: int | None, largest: int) -> int | None:
    if value is not None and not 0 <= value <= largest:
        raise ValidationFailed(f"{field} is between 0 and {largest}, not {value}", field=field)
    return value


async def get_account(session: AsyncSession, account_id: int) -> Account:
    """Return an account.

    Raises:
        NotFound: there is no such account.
    """
    row = await session.get(Account, inputs.row_id(account_id, "account"))
    if row is None:
        raise NotFound(f"there is no account {account_id}")
    return row


async def operator_list_accounts(session: AsyncSession, *, cursor: str | None = None, limit: int = 50) -> Page[Account]:
    """Return a page of all accounts, the oldest first; the installation's own (id 0) is none of them."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_ACCOUNTS, cursor) if cursor else (0,)
    query = select(Account).where(col(Account.id) > after).order_by(col(Account.id)).limit(size + 1)
    return paging.page(_ACCOUNTS, [(row.id, row) for row in await session.scalars(query)], size)


async def set_account_disabled(session: AsyncSession, account_id: int, *, disabled: bool) -> Account:
    """Refuse an account's mail and hold back what it has queued, or take it on again; a second time changes nothing.

    Raises:
        NotFound: there is no such account, or it is the installation's own.
    """
    row = await get_account(session, account_id)
    if row.id == 0:
        raise NotFound("account 0 is the installation itself and cannot be disabled")
    first = func.coalesce(col(Account.disabled_at), func.now())
    await session.execute(
        update(Account).where(col(Account.id) == row.id).values(disabled_at=first if disabled else None)
    )
    await session.refresh(row)
    return row


@dataclass(frozen=True, slots=True)
class AddressRow:
    """An address of an account."""

    id: int
    text: str
    """``name@example.com``, or ``@example.com`` for every address of the domain."""


async def add_address(session: AsyncSession, account_id: int, text: str) -> AddressRow:
    """Give an account an address at one of its domains; with ``@example.com`` every address of the domain.

    Raises:
        AddressInvalid: no address, or one with a +suffix: every suffix belongs to it anyway.
        ValidationFailed: the domain is not the account's.
        Conflict: the account has this address already.
    """
    local, name = "", ""
    if text.startswith("@"):
        name = parse_domain(text[1:], field="address")
    else:
        address = parse(text, field="address")
        local, name = address.local.lower(), address.domain
    query = select(Domain).where(col(Domain.account_id) == account_id, col(Domain.name) == name)
    domain = await session.scalar(query)
    if domain is None:
        raise ValidationFailed(f"add the domain {name} to the account first", field="address")
    if local and canonical(parse(text), domain.catchall_separators).local != parse(text).local:
        raise AddressInvalid("leave the suffix out: every suffix belongs to the address anyway", field="address")
    statement = insert(Address).values(account_id=account_id, domain_id=domain.id, local=local)
    row: Address | None = await session.scalar(statement.on_conflict_do_nothing().returning(Address))
    if row is None:
        raise Conflict("this account has this address already", field="address")
    return AddressRow(row.id, _text(local, name))


async def list_addresses(
    session: AsyncSession, account_id: int, *, cursor: str | None = None, limit: int = 50
) -> Page[AddressRow]:
    """Return a page of the addresses of an account, the oldest first."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_ADDRESSES, cursor) if cursor else (0,)
    query = (
        select(Address, col(Domain.name))
        .join(Domain, col(Domain.id) == col(Address.domain_id))
        .where(col(Address.account_id) == account_id, col(Address.id) > after)
        .order_by(col(Address.id))
        .limit(size + 1)
    )
    rows = (await session.execute(query)).all()
    return paging.page(_ADDRESSES, [(row.id, AddressRow(row.id, _text(row.local, name))) for row, name in rows], size)


async def remove_address(session: AsyncSession, account_id: int, address_id: int) -> None:
    """Take an address away from an account.

    Raises:
        NotFound: the account has no such address.
    """
    number = inputs.row_id(address_id, "address")
    row = await session.scalar(select(Address).where(col(Address.id) == number, col(Address.account_id) == account_id))
    if row is None:
        raise NotFound(f"there is no address {address_id} in this account")
    await session.delete(row)
    await session.flush()


def _text(local: str, domain: str) -> str:
    return f"{quoted_local(local)}@{domain}" if local else f"@{domain}"
