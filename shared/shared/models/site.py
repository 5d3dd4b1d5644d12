"""Next hops that limits count for."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class Site(SQLModel, table=True):
    """The next hop of deliveries, or the endpoint of calls: how many connections it may have and has; written by the first lane."""

    __tablename__ = "site"
    __table_args__ = (
        UniqueConstraint("queue", "name"),
        CheckConstraint("queue IN ('delivery', 'call')"),
        CheckConstraint("in_use >= 0"),
        Index("site_next", "queue", "next_at"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    queue: str = Field(sa_column=columns.words())
    name: str = Field(sa_column=columns.words())
    conn_limit: int = Field(sa_column=columns.number())
    in_use: int = Field(default=0, sa_column=columns.number(default="0"))
    next_at: datetime = Field(default=None, sa_column=columns.moment(default="'infinity'"))
    backoff_until: datetime = Field(default=None, sa_column=columns.moment(default="'-infinity'"))
    wakes: int = Field(default=0, sa_column=columns.big(default="0"))
