"""How much sites are sent at once."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shared.models import columns


class TrafficRule(SQLModel, table=True):
    """What operators say about sites by pattern, over what the code brings along; written by an operator, read by delivery once a minute."""

    __tablename__ = "traffic_rule"

    id: int = Field(default=None, sa_column=columns.identity())
    pattern: str = Field(sa_column=columns.words(unique=True))
    connections: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    messages_per_second: float | None = Field(default=None, sa_column=columns.rate(nullable=True))
    messages_per_connection: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    recipients_per_transaction: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    updated_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
