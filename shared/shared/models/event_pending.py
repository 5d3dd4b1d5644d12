"""Events to be fanned out."""

from sqlmodel import Field, SQLModel

from shared.models import columns


class EventPending(SQLModel, table=True):
    """An event whose calls have not been made yet; written with the event, deleted with the insertion of its calls."""

    __tablename__ = "event_pending"

    event_id: int = Field(sa_column=columns.key())
