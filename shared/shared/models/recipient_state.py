"""Failures in a row."""

from datetime import datetime

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


class RecipientState(SQLModel, table=True):
    """How often in a row mail of an account to one recipient failed; written on failure, deleted on success."""

    __tablename__ = "recipient_state"

    account_id: int = Field(sa_column=columns.key())
    stream: str = Field(default="", sa_column=Column(Text, primary_key=True, server_default=""))
    key: str = Field(sa_column=Column(Text, primary_key=True))
    failures: int = Field(sa_column=columns.small())
    updated_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
