"""Accounts and their addresses. The demo account of the local stack is made by ``shared.db.demo``."""

from dataclasses import dataclass, fields
from typing import Any, TypedDict

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging, retry_schedules, usage
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import AddressInvalid, Conflict, NotFound, ValidationFailed
from shared.mail.address import canonical, parse, parse_domain, quoted_local
from shared.models import Account, Address, Domain

_NAME_CHARACTERS = 200
_LONGEST_KEEP = 10 * 366 * 86_400
_MOST = 2**31 - 1
_LIMITS = ("messages_per_day", "first_time_recipients_per_day", "messages_per_second")
_RANGES = {
    "keep_deliveries_seconds": (0, _LONGEST_KEEP),
    "keep_calls_seconds": (0, _LONGEST_KEEP),
    "messages_per_day": (0, _MOST),
    "first_time_recipients_per_day": (0, _MOST),
    "messages_per_second": (1, _MOST),
}
_NAME_TAKEN = "there is an account of this name already"
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
    messages_per_second: int | None = None
    """None: no limit."""
    retry_schedule: str = "default"
    """Name of a schedule: ``default``, ``mox``, or one that an operator made."""
    dsn_to_sender: bool = False
    """Whether a mail comes to the return path where one could not be delivered, or is late."""


class AccountChange(TypedDict, total=False):
    """What of an account shall be otherwise; a limit that is None goes away."""

    name: str
    keep_deliveries_seconds: int
    keep_calls_seconds: int
    messages_per_day: int | None
    first_time_recipients_per_day: int | None
    messages_per_second: int | None
    retry_schedule: str
    dsn_to_sender: bool


async def create_account(session: AsyncSession, name: str, options: AccountOptions | None = None) -> Account:
    """Make an account.

    Raises:
        ValidationFailed: the name is empty or too long, a limit is out of range, or there is no such retry schedule.
        Conflict: there is an account of this name.
    """
    given = options or AccountOptions()
    statement = insert(Account).values(
        name=_checked("name", name),
        **{field.name: _checked(field.name, getattr(given, field.name)) for field in fields(given)},
    )
    await retry_schedules.named_by_account(session, given.retry_schedule)
    row: Account | None = await session.scalar(statement.on_conflict_do_nothing().returning(Account))
    if row is None:
        raise Conflict(_NAME_TAKEN, field="name")
    return row


async def update_account(session: AsyncSession, account_id: int, change: AccountChange) -> Account:
    """Change an account.

    A limit where there was none counts what the account's history says of the last day, and a limit on first-time recipients
    knows whom the account has written to before; what is accepted while it is being set may be missing.

    Raises:
        NotFound: there is no such account, or it is the installation's own.
        ValidationFailed: the name is empty or too long, a limit is out of range, or there is no such retry schedule.
        Conflict: there is another account of this name.
    """
    before = await get_account(session, account_id)
    if before.id == 0:
        raise NotFound("account 0 is the installation itself and cannot be changed")
    values: dict[str, Any] = {field: _checked(field, value) for field, value in change.items()}
    if not values:
        return before
    connection = await _connection(session)
    after = {field: values.get(field, getattr(before, field)) for field in _LIMITS}
    had_any = any(getattr(before, field) is not None for field in _LIMITS)
    meets = before.first_time_recipients_per_day is None and after["first_time_recipients_per_day"] is not None
    begins = meets or (not had_any and any(limit is not None for limit in after.values()))
    # All that takes long comes before the account's row is locked: whoever accepts its mail waits for that.
    if meets:
        await usage.meet_all(connection, before.id)
    past = await usage.read_past(connection, before.id) if begins else []
    rate_changes = after["messages_per_second"] != before.messages_per_second
    if "retry_schedule" in values:
        await retry_schedules.named_by_account(session, values["retry_schedule"])
    try:
        async with session.begin_nested():
            await session.execute(update(Account).where(col(Account.id) == before.id).values(**values))
    except IntegrityError:  # the name, which is unique: all else was checked
        raise Conflict(_NAME_TAKEN, field="name") from None
    await usage.catch_up(connection, before.id, past)
    if rate_changes:
        await usage.forgive(connection, before.id)
    await session.refresh(before)
    return before


async def _connection(session: AsyncSession) -> Connection:
    """Return the driver's own connection, in the session's transaction."""
    raw: Any = await (await session.connection()).get_raw_connection()
    connection: Connection = raw.driver_connection
    return connection


def _checked(field: str, value: Any) -> Any:  # noqa: ANN401 - text or a number, as its column is
    """Return the value of a column of an account.

    Raises:
        ValidationFailed: it is out of range.
    """
    match field:
        case "name":
            return inputs.text(value, field=field, longest=_NAME_CHARACTERS, empty=False)
        case "retry_schedule":
            return value  # whether there is such a schedule is asked where it is locked
        case "dsn_to_sender":
            return value
    least, largest = _RANGES[field]
    if value is None or least <= value <= largest:
        return value
    raise ValidationFailed(f"{field} is between {least} and {largest}, not {value}", field=field)


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
