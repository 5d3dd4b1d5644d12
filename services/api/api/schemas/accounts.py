"""Accounts and their addresses."""

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.db.accounts import AddressRow
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
    "retry_schedule": "default",
}
_ADDRESS: dict[str, object] = {"id": "5", "address": "ada@example.com"}


class NewAccount(Input):
    """A tenant."""

    model_config = example({"name": "Analytical Engines"})

    name: Text = Field(max_length=200)
    keep_deliveries_seconds: int = Field(default=259_200, description="How long a settled delivery is kept.")
    keep_calls_seconds: int = Field(default=259_200, description="How long a settled webhook call is kept.")
    messages_per_day: int | None = Field(default=None, description="Null: no limit.")
    first_time_recipients_per_day: int | None = Field(default=None, description="Null: no limit.")
    retry_schedule: Text = Field(
        default="default",
        max_length=64,
        description="`default` (three days), `mox` (eight attempts), or one that an operator made.",
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
    retry_schedule: str

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
            retry_schedule=row.retry_schedule,
        )


class AccountPage(PageOf[Account]):
    """Accounts, the oldest first."""

    model_config = example({"data": [_ACCOUNT], "next_cursor": None})


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
