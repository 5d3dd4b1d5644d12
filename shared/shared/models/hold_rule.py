"""Rules that hold mail back."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shared.models import columns


class HoldRule(SQLModel, table=True):
    """Mail that matches every column that is set is held; written by an operator (no account: for all) or a customer, read by the start gate."""

    __tablename__ = "hold_rule"

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int | None = Field(default=None, sa_column=columns.reference("account.id", nullable=True))
    sender_domain: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    sender_address: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    recipient_domain: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    recipient_address: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    reason: str = Field(default="", sa_column=columns.words(default=""))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    expires_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
