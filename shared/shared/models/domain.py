"""Domains that accounts send from and receive for."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class Domain(SQLModel, table=True):
    """A domain of an account; written when added, marked verified once its DNS proves it. Verified, it belongs to one account only."""

    __tablename__ = "domain"
    __table_args__ = (
        UniqueConstraint("account_id", "name"),
        Index("domain_verified", "name", unique=True, postgresql_where=text("verified_at IS NOT NULL")),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int = Field(sa_column=columns.reference("account.id"))
    name: str = Field(sa_column=columns.words())
    verification_token: str = Field(sa_column=columns.words())
    verified_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    disabled_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    catchall_separators: list[str] = Field(default_factory=lambda: ["+"], sa_column=columns.array(default="{+}"))
    bounce_domain: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    dkim_required: bool = Field(default=False, sa_column=columns.flag(default=False))
    dkim_expires_after_seconds: int | None = Field(
        default=604800, sa_column=columns.number(nullable=True, default="604800")
    )
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
