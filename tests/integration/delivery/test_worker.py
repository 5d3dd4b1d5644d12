"""A mail from its queue row to its outcome, over real SMTP."""

import asyncio

from fakes.certificates import server_context
from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, in_order
from shared.db.lanes import SiteName


async def test_each_mail_is_delivered_once_over_few_sessions(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(60)))
        async with in_order(await site.start()):
            await server.wait_for(60)
            await eventually(site.settled)
        assert sorted(m.recipients[0] for m in server.messages) == sorted(f"u{n}@b.test" for n in range(60))
        assert {await site.state(i) for i in ids} == {"delivered"}
        assert len(server.sessions) <= 4
        attempt = await site.pool.fetchrow("SELECT * FROM attempt WHERE delivery_id = $1", ids[0])
        assert attempt is not None
        assert (attempt["outcome"], attempt["code"], attempt["ip"], attempt["stage"]) == (
            "delivered",
            250,
            "127.0.0.1",
            "message",
        )
        assert await site.pool.fetchval("SELECT sum(in_use) FROM site") == 0
        assert await site.pool.fetchval("SELECT count(*) FROM worker") == 0


async def test_refusals_end_or_delay_each_mail_for_itself(open_site: OpenSite) -> None:
    script = Script(
        rcpt={
            "gone@b.test": "550 5.1.1 no such user",
            "full@b.test": "452 4.2.2 mailbox full",
            "bad@b.test": "554 5.7.1 blocked",
        }
    )
    async with ScriptedSmtpServer(script) as server:
        site = await open_site(server)
        gone, full, fine = await site.accept("gone@b.test", "full@b.test", "fine@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: _events(site, [gone, full, fine]))
        assert [await site.state(i) for i in (gone, full, fine)] == ["failed", "queued", "delivered"]
        assert [await site.events(i) for i in (gone, full, fine)] == [["failed"], ["delayed"], ["delivered"]]
        row = await site.pool.fetchrow(
            "SELECT code, enhanced, text, suppressing, category FROM event WHERE delivery_id = $1", gone
        )
        assert row is not None
        assert (row["code"], row["enhanced"], row["suppressing"], row["category"]) == (550, "5.1.1", True, "recipient")
        assert "no such user" in row["text"]
        assert await site.pool.fetchval(
            "SELECT due_at > now() + interval '7 minutes' FROM delivery_queue WHERE delivery_id = $1", full
        )


async def test_a_recipient_suppressed_after_acceptance_is_never_connected_to(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await site.accept("a@b.test")
        await site.pool.execute(
            "INSERT INTO suppression (account_id, key, mox_key, address, manual, reason) VALUES ($1, 'a@b.test', 'a@b.test', 'a@b.test', true, 'manual')",
            site.room.account_id,
        )
        async with in_order(await site.start()):
            await eventually(lambda: _events(site, [delivery]))
        assert await site.state(delivery) == "suppressed"
        assert server.sessions == []


async def test_a_hold_rule_made_while_a_session_is_busy_stops_what_has_not_started(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        made = asyncio.Event()

        def first_message(_: object) -> None:
            made.set()

        server.on_message = first_message
        await site.accept(*(f"u{n}@b.test" for n in range(40)))
        async with in_order(await site.start(sessions=1)):
            await made.wait()
            await site.pool.execute("INSERT INTO hold_rule (recipient_domain) VALUES ('b.test')")
            sent = len(server.messages)
            await eventually(lambda: _nothing_waits(site))
        # What had passed the gate before the rule was committed goes out: that is one session's one mail, and the next may be at the gate.
        assert len(server.messages) <= sent + 2
        held = await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE hold")
        assert held + len(server.messages) == 40


async def test_a_relay_that_is_down_delays_a_mail_and_says_why(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept("a@b.test")
    async with in_order(await site.start()):
        await eventually(lambda: _events(site, ids))
    row = await site.pool.fetchrow("SELECT code, text FROM event WHERE delivery_id = $1", ids[0])
    assert row is not None
    assert row["code"] == 0
    assert "127.0.0.1" in row["text"]
    assert [await site.state(i) for i in ids] == ["queued"]
    assert await site.pool.fetchval("SELECT count(*) FROM suppression") == 0


async def test_a_greeting_that_refuses_for_good_fails_the_mail(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(greeting="554 5.7.1 go away")) as server:
        site = await open_site(server)
        (delivery,) = await site.accept("a@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: _events(site, [delivery]))
        assert await site.state(delivery) == "failed"
        assert await site.pool.fetchval("SELECT stage FROM attempt") == "greeting"


async def test_tls_is_used_where_offered_and_a_broken_starttls_does_not_stop_the_mail(open_site: OpenSite) -> None:
    for script, tls in (
        (Script(tls=server_context("127.0.0.1")), True),
        (Script(extensions=["STARTTLS"], starttls="454 4.7.0 not now"), False),
    ):
        async with ScriptedSmtpServer(script) as server:
            site = await open_site(server)
            await site.accept("a@b.test")
            async with in_order(await site.start()):
                (message,) = await server.wait_for(1)
                await eventually(site.settled)
            assert message.tls is tls
            assert bool(await site.pool.fetchval("SELECT tls FROM attempt ORDER BY delivery_id DESC LIMIT 1")) is tls


async def test_a_session_that_the_server_closed_meanwhile_costs_no_attempt(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(drop_after="message")) as server:
        site = await open_site(server)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(5)))
        async with in_order(await site.start(sessions=1)):
            await server.wait_for(5)
            await eventually(site.settled)
        assert {await site.state(i) for i in ids} == {"delivered"}
        assert await site.pool.fetchval("SELECT max(attempts) FROM delivery") == 1


async def test_mail_whose_route_changed_follows_the_new_one(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as old, ScriptedSmtpServer() as new:
        site = await open_site(old)
        await site.accept("a@b.test")
        async with in_order(await site.start(relay=f"127.0.0.1:{new.port}")):
            await new.wait_for(1)
            await eventually(site.settled)
        assert old.sessions == []
        names = {row["name"] for row in await site.pool.fetch("SELECT name FROM site")}
        assert names == {SiteName("relay", f"127.0.0.1:{port}").key for port in (old.port, new.port)}


async def test_an_address_outside_ascii_asks_for_smtputf8_and_the_others_do_not(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept("jörg@b.test", "anna@b.test")
        async with in_order(await site.start()):
            await server.wait_for(2)
            await eventually(site.settled)
        asked = {message.recipients[0]: "SMTPUTF8" in message.mail_params for message in server.messages}
        assert asked == {"jörg@b.test": True, "anna@b.test": False}


async def test_a_message_that_requires_tls_is_not_sent_without_the_promise(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        strict, plain = await site.accept("strict@b.test", "plain@b.test")
        await site.pool.execute(
            "UPDATE message SET require_tls = true WHERE id = (SELECT message_id FROM delivery WHERE id = $1)", strict
        )
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [message.recipients for message in server.messages] == [["plain@b.test"]]
        assert [await site.state(i) for i in (strict, plain)] == ["failed", "delivered"]
        row = await site.pool.fetchrow("SELECT enhanced, suppressing FROM event WHERE delivery_id = $1", strict)
        assert row is not None
        assert (row["enhanced"], row["suppressing"]) == ("5.7.30", False)


async def test_a_large_message_arrives_byte_for_byte(open_site: OpenSite) -> None:
    body = b"".join(b"line %d .\r\n.\r\n" % n for n in range(60_000))
    content = b"Subject: large\r\n\r\n" + body
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept("a@b.test", content=content)
        async with in_order(await site.start()):
            (message,) = await server.wait_for(1)
            await eventually(site.settled)
        assert message.content == content


async def _events(site: object, ids: list[int]) -> bool:
    return all([await site.events(i) for i in ids])  # type: ignore[attr-defined] # the fixture's Site


async def _nothing_waits(site: object) -> bool:
    return await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE NOT hold") == 0  # type: ignore[attr-defined] # as above
