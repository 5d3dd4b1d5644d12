"""Live calls."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class CallQueue(SQLModel, table=True):
    """The live row of a call; written by the fan-out, deleted by settlement. ``order_key`` is what must stay in order for one endpoint."""

    __tablename__ = "call_queue"
    __table_args__ = (
        Index(
            "call_queue_due", "lane_id", "due_at", "call_id", postgresql_where=text("worker_id IS NULL AND NOT hold")
        ),
        Index("call_queue_worker", "worker_id", postgresql_where=text("worker_id IS NOT NULL")),
        Index("call_queue_order", "endpoint_id", "order_key", "event_id", unique=True),
    )

    call_id: int = Field(sa_column=columns.key())
    lane_id: int = Field(sa_column=columns.big())
    due_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    hold: bool = Field(default=False, sa_column=columns.flag(default=False))
    attempt: int = Field(default=0, sa_column=columns.small(default="0"))
    losses: int = Field(default=0, sa_column=columns.small(default="0"))
    worker_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    started_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    endpoint_id: int = Field(sa_column=columns.big())
    order_key: int = Field(sa_column=columns.big())
    event_id: int = Field(sa_column=columns.big())
