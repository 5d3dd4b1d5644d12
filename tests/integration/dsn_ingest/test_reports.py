"""What comes back finds its delivery, and only the right one."""

import asyncio

import asyncpg
import pytest

from fakes.waiting import eventually
from integration.dsn_ingest.conftest import FROM_IDS, Inbox


def postfix_dsn(
    recipient: str,
    *,
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "smtp; 550 5.1.1 <x>: user unknown",
) -> bytes:
    """A report as Postfix writes it: weekday and zone comment in dates, an x-postfix queue id, the original's header returned."""
    return "\r\n".join(
        [
            "From: MAILER-DAEMON@mx.elsewhere.test (Mail Delivery System)", "To: me@ours.test", "Subject: Undelivered Mail Returned to Sender",
            "Auto-Submitted: auto-replied", "MIME-Version: 1.0", "Message-Id: <20261120.ABC@mx.elsewhere.test>",
            'Content-Type: multipart/report; report-type=delivery-status; boundary="XX"', "", "--XX", "Content-Type: text/plain", "",
            "I'm sorry to have to inform you.", "", "--XX", "Content-Type: message/delivery-status", "", "Reporting-MTA: dns; mx.elsewhere.test",
            "X-Postfix-Queue-ID: ABC", "Arrival-Date: Fri, 20 Nov 2026 12:00:00 +0000 (UTC)", "", f"Final-Recipient: rfc822; {recipient}",
            f"Action: {action}", f"Status: {status}", f"Diagnostic-Code: {diagnostic}", "", "--XX", "Content-Type: text/rfc822-headers", "",
            "Message-Id: <original@ours.test>", "Subject: hi", "", "--XX--", "",
        ]
    ).encode()  # fmt: skip


async def test_a_dsn_to_the_return_path_marks_the_delivered_mail_bounced_and_suppresses(inbox: Inbox) -> None:
    delivery, return_path = await inbox.sent("gone@b.test")
    await inbox.receive(postfix_dsn("gone@b.test"), return_path)
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["bounced"]
    event = await inbox.pool.fetchrow("SELECT code, enhanced, text, suppressing, inbound_message_id FROM event")
    assert event is not None
    assert (event["code"], event["enhanced"], event["suppressing"]) == (550, "5.1.1", True)
    stored = await inbox.pool.fetchrow("SELECT * FROM inbound_message WHERE id = $1", event["inbound_message_id"])
    assert stored is not None
    assert (stored["kind"], stored["delivery_id"], stored["account_id"]) == ("dsn", delivery, inbox.room.account_id)
    assert await inbox.pool.fetchval("SELECT report_id FROM suppression") is not None


async def test_a_return_path_survives_case_folding(inbox: Inbox) -> None:
    delivery, return_path = await inbox.sent("gone@b.test")
    await inbox.receive(postfix_dsn("gone@b.test"), return_path.upper())
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["bounced"]


@pytest.mark.parametrize(
    ("action", "status", "event"),
    [("delayed", "4.4.1", "delayed"), ("relayed", "2.0.0", "relayed"), ("expanded", "2.0.0", "expanded")],
)
async def test_other_actions_are_events_that_suppress_nobody(
    inbox: Inbox, action: str, status: str, event: str
) -> None:
    delivery, return_path = await inbox.sent("a@b.test")
    await inbox.receive(
        postfix_dsn("a@b.test", action=action, status=status, diagnostic="smtp; 450 4.4.1 later"), return_path
    )
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == [event]
    assert await inbox.pool.fetchval("SELECT count(*) FROM suppression") == 0


async def test_a_failed_report_settles_a_mail_that_is_still_queued(inbox: Inbox) -> None:
    delivery, return_path = await inbox.sent("a@b.test", state="queued")
    await inbox.receive(postfix_dsn("a@b.test"), return_path)
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["failed"]
    assert await inbox.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE delivery_id = $1", delivery) == 0


async def test_a_mail_to_the_return_path_that_is_no_report_is_unrecognized(inbox: Inbox) -> None:
    delivery, return_path = await inbox.sent("a@b.test")
    await inbox.receive(
        b"From: a@b.test\r\nSubject: Out of office\r\n\r\nI am away.\r\n", return_path, sender="a@b.test"
    )
    await eventually(inbox.read_all)
    assert await inbox.events(delivery) == ["unrecognized"]
    assert await inbox.pool.fetchval("SELECT count(*) FROM suppression") == 0


async def test_a_made_up_token_is_ordinary_mail_and_another_accounts_token_does_not_match_here(inbox: Inbox) -> None:
    delivery, _ = await inbox.sent("a@b.test")
    await inbox.receive(postfix_dsn("a@b.test"), f"me+{'a' * 26}@ours.test")
    stranger = await inbox.pool.fetchval("INSERT INTO account (name) VALUES ('stranger') RETURNING id")
    await inbox.pool.execute(
        "INSERT INTO domain (account_id, name, verification_token, verified_at) VALUES ($1, 'theirs.test', 't', now())",
        stranger,
    )
    refused = await refusal(inbox, f"me+{FROM_IDS.make(delivery)}@theirs.test")
    await eventually(inbox.read_all)
    assert refused == 550
    assert await inbox.events(delivery) == []
    assert await inbox.pool.fetchval("SELECT count(*) FROM inbound_message WHERE delivery_id IS NULL") == 1


async def test_what_does_not_belong_here_is_refused_at_rcpt(inbox: Inbox) -> None:
    for recipient in ("stranger@ours.test", "me@elsewhere.test", "not-an-address@"):
        assert await refusal(inbox, recipient) in {550, 501, 553}
    assert await inbox.receive(b"Subject: hi\r\n\r\nhi\r\n", "me@ours.test", "ME+tag@ours.test") == {}
    assert await inbox.pool.fetchval("SELECT count(*) FROM inbound_message") == 2


async def test_hostile_mail_is_stored_read_and_harms_nothing(inbox: Inbox) -> None:
    delivery, return_path = await inbox.sent("a@b.test")
    for hostile in (
        b"\xff\xfe: \x80\r\n\r\n",
        b"Content-Type: multipart/report; boundary=\r\n\r\n--\r\n",
        postfix_dsn("a\udcff@b".encode("utf-8", "replace").decode()),
    ):
        await inbox.receive(hostile, return_path)
    await eventually(inbox.read_all)
    assert len(await inbox.events(delivery)) == 3
    assert await inbox.pool.fetchval("SELECT count(*) FROM inbound_message WHERE state = 'filed'") == 3


async def test_without_its_database_it_answers_451_and_takes_nothing(inbox: Inbox, database_url: str) -> None:
    _, return_path = await inbox.sent("a@b.test")
    name = database_url.partition("@/")[2].partition("?")[0]
    admin = await asyncpg.connect(database_url.replace(f"@/{name}?", "@/postgres?"))
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        assert await refusal(inbox, return_path) == 451
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()
    assert await inbox.receive(postfix_dsn("a@b.test"), return_path) == {}
    await eventually(inbox.read_all)


async def refusal(inbox: Inbox, recipient: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", inbox.listener.port)
    try:
        for command in ("", "EHLO x.test", "MAIL FROM:<>", f"RCPT TO:<{recipient}>"):
            if command:
                writer.write(f"{command}\r\n".encode())
            line = await reader.readline()
            while line[3:4] == b"-":
                line = await reader.readline()
        return int(line[:3])
    finally:
        writer.close()
        await writer.wait_closed()
