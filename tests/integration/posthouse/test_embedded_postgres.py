"""The embedded Postgres: starts, stops, survives kills, refuses what it must, leaves nothing behind."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from fakes.waiting import eventually_sync
from posthouse.embedded.postgres import SETTINGS, EmbeddedPostgres, PostgresOptions
from shared.errors import ConfigurationError

ROOT = os.geteuid() == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


@pytest.fixture
def server(folder: Path, postgres_options: PostgresOptions) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder, postgres_options)
    yield server
    server.stop()


def pid_of(server: EmbeddedPostgres) -> int:
    assert server.child is not None
    return server.child.pid


async def test_a_restart_finds_data_and_url_again(server: EmbeddedPostgres) -> None:
    server.start()
    before = server.url
    connection = await asyncpg.connect(before)
    await connection.execute("CREATE TABLE kept AS SELECT 'here' AS word")
    await connection.close()
    server.stop()
    assert server.child is None
    server.start()
    assert server.url == before
    connection = await asyncpg.connect(server.url)
    try:
        assert await connection.fetchval("SELECT word FROM kept") == "here"
        assert await connection.fetchval("SELECT current_setting('listen_addresses')") == ""
        collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
        assert await connection.fetchval(collation) == "C.UTF-8"
    finally:
        await connection.close()


def test_only_its_user_can_reach_it(server: EmbeddedPostgres, folder: Path) -> None:
    server.start()
    for private in (folder, folder / "data", folder / "socket"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_the_durable_settings_are_accepted(folder: Path) -> None:
    server = EmbeddedPostgres(folder, PostgresOptions())
    server.start()
    try:
        for name, value in SETTINGS.items():
            assert server.run_sql(f"SHOW {name}") == value
        assert server.run_sql("SHOW fsync") == "on"
    finally:
        server.stop()


def test_a_killed_server_is_started_again(server: EmbeddedPostgres) -> None:
    server.start()
    server.run_sql("CREATE TABLE kept (n int)", database="posthouse")
    os.kill(pid_of(server), signal.SIGKILL)
    child = server.child
    assert child is not None
    assert eventually_sync(lambda: child.exit_code is not None)
    assert child.describe_end() == "was ended by SIGKILL"
    server.start()
    assert server.run_sql("SELECT count(*) FROM kept", database="posthouse") == "0"


def test_a_second_server_on_the_folder_is_refused(
    server: EmbeddedPostgres, folder: Path, postgres_options: PostgresOptions
) -> None:
    server.start()
    second = EmbeddedPostgres(folder, postgres_options)
    with pytest.raises(ConfigurationError, match=rf"runs on .* already \(process {os.getpid()}\): stop it"):
        second.start()
    assert server.run_sql("SELECT 1") == "1"


def test_a_data_folder_served_by_somebody_else_is_left_alone(
    server: EmbeddedPostgres, folder: Path, tmp_path: Path, postgres_options: PostgresOptions
) -> None:
    server.start()
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(folder / "data")
    with pytest.raises(ConfigurationError, match=rf"not started by Posthouse .*process {pid_of(server)}"):
        EmbeddedPostgres(other, postgres_options).start()
    assert (folder / "data" / "postmaster.pid").exists()
    assert server.run_sql("SELECT 1") == "1"


@pytest.mark.parametrize("leftover", ["", "nonsense\n", "{alive}\n/elsewhere\n0\n5432\n/elsewhere\n\n0 0\nready\n"])
def test_a_stale_pid_file_neither_keeps_it_from_starting_nor_harms_whom_it_names(
    server: EmbeddedPostgres, folder: Path, leftover: str
) -> None:
    server.start()
    server.stop()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "data" / "postmaster.pid").write_text(leftover.format(alive=bystander.pid))
        (folder / "socket" / ".s.PGSQL.5432.lock").write_text(f"{bystander.pid}\n")
        server.start()
        server.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_data_of_another_major_version_is_refused_and_unchanged(
    server: EmbeddedPostgres, folder: Path, postgres_options: PostgresOptions
) -> None:
    server.start()
    server.stop()
    version = folder / "data" / "PG_VERSION"
    version.write_text("15\n")
    with pytest.raises(
        ConfigurationError, match=rf"made by PostgreSQL 15, .*runs {postgres_options.major}: .*--data-dir"
    ):
        server.start()
    version.write_text(f"{postgres_options.major}\n")
    server.start()


def test_a_folder_with_something_else_is_refused(server: EmbeddedPostgres, folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "letters.txt").write_text("dear diary")
    with pytest.raises(ConfigurationError, match="no Postgres data folder"):
        server.start()
    assert (folder / "data" / "letters.txt").read_text() == "dear diary"


def test_a_start_that_was_killed_in_initdb_is_begun_anew(server: EmbeddedPostgres, folder: Path) -> None:
    (folder / "data.new" / "base").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    server.start()
    assert not (folder / "data.new").exists()


def test_a_long_path_gets_a_short_socket_folder_that_goes_with_it(
    tmp_path: Path, postgres_options: PostgresOptions
) -> None:
    server = EmbeddedPostgres(tmp_path / ("deep" * 30) / "postgres", postgres_options)
    server.start()
    try:
        assert server.run_sql("SELECT 1") == "1"
        sockets = Path(server.run_sql("SHOW unix_socket_directories"))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert len(os.fsencode(sockets / ".s.PGSQL.5432")) <= 107
    finally:
        server.stop()
    assert not sockets.exists()


def test_a_path_with_strange_characters_works(tmp_path: Path, postgres_options: PostgresOptions) -> None:
    server = EmbeddedPostgres(tmp_path / "Bücher & 100% 'q'" / "pg", postgres_options)
    server.start()
    try:
        assert server.run_sql("SELECT 1", database="posthouse") == "1"
    finally:
        server.stop()


def test_a_server_that_ends_while_starting_says_why(folder: Path) -> None:
    server = EmbeddedPostgres(folder, PostgresOptions(settings={"shared_buffers": "nonsense"}, synced=False))
    with pytest.raises(ConfigurationError, match=r'FATAL: .*"shared_buffers".*postgres\.log'):
        server.start()
    assert server.child is None


@pytest.mark.skipif(not ROOT, reason="only root needs a user namespace")
def test_root_without_user_namespaces_is_told_the_ways_out(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from posthouse.embedded.postgres import EmbeddedPostgres\n"
        "from shared.errors import ConfigurationError\n"
        "try: EmbeddedPostgres(Path(sys.argv[1])).start()\n"
        "except ConfigurationError as error: print(error)\n"
    )
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "true").symlink_to(shutil.which("true") or "")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "pg")],
        env={**os.environ, "PATH": str(tools)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "refuses root a user namespace" in done.stdout
    assert "ordinary user" in done.stdout
    assert "--database-url" in done.stdout
