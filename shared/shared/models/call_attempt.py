"""HTTP tries."""

from datetime import datetime

from sqlalchemy import SmallInteger
from sqlmodel import Field, SQLModel

from shared.models import columns


class CallAttempt(SQLModel, table=True):
    """One HTTP request of a call; written just before it is sent, completed when its outcome is settled."""

    __tablename__ = "call_attempt"
    __table_args__ = {"postgresql_partition_by": "RANGE (call_id)"}

    call_id: int = Field(sa_column=columns.key())
    n: int = Field(sa_column=columns.part(SmallInteger))
    worker_id: int = Field(sa_column=columns.big())
    started_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    finished_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    outcome: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    response: str | None = Field(default=None, sa_column=columns.words(nullable=True))
