"""``posthouse account`` and ``posthouse address``."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from posthouse.operator.client import Document
from posthouse.operator.command import AccountArgument, LimitOption, Operator, command, given, new_group
from shared.errors import ConfigurationError

_ACCOUNTS = {
    "id": "id",
    "name": "name",
    "retries": "retry_schedule",
    "created": "created_at",
    "disabled": "disabled_at",
}
_ACCOUNT = {
    "Account": "id",
    "Name": "name",
    "Created": "created_at",
    "Disabled": "disabled_at",
    "Keeps settled deliveries (s)": "keep_deliveries_seconds",
    "Keeps settled calls (s)": "keep_calls_seconds",
    "Messages a day": "messages_per_day",
    "New recipients a day": "first_time_recipients_per_day",
    "Messages a second": "messages_per_second",
    "Retry schedule": "retry_schedule",
    "Tells senders by mail": "dsn_to_sender",
}
_LIMITS = {
    "messages_per_day": "messages a day",
    "first_time_recipients_per_day": "new recipients a day",
    "messages_per_second": "messages a second",
}
_USE_HEADINGS = ("limit", "allowed", "used", "left", "room again")
_USE_FIELDS = ("limit", "used", "left", "room_at")
_ADDRESSES = {"id": "id", "address": "address"}

account = new_group("account", "Accounts, the tenants of an installation.")
address = new_group("address", "The addresses that an account's logins send from and that receive for it.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield from (account, address)


_Dsn = Annotated[
    bool | None,
    typer.Option("--dsn-to-sender/--no-dsn-to-sender", help="Tell senders by mail what is not delivered or late."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOptions:
    """What may be said of a new account; the installation's defaults hold for the rest."""

    keep_deliveries_seconds: Annotated[
        int | None, typer.Option("--keep-deliveries", metavar="SECONDS", help="Keep settled deliveries.")
    ] = None
    keep_calls_seconds: Annotated[
        int | None, typer.Option("--keep-calls", metavar="SECONDS", help="Keep settled webhook calls.")
    ] = None
    messages_per_day: Annotated[int | None, typer.Option(help="Limit; none without it.")] = None
    first_time_recipients_per_day: Annotated[int | None, typer.Option(help="Limit; none without it.")] = None
    messages_per_second: Annotated[int | None, typer.Option(help="Limit; none without it.")] = None
    retry_schedule: Annotated[
        str | None, typer.Option(help="default (three days), mox, or one of `retry-schedule list`.")
    ] = None
    dsn_to_sender: _Dsn = None


_NewLimit = Annotated[str | None, typer.Option(metavar="NUMBER|none", help="Limit; none takes it away.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChange:
    """What shall be otherwise; the rest stays."""

    name: Annotated[str | None, typer.Option(help="Call it so.")] = None
    keep_deliveries_seconds: Annotated[
        int | None, typer.Option("--keep-deliveries", metavar="SECONDS", help="Keep settled deliveries.")
    ] = None
    keep_calls_seconds: Annotated[
        int | None, typer.Option("--keep-calls", metavar="SECONDS", help="Keep settled webhook calls.")
    ] = None
    messages_per_day: _NewLimit = None
    first_time_recipients_per_day: _NewLimit = None
    messages_per_second: _NewLimit = None
    retry_schedule: Annotated[
        str | None, typer.Option(help="default (three days), mox, or one of `retry-schedule list`.")
    ] = None
    dsn_to_sender: _Dsn = None

    def document(self) -> Document:
        """Return what the interface takes.

        Raises:
            ConfigurationError: a limit is neither a number nor ``none``, or nothing is to be changed.
        """
        change = given(**asdict(self))
        if not change:
            raise ConfigurationError(
                "say what to change, for example --messages-per-day 1000; --help lists what there is"
            )
        return {field: _limit(field, str(value)) if field in _LIMITS else value for field, value in change.items()}


@command(account, "create")
def create(
    operator: Operator,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    options: AccountOptions,
) -> None:
    """Create an account."""
    made = operator.client.post("/v1/accounts", given(name=name, **asdict(options)))
    operator.output.item(made, _ACCOUNT)


@command(account, "list")
def list_(operator: Operator, limit: LimitOption = 1000) -> None:
    """List the accounts, the oldest first."""
    operator.output.items(operator.client.listed("/v1/accounts", limit), _ACCOUNTS, "there are no accounts yet")


@command(account, "show")
def show(operator: Operator, account: AccountArgument) -> None:
    """Show an account."""
    operator.output.item(operator.client.get(operator.account(account)), _ACCOUNT)


@command(account, "update")
def update(operator: Operator, account: AccountArgument, change: AccountChange) -> None:
    """Change an account: its name, limits, what is kept, its retry schedule. It holds for the next message."""
    operator.output.item(operator.client.patch(operator.account(account), change.document()), _ACCOUNT)


@command(account, "usage")
def usage(operator: Operator, account: AccountArgument) -> None:
    """Show what an account has used of its limits, and when there is room again."""
    found = operator.client.get(f"{operator.account(account)}/usage")
    if operator.output.as_json:
        operator.output.document(found)
        return
    rows = [(label, found.get(field, {})) for field, label in _LIMITS.items()]
    operator.output.table(_USE_HEADINGS, [[label, *(use.get(field) for field in _USE_FIELDS)] for label, use in rows])


def _limit(field: str, text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise ConfigurationError(f"--{field.replace('_', '-')} is a number or none, not {text!r}")
    return int(text)


@command(address, "add")
def add_address(
    operator: Operator,
    account: AccountArgument,
    address: Annotated[str, typer.Argument(help="At a domain of the account; @example.com gives all of the domain.")],
) -> None:
    """Give an account an address."""
    made = operator.client.post(f"{operator.account(account)}/addresses", {"address": address})
    operator.output.done(f"address {made.get('id')}: {made.get('address')}", made)


@command(address, "list")
def list_addresses(operator: Operator, account: AccountArgument, limit: LimitOption = 1000) -> None:
    """List the addresses of an account, the oldest first."""
    listing = operator.client.listed(f"{operator.account(account)}/addresses", limit)
    operator.output.items(listing, _ADDRESSES, "the account has no addresses yet")


@command(address, "remove")
def remove_address(
    operator: Operator,
    account: AccountArgument,
    address: Annotated[str, typer.Argument(help="The address, or its id.")],
) -> None:
    """Take an address away from an account."""
    path = f"{operator.account(account)}/addresses"
    found = operator.find(path, address, ("address",), "address")
    operator.client.delete(f"{path}/{found}")
    operator.output.done(f"address {found} is removed", {"id": found, "removed": True})
