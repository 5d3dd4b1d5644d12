"""Mail received."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class InboundMessage(SQLModel, table=True):
    """Mail received for one recipient, raw first; written before the 250, completed once it has been read.

    Of the kind ``own_dsn``: what delivery tells a sender; complete from the beginning.
    """

    __tablename__ = "inbound_message"
    __table_args__ = (
        Index("inbound_message_account", "account_id", "id"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: int = Field(sa_column=columns.key())
    body_id: int = Field(sa_column=columns.big())
    account_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    delivery_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    received_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    mail_from: str = Field(sa_column=columns.words())
    recipient: str = Field(sa_column=columns.words())
    remote_ip: str = Field(sa_column=columns.words())
    helo: str = Field(sa_column=columns.words())
    size: int = Field(sa_column=columns.number())
    smtputf8: bool = Field(sa_column=columns.flag())
    kind: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    state: str = Field(default="received", sa_column=columns.words(default="received"))
    problem: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    message_id: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    subject: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    keep_until: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
