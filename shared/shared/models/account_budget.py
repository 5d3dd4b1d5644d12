"""What an account may send right now."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shared.models import columns


class AccountBudget(SQLModel, table=True):
    """One row for each account with a limit; locked by whoever spends, and says until when the account's rate is used up."""

    __tablename__ = "account_budget"

    account_id: int = Field(sa_column=columns.key())
    paid_until: datetime = Field(default=None, sa_column=columns.moment(default="'-infinity'"))
