"""Facts."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class Event(SQLModel, table=True):
    """A fact about a delivery or an inbound message; written in the transaction that made it true, never changed. Holds no addresses."""

    __tablename__ = "event"
    __table_args__ = (
        Index("event_account", "account_id", "xact", "id"),
        Index("event_delivery", "delivery_id"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: int = Field(sa_column=columns.key())
    account_id: int = Field(sa_column=columns.big())
    delivery_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    inbound_message_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    report_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    type: str = Field(sa_column=columns.words())
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    xact: int = Field(default=None, sa_column=columns.transaction())
    attempt: int | None = Field(default=None, sa_column=columns.small(nullable=True))
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    enhanced: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    category: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    suppressing: bool = Field(default=False, sa_column=columns.flag(default=False))
    stream: str = Field(default="", sa_column=columns.words(default=""))
    final_attempt_next: bool = Field(default=False, sa_column=columns.flag(default=False))
