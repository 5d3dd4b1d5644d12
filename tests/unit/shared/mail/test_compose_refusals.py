"""What a caller might smuggle into a header, and what only Posthouse writes: refused, with the field named."""

from datetime import UTC, datetime

import pytest

from shared.errors import ValidationFailed
from shared.mail.address import parse
from shared.mail.compose import Draft, Mailbox, Part, compose

EVIL = ["a\r\nBcc: x@y", "a\nBcc: x@y", "a\rBcc: x@y", "a\0b", "a\tb", "a\x85b", "\ud800"]


def refused(**changes: object) -> ValidationFailed:
    given: dict[str, object] = {
        "sender": Mailbox("", parse("demo@posthouse.test")),
        "to": (Mailbox("", parse("bob@example.com")),),
        "cc": (),
        "reply_to": (),
        "subject": "Hello",
        "text": "Hi\n",
        "html": None,
        "message_id": "<1@posthouse.test>",
        "date": datetime(2026, 11, 20, tzinfo=UTC),
    }
    compose(Draft(**given), boundaries=lambda: "b")  # type: ignore[arg-type] # a test names the fields it is about
    with pytest.raises(ValidationFailed) as caught:
        compose(Draft(**(given | changes)), boundaries=lambda: "b")  # type: ignore[arg-type] # as above
    return caught.value


@pytest.mark.parametrize("evil", EVIL)
def test_no_field_of_a_draft_takes_control_characters(evil: str) -> None:
    named = (Mailbox("ok", parse("a@d")), Mailbox(evil, parse("a@d")))
    assert refused(sender=named[1]).field == "from.name"
    assert refused(to=named).field == "to[1].name"
    assert refused(cc=named).field == "cc[1].name"
    assert refused(reply_to=named).field == "reply_to[1].name"
    assert refused(subject=evil).field == "subject"
    assert refused(user_agent=evil).field == "user_agent"
    assert refused(message_id=f"<{evil}>").field == "message_id"
    assert refused(references=("<a@d>", evil)).field == "references[1]"
    assert refused(headers=(("X-A", "b"), ("X-B", evil))).field == "headers[1]"
    assert refused(headers=((evil, "b"),)).field == "headers[0]"
    for files in ("attachments", "inline", "alternatives"):
        assert refused(**{files: (Part(evil, None, b""),)}).field == f"{files}[0].filename"
        assert refused(**{files: (Part("a", f"text/plain; charset={evil}", b""),)}).field == f"{files}[0].content_type"
        assert refused(**{files: (Part("a", None, b"", evil),)}).field == f"{files}[0].content_id"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "From",
            "to",
            "CC",
            "Bcc",
            "Subject",
            "Date",
            "Message-ID",
            "mime-version",
            "Content-Type",
            "content-language",
        ),
        *(
            "DKIM-Signature",
            "Received",
            "Return-Path",
            "Resent-Bcc",
            "ARC-Seal",
            "Authentication-Results",
            "X-Posthouse-Extra-a",
        ),
    ],
)
def test_fields_that_posthouse_writes_cannot_be_set(name: str) -> None:
    error = refused(headers=(("X-A", "b"), (name, "x")))
    assert error.field == "headers[1]"
    assert name in error.message


def test_a_field_the_draft_sets_cannot_be_set_again() -> None:
    assert "References" in refused(references=("<a@d>",), headers=(("References", "<b@d>"),)).message
    assert "In-Reply-To" in refused(references=("<a@d>",), headers=(("In-Reply-To", "<b@d>"),)).message
    assert "Reply-To" in refused(reply_to=(Mailbox("", parse("a@d")),), headers=(("Reply-To", "b@d"),)).message
    assert "once" in refused(headers=(("Sender", "a@d"), ("sender", "b@d"))).message


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "Ü", "x" * 100])
def test_a_header_name_must_be_one(name: str) -> None:
    assert refused(headers=((name, "x"),)).field == "headers[0]"


@pytest.mark.parametrize(
    "message_id", ["", "a@d", "<a@d", "a@d>", "<>", "<a>b>", "<a b@d>", "<ü@d>", "<" + "a" * 1_000 + ">"]
)
def test_a_message_id_stands_in_angle_brackets(message_id: str) -> None:
    assert refused(message_id=message_id).field == "message_id"


@pytest.mark.parametrize("reference", ["", " ", "ü", "x" * 1_000])
def test_a_reference_is_a_short_ascii_word(reference: str) -> None:
    assert refused(references=(reference,)).field == "references[0]"


@pytest.mark.parametrize(
    "content_type",
    [
        "text",
        "text/",
        "/plain",
        "text/plain; x",
        "text/plain; charset=a b",
        "tëxt/plain",
        "text/" + "x" * 600,
        "a/b\x7f",
    ],
)
def test_a_content_type_must_be_one(content_type: str) -> None:
    assert refused(attachments=(Part("a", content_type, b""),)).field == "attachments[0].content_type"


@pytest.mark.parametrize("content_id", ["<>", "a b", "<a>b", "ü", "x" * 600])
def test_a_content_id_must_be_one(content_id: str) -> None:
    assert refused(inline=(Part("a", None, b"", content_id),)).field == "inline[0].content_id"


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_a_text_has_no_nul_and_no_half_characters(text: str) -> None:
    assert refused(text=text).field == "text"
    assert refused(text=None, html=text).field == "html"


def test_a_header_word_too_long_for_a_line_is_refused() -> None:
    assert refused(headers=(("X-A", "x" * 2_000),)).field == "headers[0]"


def test_a_file_name_has_a_limit() -> None:
    assert refused(attachments=(Part("x" * 1_001, None, b""),)).field == "attachments[0].filename"


def test_a_date_needs_a_zone() -> None:
    assert refused(date=datetime(2026, 11, 20)).field == "date"  # noqa: DTZ001 - the case
