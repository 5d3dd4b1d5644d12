"""The api is killed while two hundred messages are handed in: what it answered is safe, and sent once."""

import asyncio
from dataclasses import dataclass, field

import httpx

from fakes.stack import HoldingSmtpServer, Service, Stack
from fakes.waiting import eventually

MESSAGES = 200
KILL_AFTER = 20


@dataclass
class Answers:
    """What the callers were told before the line went dead."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Recipient by message id."""
    unanswered: set[str] = field(default_factory=set)


async def hand_in(stack: Stack, api: Service, url: str, answers: Answers, recipient: str) -> None:
    """Hand in one message; with enough answers on record, kill the api."""
    mail = {"from": "demo@posthouse.test", "to": [recipient], "subject": "Hello", "text": "Hello.\n"}
    try:
        answer = await stack.http.post(url + "/v1/messages", json=mail)
    except httpx.TransportError:
        answers.unanswered.add(recipient)
        return
    assert answer.status_code == 202, answer.text
    answers.accepted[answer.json()["id"]] = recipient
    if len(answers.accepted) == KILL_AFTER:
        api.kill()


async def test_every_message_that_was_answered_with_202_is_there_after_a_crash_of_the_api_and_is_sent_once(
    stack: Stack, server: HoldingSmtpServer
) -> None:
    processes = await stack.start_all("api", "delivery")
    recipients = [f"r{number}@receiver.example" for number in range(MESSAGES)]
    answers, url = Answers(), stack.api_url
    async with asyncio.TaskGroup() as group:
        for recipient in recipients:
            group.create_task(hand_in(stack, processes["api"], url, answers, recipient))
    assert len(answers.accepted) >= KILL_AFTER
    assert answers.unanswered

    await stack.start("api")
    await stack.quiet()
    for message, recipient in answers.accepted.items():
        (delivery,) = (await stack.get(f"/v1/messages/{message}"))["deliveries"]
        assert (delivery["recipient"], delivery["state"]) == (recipient, "delivered")
    # What was not answered may have been stored or not: all of it, or nothing of it.
    stored = await stack.states()
    assert set(answers.accepted.values()) <= set(stored) <= set(recipients)
    assert set(stored.values()) == {"delivered"}
    assert server.received() == dict.fromkeys(stored, 1)
    assert await stack.pool.fetchval("SELECT count(*) FROM message") == len(stored)
    assert await stack.pool.fetchval("SELECT count(DISTINCT message_id) FROM message_body") == len(stored)

    sent = await stack.send("next@receiver.example")
    await eventually(lambda: server.received().get("next@receiver.example") == 1, 20)
    assert int(sent["id"]) > max(map(int, answers.accepted))
