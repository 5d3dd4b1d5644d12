"""Recipient domains and whose mail hosts they are behind."""

from datetime import datetime

from sqlalchemy import Column, Index, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


class DomainProvider(SQLModel, table=True):
    """The provider of a recipient domain; written by delivery when it sees its MX records, read at acceptance, swept after 30 days."""

    __tablename__ = "domain_provider"
    __table_args__ = (Index("domain_provider_seen", "seen_at"),)

    domain: str = Field(sa_column=Column(Text, primary_key=True))
    provider: str = Field(sa_column=columns.words())
    seen_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
