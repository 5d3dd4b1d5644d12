from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.mail.dsn import Action, Dsn, DsnRecipient, read_dsn
from shared.mail.mime import read

DATA = Path(__file__).parents[3] / "data" / "dsn"


def load(name: str) -> Dsn:
    dsn = read_dsn(read((DATA / f"{name}.eml").read_bytes()))
    assert dsn is not None
    return dsn


def report(status: str, *, kind: str = "message/delivery-status", encoding: str = "7bit") -> Dsn:
    """What is read of a report with these fields."""
    raw = f"Content-Type: multipart/report; boundary=b\n\n--b\n\nhello\n--b\nContent-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n{status}\n--b--\n"
    dsn = read_dsn(read(raw.encode()))
    assert dsn is not None
    return dsn


def one(fields: str) -> DsnRecipient:
    """What is read of one recipient's fields."""
    (recipient,) = report(f"Reporting-MTA: dns; mx.example\n\n{fields}").recipients
    return recipient


def diagnostic(text: str, *, status: str = "5.0.0") -> tuple[int, str]:
    read_one = one(f"Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: {status}\nDiagnostic-Code: {text}")
    return read_one.reply_code, read_one.enhanced


def test_postfix() -> None:
    dsn = load("postfix")
    assert dsn.reporting_mta == "relay.sender.example"
    assert dsn.arrival_date == datetime(2026, 11, 20, 13, 5, 8, tzinfo=UTC)
    assert dsn.returned_message_id == "<order-1@sender.example>"
    assert b"Subject: Your order\n" in dsn.returned_headers
    assert dsn.recipients == (
        DsnRecipient(
            final_recipient="kim@receiver.example",
            original_recipient="kim@receiver.example",
            action=Action.FAILED,
            status="5.1.1",
            reply_code=550,
            enhanced="5.1.1",
            diagnostic="550 5.1.1 <kim@receiver.example>: Recipient address rejected: User unknown in virtual mailbox table",
            remote_mta="mx.receiver.example",
            last_attempt=None,
            will_retry_until=None,
        ),
        DsnRecipient(
            final_recipient="lee@receiver.example",
            original_recipient="lee@receiver.example",
            action=Action.DELAYED,
            status="4.4.1",
            reply_code=400,
            enhanced="4.4.1",
            diagnostic="connect to mx2.receiver.example[192.0.2.26]:25: Connection timed out",
            remote_mta="",
            last_attempt=None,
            will_retry_until=datetime(2026, 11, 25, 13, 5, 8, tzinfo=UTC),
        ),
    )


def test_exim() -> None:
    (recipient,) = load("exim").recipients
    assert (recipient.final_recipient, recipient.status) == ("kim@receiver.example", "5.0.0")
    assert (recipient.reply_code, recipient.enhanced) == (550, "5.1.1")
    assert recipient.diagnostic == "550-5.1.1 The account does not exist. 550 5.1.1 Please check the address."


def test_gmail() -> None:
    dsn = load("gmail")
    (recipient,) = dsn.recipients
    assert (recipient.reply_code, recipient.enhanced, recipient.status) == (550, "5.1.1", "5.1.1")
    assert recipient.remote_mta.startswith("gmail-smtp-in.l.google.com. (192.0.2.27")
    assert recipient.last_attempt == datetime(2026, 11, 20, 13, 5, 9, tzinfo=UTC)
    assert dsn.returned_message_id == "<order-3@sender.example>"


def test_exchange() -> None:
    dsn = load("exchange")
    (recipient,) = dsn.recipients
    assert (recipient.reply_code, recipient.enhanced) == (554, "5.2.2")
    assert recipient.diagnostic.startswith("554 5.2.2 mailbox full; STOREDRV")
    assert dsn.returned_message_id == "<order-4@sender.example>"


def test_a_report_that_was_forwarded() -> None:
    dsn = load("forwarded")
    (recipient,) = dsn.recipients
    assert dsn.reporting_mta == "mx.receiver.example"
    assert dsn.returned_message_id == "<order-5@sender.example>"
    assert (recipient.action, recipient.status, recipient.reply_code) == (Action.FAILED, "5.4.4", 500)
    assert recipient.diagnostic == "unable to route: no such domain"


def test_an_internationalised_report() -> None:
    dsn = load("international")
    (recipient,) = dsn.recipients
    assert dsn.envelope_id == "delivery-77"
    assert recipient.final_recipient == recipient.original_recipient == "jörg@bücher.example"
    assert (recipient.reply_code, recipient.enhanced, recipient.diagnostic) == (
        550,
        "5.2.1",
        "550 5.2.1 Konto gelöscht",
    )
    assert "Bücher".encode() in dsn.returned_headers


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        # the worked examples of mox, as it reads them
        ("smtp; 550 5.1.1 x", (550, "5.1.1")),
        ("smtp; 554 x", (554, "")),
        ("smtp; 554 5.7.1", (554, "5.7.1")),
        ("smtp; 554 5.0.0", (554, "5.0.0")),
        ("smtp; 550", (500, "5.0.0")),
        # and where more can be read
        ("smtp; 550-5.1.1 a 550 5.1.1 b", (550, "5.1.1")),
        ("smtp; 550 #5.1.0 x", (550, "5.1.0")),
        ("SMTP;550 5.1.1 x", (550, "5.1.1")),
        ("550 5.1.1 no type at all", (550, "5.1.1")),
        ("smtp; smtp; 550 5.1.1 x", (550, "5.1.1")),
        ("x-postfix; host mx.example[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)", (550, "5.1.1")),
        ("X-Postfix; host mx.example[192.0.2.1]:587 refused to talk to me: 554 no", (554, "")),
        ("smtp; 5.1.0 - Unknown address error 550-'5.7.1 denied' (delivery attempts: 0)", (550, "5.7.1")),
        ("smtp; 5.3.0 - Other mail system problem 550-'Unknown user' (delivery attempts: 0)", (550, "5.3.0")),
        ("smtp; 550 User unknown (#5.1.1)", (550, "5.1.1")),
        ("smtp; 550-no such user 550 5.1.1 here", (550, "5.1.1")),
        ("smtp; 550: User unknown", (550, "")),
        ("smtp; 250 2.1.5 Ok", (250, "2.1.5")),
        ("smtp; <a@b.example>: 452 4.2.2 full", (452, "4.2.2")),
        ("x-unix; user unknown", (500, "5.0.0")),
        ("x-unix; 71", (500, "5.0.0")),
        ("smtp; connect to mx.example[192.0.2.1]:587: timed out", (500, "5.0.0")),
        ("smtp; 1234 5.1.1", (500, "5.0.0")),
        ("", (500, "5.0.0")),
    ],
)
def test_the_codes_of_a_diagnostic(text: str, codes: tuple[int, str]) -> None:
    assert diagnostic(text) == codes


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        ("5.1.1", (500, "5.1.1")),
        ("4.4.7", (400, "4.4.7")),
        ("2.0.0", (0, "")),
        ("5.2.1 (gone)", (500, "5.2.1")),
        ("5.01.1", (500, "5.1.1")),
        ("RO", (500, "5.0.0")),
    ],
)
def test_without_a_diagnostic_the_status_decides(status: str, codes: tuple[int, str]) -> None:
    recipient = one(f"Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: {status}")
    assert (recipient.reply_code, recipient.enhanced) == codes


@pytest.mark.parametrize(
    ("action", "read_as"),
    [
        ("failed", Action.FAILED),
        ("Delayed", Action.DELAYED),
        ("DELIVERED", Action.DELIVERED),
        ("relayed (to old system)", Action.RELAYED),
        ("expanded", Action.EXPANDED),
        ("failure", Action.FAILED),
        ("bogus", Action.FAILED),
    ],
)
def test_actions_in_any_spelling(action: str, read_as: Action) -> None:
    assert one(f"Final-Recipient: rfc822; a@b.example\nAction: {action}\nStatus: 5.1.1").action == read_as


def test_codes_are_reported_as_claimed_even_for_a_delivered_mail() -> None:
    recipient = one(
        "Final-Recipient: rfc822; a@b.example\nAction: delivered\nStatus: 2.0.0\nDiagnostic-Code: smtp; 554 5.0.0 x"
    )
    assert (recipient.action, recipient.status, recipient.reply_code, recipient.enhanced) == (
        Action.DELIVERED,
        "2.0.0",
        554,
        "5.0.0",
    )


@pytest.mark.parametrize(
    ("fields", "action", "status"),
    [
        ("Status: 5.1.1", Action.FAILED, "5.1.1"),
        ("Status: 4.4.1", Action.DELAYED, "4.4.1"),
        ("Status: 2.1.5", Action.DELIVERED, "2.1.5"),
        ("Action: failed", Action.FAILED, "5.0.0"),
        ("Action: delayed", Action.DELAYED, "4.0.0"),
        ("Action: relayed", Action.RELAYED, "2.0.0"),
        ("Action: failed\nDiagnostic-Code: smtp; 550 5.1.1 no", Action.FAILED, "5.1.1"),
        ("Action: failed\nDiagnostic-Code: smtp; 452 full", Action.FAILED, "4.0.0"),
        ("Diagnostic-Code: smtp; 550 no such user", Action.FAILED, "5.0.0"),
        ("Diagnostic-Code: smtp; 450 4.2.0 greylisted", Action.DELAYED, "4.2.0"),
        ("Action: failed\nStatus: 5.0", Action.FAILED, "5.0.0"),
        ("Action: failed\nStatus: 550", Action.FAILED, "5.0.0"),
        ("Action: failed\nStatus: 4.5.0\nDiagnostic-Code: smtp; 550 5.5.0 refused", Action.FAILED, "5.5.0"),
        ("Diagnostic-Code: smtp; who knows", None, ""),
        ("X-Other: x", None, ""),
    ],
)
def test_a_missing_action_or_status_is_taken_from_what_is_there(
    fields: str, action: Action | None, status: str
) -> None:
    recipient = one(f"Final-Recipient: rfc822; a@b.example\n{fields}")
    assert (recipient.action, recipient.status) == (action, status)


@pytest.mark.parametrize(
    ("fields", "final", "original"),
    [
        ("Final-Recipient: rfc822; a@b.example", "a@b.example", ""),
        ("FINAL-RECIPIENT: RFC822;a@b.example (expanded from x)", "a@b.example", ""),
        ("Final-Recipient: a@b.example", "a@b.example", ""),
        ("Final-Recipient: rfc822; <a@b.example>", "a@b.example", ""),
        ("Final-Recipient: rfc822;\n  a@b.example", "a@b.example", ""),
        ("Final-Recipient: rfc822;@relay.example:a@b.example", "a@b.example", ""),
        ("Final-Recipient: utf-8; \\x{FC}\\x{2B}x@b.example", "ü+x@b.example", ""),
        ("Final-Recipient: utf-8; \\x{110000}@b.example", "\\x{110000}@b.example", ""),
        ("Final-Recipient: rfc822; =?utf-8?B?w7w=?=@b.example", "ü@b.example", ""),
        ("Original-Recipient: rfc822; o@b.example", "o@b.example", "o@b.example"),
        (
            "Final-Recipient:\nOriginal-Recipient: rfc822; o@b.example\nFinal-Recipient: rfc822; f@b.example",
            "f@b.example",
            "o@b.example",
        ),
        ("Final-Recipient: rfc822; a@b.example\nFinal-Recipient: rfc822; a@b.example", "a@b.example", ""),
    ],
)
def test_recipients_in_the_forms_that_come(fields: str, final: str, original: str) -> None:
    recipient = one(f"{fields}\nAction: failed\nStatus: 5.1.1")
    assert (recipient.final_recipient, recipient.original_recipient) == (final, original)


def test_the_first_of_doubled_fields_counts() -> None:
    recipient = one(
        "Final-Recipient: rfc822; a@b.example\nAction: failed\nAction: delayed\nStatus: 5.1.1\nStatus: 4.0.0\nX-Odd: 1\nX-Odd: 2"
    )
    assert (recipient.action, recipient.status) == (Action.FAILED, "5.1.1")


def test_a_recipient_named_twice_is_one() -> None:
    assert one("Final-Recipient: rfc822; a@x\nAction: failed\nFinal-Recipient: rfc822; a@x").final_recipient == "a@x"


@pytest.mark.parametrize(
    "blocks",
    [
        "Reporting-MTA: dns; mx.example\n\nFinal-Recipient: rfc822; a@x\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient: rfc822; b@x\nAction: delayed\nStatus: 4.0.0",
        "\n\nReporting-MTA: dns; mx.example\n\n\n \nFinal-Recipient: rfc822; a@x\nAction: failed\nStatus: 5.1.1\n\n\nFinal-Recipient: rfc822; b@x\nAction: delayed\nStatus: 4.0.0\n\n",
        "Reporting-MTA: dns; mx.example\nFinal-Recipient: rfc822; a@x\nAction: failed\nStatus: 5.1.1\nFinal-Recipient: rfc822; b@x\nAction: delayed\nStatus: 4.0.0",
        "Reporting-MTA: dns; mx.example\n\nFinal-Recipient: rfc822; a@x\n\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient: rfc822; b@x\n\nAction: delayed\nStatus: 4.0.0",
        "Final-Recipient: rfc822; a@x\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient: rfc822; b@x\nAction: delayed\nStatus: 4.0.0\n\nReporting-MTA: dns; mx.example",
    ],
    ids=["as due", "many blank lines", "no blank line", "torn apart", "the message last"],
)
def test_blocks_are_told_apart_whatever_the_blank_lines(blocks: str) -> None:
    dsn = report(blocks)
    assert dsn.reporting_mta == "mx.example"
    assert [(r.final_recipient, r.action, r.status) for r in dsn.recipients] == [
        ("a@x", Action.FAILED, "5.1.1"),
        ("b@x", Action.DELAYED, "4.0.0"),
    ]


def test_lines_of_a_reply_that_are_not_folded_belong_to_it() -> None:
    recipient = one(
        "Final-Recipient: rfc822; a@x\nDiagnostic-Code: smtp; 550-no such user\n550 5.1.1 see https://x.example/a:b\nAction: failed\nStatus: 5.0.0"
    )
    assert recipient.diagnostic == "550-no such user 550 5.1.1 see https://x.example/a:b"
    assert (recipient.action, recipient.enhanced) == (Action.FAILED, "5.1.1")


def test_a_status_part_in_a_transfer_encoding_and_in_crlf() -> None:
    dsn = report(
        "Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822;=20a@x\r\nAction: fai=\r\nled\r\n",
        encoding="quoted-printable",
    )
    assert [(r.final_recipient, r.action) for r in dsn.recipients] == [("a@x", Action.FAILED)]


def test_a_report_whose_fields_are_missing_is_a_report_about_nobody() -> None:
    assert report("").recipients == ()
    assert report("Reporting-MTA: dns; mx.example").recipients == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"Subject: Re: your mail\n\nThank you!",
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nonly words\n--b--\n",
        (
            b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\n"
            b"--b\nContent-Type: message/rfc822\n\nContent-Type: multipart/report; boundary=i\n\n--i\nContent-Type: message/delivery-status\n\nAction: failed\n--i--\n--b--\n"
        ),
    ],
    ids=["nothing", "a reply", "no fields", "a complaint about a report"],
)
def test_what_is_no_report(raw: bytes) -> None:
    assert read_dsn(read(raw)) is None


def test_a_report_within_a_report_is_not_the_news() -> None:
    inner = b"Content-Type: multipart/report; boundary=i\n\n--i\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; old@x\nAction: failed\n--i--\n"
    dsn = read_dsn(
        read(
            b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; new@x\nAction: failed\n"
            b"--b\nContent-Type: message/rfc822\n\n" + inner + b"--b--\n"
        )
    )
    assert dsn is not None
    assert [r.final_recipient for r in dsn.recipients] == ["new@x"]
