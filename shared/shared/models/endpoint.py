"""Webhook targets."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class Endpoint(SQLModel, table=True):
    """A customer's webhook URL; written by the customer, kept after deletion because calls name it. Secrets are sealed."""

    __tablename__ = "endpoint"
    __table_args__ = (
        CheckConstraint("kind IN ('delivery', 'inbound')"),
        CheckConstraint("format IN ('posthouse', 'mox')"),
        CheckConstraint("delayed IN ('every', 'first', 'last')"),
        CheckConstraint("format <> 'mox' OR delayed = 'every'"),
        Index("endpoint_account", "account_id"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int = Field(sa_column=columns.reference("account.id"))
    lane_id: int = Field(sa_column=columns.reference("lane.id", cascade=False))
    url: str = Field(sa_column=columns.words())
    description: str = Field(default="", sa_column=columns.words(default=""))
    kind: str = Field(default="delivery", sa_column=columns.words(default="delivery"))
    format: str = Field(default="posthouse", sa_column=columns.words(default="posthouse"))
    events: list[str] = Field(default_factory=list, sa_column=columns.array(default="{}"))
    delayed: str = Field(default="every", sa_column=columns.words(default="every"))
    secret_sealed: str = Field(repr=False, sa_column=columns.words())
    previous_secret_sealed: str | None = Field(default=None, repr=False, sa_column=columns.words(nullable=True))
    previous_secret_until: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    authorization_sealed: str | None = Field(default=None, repr=False, sa_column=columns.words(nullable=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    disabled_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    deleted_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
