"""Local mode: the local part of a recipient decides what happens to the mail (case 207 of the compatibility list)."""

import smtplib

import pytest

from fakes.waiting import eventually
from integration.dsn_ingest.conftest import FROM_IDS, Inbox
from shared.mail.dsn import read_dsn
from shared.mail.mime import read
from shared.mail.simulate import simulate_recipient

MAIL = b"From: me@posthouse.test\r\nSubject: hi\r\nMessage-Id: <original@posthouse.test>\r\n\r\nhi\r\n"


@pytest.mark.parametrize(
    ("local", "code"),
    [("xpermerror", 550), ("x550", 550), ("x554", 554), ("xtemperror", 451), ("x421", 421), ("x400", 400), ("x599", 599),
     ("x399", 250), ("x601", 250), ("PERMERROR", 250), ("you", 250), ("xtimeout", 554), ("xgreylist", 554), ("xcomplaint", 554), ("rcptto550", 554)],
)  # fmt: skip
async def test_the_answer_after_data(local_inbox: Inbox, local: str, code: int) -> None:
    answer, text = await _answer(local_inbox, f"{local}@anywhere.test")
    assert answer == code
    assert (b"does not simulate" in text) == (code == 554 and local != "x554")
    assert await local_inbox.pool.fetchval("SELECT count(*) FROM inbound_message") == (1 if code == 250 else 0)


async def _answer(inbox: Inbox, recipient: str) -> tuple[int, bytes]:
    try:
        await inbox.receive(MAIL, recipient, sender="me@posthouse.test")
    except smtplib.SMTPDataError as error:
        return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
    except smtplib.SMTPServerDisconnected:
        return 421, b""
    return 250, b""


async def test_mail_for_strangers_belongs_to_the_account_that_sent_it(local_inbox: Inbox) -> None:
    await local_inbox.receive(MAIL, "you@anywhere.test", sender="me@posthouse.test")
    await eventually(local_inbox.read_all)
    assert await local_inbox.pool.fetchval("SELECT account_id FROM inbound_message") == local_inbox.room.account_id


async def test_a_bounce_is_a_real_report_in_the_ordinary_queue(local_inbox: Inbox) -> None:
    await local_inbox.receive(MAIL, "xbounce@anywhere.test", sender="me+token@posthouse.test")
    assert await local_inbox.pool.fetchval("SELECT count(*) FROM inbound_message") == 0
    delivery = await local_inbox.pool.fetchrow("SELECT * FROM delivery WHERE account_id = 0")
    assert delivery is not None
    assert (delivery["mail_from"], delivery["recipient"]) == ("", "me+token@posthouse.test")
    content = await local_inbox.pool.fetchval("SELECT bytes FROM message_body")
    report = read_dsn(read(content))
    assert report is not None
    (block,) = report.recipients
    assert (block.final_recipient, block.action, block.status, block.reply_code) == (
        "xbounce@anywhere.test",
        "failed",
        "5.1.1",
        550,
    )
    assert report.returned_message_id == "<original@posthouse.test>"


async def test_a_null_sender_gets_no_report(local_inbox: Inbox) -> None:
    await local_inbox.receive(MAIL, "xbounce@anywhere.test", sender="")
    assert await local_inbox.pool.fetchval("SELECT count(*) FROM delivery") == 0


async def test_return_paths_are_exempt_from_simulation(local_inbox: Inbox) -> None:
    """A token may end in digits that mean something; mail to it is a report all the same."""
    await local_inbox.pool.execute("UPDATE domain SET name = 'ours.test'")
    delivery_id = next(
        number for number in range(100_000, 8_000_000) if simulate_recipient(FROM_IDS.make(number)) is not None
    )
    delivery, return_path = await local_inbox.sent("a@b.test", delivery_id=delivery_id)
    await local_inbox.receive(MAIL, return_path)
    await eventually(local_inbox.read_all)
    assert await local_inbox.events(delivery) == ["unrecognized"]
