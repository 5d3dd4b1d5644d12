"""A service that cannot start says why in one line and ends with 2; it does not fail where waiting helps."""

import asyncio
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.stack import SERVICES, USUAL, Service, command, environment
from fakes.waiting import eventually
from shared.db.migrate import upgrade

NOBODY = "postgresql://posthouse@/posthouse?host={folder}"


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    errors: list[str]
    """Lines on standard error."""

    @property
    def log(self) -> list[dict[str, Any]]:
        """Those that are log lines."""
        return [json.loads(line) for line in self.errors if line.startswith("{")]

    @property
    def words(self) -> list[str]:
        """Those that are for people."""
        return [line for line in self.errors if not line.startswith("{")]


async def run(service: str, **settings: object) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *command(service),
        env=environment({**USUAL, "startup_wait_seconds": 1, **settings}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert output == b""
    return Ended(process.returncode or 0, errors.decode().splitlines())


async def test_a_service_waits_for_a_postgres_that_does_not_answer_says_so_and_gives_up_clearly(tmp_path: Path) -> None:
    url = NOBODY.format(folder=tmp_path)
    for service, ended in zip(
        SERVICES, await asyncio.gather(*(run(s, database_url=url) for s in SERVICES)), strict=True
    ):
        assert ended.code == 2
        (waiting,) = [line for line in ended.log if line["event"] == "waiting"]
        assert waiting["service"] == service
        assert "Postgres does not answer yet" in waiting["detail"]
        (line,) = ended.words
        assert line.startswith(f"{service}: gave up after 1 s: Postgres does not answer yet")


async def test_a_missing_or_wrong_setting_is_named_in_one_line_that_does_not_show_its_value() -> None:
    usual = {"database_url": "postgresql://user:hidden@127.0.0.1:1/name"}
    wrong: dict[str, tuple[dict[str, object], str]] = {
        "api": ({**usual, "secret_key": None}, "api: POSTHOUSE_SECRET_KEY is missing: set POSTHOUSE_SECRET_KEY to"),
        "delivery": ({}, "delivery: POSTHOUSE_DATABASE_URL: is missing"),
        "hooks": (
            {**usual, "secret_key": "hidden"},
            "hooks: POSTHOUSE_SECRET_KEY is too short: set POSTHOUSE_SECRET_KEY to",
        ),
        "dsn-ingest": ({**usual, "health_port": "hidden"}, "dsn-ingest: POSTHOUSE_HEALTH_PORT: "),
    }
    ended = await asyncio.gather(*(run(service, **settings) for service, (settings, _) in wrong.items()))
    for process, (_, says) in zip(ended, wrong.values(), strict=True):
        assert process.code == 2
        (line,) = process.errors
        assert line.startswith(says)
        assert "hidden" not in line


async def test_services_that_were_started_before_the_schema_go_on_once_it_is_there(
    empty_database_url: str, tmp_path: Path
) -> None:
    settings = {**USUAL, "database_url": empty_database_url, "relay": "127.0.0.1:1"}
    services = [Service(name, tmp_path / name, settings) for name in ("api", "delivery")]
    try:
        for service in services:
            (line,) = await eventually(functools.partial(service.logged, "waiting"), 60, what=f"{service.name} waiting")
            assert "run `posthouse migrate`" in line["detail"]
        await upgrade(empty_database_url)
        for service in services:
            await service.listening()
    finally:
        for service in services:
            service.kill()
