"""Simulated delivery in ``posthouse local``: what a recipient's local part asks for happens, by real SMTP (mox-behaviour 11, case 207)."""

from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import pytest

from fakes.local_stack import LocalStack
from fakes.waiting import eventually

OUTCOMES = [
    # local part, state, what happened to it: event, code, enhanced code, suppressing
    ("xpermerror", "failed", [("failed", 550, "5.0.0", True)]),
    ("x550", "failed", [("failed", 550, "5.0.0", True)]),
    ("x554", "failed", [("failed", 554, "5.0.0", False)]),
    ("x599", "failed", [("failed", 599, "5.0.0", False)]),
    ("xtemperror", "queued", [("delayed", 451, "4.0.0", False)]),
    ("x421", "queued", [("delayed", 421, "4.0.0", False)]),
    ("x400", "queued", [("delayed", 400, "4.0.0", False)]),
    ("x399", "delivered", [("delivered", 250, "2.0.0", False)]),
    ("x601", "delivered", [("delivered", 250, "2.0.0", False)]),
    ("PERMERROR", "delivered", [("delivered", 250, "2.0.0", False)]),
    ("bouncer", "delivered", [("delivered", 250, "2.0.0", False)]),
    ("xbounce", "delivered", [("delivered", 250, "2.0.0", False), ("bounced", 550, "5.1.1", True)]),
]
LATER = ["xtimeout", "xgreylist", "xcomplaint", "rcptto550", "rcpttotemperror"]
"""What a later version simulates; to stay silent about it would look like a delivery."""


class Account:
    """The demo account, over HTTP."""

    def __init__(self, stack: LocalStack) -> None:
        info = stack.info
        self._client = httpx.AsyncClient(
            base_url=info["http_url"], headers={"Authorization": f"Bearer {info['account_key']}"}, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, *to: str) -> dict[str, str]:
        """Send a mail; return the ids of its deliveries by recipient."""
        mail = {"from": "demo@posthouse.test", "to": list(to), "subject": "Hello", "text": "Hello.\n"}
        answer = await self._client.post("/v1/messages", json=mail)
        assert answer.status_code == 202, answer.text
        return {delivery["recipient"]: delivery["id"] for delivery in answer.json()["deliveries"]}

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        answer = await self._client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def events(self, delivery: str) -> list[dict[str, Any]]:
        """Return what happened to a delivery; the account has few events."""
        found = []
        page = await self.get("/v1/events", limit="100")
        while True:
            found += [event for event in page["data"] if event["data"]["delivery"] == delivery]
            if page["next_cursor"] is None:
                return found
            page = await self.get("/v1/events", limit="100", cursor=page["next_cursor"])

    async def told(self, delivery: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many things have happened to a delivery."""

        async def enough() -> list[dict[str, Any]]:
            events = await self.events(delivery)
            assert len(events) >= count
            return events

        return await eventually(enough, 30, what=f"{count} events")


@pytest.fixture
async def account(local_stack: LocalStack) -> AsyncIterator[Account]:
    async with Account(local_stack) as account:
        yield account


@pytest.mark.parametrize(("local", "state", "happened"), OUTCOMES, ids=[outcome[0] for outcome in OUTCOMES])
async def test_a_local_part_gets_the_outcome_that_it_asks_for(
    account: Account, local: str, state: str, happened: list[tuple[str, int, str, bool]]
) -> None:
    recipient = f"{local}@outcome.example"
    delivery = (await account.send(recipient))[recipient]

    facts = await account.told(delivery, len(happened))

    assert [
        (e["type"], e["data"]["code"], e["data"]["enhanced_code"], e["data"]["suppressing"]) for e in facts
    ] == happened
    assert [event["data"]["dsn"] for event in facts] == [event["type"] == "bounced" for event in facts]
    shown = await account.get(f"/v1/deliveries/{delivery}")
    assert (shown["state"], shown["attempts_made"]) == (state, 1)
    assert (shown["due_at"] is None) == (state != "queued")
    suppressed = [entry["address"] for entry in (await account.get("/v1/suppressions", limit="100"))["data"]]
    assert (recipient in suppressed) == happened[-1][3]


async def test_recipients_of_one_message_get_an_outcome_each(account: Account) -> None:
    recipients = [f"{local}@each.example" for local in ("a550", "b451", "c")]
    deliveries = await account.send(*recipients)
    codes = [(await account.told(deliveries[recipient]))[0]["data"]["code"] for recipient in recipients]
    assert codes == [550, 451, 250]


@pytest.mark.parametrize("local", LATER)
async def test_what_is_not_simulated_yet_is_refused_in_so_many_words(account: Account, local: str) -> None:
    recipient = f"{local}@later.example"
    (event,) = await account.told((await account.send(recipient))[recipient])
    assert (event["type"], event["data"]["code"], event["data"]["enhanced_code"]) == ("failed", 554, "5.3.3")
    assert "this version does not simulate" in event["data"]["text"]
    assert event["data"]["suppressing"] is False
