"""Status notifications to be written."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shared.models import columns


class DsnPending(SQLModel, table=True):
    """An event of which the sender is to be told by mail; written with the event, deleted with the insertion of that mail."""

    __tablename__ = "dsn_pending"

    event_id: int = Field(sa_column=columns.key())
    retry_until: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
