"""Contents of received mail."""

from sqlalchemy import Integer
from sqlmodel import Field, SQLModel

from shared.models import columns


class InboundBody(SQLModel, table=True):
    """256 KiB of a received mail, shared by the rows of its recipients; written before the 250."""

    __tablename__ = "inbound_body"
    __table_args__ = {"postgresql_partition_by": "RANGE (body_id)"}

    body_id: int = Field(sa_column=columns.key())
    seq: int = Field(sa_column=columns.part(Integer))
    chunk: bytes = Field(sa_column=columns.octets("bytes"))
