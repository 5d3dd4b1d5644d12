"""What operators are told."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class OperatorEvent(SQLModel, table=True):
    """Something that an operator should look at, counted by kind and subject; written by workers every few seconds, resolved by an operator."""

    __tablename__ = "operator_event"
    __table_args__ = (
        Index("operator_event_subject", "kind", "subject", unique=True, postgresql_where=text("resolved_at IS NULL")),
        Index("operator_event_open", "id", postgresql_where=text("resolved_at IS NULL")),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    kind: str = Field(sa_column=columns.words())
    subject: str = Field(sa_column=columns.words())
    text: str = Field(sa_column=columns.words())
    facts: dict[str, object] | None = Field(default=None, sa_column=columns.json())
    first_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    last_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    count: int = Field(default=1, sa_column=columns.big(default="1"))
    resolved_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
