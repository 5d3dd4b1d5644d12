"""What reports say."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class Report(SQLModel, table=True):
    """What one received report (DSN, ARF) says of one delivery; written when the report has been read."""

    __tablename__ = "report"
    __table_args__ = (
        Index("report_delivery", "delivery_id"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: int = Field(sa_column=columns.key())
    inbound_message_id: int = Field(sa_column=columns.big())
    account_id: int = Field(sa_column=columns.big())
    delivery_id: int = Field(sa_column=columns.big())
    received_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    kind: str = Field(sa_column=columns.words())
    action: str = Field(sa_column=columns.words())
    code: int = Field(sa_column=columns.number())
    enhanced: str = Field(sa_column=columns.words())
    text: str = Field(sa_column=columns.words())
    category: str = Field(sa_column=columns.words())
    immediate: bool = Field(sa_column=columns.flag())
    counted: bool = Field(default=False, sa_column=columns.flag(default=False))
