"""Addresses of an account."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class Address(SQLModel, table=True):
    """An address that logins may use in From; written by the customer. The local part is canonical, empty for the whole domain."""

    __tablename__ = "address"
    __table_args__ = (
        UniqueConstraint("domain_id", "local"),
        Index("address_account", "account_id"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int = Field(sa_column=columns.reference("account.id"))
    domain_id: int = Field(sa_column=columns.reference("domain.id"))
    local: str = Field(sa_column=columns.words())
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
