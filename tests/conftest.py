"""Real servers for the tests: one Postgres and one NATS per test process, and a database of its own per test.

``POSTHOUSE_TEST_POSTGRES=16`` runs the tests on the other Postgres that the wheel brings.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings

from posthouse.embedded.nats import EmbeddedNats
from posthouse.embedded.postgres import FAST_SETTINGS, MAJOR, EmbeddedPostgres, PostgresOptions
from shared.db.migrate import upgrade

# How long an example takes says more about the machine than about the code; speed is measured in bench/.
settings.register_profile("posthouse", deadline=None)
settings.load_profile("posthouse")

TEMPLATE = "posthouse_template"

_MEMORY_BYTES = 3 * 1024**3

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_options() -> PostgresOptions:
    """How the servers of tests are run: fast, and safe against a kill but not against a power cut."""
    return PostgresOptions(
        settings=FAST_SETTINGS, major=int(os.environ.get("POSTHOUSE_TEST_POSTGRES", MAJOR)), synced=False
    )


@pytest.fixture(scope="session")
def memory_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where the system has one: making a database is making six hundred files."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder made in it is ours alone (mode 0700)
    if not memory.is_dir() or shutil.disk_usage(memory).free < _MEMORY_BYTES:
        yield tmp_path_factory.mktemp("databases")
        return
    folder = Path(tempfile.mkdtemp(prefix="posthouse-test-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server(memory_folder: Path, postgres_options: PostgresOptions) -> Iterator[EmbeddedPostgres]:
    """The Postgres that the tests of this process share. Do not stop it: :func:`private_postgres` is for that."""
    server = EmbeddedPostgres(memory_folder / "postgres", postgres_options)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template_database(postgres_server: EmbeddedPostgres) -> str:
    """A migrated database that nobody can be connected to: a session left in it would make each clone wait 5 s."""
    postgres_server.run_sql(f"CREATE DATABASE {TEMPLATE}")
    with ThreadPoolExecutor(1) as thread:  # a thread of its own: a test's event loop may exist in this one
        thread.submit(asyncio.run, upgrade(postgres_server.url_of(TEMPLATE))).result()
    postgres_server.run_sql(f"ALTER DATABASE {TEMPLATE} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
    return TEMPLATE


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    name = f"test_{next(_numbers)}"
    postgres_server.run_sql(f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield postgres_server.url_of(name)
    postgres_server.run_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database without a schema, of the test's own."""
    name = f"test_{next(_numbers)}"
    postgres_server.run_sql(f"CREATE DATABASE {name}")
    yield postgres_server.url_of(name)
    postgres_server.run_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def private_postgres(tmp_path: Path, postgres_options: PostgresOptions) -> Iterator[EmbeddedPostgres]:
    """A started server of the test's own, with an empty database at ``url``, to be stopped and started at will."""
    server = EmbeddedPostgres(tmp_path / "postgres", postgres_options)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """The NATS that the tests of this process share. Do not stop it: :func:`private_nats` is for that."""
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def nats_url(nats_server: EmbeddedNats) -> str:
    """A running NATS; every test of the process rings the same one."""
    return nats_server.url


@pytest.fixture
def private_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """A started server of the test's own, to be stopped and started at will; it keeps its URL."""
    server = EmbeddedNats(tmp_path / "nats")
    server.start()
    yield server
    server.stop()
