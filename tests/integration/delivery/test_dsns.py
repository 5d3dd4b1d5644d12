"""Senders hear by mail of what was not delivered, and once of what is late: cases 149 to 156, over real SMTP."""

import email
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTPUTF8, default

import asyncpg
import pytest

from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from integration.delivery.notifications import CONTENT, nothing_owed, owed, stored, wants, writing
from shared.db import outcomes
from shared.db.outcomes import Outcome, Source
from shared.db.starts import Verdict
from shared.events import EventType
from shared.mail.dsn import Action, Dsn, read_dsn
from shared.mail.mime import read

PATH = "me+abcdefghijklmnopqrstuvwxyz@ours.test"
REFUSAL = "550-5.1.1 no such user here,\r\n550 5.1.1 look at https://b.test/help"


async def one(site: Site) -> asyncpg.Record:
    """Have the notification written that is owed, and return it."""
    async with writing(site):
        await eventually(lambda: nothing_owed(site))
    (row,) = await stored(site)
    return row


def parsed(content: bytes) -> tuple[EmailMessage, Dsn]:
    message = email.message_from_bytes(content, policy=default)
    dsn = read_dsn(read(content))
    assert isinstance(message, EmailMessage)
    assert dsn is not None
    return message, dsn


async def due_again(site: Site, *, attempt: int | None = None, hours: float = 0) -> None:
    """Have what waits for its next attempt be due; as if so many attempts, or so much time, lay behind it."""
    await site.pool.execute("UPDATE delivery_queue SET due_at = now(), attempt = coalesce($1, attempt)", attempt)
    await site.pool.execute("UPDATE attempt SET started_at = started_at - make_interval(secs => $1)", hours * 3600)
    await site.pool.execute("INSERT INTO delivery_wake SELECT lane_id FROM delivery_queue")


async def refused(site: Site) -> asyncpg.Record:
    """Have a mail refused whose return path has a from_id, and return the notification of it."""
    (delivery,) = await site.accept("gone@b.test", content=CONTENT)
    await site.pool.execute("UPDATE delivery SET mail_from = $1 WHERE id = $2", PATH, delivery)
    async with in_order(await site.start()), writing(site):
        await eventually(lambda: stored(site))
    (row,) = await stored(site)
    return row


async def test_a_refusal_comes_back_as_a_mail_in_three_parts(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"gone@b.test": REFUSAL})) as server:
        site = await open_site(server)
        await wants(site)
        row = await refused(site)
        original = await site.pool.fetchval("SELECT message_id FROM message")
    message, dsn = parsed(row["bytes"])
    assert row["bytes"].startswith(f"Return-Path: <>\r\nDelivered-To: {PATH}\r\n".encode())
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert message["From"].addresses[0].addr_spec == "postmaster@us.test"
    assert message["To"] == PATH
    assert message["Subject"] == row["subject"] == "Your message could not be delivered"
    assert message["Message-ID"] == row["message_id"]
    assert message["References"] == original
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    text = next(message.iter_parts()).get_content()
    assert "gone@b.test" in text
    assert "look at https://b.test/help" in text
    assert b"The body that nobody gets back" not in row["bytes"]
    assert dsn.returned_headers.splitlines() == CONTENT.split(b"\r\n\r\n")[0].splitlines()


async def test_the_fields_of_a_refusal_say_who_when_and_why(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"gone@b.test": REFUSAL})) as server:
        site = await open_site(server)
        await wants(site)
        _, dsn = parsed((await refused(site))["bytes"])
        accepted = await site.pool.fetchval("SELECT created_at FROM delivery")
        tried = await site.pool.fetchval("SELECT started_at FROM attempt")
    (about,) = dsn.recipients
    assert dsn.reporting_mta == "us.test"
    assert dsn.arrival_date == accepted.replace(microsecond=0)
    assert (about.final_recipient, about.action, about.status) == ("gone@b.test", Action.FAILED, "5.1.1")
    assert about.reply_code == 550
    assert about.diagnostic == "550 5.1.1 no such user here, 5.1.1 look at https://b.test/help"
    assert about.remote_mta.startswith("127.0.0.1")
    assert about.last_attempt == tried.replace(microsecond=0)
    assert about.will_retry_until is None


async def test_a_notification_is_stored_as_read_mail_of_the_account_and_makes_no_event(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"gone@b.test": REFUSAL})) as server:
        site = await open_site(server)
        await wants(site)
        row = await refused(site)
        delivery = await site.pool.fetchval("SELECT id FROM delivery")
        owner = (row["account_id"], row["delivery_id"], row["kind"], row["state"])
        assert owner == (site.room.account_id, delivery, "own_dsn", "filed")
        wire = (row["mail_from"], row["recipient"], row["remote_ip"], row["helo"], row["size"])
        assert wire == ("", PATH, "", "", len(row["bytes"]))
        assert (row["keep_until"] - row["received_at"]).total_seconds() == 259_200
        # No event but that of the delivery, and nothing to be read: no webhook, and no report that would settle anything.
        assert await site.pool.fetchval("SELECT count(*) FROM event") == 1
        assert await site.pool.fetchval("SELECT count(*) FROM inbound_queue") == 0
        assert await site.pool.fetchval("SELECT count(*) FROM report") == 0


async def test_a_mail_that_is_refused_for_now_to_the_end_has_failed_with_the_reply_it_got(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"full@b.test": "452 4.2.2 mailbox full"})) as server:
        site = await open_site(server)
        await wants(site, schedule="mox")
        (delivery,) = await site.accept("full@b.test", content=CONTENT)
        await due_again(site, attempt=7)
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert await site.events(delivery) == ["failed"]
        _, dsn = parsed((await one(site))["bytes"])
        (about,) = dsn.recipients
        assert (about.action, about.status, about.reply_code) == (Action.FAILED, "5.2.2", 452)
        assert about.diagnostic == "452 4.2.2 mailbox full"


async def test_a_reply_without_an_enhanced_code_gives_the_status_of_its_end(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"full@b.test": "451 come back"})) as server:
        site = await open_site(server)
        await wants(site, schedule="mox")
        await site.accept("full@b.test", content=CONTENT)
        await due_again(site, attempt=7)
        async with in_order(await site.start()):
            await eventually(site.settled)
        row = await one(site)
        assert b"Future-Release-Request" not in row["bytes"]
        assert b"\r\nStatus: 5.0.0\r\n" in row["bytes"]
        assert b"\r\nDiagnostic-Code: smtp; 451 come back\r\n" in row["bytes"]


async def test_mox_tells_of_a_delay_after_the_fifth_attempt_and_never_again(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"late@b.test": "451 4.3.0 busy"})) as server:
        site = await open_site(server)
        await wants(site, schedule="mox")
        (delivery,) = await site.accept("late@b.test", content=CONTENT)
        told = []
        async with in_order(await site.start()):
            for attempt in range(1, 9):
                await eventually(lambda count=attempt: _has_events(site, delivery, count))
                told.append(await owed(site))
                await due_again(site)
            await eventually(site.settled)
        assert await site.events(delivery) == ["delayed"] * 7 + ["failed"]
        assert told == [0, 0, 0, 0, 1, 1, 1, 2]
        async with writing(site):
            await eventually(lambda: nothing_owed(site))
        first, last = await stored(site)
        assert (first["subject"], last["subject"]) == (
            "Your message is delayed",
            "Your message could not be delivered",
        )
        (about,) = parsed(first["bytes"])[1].recipients
        assert (about.action, about.status, about.reply_code) == (Action.DELAYED, "4.3.0", 451)
        # 2, 4 and 8 hours after the fifth attempt.
        assert about.will_retry_until is not None
        assert about.last_attempt is not None
        assert 13.9 < (about.will_retry_until - about.last_attempt).total_seconds() / 3600 < 14.1


async def test_other_schedules_tell_of_a_delay_once_it_will_be_four_hours(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"late@b.test": "451 4.3.0 busy"})) as server:
        site = await open_site(server)
        await wants(site)
        (delivery,) = await site.accept("late@b.test", content=CONTENT)
        async with in_order(await site.start()):
            await eventually(lambda: _has_events(site, delivery, 1))
            assert await owed(site) == 0
            for hours in (3.9, 1.0):
                count = len(await site.events(delivery)) + 1
                await due_again(site, hours=hours)
                await eventually(lambda count=count: _has_events(site, delivery, count))
                assert await owed(site) == 1  # a quarter of an hour later it would be more than four hours old
        (about,) = parsed((await one(site))["bytes"])[1].recipients
        assert about.action is Action.DELAYED
        assert about.will_retry_until is not None
        assert about.last_attempt is not None
        # The schedule ends at an age of 72 hours; the mail was 3.9 hours old.
        assert 62 < (about.will_retry_until - about.last_attempt).total_seconds() / 3600 <= 68.1


async def test_a_mail_that_its_sender_wants_by_then_is_not_said_to_be_tried_longer(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(rcpt={"late@b.test": "451 4.3.0 busy"})) as server:
        site = await open_site(server)
        await wants(site)
        (delivery,) = await site.accept("late@b.test", content=CONTENT)
        await site.pool.execute("UPDATE delivery_queue SET expires_at = now() + interval '5 hours'")
        async with in_order(await site.start()):
            await eventually(lambda: _has_events(site, delivery, 1))
            await due_again(site, hours=4)
            await eventually(lambda: _has_events(site, delivery, 2))
        (about,) = parsed((await one(site))["bytes"])[1].recipients
        expires_at = await site.pool.fetchval("SELECT expires_at FROM delivery_queue")
        assert about.will_retry_until == expires_at.replace(microsecond=0)


async def test_an_operators_failure_and_a_suppression_have_no_reply_and_no_server(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        (failed,) = await site.accept("a@b.test", content=CONTENT)
        await site.pool.execute("UPDATE message SET send_at = '2026-12-24T18:00:00.5+01'")
        async with site.pool.acquire() as connection, connection.transaction():
            await outcomes.record(
                connection, [Outcome(failed, Source.OPERATOR, EventType.FAILED, text="the operator says so")]
            )
        row = await one(site)
        assert b"\r\nFuture-Release-Request: until; 2026-12-24T17:00:00Z\r\n" in row["bytes"]
        assert b"Diagnostic-Code" not in row["bytes"]
        assert b"Remote-MTA" not in row["bytes"]
        assert b"Last-Attempt-Date" not in row["bytes"]
        assert b"Status: 5.0.0 (the operator says so)" in row["bytes"]

        await site.pool.execute("DELETE FROM inbound_message")
        for moment in ("at acceptance", "at its start"):
            if moment == "at acceptance":
                await _suppress(site)
                (late,) = await site.accept("gone@b.test", content=CONTENT)
            else:
                await site.pool.execute("DELETE FROM suppression")
                (late,) = await site.accept("gone@b.test", content=CONTENT)
                await _suppress(site)
                async with in_order(await site.start()):
                    await eventually(lambda late=late: site.events(late))
            assert await site.events(late) == [Verdict.SUPPRESSED.value]
            row = await one(site)
            assert row["subject"] == "Your message could not be delivered"
            assert b"Status: 5.0.0 (the recipient is on the suppression list)" in row["bytes"]
            await site.pool.execute("DELETE FROM inbound_message")
        assert server.sessions == []


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("an account that does not want it", "UPDATE account SET dsn_to_sender = false"),
        ("the null return path", "UPDATE delivery SET mail_from = ''"),
        ("sandbox mail", "UPDATE delivery SET stream = 'test'"),
        (
            "mail of the installation",
            "WITH own AS (UPDATE account SET dsn_to_sender = true WHERE id = 0) UPDATE delivery SET account_id = 0",
        ),
    ],
)
async def test_nobody_is_told_of(open_site: OpenSite, what: str, statement: str) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        (delivery,) = await site.accept("a@b.test", content=CONTENT)
        await site.pool.execute(statement)
        async with site.pool.acquire() as connection, connection.transaction():
            await outcomes.record(connection, [Outcome(delivery, Source.OPERATOR, EventType.FAILED)])
        assert await site.events(delivery) == ["failed"]
        assert await owed(site) == 0


async def test_nobody_is_told_of_a_delivery_a_cancel_and_a_report(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        delivered, canceled, reported = await site.accept("a@b.test", "b@b.test", "c@b.test", content=CONTENT)
        async with site.pool.acquire() as connection, connection.transaction():
            await outcomes.record(
                connection,
                [
                    Outcome(canceled, Source.OPERATOR, EventType.CANCELED),
                    Outcome(reported, Source.REPORT, EventType.FAILED, code=550),
                ],
            )
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [await site.state(i) for i in (delivered, canceled, reported)] == ["delivered", "canceled", "failed"]
        assert await owed(site) == 0


async def test_the_null_return_path_and_sandbox_mail_are_left_out_at_acceptance_too(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await _suppress(site)
        await site.accept("gone@b.test")
        assert await owed(site) == 0
        await wants(site)
        (message,) = await site.room.messages(["gone@b.test"])
        await site.room.store([replace(message, deliveries=(replace(message.deliveries[0], mail_from=""),))])
        (message,) = await site.room.messages(["gone@b.test"])
        await site.pool.execute("UPDATE suppression SET stream = 'test'")
        await site.room.store([replace(message, is_test=True)])
        await site.pool.execute("UPDATE suppression SET stream = ''")
        assert await owed(site) == 0
        await site.accept("gone@b.test")
        assert await owed(site) == 1


async def test_what_settles_twice_is_told_once(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        (delivery,) = await site.accept("a@b.test", content=CONTENT)
        for _ in range(2):
            async with site.pool.acquire() as connection, connection.transaction():
                await outcomes.record(connection, [Outcome(delivery, Source.OPERATOR, EventType.FAILED)])
        assert await owed(site) == 1


async def test_an_internationalized_mail_comes_back_in_utf_8(open_site: OpenSite) -> None:
    header = "From: <me@ours.test>\r\nSubject: Grüße\r\nMessage-Id: <order-7@ours.test>\r\n"
    async with ScriptedSmtpServer(Script(rcpt={"jörg@b.test": "550 5.1.1 kein Nutzer"})) as server:
        site = await open_site(server)
        await wants(site)
        (plain,) = await site.accept("jörg@b.test", content=f"{header}\r\nbody\r\n".encode())
        await site.pool.execute("UPDATE message SET smtputf8 = true")
        async with in_order(await site.start()):
            await eventually(lambda: site.events(plain))
        row = await one(site)
    assert row["smtputf8"] is True
    message = email.message_from_bytes(row["bytes"], policy=SMTPUTF8)
    parts = [(part.get_content_type(), part["Content-Transfer-Encoding"]) for part in message.iter_parts()]
    assert parts == [
        ("text/plain", "8bit"),
        ("message/global-delivery-status", "8bit"),
        ("message/global-headers", "8bit"),
    ]
    (about,) = parsed(row["bytes"])[1].recipients
    assert about.final_recipient == "jörg@b.test"
    assert "Subject: Grüße" in row["bytes"].decode()


async def test_without_the_content_there_are_two_parts_and_of_a_long_header_only_whole_fields_come_back(
    open_site: OpenSite,
) -> None:
    long = b"".join(b"X-Field-%d: %s\r\n\t%s\r\n" % (n, b"a" * 400, b"b" * 400) for n in range(100))
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        gone, large = [
            (await site.accept("a@b.test", content=content))[0]
            for content in (CONTENT, b"Subject: x\r\n" + long + b"\r\n")
        ]
        await site.pool.execute(
            "DELETE FROM message_body WHERE message_id = (SELECT message_id FROM delivery WHERE id = $1)", gone
        )
        async with site.pool.acquire() as connection, connection.transaction():
            await outcomes.record(
                connection, [Outcome(one, Source.OPERATOR, EventType.FAILED) for one in (gone, large)]
            )
        async with writing(site):
            await eventually(lambda: nothing_owed(site))
        two, three = await stored(site)
    assert len(list(email.message_from_bytes(two["bytes"], policy=default).iter_parts())) == 2
    returned = three["bytes"].split(b"Content-Type: text/rfc822-headers")[1].split(b"\r\n\r\n", 1)[1]
    fields = returned.rpartition(b"\r\n--")[0].rstrip(b"\r\n").replace(b"\r\n\t", b"").split(b"\r\n")
    assert 60 < len(fields) < 100
    assert all(len(field) > 800 for field in fields[1:])


async def _has_events(site: Site, delivery: int, count: int) -> bool:
    return len(await site.events(delivery)) >= count


async def _suppress(site: Site) -> None:
    await site.pool.execute(
        "INSERT INTO suppression (account_id, key, mox_key, address, manual, reason) VALUES ($1, 'gone@b.test', 'gone@b.test', 'gone@b.test', true, 'manual')",
        site.room.account_id,
    )
