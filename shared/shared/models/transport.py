"""Ways out."""

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from shared.models import columns


class Transport(SQLModel, table=True):
    """A way that mail can take; written by operators, read by delivery before it dials. The password is sealed."""

    __tablename__ = "transport"
    __table_args__ = (
        CheckConstraint("kind IN ('direct', 'smtp', 'submission', 'submissions', 'socks', 'fail')"),
        CheckConstraint("tls IN ('verified', 'unverified', 'none')"),
    )

    id: int = Field(default=None, sa_column=columns.identity())
    name: str = Field(sa_column=columns.words(unique=True))
    kind: str = Field(sa_column=columns.words())
    host: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    port: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    tls: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    username: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    password_sealed: str | None = Field(default=None, repr=False, sa_column=columns.words(nullable=True))
    mechanisms: list[str] = Field(default_factory=list, sa_column=columns.array(default="{}"))
    ehlo_name: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    ipv4: bool = Field(default=True, sa_column=columns.flag(default=True))
    ipv6: bool = Field(default=True, sa_column=columns.flag(default=True))
    code: int | None = Field(default=None, sa_column=columns.number(nullable=True))
    text: str | None = Field(default=None, sa_column=columns.words(nullable=True))
    created_at: datetime = Field(default=None, sa_column=columns.moment(default="now()"))
