"""A tenant."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


def _schedule() -> Column[str]:
    return Column(Text, ForeignKey("retry_schedule.name"), nullable=False, server_default="default")


class Account(SQLModel, table=True):
    """A tenant; written by an operator. Account 0 is the installation itself: the reports it sends belong to it."""

    __tablename__ = "account"
    __table_args__ = (CheckConstraint("messages_per_second > 0"),)

    id: int = Field(default=None, sa_column=columns.identity())
    name: str = Field(sa_column=columns.words(unique=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    disabled_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    keep_deliveries_seconds: int = Field(default=259200, sa_column=columns.number(default="259200"))
    keep_calls_seconds: int = Field(default=259200, sa_column=columns.number(default="259200"))
    messages_per_day: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    first_time_recipients_per_day: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    messages_per_second: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    retry_schedule: str = Field(default="default", sa_column=_schedule())
    dsn_to_sender: bool = Field(default=False, sa_column=columns.flag(default=False))
