"""The api is killed while two hundred callers hand in messages: what it answered is safe, and sent once."""

import asyncio
import itertools
from dataclasses import dataclass, field

import httpx

from fakes.stack import HoldingSmtpServer, Service, Stack
from fakes.waiting import eventually

CALLERS = 200
KILL_AFTER = 60


@dataclass
class Answers:
    """What the callers were told before the line went dead."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Recipient by message id."""
    unanswered: set[str] = field(default_factory=set)


async def hand_in(stack: Stack, url: str, answers: Answers, caller: int) -> None:
    """Hand in messages until nobody answers any more."""
    for number in itertools.count():
        recipient = f"r{number}@caller{caller}.example"
        mail = {"from": "demo@posthouse.test", "to": [recipient], "subject": "Hello", "text": "Hello.\n"}
        try:
            answer = await stack.http.post(url + "/v1/messages", json=mail)
        except httpx.TransportError:
            answers.unanswered.add(recipient)
            return
        assert answer.status_code == 202, answer.text
        answers.accepted[answer.json()["id"]] = recipient


async def kill_while_it_stores(stack: Stack, api: Service, answers: Answers) -> None:
    """Kill the api when it has answered often, and stands at a locked table with the next messages."""
    await eventually(lambda: len(answers.accepted) >= KILL_AFTER, 30, what="answers")
    async with stack.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE message IN SHARE MODE")
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'posthouse-api' AND wait_event_type = 'Lock'"
        await eventually(lambda: stack.pool.fetchval(waiting), 10, what="messages at the lock")
        api.kill()


async def test_every_message_that_was_answered_with_202_is_there_after_a_crash_of_the_api_and_is_sent_once(
    stack: Stack, server: HoldingSmtpServer
) -> None:
    processes = await stack.start_all("api", "delivery")
    answers, url = Answers(), stack.api_url
    async with asyncio.TaskGroup() as group:
        for caller in range(CALLERS):
            group.create_task(hand_in(stack, url, answers, caller))
        group.create_task(kill_while_it_stores(stack, processes["api"], answers))
    assert len(answers.accepted) >= KILL_AFTER
    assert len(answers.unanswered) == CALLERS

    await stack.start("api")
    await stack.quiet()
    shown = await asyncio.gather(*(stack.get(f"/v1/messages/{message}") for message in answers.accepted))
    deliveries = {message["id"]: message["deliveries"] for message in shown}
    for message, recipient in answers.accepted.items():
        (delivery,) = deliveries[message]
        assert (delivery["recipient"], delivery["state"]) == (recipient, "delivered")
    # What was not answered may have been stored or not: all of it, or nothing of it.
    stored = await stack.states()
    assert set(answers.accepted.values()) <= set(stored) <= set(answers.accepted.values()) | answers.unanswered
    assert set(stored.values()) == {"delivered"}
    assert server.received() == dict.fromkeys(stored, 1)
    assert await stack.pool.fetchval("SELECT count(*) FROM message") == len(stored)
    assert await stack.pool.fetchval("SELECT count(DISTINCT message_id) FROM message_body") == len(stored)

    sent = await stack.send("next@receiver.example")
    await eventually(lambda: server.received().get("next@receiver.example") == 1, 20)
    assert int(sent["id"]) > max(map(int, answers.accepted))
