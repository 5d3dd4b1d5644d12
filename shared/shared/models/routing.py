"""A count of changes."""

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class Routing(SQLModel, table=True):
    """One row; counted up by triggers on ``transport`` and ``route``, read by whoever keeps a copy of them in memory."""

    __tablename__ = "routing"
    __table_args__ = (CheckConstraint("id = 1"),)

    id: int = Field(sa_column=columns.key())
    version: int = Field(sa_column=columns.big())
