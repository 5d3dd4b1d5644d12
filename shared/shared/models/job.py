"""Work on many rows."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from shared.models import columns


class Job(SQLModel, table=True):
    """A hold, release or cancel of many deliveries; moves on in steps of one transaction each, by whichever process takes it up."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint("kind IN ('hold', 'release', 'cancel')"),
        Index("job_account", "account_id"),
        Index("job_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
        Index("job_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int | None = Field(default=None, sa_column=columns.reference("account.id", nullable=True))
    by_operator: bool = Field(sa_column=columns.flag())
    kind: str = Field(sa_column=columns.words())
    filter: dict[str, object] | None = Field(default=None, sa_column=columns.json())
    hold_rule_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    first_id: int = Field(default=0, sa_column=columns.big(default="0"))
    last_id: int = Field(default=0, sa_column=columns.big(default="0"))
    """The newest live delivery when it was made: whatever is accepted later does not concern it."""
    position: int = Field(default=0, sa_column=columns.big(default="0"))
    seen: int = Field(default=0, sa_column=columns.big(default="0"))
    changed: int = Field(default=0, sa_column=columns.big(default="0"))
    in_flight: int = Field(default=0, sa_column=columns.big(default="0"))
    kept_held: int = Field(default=0, sa_column=columns.big(default="0"))
    """Deliveries that stay held, for somebody else holds them too."""
    error: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    updated_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    finished_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
