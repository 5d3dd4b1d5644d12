"""Contents of submissions."""

from sqlalchemy import Integer
from sqlmodel import Field, SQLModel

from shared.models import columns


class MessageBody(SQLModel, table=True):
    """256 KiB of a message as it was accepted, header first; written at acceptance or just before it, gone when the content expires."""

    __tablename__ = "message_body"
    __table_args__ = {"postgresql_partition_by": "RANGE (message_id)"}

    message_id: int = Field(sa_column=columns.key())
    seq: int = Field(sa_column=columns.part(Integer))
    chunk: bytes = Field(sa_column=columns.octets("bytes"))
