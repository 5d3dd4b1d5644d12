import dataclasses
import email
from datetime import UTC, datetime, timedelta
from email.policy import default

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.mail.address import parse
from shared.mail.dsn import Action, Dsn, DsnRecipient, read_dsn
from shared.mail.dsn_write import DsnSpec, is_utf8, write_dsn
from shared.mail.mime import read

AT = datetime(2026, 11, 20, 13, 0, 5, tzinfo=UTC)
FAILED = DsnRecipient(
    final_recipient="kim@receiver.example",
    original_recipient="",
    action=Action.FAILED,
    status="5.1.1",
    reply_code=550,
    enhanced="5.1.1",
    diagnostic="550 5.1.1 no such user",
    remote_mta="mx.receiver.example (192.0.2.25)",
    last_attempt=AT,
    will_retry_until=None,
)
DELAYED = dataclasses.replace(
    FAILED,
    action=Action.DELAYED,
    status="4.2.0",
    reply_code=450,
    enhanced="4.2.0",
    diagnostic="450 4.2.0 greylisted",
    will_retry_until=AT + timedelta(hours=28),
)
BY_US = dataclasses.replace(
    FAILED, status="5.4.4", reply_code=500, enhanced="5.4.4", diagnostic="the domain has no mail server", remote_mta=""
)


def spec(*recipients: DsnRecipient, **changes: object) -> DsnSpec:
    plain = DsnSpec(
        reporting_mta="mail.sender.example",
        sender=parse("postmaster@mail.sender.example"),
        to=parse("shop+abcdefghijklmnopqrstuvwxyz@sender.example"),
        message_id="<report-1@mail.sender.example>",
        date=AT,
        boundary="=_abcdef0123456789",
        arrival_date=AT - timedelta(minutes=5),
        recipients=recipients or (FAILED,),
        original_message_id="<order-1@sender.example>",
        original_headers=b"From: shop@sender.example\r\nMessage-ID: <order-1@sender.example>\r\n",
    )
    return dataclasses.replace(plain, **changes)


def read_back(written: DsnSpec) -> Dsn:
    dsn = read_dsn(read(write_dsn(written)))
    assert dsn is not None
    return dsn


def test_a_report_of_failure_has_the_structure_of_rfc_3464() -> None:
    raw = write_dsn(spec())
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    message = email.message_from_bytes(raw, policy=default)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert message["From"].addresses[0].addr_spec == "postmaster@mail.sender.example"
    assert message["To"] == "shop+abcdefghijklmnopqrstuvwxyz@sender.example"
    assert message["Subject"] == "Your message could not be delivered"
    assert message["References"] == "<order-1@sender.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Return-Path"] is None
    text, status, original = message.iter_parts()
    assert (text.get_content_type(), text["Content-Transfer-Encoding"]) == ("text/plain", "7bit")
    assert "kim@receiver.example" in text.get_content()
    assert "550 5.1.1 no such user" in text.get_content()
    assert (status.get_content_type(), status["Content-Transfer-Encoding"]) == ("message/delivery-status", "7bit")
    assert (original.get_content_type(), original["Content-Transfer-Encoding"]) == ("text/rfc822-headers", "7bit")
    assert b"Thank you" not in raw


def test_the_fields_stand_in_the_order_of_the_rfc() -> None:
    (_, status, _) = read(write_dsn(spec(DELAYED, envelope_id="delivery-77", future_release="for; 3600"))).parts
    assert status.body.decode().replace("\r\n", "\n").rstrip() == (
        "Original-Envelope-ID: delivery-77\n"
        "Reporting-MTA: dns; mail.sender.example\n"
        "Arrival-Date: Fri, 20 Nov 2026 12:55:05 +0000\n"
        "Future-Release-Request: for; 3600\n"
        "\n"
        "Final-Recipient: rfc822; kim@receiver.example\n"
        "Action: delayed\n"
        "Status: 4.2.0\n"
        "Remote-MTA: dns; mx.receiver.example (192.0.2.25)\n"
        "Diagnostic-Code: smtp; 450 4.2.0 greylisted\n"
        "Last-Attempt-Date: Fri, 20 Nov 2026 13:00:05 +0000\n"
        "Will-Retry-Until: Sat, 21 Nov 2026 17:00:05 +0000"
    )


def test_a_failure_without_a_reply_has_no_diagnostic_code_and_says_why() -> None:
    raw = write_dsn(spec(BY_US))
    assert b"Diagnostic-Code" not in raw
    assert b"Remote-MTA" not in raw
    assert b"Status: 5.4.4 (the domain has no mail server)" in raw
    assert read_back(spec(BY_US)).recipients == (BY_US,)


def test_a_mail_that_expired_keeps_its_last_temporary_reply() -> None:
    expired = dataclasses.replace(DELAYED, action=Action.FAILED, status="5.0.0", will_retry_until=None)
    assert read_back(spec(expired)).recipients == (expired,)


@pytest.mark.parametrize(
    ("action", "status"), [(Action.FAILED, "5.0.0"), (Action.DELAYED, "4.0.0"), (Action.RELAYED, "2.0.0")]
)
def test_a_status_that_is_missing_is_the_action_s(action: Action, status: str) -> None:
    assert (
        read_back(spec(dataclasses.replace(FAILED, action=action, status="", diagnostic=""))).recipients[0].status
        == status
    )


def test_without_the_original_there_are_two_parts() -> None:
    assert len(read(write_dsn(spec(original_headers=b""))).parts) == 2


def test_the_ascii_form_of_a_report_beyond_ascii() -> None:
    header = "Subject: Grüße\r\nMessage-ID: <order-1@sender.example>\r\n".encode()
    recipient = dataclasses.replace(FAILED, final_recipient="jörg+a@receiver.example")
    raw = write_dsn(spec(recipient, original_headers=header))
    assert raw.isascii()
    assert rb"Final-Recipient: utf-8; j\x{F6}rg\x{2B}a@receiver.example" in raw
    (text, _, original) = read(raw).parts
    assert "jörg+a@receiver.example" in text.text()
    assert (original.content_type, original.params, original.encoding) == (
        "text/rfc822-headers",
        {"charset": "utf-8"},
        "base64",
    )
    dsn = read_back(spec(recipient, original_headers=header))
    assert dsn.recipients == (recipient,)
    assert dsn.returned_headers == header


def test_the_utf8_form() -> None:
    header = "Subject: Grüße\r\nMessage-ID: <order-1@sender.example>\r\n".encode()
    recipient = dataclasses.replace(
        FAILED, final_recipient="jörg@receiver.example", diagnostic="550 5.1.1 kein Nutzer für die Adresse"
    )
    written = spec(recipient, original_headers=header, smtputf8=True)
    message = read(write_dsn(written))
    assert [(part.content_type, part.encoding) for part in message.parts] == [
        ("text/plain", "8bit"),
        ("message/global-delivery-status", "8bit"),
        ("message/global-headers", "8bit"),
    ]
    assert "Final-Recipient: utf-8; jörg@receiver.example".encode() in message.parts[1].body
    assert read_back(written).recipients == (recipient,)
    assert is_utf8(written)


def test_an_ascii_original_yields_the_ascii_form() -> None:
    assert not is_utf8(spec(smtputf8=True))
    assert write_dsn(spec(smtputf8=True)) == write_dsn(spec())


def test_an_address_that_ascii_cannot_write_takes_the_utf8_form() -> None:
    raw = write_dsn(spec(to=parse("grüße@sender.example")))
    assert "To: grüße@sender.example".encode() in raw
    assert b"message/global-delivery-status" in raw


def test_an_original_with_lines_too_long_for_mail_is_encoded() -> None:
    header = b"X-Long: " + b"x" * 2000 + b"\r\n"
    raw = write_dsn(spec(original_headers=header))
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert read_back(spec(original_headers=header)).returned_headers == header


def test_several_recipients_and_the_worst_of_them_in_the_subject() -> None:
    written = spec(DELAYED, FAILED)
    assert read_back(written).recipients == (DELAYED, FAILED)
    assert read(write_dsn(written)).header("Subject") == "Your message could not be delivered"


def test_what_cannot_be_reported() -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_dsn(dataclasses.replace(spec(), recipients=()))
    with pytest.raises(ValueError, match="action"):
        write_dsn(spec(dataclasses.replace(FAILED, action=None)))


@settings(deadline=None)
@example("", "0\n0", False)
@given(st.text(), st.text(), st.booleans())
def test_no_text_breaks_out_of_its_field(text: str, name: str, utf8: bool) -> None:
    recipient = dataclasses.replace(
        FAILED, diagnostic=text, final_recipient=name or "x", original_recipient=text, remote_mta=text
    )
    raw = write_dsn(spec(recipient, smtputf8=utf8, envelope_id=text, future_release=name, original_message_id=name))
    dsn = read_dsn(read(raw))
    assert dsn is not None
    assert len(read(raw).parts) == 3
    assert len(dsn.recipients) == 1
    assert dsn.recipients[0].action is Action.FAILED
    assert dsn.reporting_mta == "mail.sender.example"
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert utf8 or raw.isascii()


LOCALS = st.text("abcdefgxyzäöü0123456789+-_.'", min_size=1, max_size=20).filter(
    lambda s: ".." not in s and s.strip(".'") == s
)
ADDRESSES = LOCALS.map(lambda local: f"{local}@receiver.example")
WORDS = st.lists(
    st.text("abcxyz0123456789.,:<>@-'!", min_size=1, max_size=12).filter(lambda w: not w.isdigit()),
    min_size=1,
    max_size=40,
).map(" ".join)
MOMENTS = st.integers(946_684_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@st.composite
def recipients(draw: st.DrawFn) -> DsnRecipient:
    action, digit = draw(st.sampled_from([(Action.FAILED, 5), (Action.DELAYED, 4)]))
    enhanced = f"{digit}.{draw(st.integers(0, 9))}.{draw(st.integers(0, 99))}"
    code = digit * 100 + draw(st.sampled_from([21, 50, 51, 52, 53, 54]))
    return DsnRecipient(
        final_recipient=draw(ADDRESSES),
        original_recipient=draw(st.just("") | ADDRESSES),
        action=action,
        status=enhanced,
        reply_code=code,
        enhanced=enhanced,
        diagnostic=f"{code} {enhanced} {draw(WORDS)}",
        remote_mta=draw(st.sampled_from(["", "mx.receiver.example", "mx.receiver.example (192.0.2.25)"])),
        last_attempt=draw(st.none() | MOMENTS),
        will_retry_until=draw(st.none() | MOMENTS),
    )


@settings(deadline=None)
@given(st.lists(recipients(), min_size=1, max_size=4), MOMENTS, st.booleans())
def test_what_is_written_is_what_is_read(written: list[DsnRecipient], arrival: datetime, utf8: bool) -> None:
    original = spec().original_headers
    dsn = read_back(spec(*written, arrival_date=arrival, envelope_id="delivery-77", smtputf8=utf8))
    assert dsn == Dsn(
        "delivery-77", "mail.sender.example", arrival, tuple(written), original, "<order-1@sender.example>"
    )
