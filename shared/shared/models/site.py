"""Next hops that limits count for."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class Site(SQLModel, table=True):
    """The next hop of deliveries, or the endpoint of calls: how many connections it may have and has; written by the first lane.

    ``conn_limit`` is what it may have now, ``conn_most`` what its rule allows; ``proven`` says that the last contact was a
    success, ``failures`` how many since then were none; ``pace`` is the share of its rate that it takes (deliveries only).
    """

    __tablename__ = "site"
    __table_args__ = (
        UniqueConstraint("queue", "name"),
        CheckConstraint("queue IN ('delivery', 'call')"),
        CheckConstraint("in_use >= 0"),
        CheckConstraint("pace > 0 AND pace <= 1"),
        Index("site_next", "queue", "next_at"),
        Index("site_next_proven", "queue", "next_at", postgresql_where=text("proven")),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    queue: str = Field(sa_column=columns.words())
    name: str = Field(sa_column=columns.words())
    conn_limit: int = Field(sa_column=columns.number())
    in_use: int = Field(default=0, sa_column=columns.number(default="0"))
    next_at: datetime = Field(default=None, sa_column=columns.moment(default="'infinity'"))
    backoff_until: datetime = Field(default=None, sa_column=columns.moment(default="'-infinity'"))
    conn_most: int = Field(default=1, sa_column=columns.number(default="1"))
    proven: bool = Field(default=False, sa_column=columns.flag(default=False))
    failures: int = Field(default=0, sa_column=columns.small(default="0"))
    pace: float = Field(default=1.0, sa_column=columns.share())
    changed_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    wakes: int = Field(default=0, sa_column=columns.big(default="0"))
