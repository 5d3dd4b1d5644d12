"""The classes in shared.models say what the migrations make: no column, default, index or constraint differs."""

import asyncpg
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.ext.asyncio import create_async_engine

import shared.models
from shared.db.engine import sqlalchemy_url
from shared.models.columns import Xid8

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND c.relname <> 'alembic_version'
"""
_INDEXES = """
SELECT c.relname, replace(pg_get_indexdef(i.indexrelid), $1 || '.', '')
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = $1::text::regnamespace AND NOT c.relispartition AND c.relname <> 'alembic_version'
"""
_CONSTRAINTS = """
SELECT c.relname, replace(pg_get_constraintdef(k.oid), $1 || '.', '')
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = $1::text::regnamespace AND NOT c.relispartition AND c.relname <> 'alembic_version'
"""
_PARTITIONING = """
SELECT c.relname, pg_get_partkeydef(c.oid) FROM pg_class c
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'p'
"""


def _is_ours(name: str | None, type_: str, parents: object) -> bool:
    # Partitions are made by the database; alembic_version is Alembic's own.
    return type_ != "table" or (name is not None and name in shared.models.metadata.tables)


def _compare(connection: Connection) -> list[object]:
    ischema_names.setdefault("xid8", Xid8)
    options = {"include_name": _is_ours, "compare_type": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), shared.models.metadata))


async def test_alembic_finds_no_difference_between_models_and_schema(database_url: str) -> None:
    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.connect() as connection:
        differences = await connection.run_sync(_compare)
    await engine.dispose()
    assert differences == []


async def test_the_catalogue_of_both_is_the_same(database_url: str) -> None:
    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.connect() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA models")
        await connection.exec_driver_sql("SET search_path = models")
        await connection.run_sync(shared.models.metadata.create_all, checkfirst=False)
        await connection.commit()
    await engine.dispose()
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "nowhere"})
    try:
        for query in (_COLUMNS, _INDEXES, _CONSTRAINTS, _PARTITIONING):
            migrated = {tuple(row) for row in await connection.fetch(query, "public")}
            modelled = {tuple(row) for row in await connection.fetch(query, "models")}
            assert migrated == modelled
            assert migrated
    finally:
        await connection.close()


async def test_every_table_of_the_schema_has_a_model(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
    )
    await connection.close()
    assert {row["relname"] for row in rows} - {"alembic_version"} == set(shared.models.metadata.tables)
