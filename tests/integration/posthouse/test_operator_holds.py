"""The operator's commands that hold, release and cancel, against a real api."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from integration.api.backlog import fill, held, states
from integration.api.conftest import SECRET, started
from integration.posthouse.operator_commands import Done, posthouse
from shared.db.demo import Demo, DemoSecrets, seed_demo
from shared.db.engine import Pool, create_engine, create_pool, session_factory
from shared.security.keys import KeyRing

Run = Callable[..., Awaitable[Done]]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database_url, size=2, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def demo(database_url: str) -> Demo:
    engine = create_engine(database_url, size=1, service="test")
    async with session_factory(engine)() as session, session.begin():
        made = await seed_demo(session, KeyRing([SECRET]), DemoSecrets())
    await engine.dispose()
    return made


@pytest.fixture
async def run(database_url: str, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Runs commands as an operator of a running api."""
    async with started(database_url, tmp_path / "address", monkeypatch, {}) as api:

        async def command(*arguments: str) -> Done:
            return await posthouse(*arguments, POSTHOUSE_URL=api.url, POSTHOUSE_KEY=demo.admin_key)

        yield command
        await api.finish()


async def test_a_rule_is_made_listed_and_removed(run: Run, demo: Demo, pool: Pool) -> None:
    assert "no hold rules" in (await run("hold-rule", "list")).out
    await fill(pool, demo.account_id, 3, domain="example.org")
    await fill(pool, demo.account_id, 2, domain="example.net")
    made = await run(
        "hold-rule", "create", "--recipient-domain", "example.org", "--reason", "blocked", "--account", "demo"
    )
    assert "holds 3 deliveries" in made.out
    [rule] = (await run("hold-rule", "list", "--json")).json()
    assert (rule["account"], rule["recipient_domain"], rule["made_by_operator"]) == (
        str(demo.account_id),
        "example.org",
        True,
    )
    assert "blocked" in (await run("hold-rule", "list")).out
    removed = await run("hold-rule", "remove", rule["id"], "--release")
    assert "3 deliveries are released" in removed.out
    assert await held(pool) == 0
    assert (await run("hold-rule", "remove", rule["id"])).code == 1
    assert (await run("hold-rule", "remove", "x")).code == 2


async def test_deliveries_are_chosen_by_all_that_is_given(run: Run, demo: Demo, pool: Pool) -> None:
    ids = await fill(pool, demo.account_id, 3)
    nothing = await run("delivery", "cancel")
    assert nothing.code == 2
    assert "--all" in nothing.err
    job = (await run("delivery", "hold", str(ids[0]), str(ids[1]), "--recipient", "u0@example.org", "--json")).json()
    assert (job["kind"], job["changed"]) == ("hold", 1)
    shown = await run("delivery", "release", "--all", "--account", "demo")
    assert shown.code == 0, shown.err
    assert re.search(r"Changed +1\n", shown.out)
    assert (await run("delivery", "cancel", str(ids[2]), "--json")).json()["changed"] == 1
    assert await states(pool, *ids) == ["queued", "queued", "canceled"]


async def test_a_large_job_is_waited_for_or_not(run: Run, demo: Demo, pool: Pool) -> None:
    await fill(pool, demo.account_id, 15_000)
    told = await run("delivery", "hold", "--all", "--no-wait")
    assert told.code == 0
    done = (await run("delivery", "release", "--all", "--json")).json()
    assert done["finished_at"]
    assert done["changed"] == 15_000
    assert await held(pool) == 0
