"""Rules that hold mail back."""

from datetime import datetime

from sqlalchemy import Column, Computed, Index, Text, text
from sqlmodel import Field, SQLModel

from shared.models import columns

_MATCH_KEY = """CASE
    WHEN recipient_address IS NOT NULL THEN 'recipient:' || recipient_address
    WHEN sender_address IS NOT NULL THEN 'sender:' || sender_address
    WHEN recipient_domain IS NOT NULL THEN 'to:' || recipient_domain
    WHEN sender_domain IS NOT NULL THEN 'from:' || sender_domain
    WHEN account_id IS NOT NULL THEN 'account:' || account_id::text
    ELSE '*' END"""


class HoldRule(SQLModel, table=True):
    """Mail that matches every column that is set is held; written by an operator (no account: for all) or a customer, read by the start gate."""

    __tablename__ = "hold_rule"
    __table_args__ = (
        Index("hold_rule_match", "match_key"),
        Index("hold_rule_account", "account_id"),
        Index("hold_rule_expiry", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int | None = Field(default=None, sa_column=columns.reference("account.id", nullable=True))
    sender_domain: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    sender_address: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    recipient_domain: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    recipient_address: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    reason: str = Field(default="", sa_column=columns.words(default=""))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    expires_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    made_by_operator: bool = Field(default=True, sa_column=columns.flag(default=True))
    release_on_expiry: bool = Field(default=False, sa_column=columns.flag(default=False))
    removed_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    """It holds nothing any more; it is kept while it has something to say about mail that it held."""
    match_key: str = Field(default=None, sa_column=Column(Text, Computed(_MATCH_KEY, persisted=True), nullable=False))
    """The most telling condition, by which rules are looked up."""
