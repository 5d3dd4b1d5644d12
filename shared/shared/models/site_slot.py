"""Connections as leases."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class SiteSlot(SQLModel, table=True):
    """One connection that a worker may hold to a site; written by the claim, deleted when it is given back or its worker is dead."""

    __tablename__ = "site_slot"
    __table_args__ = (Index("site_slot_worker", "worker_id"), Index("site_slot_site", "site_id", "id"))

    id: int = Field(default=None, sa_column=columns.identity())
    site_id: int = Field(sa_column=columns.big())
    worker_id: int = Field(sa_column=columns.big())
    taken_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
