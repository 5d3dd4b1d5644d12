"""The life of a local stack: start, announce, restart, die, stop. Everything here is promised to scripts outside."""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes.local_stack import PORT_OPTIONS, LocalStack, clean_environment, gone, run_posthouse
from fakes.waiting import eventually_sync

ANY_PORTS = [word for option in PORT_OPTIONS for word in (option, "0")]
KEYS = {
    *("http_url", "smtp", "submission", "submissions", "login", "password", "account_key", "admin_key"),
    *("webhook_secret", "health", "database_url", "nats_url", "pids"),
}
SERVICES = {"api", "delivery", "hooks", "dsn-ingest"}
MAIL = {"from": "demo@posthouse.test", "to": ["you@example.org"], "subject": "Hello", "text": "Hi."}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A running stack that tests may use but not stop."""
    folder = tmp_path_factory.mktemp("life") / "data"
    environment = clean_environment(POSTHOUSE_DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/production")
    with LocalStack(folder, "--workers", "api=2,hooks=2", environment=environment) as running:
        yield running


def bearer(stack: LocalStack, key: str = "account_key") -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.info[key]}"}


def send(stack: LocalStack, **changes: object) -> str:
    answer = httpx.post(stack.info["http_url"] + "/v1/messages", json={**MAIL, **changes}, headers=bearer(stack))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def states(stack: LocalStack, message: str) -> list[str]:
    answer = httpx.get(f"{stack.info['http_url']}/v1/messages/{message}", headers=bearer(stack))
    assert answer.status_code == 200, answer.text
    return [delivery["state"] for delivery in answer.json()["deliveries"]]


def test_local_json_has_what_the_contract_names(stack: LocalStack) -> None:
    info = stack.info
    assert set(info) == KEYS
    assert stat.S_IMODE((stack.folder / "local.json").stat().st_mode) == 0o600
    assert (info["login"], info["password"]) == ("demo@posthouse.test", "posthouse-demo")
    assert all(info[key].startswith("127.0.0.1:") for key in ("smtp", "submission", "submissions"))
    assert set(info["pids"]) == SERVICES
    assert {service: len(pids) for service, pids in info["pids"].items()} == {
        "api": 2,
        "hooks": 2,
        "delivery": 1,
        "dsn-ingest": 1,
    }
    assert not any(gone(pid) for pid in stack.pids)


def test_every_process_is_ready_and_tells_metrics(stack: LocalStack) -> None:
    info = stack.info
    addresses = [f"http://{address}" for service in SERVICES for address in info["health"][service]]
    assert len(addresses) == 6
    for address in [info["http_url"], *addresses]:
        assert httpx.get(address + "/livez").status_code == 200
        assert httpx.get(address + "/readyz").status_code == 200
        assert httpx.get(address + "/metrics").status_code == 200
    for address, service in ((info["http_url"], "api"), (f"http://{info['health']['dsn-ingest'][0]}", "dsn_ingest")):
        assert f"posthouse_{service}_smtp_sessions 0.0" in httpx.get(address + "/metrics").text


def test_the_pages_that_are_promised_are_there(stack: LocalStack) -> None:
    for path in ("/", "/docs", "/openapi.json"):
        assert httpx.get(stack.info["http_url"] + path).status_code == 200


def test_the_printed_curl_sends_a_mail(stack: LocalStack) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    command = stack.output.partition("Send a mail:\n")[2].partition("Stop with")[0]
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert '"deliveries"' in done.stdout


def test_login_and_password_open_the_account_and_the_admin_key_the_operator_api(stack: LocalStack) -> None:
    info = stack.info
    answer = httpx.get(info["http_url"] + "/v1/events", auth=(info["login"], info["password"]))
    assert answer.status_code == 200
    assert httpx.get(info["http_url"] + "/v1/accounts", headers=bearer(stack, "admin_key")).status_code == 200
    assert httpx.get(info["http_url"] + "/v1/accounts", headers=bearer(stack)).status_code == 403


def test_a_mail_arrives_without_anything_else_running(stack: LocalStack) -> None:
    message = send(stack)
    eventually_sync(lambda: states(stack, message) == ["delivered"], timeout=20)


def test_a_database_of_the_shell_is_ignored_with_a_warning(stack: LocalStack) -> None:
    assert "warning: POSTHOUSE_DATABASE_URL is set and ignored" in stack.output
    assert "secret" not in stack.output.partition("warning")[2].partition("\n")[0]
    assert "production" not in stack.info["database_url"]


def test_a_second_start_on_the_folder_is_refused_and_harms_nothing(stack: LocalStack) -> None:
    before = stack.info
    second = run_posthouse("local", "--data-dir", str(stack.folder), *ANY_PORTS)
    assert second.returncode == 2
    assert second.stderr.startswith(f"posthouse: a stack of Posthouse runs on {stack.folder} already (process ")
    assert second.stderr.count("\n") == 1
    assert stack.info == before


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--http-port", "http_url"),
        ("--smtp-port", "smtp"),
        ("--submission-port", "submission"),
        ("--submissions-port", "submissions"),
    ],
)
def test_a_port_in_use_is_named_with_its_option(stack: LocalStack, tmp_path: Path, option: str, key: str) -> None:
    port = stack.info[key].rpartition(":")[2]
    ports = {**dict.fromkeys(PORT_OPTIONS, "0"), option: port}
    words = [word for pair in ports.items() for word in pair]
    done = run_posthouse("local", "--data-dir", str(tmp_path / "data"), *words)
    assert done.returncode == 2
    assert f"127.0.0.1:{port} is in use by another program" in done.stderr
    assert option in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data" / "local.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--incoming-webhook", "http://127.0.0.1:9/"),
        ("--webhook-format", "mox"),
    ],
)
def test_what_is_not_there_yet_is_refused_before_anything_starts(tmp_path: Path, arguments: tuple[str, str]) -> None:
    done = run_posthouse("local", "--data-dir", str(tmp_path / "data"), *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"posthouse: {arguments[0]}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_worker_that_dies_is_started_again_announced_and_reported(stack: LocalStack) -> None:
    (before,) = stack.info["pids"]["delivery"]
    os.kill(before, signal.SIGKILL)

    def replaced() -> bool:
        after = stack.info["pids"]["delivery"]
        return len(after) == 1 and after != [before] and not gone(after[0])

    eventually_sync(replaced, timeout=30)
    assert f"delivery (process {before}) was ended by SIGKILL; it is started again" in stack.output
    message = send(stack)
    eventually_sync(lambda: states(stack, message) == ["delivered"], timeout=60)


def test_a_dead_server_is_started_again_and_work_goes_on(stack: LocalStack) -> None:
    postmaster = int((stack.folder / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    eventually_sync(lambda: "Postgres runs again" in stack.output, timeout=60)
    message = eventually_sync(lambda: _try_send(stack), timeout=60)
    eventually_sync(lambda: states(stack, message) == ["delivered"], timeout=60)


def _try_send(stack: LocalStack) -> str:
    answer = httpx.post(stack.info["http_url"] + "/v1/messages", json=MAIL, headers=bearer(stack), timeout=20)
    assert answer.status_code in {202, 503}, answer.text
    return str(answer.json()["id"]) if answer.status_code == 202 else ""
