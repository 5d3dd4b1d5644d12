"""Recipients that are not sent to."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

from shared.models import columns


class Suppression(SQLModel, table=True):
    """A recipient (or a whole domain) that the account does not send to; written by a settled failure, a report, or by hand."""

    __tablename__ = "suppression"
    __table_args__ = (
        UniqueConstraint("account_id", "stream", "kind", "key"),
        CheckConstraint("kind IN ('address', 'domain')"),
        Index("suppression_mox_key", "account_id", "mox_key", postgresql_where=sql("match_by_mox_key")),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int = Field(sa_column=columns.reference("account.id"))
    stream: str = Field(default="", sa_column=columns.words(default=""))
    kind: str = Field(default="address", sa_column=columns.words(default="address"))
    key: str = Field(sa_column=columns.words())
    mox_key: str = Field(sa_column=columns.words())
    match_by_mox_key: bool = Field(default=False, sa_column=columns.flag(default=False))
    address: str = Field(sa_column=columns.words())
    manual: bool = Field(sa_column=columns.flag())
    reason: str = Field(sa_column=columns.words())
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    enhanced: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    delivery_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    report_id: int | None = Field(default=None, sa_column=columns.big(nullable=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    expires_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
