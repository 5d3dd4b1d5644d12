"""The column types that every table is built from, named as the schema names them."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Integer,
    SmallInteger,
    Text,
    TextClause,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[int]):
    """A transaction id with its epoch (``xid8``): never wraps, so it orders events for ever."""

    cache_ok = True

    def get_col_spec(self, **_kw: object) -> str:
        """Return the name of the type in DDL."""
        return "xid8"


def identity() -> Column[Any]:
    """Return a bigint primary key that the database counts up."""
    return Column(BigInteger, Identity(always=False), primary_key=True)


def key() -> Column[Any]:
    """Return a bigint primary key (or a part of one) that the writer provides."""
    return Column(BigInteger, primary_key=True, autoincrement=False)


def part(type_: type[Integer | SmallInteger]) -> Column[Any]:
    """Return the second part of a primary key: the number of a chunk or of an attempt."""
    return Column(type_, primary_key=True, autoincrement=False)


def reference(target: str, *, nullable: bool = False, cascade: bool = True) -> Column[Any]:
    """Return a foreign key of the control plane, e.g. to ``account.id``."""
    return Column(BigInteger, ForeignKey(target, ondelete="CASCADE" if cascade else None), nullable=nullable)


def big(*, nullable: bool = False, default: str | None = None) -> Column[Any]:
    """Return a bigint; among hot tables also the id of another row, without a foreign key."""
    return Column(BigInteger, nullable=nullable, server_default=_sql(default))


def number(*, nullable: bool = False, default: str | None = None) -> Column[Any]:
    """Return an integer of 32 bits."""
    return Column(Integer, nullable=nullable, server_default=_sql(default))


def small(*, nullable: bool = False, default: str | None = None) -> Column[Any]:
    """Return an integer of 16 bits."""
    return Column(SmallInteger, nullable=nullable, server_default=_sql(default))


def words(*, nullable: bool = False, default: str | None = None, unique: bool = False) -> Column[Any]:
    """Return text; ``default`` without quotes."""
    return Column(Text, nullable=nullable, server_default=default, unique=unique or None)


def array(*, nullable: bool = False, default: str | None = None) -> Column[Any]:
    """Return an array of text; ``default`` in Postgres' form, e.g. ``{+}``."""
    return Column(ARRAY(Text), nullable=nullable, server_default=default)


def numbers() -> Column[Any]:
    """Return an array of integers of 32 bits."""
    return Column(ARRAY(Integer), nullable=False)


def flag(*, nullable: bool = False, default: bool | None = None) -> Column[Any]:
    """Return a boolean."""
    return Column(Boolean, nullable=nullable, server_default=_sql(None if default is None else str(default).lower()))


def moment(*, nullable: bool = False, default: str | None = None) -> Column[Any]:
    """Return a timestamptz; ``default`` is ``now()`` or one of the infinities in quotes."""
    return Column(TIMESTAMP(timezone=True), nullable=nullable, server_default=_sql(default))


def json() -> Column[Any]:
    """Return a jsonb whose absence is SQL's null."""
    return Column(JSONB(none_as_null=True), nullable=True)


def octets(name: str) -> Column[Any]:
    """Return a bytea that is never null, under a name that the attribute cannot have (``bytes`` is its type)."""
    return Column(name, BYTEA, nullable=False)


def transaction() -> Column[Any]:
    """Return the id of the transaction that wrote the row."""
    return Column(Xid8, nullable=False, server_default=text("pg_current_xact_id()"))


def _sql(default: str | None) -> TextClause | None:
    return None if default is None else text(default)
