"""Reports that wait for a settlement."""

from sqlmodel import Field, SQLModel

from shared.models import columns


class ParkedReport(SQLModel, table=True):
    """A report that came while its delivery was in flight; written by the reader of reports, applied and deleted by the settle."""

    __tablename__ = "parked_report"

    delivery_id: int = Field(sa_column=columns.key())
    report_id: int = Field(sa_column=columns.key())
