"""Received mail to be read."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class InboundQueue(SQLModel, table=True):
    """The live row of a received mail that nobody has read yet; written before the 250, deleted once it has been read."""

    __tablename__ = "inbound_queue"
    __table_args__ = (
        Index("inbound_queue_due", "due_at", "inbound_message_id", postgresql_where=text("worker_id IS NULL")),
        Index("inbound_queue_worker", "worker_id", postgresql_where=text("worker_id IS NOT NULL")),
    )

    inbound_message_id: int = Field(sa_column=columns.key())
    due_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    losses: int = Field(default=0, sa_column=columns.small(default="0"))
    worker_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    started_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
