"""Which mail takes which way."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class Route(SQLModel, table=True):
    """Mail that matches takes the named transport; written by operators, in the list of an account, of a sender domain, or of all."""

    __tablename__ = "route"
    __table_args__ = (
        CheckConstraint("account_id IS NULL OR domain_id IS NULL"),
        Index("route_account", "account_id"),
        Index("route_domain", "domain_id"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int | None = Field(default=None, sa_column=columns.reference("account.id", nullable=True))
    domain_id: int | None = Field(default=None, sa_column=columns.reference("domain.id", nullable=True))
    position: int = Field(default=0, sa_column=columns.number(default="0"))
    sender_domains: list[str] = Field(default_factory=list, sa_column=columns.array(default="{}"))
    recipient_domains: list[str] = Field(default_factory=list, sa_column=columns.array(default="{}"))
    min_attempts: int = Field(default=0, sa_column=columns.number(default="0"))
    transport: str = Field(sa_column=columns.words())
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
