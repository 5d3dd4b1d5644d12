"""Handing in by SMTP at a whole local stack, on the ports that ``local.json`` names."""

import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from fakes.local_stack import LocalStack
from fakes.waiting import eventually_sync


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("submission") / "data", "--workers", "api=2") as stack:
        yield stack


def mail(stack: LocalStack, subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = stack.info["login"]
    message["To"] = "you@example.org"
    message["Subject"] = subject
    message["X-Mox-Extra-Order"] = "4711"
    message.set_content("Handed in by SMTP: äöü.\n")
    return message


def place(stack: LocalStack, key: str) -> tuple[str, int]:
    host, _, port = stack.info[key].rpartition(":")
    return host, int(port)


def trusting(stack: LocalStack) -> ssl.SSLContext:
    """A client's context that trusts the stack's own certificate, and checks names."""
    return ssl.create_default_context(cafile=str(stack.folder / "tls" / "certificate.pem"))


def delivered(stack: LocalStack, subject: str) -> bool:
    """Say whether the message of this subject has arrived."""
    headers = {"Authorization": f"Bearer {stack.info['account_key']}"}
    answer = httpx.get(stack.info["http_url"] + "/v1/events", headers=headers, params={"limit": 200})
    assert answer.status_code == 200, answer.text
    found = [
        event["data"]["message"]
        for event in answer.json()["data"]
        if event["type"] == "delivered" and event["data"]["subject"] == subject
    ]
    if not found:
        return False
    message = httpx.get(f"{stack.info['http_url']}/v1/messages/{found[0]}", headers=headers).json()
    assert (message["door"], message["extra"]) == ("smtp", {"Order": "4711"})
    return True


def test_in_the_clear_as_scripts_do(stack: LocalStack) -> None:
    with smtplib.SMTP(*place(stack, "submission"), timeout=30) as client:
        client.login(stack.info["login"], stack.info["password"])
        assert client.send_message(mail(stack, "clear")) == {}
    eventually_sync(lambda: delivered(stack, "clear"), timeout=60)


def test_starttls_with_a_key(stack: LocalStack) -> None:
    key = stack.info["account_key"]
    with smtplib.SMTP(*place(stack, "submission"), timeout=30) as client:
        client.starttls(context=trusting(stack))
        client.login(key.split("_")[1], key)
        assert client.send_message(mail(stack, "starttls")) == {}
    eventually_sync(lambda: delivered(stack, "starttls"), timeout=60)


def test_implicit_tls(stack: LocalStack) -> None:
    with smtplib.SMTP_SSL(*place(stack, "submissions"), timeout=30, context=trusting(stack)) as client:
        client.login(stack.info["login"], stack.info["password"])
        assert client.send_message(mail(stack, "implicit")) == {}
    eventually_sync(lambda: delivered(stack, "implicit"), timeout=60)


def test_the_certificate_survives_a_restart(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "data") as stack:
        first = (stack.folder / "tls" / "certificate.pem").read_bytes()
    with LocalStack(tmp_path / "data") as stack:
        assert (stack.folder / "tls" / "certificate.pem").read_bytes() == first
