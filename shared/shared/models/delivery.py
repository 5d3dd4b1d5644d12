"""One message to one recipient: the record."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

from shared.models import columns


class Delivery(SQLModel, table=True):
    """The record of a delivery; written at acceptance and at settlement. While it is live, its queue row of the same id says where it stands."""

    __tablename__ = "delivery"
    __table_args__ = (
        Index("delivery_message", "message_id"),
        Index("delivery_account", "account_id", "id"),
        Index("delivery_test", "account_id", "id", postgresql_where=sql("stream = 'test'")),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: int = Field(sa_column=columns.key())
    message_id: int = Field(sa_column=columns.big())
    account_id: int = Field(sa_column=columns.big())
    mail_from: str = Field(sa_column=columns.words())
    from_id: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    recipient: str = Field(sa_column=columns.words())
    recipient_domain: str = Field(sa_column=columns.words())
    recipient_key: str = Field(sa_column=columns.words())
    state: str = Field(default="queued", sa_column=columns.words(default="queued"))
    attempts: int = Field(default=0, sa_column=columns.small(default="0"))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    settled_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    bounced_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    complained_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    keep_until: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    enhanced: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    stream: str = Field(default="", sa_column=columns.words(default=""))
