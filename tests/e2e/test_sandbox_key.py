"""A sandbox key at a whole local stack that sends everything to a mail server: what it hands in gets nowhere near that."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from e2e.journey import told
from fakes.local_stack import LocalStack
from fakes.stack import HoldingSmtpServer
from fakes.webhook_receiver import WebhookReceiver


def post(stack: LocalStack, path: str, key: str, document: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(stack.info["http_url"] + path, headers=headers, json=document, trust_env=False, timeout=30)
    assert answer.is_success, answer.text
    created: dict[str, Any] = answer.json()
    return created


def newest_account(stack: LocalStack) -> str:
    headers = {"Authorization": f"Bearer {stack.info['admin_key']}"}
    answer = httpx.get(stack.info["http_url"] + "/v1/accounts", headers=headers, trust_env=False)
    account: str = answer.json()["data"][-1]["id"]
    return account


def mail(to: str) -> dict[str, Any]:
    return {"from": "demo@posthouse.test", "to": [to], "subject": "Hello", "text": "Hello.\n"}


async def test_an_application_is_told_of_a_failure_that_never_left_the_house(
    tmp_path: Path, server: HoldingSmtpServer, receiver: WebhookReceiver
) -> None:
    stack = LocalStack(tmp_path / "data", "--route", server.address, "--outgoing-webhook", receiver.url)
    await asyncio.to_thread(stack.start)
    try:
        info = stack.info
        keys = f"/v1/accounts/{newest_account(stack)}/keys"
        key = post(stack, keys, info["admin_key"], {"test": True})["key"]
        sent = post(stack, "/v1/messages", key, mail("permerror@example.org"))

        failed = await told(receiver, info["webhook_secret"], 1)
        assert (failed["type"], failed["test"], failed["data"]["message"]) == ("failed", True, sent["id"])
        assert (failed["data"]["code"], failed["data"]["suppressing"]) == (550, True)
        assert server.sessions == []

        post(stack, "/v1/messages", info["account_key"], mail("permerror@example.org"))
        (message,) = await server.wait_for(1)
        assert message.recipients == ["permerror@example.org"]
        delivered = await told(receiver, info["webhook_secret"], 2)
        assert (delivered["type"], delivered["test"]) == ("delivered", False)
        assert len(server.messages) == 1
    finally:
        await asyncio.to_thread(stack.stop)
