"""The first operator's key: made once, shown once, whoever asks and how often."""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import pytest

from integration.posthouse.operator_commands import posthouse
from shared.security.credentials import key_matches, split_api_key
from shared.security.keys import KeyRing

SECRET = "b" * 40
FULL = Path("/dev/full")


async def keys(database_url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetch("SELECT public_id, key_hash FROM credential WHERE role = 'operator'")
    finally:
        await connection.close()


async def test_a_key_on_an_empty_database_and_none_ever_after(database_url: str) -> None:
    settings = {"POSTHOUSE_DATABASE_URL": database_url, "POSTHOUSE_SECRET_KEY": SECRET}
    first = await posthouse("bootstrap", **settings)
    assert first.code == 0, first.err
    assert "store it now" in first.err
    parts = split_api_key(first.out.removesuffix("\n"))
    assert parts is not None
    (row,) = await keys(database_url)
    assert row["public_id"] == parts.key_id
    assert key_matches(KeyRing([SECRET]), row["key_hash"], parts.secret)

    second = await posthouse("bootstrap", **settings)
    assert (second.code, second.out) == (0, "")
    assert "already" in second.err
    assert len(await keys(database_url)) == 1


async def test_two_at_once_print_one_key(database_url: str) -> None:
    settings = {"POSTHOUSE_DATABASE_URL": database_url, "POSTHOUSE_SECRET_KEY": SECRET}
    done = await asyncio.gather(*(posthouse("bootstrap", **settings) for _ in range(3)))
    assert [run.code for run in done] == [0, 0, 0]
    assert sorted(bool(run.out) for run in done) == [False, False, True]
    assert len(await keys(database_url)) == 1


@pytest.mark.skipif(not FULL.exists(), reason="needs a file that cannot be written to")
async def test_a_key_that_cannot_be_printed_is_not_made(database_url: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    settings = {"POSTHOUSE_DATABASE_URL": database_url, "POSTHOUSE_SECRET_KEY": SECRET}
    full = os.open(FULL, os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "posthouse",
            "bootstrap",
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
            env={**clean, **settings},
        )
        _, err = await process.communicate()
    finally:
        os.close(full)
    assert process.returncode == 2
    assert "none was made" in err.decode()
    assert await keys(database_url) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"POSTHOUSE_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "POSTHOUSE_SECRET_KEY is missing"),
        ({"POSTHOUSE_DATABASE_URL": "postgresql://127.0.0.1:1/x", "POSTHOUSE_SECRET_KEY": "short"}, "too short"),
        ({"POSTHOUSE_SECRET_KEY": SECRET}, "POSTHOUSE_DATABASE_URL: is missing"),
        (
            {"POSTHOUSE_SECRET_KEY": SECRET, "POSTHOUSE_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/x"},
            "127.0.0.1:1/x does not answer",
        ),
        ({"POSTHOUSE_SECRET_KEY": SECRET, "POSTHOUSE_DATABASE_URL": "mysql://host/x"}, "not a usable database URL"),
    ],
)
async def test_what_is_missing_is_named(settings: dict[str, str], says: str) -> None:
    done = await posthouse("bootstrap", POSTHOUSE_STARTUP_WAIT_SECONDS="0", **settings)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "secret@" not in done.err


async def test_a_database_without_the_schema(empty_database_url: str) -> None:
    settings = {"POSTHOUSE_DATABASE_URL": empty_database_url, "POSTHOUSE_SECRET_KEY": SECRET}
    done = await posthouse("bootstrap", POSTHOUSE_STARTUP_WAIT_SECONDS="0", **settings)
    assert (done.code, done.out) == (2, "")
    assert "posthouse migrate" in done.err


async def test_it_waits_for_a_migration_on_its_way(empty_database_url: str) -> None:
    settings = {"POSTHOUSE_DATABASE_URL": empty_database_url, "POSTHOUSE_SECRET_KEY": SECRET}
    bootstrap, migrate = await asyncio.gather(
        posthouse("bootstrap", **settings), posthouse("migrate", POSTHOUSE_DATABASE_URL=empty_database_url)
    )
    assert migrate.code == 0, migrate.err
    assert bootstrap.code == 0, bootstrap.err
    assert bootstrap.out.startswith("ph_")
