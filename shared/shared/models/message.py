"""Submissions."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

from shared.models import columns


class Message(SQLModel, table=True):
    """One submission: who sent what; written at acceptance, never changed."""

    __tablename__ = "message"
    __table_args__ = (
        Index("message_account", "account_id", "id"),
        Index("message_test", "account_id", "id", postgresql_where=sql("is_test")),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: int = Field(sa_column=columns.key())
    account_id: int = Field(sa_column=columns.big())
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    door: str = Field(sa_column=columns.words())
    credential_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    message_id: str = Field(sa_column=columns.words())
    sender: str = Field(sa_column=columns.words())
    sender_domain: str = Field(sa_column=columns.words())
    subject: str = Field(sa_column=columns.words())
    size: int = Field(sa_column=columns.number())
    header_size: int = Field(sa_column=columns.number())
    smtputf8: bool = Field(sa_column=columns.flag())
    extra: dict[str, str] | None = Field(default=None, sa_column=columns.json())
    tags: list[str] | None = Field(default=None, sa_column=columns.array(nullable=True))
    require_tls: bool | None = Field(default=None, sa_column=columns.flag(nullable=True))
    send_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    expires_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    save_sent: bool = Field(default=False, sa_column=columns.flag(default=False))
    bcc: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    is_test: bool = Field(default=False, sa_column=columns.flag(default=False))
