"""The api is killed while two hundred callers hand in messages: what it answered is safe, and sent once."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from fakes.stack import HoldingSmtpServer, Service, Stack
from fakes.waiting import eventually

CALLERS = 200
KILL_AFTER = 60
MAILS = 3


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


async def kill_while_it_stores(stack: Stack, api: Service, answered: Callable[[], int]) -> None:
    """Kill the api when it has answered often, and stands at a locked table with the next messages."""
    await eventually(lambda: answered() >= KILL_AFTER, 30, what="answers")
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
        group.create_task(kill_while_it_stores(stack, processes["api"], lambda: len(answers.accepted)))
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


@dataclass
class Door:
    """Where the api is, and what the callers were told."""

    url: str
    answers: dict[str, list[str]] = field(default_factory=dict)
    """By recipient."""

    def answered(self) -> int:
        return sum(map(len, self.answers.values()))


async def hand_in_until_answered(stack: Stack, door: Door, caller: int) -> None:
    """Hand in a few messages, each with a key, again and again until it is answered, and then once more."""
    for number in range(MAILS):
        recipient = f"r{number}@caller{caller}.example"
        mail = {"from": "demo@posthouse.test", "to": [recipient], "subject": "Hello", "text": "Hello.\n"}
        answers = door.answers.setdefault(recipient, [])
        while len(answers) < 2:
            url = door.url
            try:
                answer = await stack.http.post(
                    url + "/v1/messages", json=mail, headers={"Idempotency-Key": f"{caller}-{number}"}
                )
            except httpx.TransportError:
                await eventually(lambda dead=url: door.url != dead, 60, what="another api")
                continue
            assert answer.status_code == 202, answer.text
            answers.append(answer.text)


async def kill_twice(stack: Stack, door: Door) -> None:
    """Kill the api at a locked table, where nothing of a batch is stored, and then in full flow, where anything may be."""
    await kill_while_it_stores(stack, stack.newest("api"), door.answered)
    second = await stack.start("api")
    seen, door.url = door.answered(), stack.api_url
    await eventually(lambda: door.answered() >= seen + KILL_AFTER, 30, what="further answers")
    second.kill()
    await stack.start("api")
    door.url = stack.api_url


async def test_whoever_sends_again_with_its_key_what_was_not_answered_doubles_nothing(
    stack: Stack, server: HoldingSmtpServer
) -> None:
    await stack.start_all("api", "delivery")
    door = Door(stack.api_url)
    async with asyncio.TaskGroup() as group:
        for caller in range(CALLERS):
            group.create_task(hand_in_until_answered(stack, door, caller))
        group.create_task(kill_twice(stack, door))

    assert len(door.answers) == CALLERS * MAILS
    assert {len(set(texts)) for texts in door.answers.values()} == {1}
    await stack.quiet()
    assert await stack.pool.fetchval("SELECT count(*) FROM message") == CALLERS * MAILS
    assert server.received() == dict.fromkeys(door.answers, 1)
