"""Keys that sign a domain's mail."""

from datetime import datetime

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class DkimKey(SQLModel, table=True):
    """A DKIM key of a domain and the DNS record that publishes it; written when made, switched off when rotated. The private key is sealed."""

    __tablename__ = "dkim_key"
    __table_args__ = (
        UniqueConstraint("domain_id", "selector"),
        CheckConstraint("algorithm IN ('rsa-sha256', 'ed25519-sha256')"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    domain_id: int = Field(sa_column=columns.reference("domain.id"))
    selector: str = Field(sa_column=columns.words())
    algorithm: str = Field(sa_column=columns.words())
    private_key_sealed: str = Field(repr=False, sa_column=columns.words())
    dns_record: str = Field(sa_column=columns.words())
    active: bool = Field(default=True, sa_column=columns.flag(default=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
