"""Whom an account has written to."""

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


class KnownRecipient(SQLModel, table=True):
    """A recipient that is no first-time one any more; only kept for accounts that limit these."""

    __tablename__ = "known_recipient"

    account_id: int = Field(sa_column=columns.key())
    key: str = Field(sa_column=Column(Text, primary_key=True))
