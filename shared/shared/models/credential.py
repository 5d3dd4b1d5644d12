"""API keys and logins."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel

from shared.models import columns


class Credential(SQLModel, table=True):
    """What someone proves who they are with; written once, revoked, never changed but for a new password. Secrets are stored as hashes only."""

    __tablename__ = "credential"
    __table_args__ = (
        CheckConstraint("kind IN ('api_key', 'login')"),
        CheckConstraint("role IN ('account', 'operator')"),
        CheckConstraint("(kind = 'api_key') = (key_hash IS NOT NULL)"),
        CheckConstraint("(kind = 'login') = (password_hash IS NOT NULL)"),
        CheckConstraint("(role = 'operator') = (account_id IS NULL)"),
        Index("credential_account", "account_id"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    account_id: int | None = Field(default=None, sa_column=columns.reference("account.id", nullable=True))
    kind: str = Field(sa_column=columns.words())
    role: str = Field(sa_column=columns.words())
    public_id: str = Field(sa_column=columns.words(unique=True))
    name: str = Field(default="", sa_column=columns.words(default=""))
    key_hash: str | None = Field(default=None, repr=False, sa_column=columns.words(nullable=True))
    password_hash: str | None = Field(default=None, repr=False, sa_column=columns.words(nullable=True))
    scram_sha_256: str = Field(repr=False, sa_column=columns.words())
    uses_from_ids: bool = Field(default=True, sa_column=columns.flag(default=True))
    is_test: bool = Field(default=False, sa_column=columns.flag(default=False))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
    expires_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=columns.moment(nullable=True))
