"""Jobs: what is too much for one request goes on by itself, in order, wherever a process dies."""

import asyncio
import json
import os
import sys
from pathlib import Path

import httpx

from fakes.waiting import eventually
from integration.api.backlog import fill, held
from integration.api.conftest import SECRET, RunningApi, problem
from shared.db.demo import Demo
from shared.db.engine import Pool


async def finished(client: httpx.AsyncClient, job: str) -> bool:
    found = (await client.get(f"/v1/jobs/{job}")).json()
    assert 0 <= found["progress"] <= 1
    return found["finished_at"] is not None


async def test_a_job_is_stepped_by_others_when_its_process_is_killed(
    database_url: str, demo: Demo, pool: Pool, tmp_path: Path
) -> None:
    await fill(pool, demo.account_id, 10_000)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    settings = {
        "DATABASE_URL": database_url,
        "SECRET_KEY": SECRET,
        "API_HOST": "127.0.0.1",
        "API_PORT": "0",
        "HEALTH_HOST": "127.0.0.1",
        "HEALTH_PORT": "0",
        "STARTUP_WAIT_SECONDS": "0",
    }

    async def start(name: str) -> tuple[asyncio.subprocess.Process, str]:
        address = tmp_path / name
        environment = {f"POSTHOUSE_{key}": value for key, value in settings.items()}
        environment["POSTHOUSE_ADDRESS_FILE"] = str(address)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api", env={**inherited, **environment}, stderr=asyncio.subprocess.DEVNULL
        )
        await eventually(address.exists, 60)
        return process, f"http://{json.loads(address.read_text())['http']}"

    async def some_held() -> bool:
        return 0 < await held(pool) < 10_000

    headers = {"Authorization": f"Bearer {demo.account_key}"}
    first, url = await start("first")
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
        asking = asyncio.create_task(client.post("/v1/deliveries/hold", json={"all": True}))
        await eventually(some_held)
        first.kill()
        await first.wait()
        await asyncio.gather(asking, return_exceptions=True)
    at_the_kill = await held(pool)
    assert 0 < at_the_kill < 10_000
    assert at_the_kill == await pool.fetchval("SELECT changed FROM job")  # a step is whole or was not made

    second, url = await start("second")
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
            [job] = (await client.get("/v1/jobs")).json()["data"]
            await eventually(lambda: finished(client, job["id"]), 60, what="the job goes on by itself")
            done = (await client.get(f"/v1/jobs/{job['id']}")).json()
        assert (done["seen"], done["changed"], done["progress"], done["error"]) == (10_000, 10_000, 1, None)
        assert await held(pool) == 10_000
    finally:
        second.terminate()
        await second.wait()


async def test_jobs_of_one_account_are_done_in_the_order_they_were_given(
    client: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    await fill(pool, demo.account_id, 4_000)
    answers = [
        (await client.post(f"/v1/deliveries/{kind}", json={"all": True})) for kind in ("hold", "release", "hold")
    ]
    assert {answer.status_code for answer in answers} <= {200, 202}
    for answer in answers:
        await eventually(lambda one=answer: finished(client, one.json()["id"]), 60)  # type: ignore[misc] # bound at once
    assert await held(pool) == 4_000
    jobs_done = (await client.get("/v1/jobs")).json()["data"]
    assert [job["changed"] for job in jobs_done] == [4_000, 4_000, 4_000]
    assert jobs_done[0]["created_at"] > jobs_done[1]["created_at"]


async def test_a_job_that_trips_ends_with_its_error_and_harms_no_other(
    client: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    [delivery] = await fill(pool, demo.account_id, 1)
    bad = await pool.fetchval(
        """INSERT INTO job (account_id, by_operator, kind, filter, last_id) VALUES ($1, false, 'cancel', '{"colour": "red"}', $2) RETURNING id""",
        demo.account_id,
        delivery,
    )
    await eventually(lambda: finished(client, str(bad)))
    assert "internal error" in (await client.get(f"/v1/jobs/{bad}")).json()["error"]
    answer = (await client.post("/v1/deliveries/cancel", json={"all": True})).json()
    assert answer["changed"] == 1


async def test_old_jobs_are_forgotten_and_unknown_ones_not_found(
    client: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    await pool.execute(
        "INSERT INTO job (account_id, by_operator, kind, filter, finished_at) SELECT $1, false, 'hold', '{}', now() - interval '8 days' FROM generate_series(1, 3)",
        demo.account_id,
    )
    await eventually(lambda: _none_left(pool), what="old jobs are forgotten")
    assert (await client.get("/v1/jobs")).json()["data"] == []
    problem(await client.get("/v1/jobs/4711"), 404, "not_found")
    problem(await client.get(f"/v1/jobs/{'9' * 19}"), 404, "not_found")


async def _none_left(pool: Pool) -> bool:
    return await pool.fetchval("SELECT count(*) FROM job") == 0


async def test_an_operator_sees_all_jobs_and_an_account_its_own(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, api: RunningApi, demo: Demo
) -> None:
    mine = (await client.post("/v1/deliveries/hold", json={"all": True})).json()["id"]
    theirs = (await operator.post("/v1/deliveries/hold", json={"all": True, "account": str(demo.account_id)})).json()[
        "id"
    ]
    assert [job["id"] for job in (await client.get("/v1/jobs")).json()["data"]] == [mine]
    problem(await client.get(f"/v1/jobs/{theirs}"), 404, "not_found")
    assert [job["id"] for job in (await operator.get("/v1/jobs")).json()["data"]] == [theirs, mine]
    assert (await operator.get("/v1/jobs?limit=1")).json()["next_cursor"]
