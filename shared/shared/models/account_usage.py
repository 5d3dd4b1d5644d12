"""What an account has sent lately."""

from datetime import datetime

from sqlalchemy import TIMESTAMP, Column, Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class AccountUsage(SQLModel, table=True):
    """Recipients of an account with a limit, in pieces of ten minutes; written by the accepting transaction, swept after two days.

    ``paid_until`` of the newest piece says until when the account's rate is used up.
    """

    __tablename__ = "account_usage"
    __table_args__ = (Index("account_usage_begins", "begins_at"),)

    account_id: int = Field(sa_column=columns.key())
    begins_at: datetime = Field(sa_column=Column(TIMESTAMP(timezone=True), primary_key=True))
    recipients: int = Field(sa_column=columns.number())
    first_time: int = Field(sa_column=columns.number())
    paid_until: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
