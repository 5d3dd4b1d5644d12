"""What failures mean: who is suppressed for them, what operators are told, and when mail is tried again (cases 92 to 98)."""

import json
from dataclasses import replace

import asyncpg
import pytest

from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from integration.shared.db.queue_data import Mailroom
from shared.db.lanes import SiteName
from shared.mail.address import parse, suppression_key

BLOCKED = "550 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org; <u@b.test> not told"


async def accept(site: Site, recipient: str, room: Mailroom | None = None) -> int:
    """Accept a mail with the key that the api gives its recipient."""
    room = room or site.room
    (message,) = await room.messages([recipient], site=SiteName("relay", site.relay))
    key = suppression_key(parse(recipient))
    deliveries = tuple(replace(delivery, recipient_key=key) for delivery in message.deliveries)
    return (await room.store([replace(message, deliveries=deliveries)]))[0]


async def told(site: Site, delivery: int) -> asyncpg.Record:
    """Wait for the newest event of a delivery and return it."""
    query = "SELECT * FROM event WHERE delivery_id = $1 ORDER BY id DESC LIMIT 1"
    row: asyncpg.Record = await eventually(lambda: site.pool.fetchrow(query, delivery), what="an event")
    return row


async def send(site: Site, recipient: str, room: Mailroom | None = None) -> tuple[str, bool]:
    """Accept a mail and return what its first event says: the type, and whether it suppressed the recipient."""
    event = await told(site, await accept(site, recipient, room))
    return event["type"], event["suppressing"]


async def suppressed(site: Site) -> list[str]:
    return [row["key"] for row in await site.pool.fetch("SELECT key FROM suppression ORDER BY id")]


async def give_up_after_one(site: Site) -> None:
    """Let the account make one attempt at each mail."""
    await site.pool.execute("INSERT INTO retry_schedule (name, waits, max_attempts) VALUES ('once', '{10}', 1)")
    await site.pool.execute("UPDATE account SET retry_schedule = 'once' WHERE id = $1", site.room.account_id)


async def test_a_block_of_our_address_suppresses_nobody_and_is_one_operator_event(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt=BLOCKED)) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            for _ in range(4):
                assert await send(site, "u@b.test") == ("failed", False)
        assert await suppressed(site) == []
        (row,) = await site.pool.fetch("SELECT * FROM operator_event")
        assert (row["kind"], row["subject"], row["count"], row["resolved_at"]) == (
            "source_blocked",
            site.relay,
            4,
            None,
        )
        facts = json.loads(row["facts"])
        assert (facts["code"], facts["enhanced_code"], facts["stage"]) == (550, "5.7.1", "rcpt")
        assert "blocked using zen.spamhaus.org" in facts["reply"]
        assert "u@b.test" not in row["facts"]


async def test_a_block_that_passes_is_told_too(open_site: OpenSite) -> None:
    script = Script(greeting="421 4.7.0 temporarily deferred due to user complaints")
    async with ScriptedSmtpServer(script) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            assert await send(site, "u@b.test") == ("delayed", False)
        assert await site.pool.fetchval("SELECT count FROM operator_event") == 1


async def test_case_92_a_recipient_who_is_not_there_is_suppressed_at_once(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt="550 5.1.0 no")) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            assert await send(site, "u@b.test") == ("failed", True)
            await server.wait_for_sessions(1, closed=True)
            assert (await send(site, "U+more@b.test"))[0] == "suppressed"
        assert len(server.sessions) == 1
        assert await site.pool.fetchval("SELECT reason FROM suppression") == "hard_bounce"
        assert await site.pool.fetchval("SELECT count(*) FROM operator_event") == 0


@pytest.mark.parametrize(
    ("reply", "suppressing"),
    [
        ("550 5.1.1 no such user", True),
        ("521 no", True),
        ("551 5.0.0 no", True),
        ("553 no", True),
        ("556 5.4.4 no", True),
        ("554 5.7.1 no", True),
        ("552 5.2.1 no", True),
        ("571 5.1.6 no", True),
        ("554 5.1.0 no", False),
        ("599 5.0.0 no", False),
        ("550 5.7.1 message content rejected", False),
        ("550 5.7.26 unauthenticated mail is not accepted due to the domain's DMARC policy", False),
        ("550 5.2.2 mailbox full", False),
        ("550 5.7.1 unable to relay", False),
    ],
)
async def test_case_94_which_refusals_suppress_at_once(open_site: OpenSite, reply: str, suppressing: bool) -> None:
    async with ScriptedSmtpServer(Script(message=reply)) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            assert await send(site, "u@b.test") == ("failed", suppressing)
        assert await suppressed(site) == (["u@b.test"] if suppressing else [])


@pytest.mark.parametrize("code", ["421 4.7.1", "450 4.1.1", "451 4.2.1", "452 4.1.6"])
async def test_case_94_no_temporary_refusal_suppresses_at_once(open_site: OpenSite, code: str) -> None:
    async with ScriptedSmtpServer(Script(rcpt=f"{code} no")) as server:
        site = await open_site(server)
        await give_up_after_one(site)
        async with in_order(await site.start()):
            assert await send(site, "u@b.test") == ("failed", False)


async def test_case_93_the_third_failure_in_a_row_suppresses_whatever_the_suffix(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt="554 5.1.0 no")) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            said = [await send(site, recipient) for recipient in ("u@b.test", "U+news@b.test", "u+other@B.test")]
            assert [suppressing for _, suppressing in said] == [False, False, True]
        assert await suppressed(site) == ["u@b.test"]
        assert await site.pool.fetchval("SELECT reason FROM suppression") == "failures_in_a_row"


async def test_case_93_a_success_between_begins_the_count_anew(open_site: OpenSite) -> None:
    no = "554 5.0.0 no"
    async with ScriptedSmtpServer(Script(rcpt=[no, "250 ok", no, no, no])) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            said = [await send(site, "u@b.test") for _ in range(5)]
        assert said == [
            ("failed", False),
            ("delivered", False),
            ("failed", False),
            ("failed", False),
            ("failed", True),
        ]


async def test_failures_are_counted_for_each_account(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt="554 5.0.0 no")) as server:
        site = await open_site(server)
        other = await Mailroom(site.room.connection).open("other")
        async with in_order(await site.start()):
            for room in (site.room, other, site.room, other):
                assert await send(site, "u@b.test", room) == ("failed", False)
            assert await send(site, "u@b.test") == ("failed", True)
        rows = await site.pool.fetch("SELECT account_id FROM suppression")
        assert [row["account_id"] for row in rows] == [site.room.account_id]


async def test_case_95_a_connection_that_is_refused_until_the_end_never_suppresses(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt="554 5.0.0 no")) as server:
        site = await open_site(server)
        await give_up_after_one(site)
        async with in_order(await site.start()):
            assert [await send(site, "u@b.test") for _ in range(2)] == [("failed", False)] * 2
    async with in_order(await site.start()):
        for _ in range(2):
            event = await told(site, await accept(site, "u@b.test"))
            assert (event["type"], event["code"], event["suppressing"]) == ("failed", 0, False)
    assert await suppressed(site) == []


async def test_case_96_the_last_of_three_may_be_a_temporary_refusal(open_site: OpenSite) -> None:
    replies = ["554 5.0.0 no", "554 5.0.0 no", "451 4.3.0 try again later"]
    async with ScriptedSmtpServer(Script(rcpt=replies)) as server:
        site = await open_site(server)
        await give_up_after_one(site)
        async with in_order(await site.start()):
            assert [await send(site, "u@b.test") for _ in range(3)] == [("failed", False)] * 2 + [("failed", True)]


async def test_case_97_who_keeps_no_deliveries_has_no_failures_in_a_row(open_site: OpenSite) -> None:
    replies = ["554 5.0.0 no"] * 3 + ["550 no"]
    async with ScriptedSmtpServer(Script(rcpt=replies)) as server:
        site = await open_site(server)
        await site.pool.execute("UPDATE account SET keep_deliveries_seconds = 0 WHERE id = $1", site.room.account_id)
        async with in_order(await site.start()):
            said = [await send(site, "u@b.test") for _ in range(4)]
        assert [suppressing for _, suppressing in said] == [False, False, False, True]


async def due_in(site: Site, delivery: int) -> float:
    query = "SELECT extract(epoch FROM q.due_at - a.finished_at)::float8 FROM delivery_queue q JOIN attempt a USING (delivery_id) WHERE delivery_id = $1 ORDER BY a.n DESC LIMIT 1"
    seconds: float = await site.pool.fetchval(query, delivery)
    return seconds


async def again(site: Site, delivery: int, attempts: int) -> None:
    """Let the wait pass, and wait until so many attempts were made."""
    await site.pool.execute("UPDATE delivery_queue SET due_at = now() WHERE delivery_id = $1", delivery)
    await site.pool.execute("INSERT INTO delivery_wake (lane_id) SELECT lane_id FROM delivery_queue")

    async def made() -> bool:
        return await site.pool.fetchval("SELECT count(*) FROM event WHERE delivery_id = $1", delivery) == attempts

    await eventually(made)


@pytest.mark.parametrize(
    ("reply", "least", "most"),
    [
        ("450 4.7.1 Greylisted, please try again in 5 minutes", 300, 310),
        ("450-4.7.1 Greylisted,\r\n450 4.7.1 please try again in 00:04:30", 270, 280),
        ("450 4.7.1 please try again in 20 hours", 445, 455),
    ],
)
async def test_a_server_that_says_when_to_come_back_is_heeded_within_bounds(
    open_site: OpenSite, reply: str, least: int, most: int
) -> None:
    async with ScriptedSmtpServer(Script(rcpt=reply)) as server:
        site = await open_site(server)
        async with in_order(await site.start()):
            delivery = await accept(site, "u@b.test")
            await told(site, delivery)
        assert least <= await due_in(site, delivery) <= most


async def test_an_account_goes_by_its_own_schedule_and_hears_when_the_last_attempt_is_next(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt="451 4.3.0 no")) as server:
        site = await open_site(server)
        await site.pool.execute(
            "INSERT INTO retry_schedule (name, waits, max_attempts) VALUES ('own', '{100,2000}', 4)"
        )
        await site.pool.execute("UPDATE account SET retry_schedule = 'own' WHERE id = $1", site.room.account_id)
        waits = []
        async with in_order(await site.start()):
            delivery = await accept(site, "u@b.test")
            await told(site, delivery)
            for attempts in (2, 3, 4):
                waits.append(await due_in(site, delivery))
                await again(site, delivery, attempts)
        for wait, plain in zip(waits, (100, 2000, 2000), strict=True):
            assert abs(wait - plain) <= plain / 100 + 1
        rows = await site.pool.fetch("SELECT type, attempt, final_attempt_next FROM event ORDER BY id")
        assert [tuple(row) for row in rows] == [
            ("delayed", 1, False),
            ("delayed", 2, False),
            ("delayed", 3, True),
            ("failed", 4, False),
        ]


async def test_mail_that_waited_for_its_time_is_as_young_as_its_first_attempt(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt="451 4.3.0 no")) as server:
        site = await open_site(server)
        delivery = await accept(site, "u@b.test")
        await site.pool.execute("UPDATE delivery SET created_at = now() - interval '5 days'")
        async with in_order(await site.start()):
            assert (await told(site, delivery))["type"] == "delayed"
            await site.pool.execute("UPDATE attempt SET started_at = now() - interval '69 hours'")
            await again(site, delivery, 2)
        rows = await site.pool.fetch("SELECT type FROM event ORDER BY id")
        assert [row["type"] for row in rows] == ["delayed", "delayed"]
        async with in_order(await site.start()):
            await site.pool.execute("UPDATE attempt SET started_at = now() - interval '73 hours' WHERE n = 1")
            await again(site, delivery, 3)
        assert await site.state(delivery) == "failed"
