"""A client of the mox webapi, as mox's own speaks it: one form field with JSON, HTTP Basic; and an api for a whole file of tests."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import col, update

from integration.api.conftest import SECRET, RunningApi, started
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.db.accounts import add_address, create_account
from shared.db.credentials import create_login
from shared.db.demo import Demo, DemoSecrets, seed_demo
from shared.db.domains import create_domain, mark_verified
from shared.db.engine import Pool, create_engine, create_pool, session_factory
from shared.models import Domain
from shared.security.keys import KeyRing

Upload = tuple[str, tuple[str, bytes, str]]
"""Form field, and name, content and type of the file."""

TO = {"To": [{"Address": "grace@example.org"}]}
HELLO: dict[str, Any] = {**TO, "Subject": "Hello", "Text": "Hello, Grace.\n"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@dataclass
class Mox:
    """Calls methods for one login."""

    http: httpx.AsyncClient
    login: str
    password: str

    def as_(self, login: str, password: str | None = None) -> "Mox":
        return Mox(self.http, login, self.password if password is None else password)

    async def post(self, method: str, **options: Any) -> httpx.Response:
        """Post anything at all, with the credentials."""
        headers = {**basic(self.login, self.password), **options.pop("headers", {})}
        return await self.http.post(f"/webapi/v0/{method}", headers=headers, **options)

    async def raw(self, method: str, request: object, files: Sequence[Upload] = ()) -> httpx.Response:
        document = request if isinstance(request, str) else json.dumps(request)
        return await self.post(method, data={"request": document}, files=list(files) or None)

    async def call(self, method: str, request: object, files: Sequence[Upload] = ()) -> Any:
        """Return the result of a call, which must succeed."""
        response = await self.raw(method, request, files)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert response.text.endswith("}\n")
        return response.json()

    async def fault(self, method: str, request: object, files: Sequence[Upload] = ()) -> str:
        """Return the code of a call that must fail."""
        return code_of(await self.raw(method, request, files))


def code_of(response: httpx.Response) -> str:
    assert response.status_code == 400, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    document = response.json()
    assert set(document) == {"Code", "Message"}
    assert document["Message"]
    code: str = document["Code"]
    return code


@dataclass
class World:
    """An api with a demo account, a domain of its that is switched off, and another account."""

    api: RunningApi
    mox: Mox
    other: Mox
    demo: Demo
    pool: Pool


@asynccontextmanager
async def world(
    server: EmbeddedPostgres, template: str, name: str, folder: Path, **settings: object
) -> AsyncIterator[World]:
    """Run an api over a database of this name, with these settings beyond the usual ones."""
    server.run_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = server.url_of(name)
    demo = await _seed(url)
    pool = await create_pool(url, size=2, service="test")
    with pytest.MonkeyPatch.context() as patch:
        async with started(url, folder / "address", patch, settings) as api, api.client() as http:
            mox = Mox(http, demo.login, demo.password)
            yield World(api, mox, mox.as_("ada@other.example", "of-another"), demo, pool)
            await api.finish()
    await pool.close()
    server.run_sql(f"DROP DATABASE {name} WITH (FORCE)")


async def _seed(url: str) -> Demo:
    engine = create_engine(url, size=2, service="test")
    try:
        async with session_factory(engine)() as session, session.begin():
            demo = await seed_demo(session, KeyRing([SECRET]), DemoSecrets())
            off = await create_domain(session, demo.account_id, "off.example")
            await mark_verified(session, demo.account_id, off.id)
            await session.execute(update(Domain).where(col(Domain.id) == off.id).values(disabled_at=off.created_at))
            await add_address(session, demo.account_id, "demo@off.example")
            await create_login(session, demo.account_id, "plain@posthouse.test", demo.password, uses_from_ids=False)
            other = await create_account(session, "other")
            domain = await create_domain(session, other.id, "other.example")
            await mark_verified(session, other.id, domain.id)
            await add_address(session, other.id, "ada@other.example")
            await create_login(session, other.id, "ada@other.example", "of-another")
            return demo
    finally:
        await engine.dispose()
