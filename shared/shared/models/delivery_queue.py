"""Live deliveries."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class DeliveryQueue(SQLModel, table=True):
    """The live row of a delivery: due, held, claimed or started; written at acceptance, deleted by settlement."""

    __tablename__ = "delivery_queue"
    __table_args__ = (
        Index(
            "delivery_queue_due",
            "lane_id",
            "due_at",
            "delivery_id",
            postgresql_where=text("worker_id IS NULL AND NOT hold"),
        ),
        Index("delivery_queue_worker", "worker_id", postgresql_where=text("worker_id IS NOT NULL")),
        Index("delivery_queue_held_expiry", "expires_at", postgresql_where=text("hold AND expires_at IS NOT NULL")),
        Index("delivery_queue_held", "delivery_id", postgresql_where=text("hold")),
        Index(
            "delivery_queue_held_by_rule",
            "hold_rule_id",
            "delivery_id",
            postgresql_where=text("hold_rule_id IS NOT NULL"),
        ),
    )

    delivery_id: int = Field(sa_column=columns.key())
    lane_id: int = Field(sa_column=columns.big())
    due_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    hold: bool = Field(default=False, sa_column=columns.flag(default=False))
    attempt: int = Field(default=0, sa_column=columns.small(default="0"))
    losses: int = Field(default=0, sa_column=columns.small(default="0"))
    worker_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    started_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    cancel_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    expires_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    hold_rule_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    hold_by_account: bool = Field(default=False, sa_column=columns.flag(default=False))
    hold_by_operator: bool = Field(default=False, sa_column=columns.flag(default=False))
    released_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    operator_released_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    delay_told_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
