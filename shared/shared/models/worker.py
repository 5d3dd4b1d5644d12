"""Who is alive."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shared.models import columns


class Worker(SQLModel, table=True):
    """A running worker process and its last heartbeat; written at its start, deleted at its end or by whoever finds it dead."""

    __tablename__ = "worker"

    id: int = Field(default=None, sa_column=columns.identity())
    service: str = Field(sa_column=columns.words())
    version: str = Field(sa_column=columns.words())
    host: str = Field(sa_column=columns.words())
    pid: int = Field(sa_column=columns.number())
    started_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    heartbeat_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
