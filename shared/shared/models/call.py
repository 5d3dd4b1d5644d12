"""One event for one endpoint: the record."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class Call(SQLModel, table=True):
    """The record of a webhook call; written by the fan-out and at settlement. While it is live, its queue row of the same id says where it stands."""

    __tablename__ = "call"
    __table_args__ = (
        Index("call_account", "account_id", "id"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: int = Field(sa_column=columns.key())
    event_id: int = Field(sa_column=columns.big())
    endpoint_id: int = Field(sa_column=columns.big())
    account_id: int = Field(sa_column=columns.big())
    delivery_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    state: str = Field(default="queued", sa_column=columns.words(default="queued"))
    attempts: int = Field(default=0, sa_column=columns.small(default="0"))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    settled_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    keep_until: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
