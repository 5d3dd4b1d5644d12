"""How local stacks end, and what the next start finds."""

import os
import signal
from pathlib import Path

import asyncpg
import httpx
import pytest

from fakes.local_stack import PORT_OPTIONS, LocalStack, gone, run_posthouse
from fakes.waiting import eventually_sync
from posthouse.embedded.nats import EmbeddedNats
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.db.migrate import current, head

MAIL = {"from": "demo@posthouse.test", "to": ["you@example.org"], "subject": "Hello", "text": "Hi."}


def send(stack: LocalStack, *recipients: str) -> str:
    headers = {"Authorization": f"Bearer {stack.info['account_key']}"}
    mail = {**MAIL, "to": list(recipients) or MAIL["to"]}
    answer = httpx.post(stack.info["http_url"] + "/v1/messages", json=mail, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def message(stack: LocalStack, number: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.info['account_key']}"}
    return httpx.get(f"{stack.info['http_url']}/v1/messages/{number}", headers=headers)


def endpoints(stack: LocalStack) -> list[str]:
    headers = {"Authorization": f"Bearer {stack.info['account_key']}"}
    answer = httpx.get(f"{stack.info['http_url']}/v1/endpoints", headers=headers)
    return [endpoint["url"] for endpoint in answer.json()["data"]]


def test_a_stop_is_clean_and_a_restart_continues(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path / "data", "--outgoing-webhook", "http://127.0.0.1:9/first")
    with stack:
        before, pids = stack.info, stack.pids
        number = send(stack)
        assert endpoints(stack) == ["http://127.0.0.1:9/first"]
        # A group's SIGTERM arrives twice under make.
        stack.send(signal.SIGTERM)
        stack.send(signal.SIGTERM)
        assert stack.wait() == 0
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / "data" / "local.json").exists()
    assert "SIGKILL" not in stack.output
    assert "was ended" not in stack.output
    with LocalStack(tmp_path / "data", "--outgoing-webhook", "http://127.0.0.1:9/second") as again:
        after = again.info
        for key in ("login", "password", "account_key", "admin_key", "webhook_secret"):
            assert after[key] == before[key]
        assert message(again, number).status_code == 200
        assert endpoints(again) == ["http://127.0.0.1:9/second"]
        assert again.stop(signal.SIGINT) == 0


def test_a_stop_does_not_wait_for_a_remote_that_is_silent(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "data") as stack:
        number = send(stack, "timeout@example.org")

        def started() -> bool:
            return bool(message(stack, number).json()["deliveries"][0]["attempts"])

        eventually_sync(started, timeout=20)
        pids = stack.pids
        assert stack.stop() == 0  # waits 8 s at most
    assert all(gone(pid) for pid in pids)


def test_a_killed_stack_leaves_nothing_and_its_ports_are_free_for_the_next(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "data") as stack:
        pids, info = stack.pids, stack.info
        number = send(stack)
        stack.kill()
    keys = ("http_url", "smtp", "submission", "submissions")
    ports = [
        word for option, key in zip(PORT_OPTIONS, keys, strict=True) for word in (option, info[key].rpartition(":")[2])
    ]
    with LocalStack(tmp_path / "data", *ports) as again:
        assert all(gone(pid) for pid in pids)
        assert again.info["http_url"] == info["http_url"]
        assert message(again, number).status_code == 200


@pytest.mark.parametrize("impatient", [False, True])
def test_a_service_that_does_not_stop_is_ended(tmp_path: Path, *, impatient: bool) -> None:
    with LocalStack(tmp_path / "data") as stack:
        pids = stack.pids
        (frozen,) = stack.info["pids"]["delivery"]
        os.kill(frozen, signal.SIGSTOP)
        stack.send(signal.SIGINT)
        eventually_sync(lambda: "stopping" in stack.output)
        if impatient:  # a second Ctrl-C: nobody is waited for
            stack.send(signal.SIGINT)
        assert stack.wait() == 0
    assert ("delivery did not stop within" in stack.output) is not impatient
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / "data" / "local.json").exists()


def test_ctrl_c_while_it_starts_ends_it_with_0(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path / "data").launch()
    eventually_sync(lambda: "starting on" in stack.output, timeout=60)
    assert stack.stop(signal.SIGINT) == 0
    assert "Traceback" not in stack.output
    assert not (tmp_path / "data" / "local.json").exists()


async def test_running_servers_are_used_when_given(
    tmp_path: Path, private_postgres: EmbeddedPostgres, private_nats: EmbeddedNats
) -> None:
    given = ("--database-url", private_postgres.url, "--nats-url", private_nats.url)
    with LocalStack(tmp_path / "data", *given, "--bind", "0.0.0.0") as stack:
        info = stack.info
        assert (info["database_url"], info["nats_url"]) == (private_postgres.url, private_nats.url)
        assert not (tmp_path / "data" / "postgres").exists()
        assert not (tmp_path / "data" / "nats").exists()
        # Others can reach this one: its password is no secret of ours.
        assert info["password"] != "posthouse-demo"
        assert len(info["password"]) >= 16
        assert info["http_url"].startswith("http://127.0.0.1:")
        connection = await asyncpg.connect(private_postgres.url)
        try:
            workers = await connection.fetch("SELECT DISTINCT service FROM worker")
            assert {row["service"] for row in workers} == {"api", "delivery", "hooks", "dsn-ingest"}
        finally:
            await connection.close()
        assert stack.stop() == 0
    assert private_postgres.child is not None
    assert private_postgres.child.exit_code is None


async def test_migrate_brings_an_empty_database_up_to_date(empty_database_url: str) -> None:
    done = run_posthouse("migrate", "--database-url", empty_database_url)
    assert done.returncode == 0, done.stderr
    assert head() in done.stdout
    assert await current(empty_database_url) == head()
    again = run_posthouse("migrate", environment={"POSTHOUSE_DATABASE_URL": empty_database_url})
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "name the database: set POSTHOUSE_DATABASE_URL"),
        ("postgresql://u:hunter2@127.0.0.1:1/d", "Postgres at 127.0.0.1:1/d does not answer after 1 s"),
        ("postgresql://u:hunter2@127.0.0.1:port/d", "not a usable database URL"),
        ("mysql://u:hunter2@127.0.0.1/d", "not a usable database URL"),
    ],
)
def test_migrate_says_in_one_line_why_it_cannot(url: str | None, words: str) -> None:
    given = [] if url is None else ["--database-url", url]
    done = run_posthouse("migrate", "--wait", "1", *given)
    assert done.returncode == 2
    assert words in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert done.stderr.count("\n") == 1


def test_migrate_names_a_database_that_does_not_exist(empty_database_url: str) -> None:
    done = run_posthouse("migrate", "--database-url", empty_database_url.replace("@/test_", "@/absent_"))
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_version_prints_the_version() -> None:
    done = run_posthouse("version")
    assert done.returncode == 0
    assert done.stdout.strip().count(".") == 2
