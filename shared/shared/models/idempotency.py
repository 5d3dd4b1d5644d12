"""Keys that make a repeated submission the same one."""

from datetime import datetime

from sqlalchemy import Column, Index, LargeBinary, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


class Idempotency(SQLModel, table=True):
    """The first submission with a key, and what it was answered; written by the accepting transaction, kept for a day."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("idempotency_created", "created_at"),)

    account_id: int = Field(sa_column=columns.key())
    key: str = Field(sa_column=Column(Text, primary_key=True))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    answer: dict[str, object] | None = Field(default=None, sa_column=columns.json())
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
