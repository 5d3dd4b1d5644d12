"""One account's mail for a site."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class Lane(SQLModel, table=True):
    """What one account has for a site, served in turn with the lanes of others; written by the first that needs it."""

    __tablename__ = "lane"
    __table_args__ = (
        UniqueConstraint("site_id", "account_id", "stream", "egress_pool"),
        Index("lane_next", "site_id", "next_at"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    site_id: int = Field(sa_column=columns.reference("site.id"))
    account_id: int = Field(sa_column=columns.big())
    stream: str = Field(default="", sa_column=columns.words(default=""))
    egress_pool: str = Field(default="", sa_column=columns.words(default=""))
    next_at: datetime = Field(default=None, sa_column=columns.moment(default="'infinity'"))
    wakes: int = Field(default=0, sa_column=columns.big(default="0"))
