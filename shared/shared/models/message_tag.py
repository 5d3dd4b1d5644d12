"""Messages by tag."""

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from shared.models import columns


class MessageTag(SQLModel, table=True):
    """A tag of a message, in the order in which lists are read; written at acceptance."""

    __tablename__ = "message_tag"
    __table_args__ = {"postgresql_partition_by": "RANGE (message_id)"}

    account_id: int = Field(sa_column=columns.key())
    stream: str = Field(sa_column=Column(Text, primary_key=True))
    tag: str = Field(sa_column=Column(Text, primary_key=True))
    message_id: int = Field(sa_column=columns.key())
