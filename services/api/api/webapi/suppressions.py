"""The Suppression methods: the list of the account, found by mox's base address (dots, +suffixes and -suffixes ignored)."""

from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from api.caller import AccountCaller
from api.context import Context
from api.webapi import values
from api.webapi.faults import Fault
from shared.db import suppressions
from shared.errors import TooLarge
from shared.events import Subject
from shared.mail.address import parse
from shared.models import Account, Suppression

_MOST = 20_000
"""Entries in one answer: about what mox's own client reads, which stops at 3 MiB."""


@dataclass(frozen=True, slots=True)
class ListRequest:
    """The JSON of SuppressionList, which has no fields."""


@dataclass(frozen=True, slots=True)
class AddRequest:
    """The JSON of SuppressionAdd."""

    email_address: str = ""
    manual: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """The JSON of SuppressionRemove and SuppressionPresent."""

    email_address: str = ""


_ADDRESS: Final = {"EmailAddress": ("email_address", values.text)}
read_list: Final = values.record(ListRequest, {})
read_add: Final = values.record(
    AddRequest, {**_ADDRESS, "Manual": ("manual", values.flag), "Reason": ("reason", values.text)}
)
read_address: Final = values.record(AddressRequest, _ADDRESS)


async def list_(context: Context, caller: AccountCaller) -> dict[str, Any]:
    """Return the whole list, by base address.

    Raises:
        Fault: it is too long for one answer.
    """
    async with context.look() as session:
        account = await session.get(Account, caller.account_id)
        try:
            rows = await suppressions.all_suppressions(session, caller.account_id, most=_MOST, stream=caller.stream)
        except TooLarge as error:
            raise Fault("error", f"{error.message}: GET /v1/suppressions") from None
        name = account.name if account is not None else ""
        return {"Suppressions": [_shown(row, name) for row in rows]}


async def add(context: Context, caller: AccountCaller, request: AddRequest) -> dict[str, Any]:
    """Put an address on the list, so that it matches as in mox.

    Raises:
        AddressInvalid: it is no address.
        Conflict: its base address is on the list.
    """
    address = parse(request.email_address, field="EmailAddress")
    options = suppressions.SuppressionOptions(reason=request.reason, manual=request.manual, match_by_mox_key=True)
    async with context.change(Subject.SUPPRESSION_CHANGED, f"account:{caller.account_id}") as session:
        await suppressions.add_suppression(session, caller.account_id, address, options, stream=caller.stream)
    return {}


async def remove(context: Context, caller: AccountCaller, request: AddressRequest) -> dict[str, Any]:
    """Take every spelling of an address off the list.

    Raises:
        AddressInvalid: it is no address.
        Fault: it is not on the list.
    """
    address = parse(request.email_address, field="EmailAddress")
    async with context.change(Subject.SUPPRESSION_CHANGED, f"account:{caller.account_id}") as session:
        account_id, stream = caller.account_id, caller.stream
        if await suppressions.find_suppression(session, account_id, address, by_mox_key=True, stream=stream) is None:
            raise Fault("error", "this address is not on the suppression list")
        await suppressions.remove_suppressed_address(session, account_id, address, by_mox_key=True, stream=stream)
    return {}


async def present(context: Context, caller: AccountCaller, request: AddressRequest) -> dict[str, Any]:
    """Say whether any spelling of an address is on the list.

    Raises:
        AddressInvalid: it is no address.
    """
    address = parse(request.email_address, field="EmailAddress")
    async with context.look() as session:
        row = await suppressions.find_suppression(
            session, caller.account_id, address, by_mox_key=True, stream=caller.stream
        )
    return {"Present": row is not None}


def _shown(row: Suppression, account: str) -> dict[str, Any]:
    return {
        "ID": row.id,
        "Created": row.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "Account": account,
        "BaseAddress": row.mox_key,
        "OriginalAddress": row.address,
        "Manual": row.manual,
        "Reason": row.reason,
    }
