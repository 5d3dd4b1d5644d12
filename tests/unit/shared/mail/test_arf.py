from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.mail.arf import Feedback, read_feedback
from shared.mail.dsn import read_dsn
from shared.mail.mime import read

COMPLAINT = Path(__file__).parents[3] / "data" / "dsn" / "complaint.eml"
CORPUS = Path(__file__).parents[5] / "shared" / "bounce-corpus" / "messages"


def feedback(fields: str) -> Feedback:
    raw = (
        f"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n{fields}\n--b--\n"
    )
    found = read_feedback(read(raw.encode()))
    assert found is not None
    return found


def test_a_complaint() -> None:
    message = read(COMPLAINT.read_bytes())
    assert read_feedback(message) == Feedback(
        feedback_type="abuse",
        original_recipients=("kim@provider.example", "lee@provider.example"),
        original_mail_from="shop+abcdefghijklmnopqrstuvwxyz@sender.example",
        envelope_id="delivery-77",
        arrival_date=datetime(2026, 11, 20, 13, 5, 8, tzinfo=UTC),
        source_ip="2001:db8::1",
        user_agent="SomeGenerator/1.0",
        returned_headers=b"From: <shop@sender.example>\nMessage-ID: <order-7@sender.example>\nSubject: Your order\n",
        returned_message_id="<order-7@sender.example>",
    )
    assert read_dsn(message) is None


@pytest.mark.parametrize(
    ("fields", "feedback_type"),
    [
        ("Feedback-Type: opt-out", "opt-out"),
        ("Feedback-Type: ???", "other"),
        ("Version: 1", "other"),
        ("\n\nVersion: 1\n\nFeedback-Type: fraud", "fraud"),
    ],
)
def test_the_type_of_feedback(fields: str, feedback_type: str) -> None:
    assert feedback(fields).feedback_type == feedback_type


@pytest.mark.parametrize(
    ("value", "ip"),
    [("192.0.2.1", "192.0.2.1"), ("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1"), ("unknown", "")],
)
def test_the_source_is_an_address_or_nothing(value: str, ip: str) -> None:
    assert feedback(f"Source-IP: {value}").source_ip == ip


def test_a_message_id_in_the_report_itself_counts_where_nothing_is_returned() -> None:
    assert feedback("Original-Message-ID: <x@y>").returned_message_id == "<x@y>"
    assert feedback("Received-Date: Fri, 20 Nov 2026 13:00:00 +0000").arrival_date == datetime(
        2026, 11, 20, 13, tzinfo=UTC
    )


def test_a_bounce_of_a_complaint_is_a_bounce() -> None:
    message = read(
        b"Content-Type: multipart/report; boundary=o\n\n--o\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b.example\nAction: failed\n"
        b"--o\nContent-Type: message/rfc822\n\n" + COMPLAINT.read_bytes() + b"\n--o--\n"
    )
    assert read_feedback(message) is None
    assert read_dsn(message) is not None


@settings(deadline=None)
@given(st.text())
def test_no_fields_make_reading_fail(fields: str) -> None:
    read_feedback(
        read(
            b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n"
            + fields.encode()
        )
    )


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the bounce corpus is not next to this tree")
def test_real_complaints_are_read_and_are_no_bounces() -> None:
    for path in sorted(CORPUS.glob("arf-*.eml")):
        message = read(path.read_bytes())
        if any(part.content_type == "message/feedback-report" for part in message.walk()):
            assert read_feedback(message) is not None, path.name
            assert read_dsn(message) is None, path.name
