"""Accounts and their addresses."""

from types import NoneType

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.db.accounts import AddressRow
from shared.db.usage import DayUse
from shared.db.usage import Usage as UsageRow
from shared.models import Account as Row

_ACCOUNT: dict[str, object] = {
    "id": "1",
    "name": "Analytical Engines",
    "created_at": "2026-11-20T13:00:00.000000Z",
    "disabled_at": None,
    "keep_deliveries_seconds": 259200,
    "keep_calls_seconds": 259200,
    "messages_per_day": None,
    "first_time_recipients_per_day": None,
    "messages_per_second": None,
    "retry_schedule": "default",
    "dsn_to_sender": False,
}
_FULL: dict[str, object] = {"limit": 1000, "used": 1000, "left": 0, "room_at": "2026-11-21T06:40:00.000000Z"}
_USAGE: dict[str, object] = {
    "messages_per_day": _FULL,
    "first_time_recipients_per_day": {"limit": None, "used": None, "left": None, "room_at": None},
    "messages_per_second": {"limit": 10, "room_at": None},
}
_ADDRESS: dict[str, object] = {"id": "5", "address": "ada@example.com"}


class NewAccount(Input):
    """A tenant."""

    model_config = example({"name": "Analytical Engines"})

    name: Text = Field(max_length=200)
    keep_deliveries_seconds: int = Field(default=259_200, description="How long a settled delivery is kept.")
    keep_calls_seconds: int = Field(default=259_200, description="How long a settled webhook call is kept.")
    messages_per_day: int | None = Field(
        default=None, description="Recipients of its messages in any 24 hours. Null: no limit."
    )
    first_time_recipients_per_day: int | None = Field(
        default=None, description="Recipients in any 24 hours that it has never written to before. Null: no limit."
    )
    messages_per_second: int | None = Field(
        default=None,
        description="Recipients a second. A second's worth may come at once; a larger message may too, and is waited for afterwards. Null: no limit.",
    )
    retry_schedule: Text = Field(
        default="default",
        max_length=64,
        description="`default` (three days), `mox` (eight attempts), or one that an operator made.",
    )
    dsn_to_sender: bool = Field(
        default=False,
        description="Whether a status notification (RFC 3464) comes to the return path of mail that is not delivered, and once of mail that is late. Events tell of both in any case.",
    )


class AccountChange(Input):
    """What shall be otherwise: what is not given stays as it is."""

    model_config = example({"messages_per_day": 5000, "first_time_recipients_per_day": None})

    # Made by factories, so that the document shows no default: a client that sent it would change what nobody asked for.
    name: Text = Field(default_factory=str, max_length=200)
    keep_deliveries_seconds: int = Field(default_factory=int, description="How long a settled delivery is kept.")
    keep_calls_seconds: int = Field(default_factory=int, description="How long a settled webhook call is kept.")
    messages_per_day: int | None = Field(default_factory=NoneType, description="Null removes the limit.")
    first_time_recipients_per_day: int | None = Field(
        default_factory=NoneType,
        description="Null removes the limit. Whom the account has written to is known from its history, as long as that is kept.",
    )
    messages_per_second: int | None = Field(default_factory=NoneType, description="Null removes the limit.")
    retry_schedule: Text = Field(
        default_factory=str,
        max_length=64,
        description="`default` (three days), `mox` (eight attempts), or one that an operator made.",
    )
    dsn_to_sender: bool = Field(
        default_factory=bool, description="Whether senders are told by mail of what is not delivered, or late."
    )


class Account(Output):
    """A tenant."""

    model_config = example(_ACCOUNT)

    id: str
    name: str
    created_at: Time
    disabled_at: Time | None
    keep_deliveries_seconds: int
    keep_calls_seconds: int
    messages_per_day: int | None
    first_time_recipients_per_day: int | None
    messages_per_second: int | None
    retry_schedule: str
    dsn_to_sender: bool

    @classmethod
    def of(cls, row: Row) -> "Account":
        """Show an account."""
        return cls(
            id=str(row.id),
            name=row.name,
            created_at=row.created_at,
            disabled_at=row.disabled_at,
            keep_deliveries_seconds=row.keep_deliveries_seconds,
            keep_calls_seconds=row.keep_calls_seconds,
            messages_per_day=row.messages_per_day,
            first_time_recipients_per_day=row.first_time_recipients_per_day,
            messages_per_second=row.messages_per_second,
            retry_schedule=row.retry_schedule,
            dsn_to_sender=row.dsn_to_sender,
        )


class AccountPage(PageOf[Account]):
    """Accounts, the oldest first."""

    model_config = example({"data": [_ACCOUNT], "next_cursor": None})


class UsedLimit(Output):
    """How much of a limit per day is used."""

    model_config = example(_FULL)

    limit: int | None = Field(description="Null: no limit.")
    used: int | None = Field(
        description="In the last 24 hours, and at most ten minutes before. Null: it is not counted, because nothing limits it."
    )
    left: int | None = Field(description="How many more are accepted now. Null: any number.")
    room_at: Time | None = Field(
        description="When one more is accepted. Null: now; or, where nothing is left, not before the limit changes."
    )

    @classmethod
    def of(cls, use: DayUse) -> "UsedLimit":
        """Show the use of a limit."""
        return cls(limit=use.limit, used=use.used, left=use.left, room_at=use.room_at)


class UsedRate(Output):
    """Whether a rate lets the next message through."""

    model_config = example({"limit": 10, "room_at": None})

    limit: int | None = Field(description="Null: no limit.")
    room_at: Time | None = Field(description="When the next message is accepted; null: now.")


class Usage(Output):
    """What an account has used of its limits, through whichever door."""

    model_config = example(_USAGE)

    messages_per_day: UsedLimit = Field(description="Recipients of its messages.")
    first_time_recipients_per_day: UsedLimit = Field(description="Recipients that it had never written to before.")
    messages_per_second: UsedRate

    @classmethod
    def of(cls, row: UsageRow) -> "Usage":
        """Show what is used."""
        return cls(
            messages_per_day=UsedLimit.of(row.recipients),
            first_time_recipients_per_day=UsedLimit.of(row.first_time),
            messages_per_second=UsedRate(limit=row.per_second, room_at=row.rate_room_at),
        )


class NewAddress(Input):
    """An address for an account, at one of its domains."""

    model_config = example({"address": "ada@example.com"})

    address: Text = Field(description="`@example.com` gives every address of the domain.")


class Address(Output):
    """An address of an account."""

    model_config = example(_ADDRESS)

    id: str
    address: str = Field(description="`@example.com`: every address of the domain.")

    @classmethod
    def of(cls, row: AddressRow) -> "Address":
        """Show an address."""
        return cls(id=str(row.id), address=row.text)


class AddressPage(PageOf[Address]):
    """Addresses, the oldest first."""

    model_config = example({"data": [_ADDRESS], "next_cursor": None})
