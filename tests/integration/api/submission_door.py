"""An api with both ports of the SMTP door open, and a certificate that the tests trust."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.certificates import authority
from integration.api.conftest import RunningApi, StartApi
from integration.api.submission_client import Lines
from shared.db.demo import Demo
from shared.db.engine import Pool


@pytest.fixture
def tls_files(tmp_path: Path) -> dict[str, Path]:
    """The two settings of a certificate."""
    return issue(tmp_path)


def issue(folder: Path) -> dict[str, Path]:
    """Write a certificate and its key, and return them as settings."""
    issued = authority().issue_cert("localhost", "127.0.0.1")
    chain, key = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"tls_cert_file": chain, "tls_key_file": key}


@pytest.fixture
async def door(start_api: StartApi, demo: Demo, tls_files: dict[str, Path]) -> RunningApi:
    return await start_api(submission_host="127.0.0.1", submission_port=0, submissions_port=0, **tls_files)


@pytest.fixture
async def lines(door: RunningApi) -> AsyncIterator[Lines]:
    """A client over TLS that has not said anything yet."""
    lines = await Lines.connect(door.addresses["submissions"])
    yield lines
    lines.close()


@pytest.fixture
async def sender(lines: Lines, demo: Demo) -> Lines:
    """The same, logged in as the demo account."""
    await lines.login(demo.login, demo.password)
    return lines


async def stored(pool: Pool) -> list[dict[str, Any]]:
    """Return every message with its bytes and deliveries."""
    found = []
    for row in await pool.fetch("SELECT * FROM message ORDER BY id"):
        pieces = await pool.fetch("SELECT bytes FROM message_body WHERE message_id = $1 ORDER BY seq", row["id"])
        deliveries = await pool.fetch(
            "SELECT d.*, q.due_at FROM delivery d LEFT JOIN delivery_queue q ON q.delivery_id = d.id WHERE message_id = $1 ORDER BY d.id",
            row["id"],
        )
        found.append(
            {**row, "content": b"".join(p["bytes"] for p in pieces), "deliveries": [dict(d) for d in deliveries]}
        )
    return found


async def only(pool: Pool) -> dict[str, Any]:
    (message,) = await stored(pool)
    return message


@pytest.fixture
async def operator_of_door(door: RunningApi, demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    async with door.client(demo.admin_key) as client:
        yield client
