"""SMTP tries."""

from datetime import datetime

from sqlalchemy import SmallInteger
from sqlmodel import Field, SQLModel

from shared.models import columns


class Attempt(SQLModel, table=True):
    """One SMTP try of a delivery; written just before MAIL FROM, completed when its outcome is settled."""

    __tablename__ = "attempt"
    __table_args__ = {"postgresql_partition_by": "RANGE (delivery_id)"}

    delivery_id: int = Field(sa_column=columns.key())
    n: int = Field(sa_column=columns.part(SmallInteger))
    worker_id: int = Field(sa_column=columns.big())
    started_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    finished_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    outcome: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    stage: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    enhanced: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    host: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    ip: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    tls: str | None = Field(default=None, sa_column=columns.words(nullable=True))
