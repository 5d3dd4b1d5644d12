"""When mail is tried again."""

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class RetrySchedule(SQLModel, table=True):
    """Waits in seconds and an end; written by an operator, read with each mail that is loaded. The built-in ones live in the code too."""

    __tablename__ = "retry_schedule"
    __table_args__ = (CheckConstraint("max_attempts IS NOT NULL OR give_up_seconds IS NOT NULL"),)

    id: int = Field(default=None, sa_column=columns.identity())
    name: str = Field(sa_column=columns.words(unique=True))
    built_in: bool = Field(default=False, sa_column=columns.flag(default=False))
    waits: list[int] = Field(sa_column=columns.numbers())
    max_attempts: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    give_up_seconds: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    updated_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
