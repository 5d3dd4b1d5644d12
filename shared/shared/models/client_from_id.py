"""Tokens that clients chose."""

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


class ClientFromId(SQLModel, table=True):
    """A from_id that a client chose itself, case folded; written by the accepting transaction, free again once its delivery is kept no longer."""

    __tablename__ = "client_from_id"

    account_id: int = Field(sa_column=columns.key())
    token: str = Field(sa_column=Column(Text, primary_key=True))
    delivery_id: int = Field(sa_column=columns.big())
