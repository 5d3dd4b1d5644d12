"""A composed message: the order, tree and encodings of mox-behaviour 1.8 and its cases 57-75, as far as they concern composing."""

import email
from datetime import UTC, datetime
from email.message import Message
from itertools import count

import pytest

from shared.errors import ValidationFailed
from shared.mail.address import parse
from shared.mail.compose import Composed, Draft, Mailbox, Part, compose

DATE = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
PDF = Part("a.pdf", "application/pdf", b"%PDF-1.7\n")


def box(address: str, name: str = "") -> Mailbox:
    return Mailbox(name, parse(address))


def draft(**changes: object) -> Draft:
    given: dict[str, object] = {
        "sender": box("demo@posthouse.test", "Demo"),
        "to": (box("bob@example.com"),),
        "cc": (),
        "reply_to": (),
        "subject": "Hello",
        "text": "Hi\n",
        "html": None,
        "message_id": "<1@posthouse.test>",
        "date": DATE,
    }
    return Draft(**(given | changes))  # type: ignore[arg-type] # a test names the fields it is about


def composed(**changes: object) -> Composed:
    numbers = count()
    return compose(draft(**changes), boundaries=lambda: f"boundary{next(numbers)}")


def part(message: Message, *path: int) -> Message:
    for index in path:
        parts = message.get_payload()
        assert isinstance(parts, list)
        inner = parts[index]
        assert isinstance(inner, Message)
        message = inner
    return message


def tree(message: Message) -> object:
    if message.is_multipart():
        return (
            message.get_content_subtype(),
            [tree(part(message, index)) for index in range(len(message.get_payload()))],
        )
    return message.get_content_type()


def parsed(**changes: object) -> Message:
    return email.message_from_bytes(composed(**changes).message)


def test_a_small_text_is_a_message_of_one_part_byte_by_byte() -> None:
    result = composed(text="Hi")
    assert result.header == (
        b'From: "Demo" <demo@posthouse.test>\r\n'
        b"To: bob@example.com\r\n"
        b"Subject: Hello\r\n"
        b"Date: Fri, 20 Nov 2026 13:00:00 +0000\r\n"
        b"Message-Id: <1@posthouse.test>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"User-Agent: Posthouse\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
    )
    assert result.body == b"Hi\r\n"
    assert result.message == result.header + b"\r\n" + result.body
    assert not result.smtputf8


def test_the_fields_come_in_the_order_of_mox() -> None:
    message = parsed(
        reply_to=(box("r@d"),),
        cc=(box("c@d"),),
        references=("<a@d>", "<b@d>"),
        headers=(("X-One", "1"), ("x-two", "2"), ("X-One", "3")),
        html="<p>",
    )
    assert message.keys() == [
        *("From", "Reply-To", "To", "Cc", "Subject", "Date", "Message-Id", "References", "In-Reply-To"),
        *("MIME-Version", "X-One", "x-two", "X-One", "User-Agent", "Content-Type"),
    ]
    assert message["In-Reply-To"] == "<b@d>"
    assert message.get_all("X-One") == ["1", "3"]


def test_fields_without_content_are_left_out() -> None:
    message = parsed(to=(), subject="")
    assert message.keys() == [
        "From",
        "Date",
        "Message-Id",
        "MIME-Version",
        "User-Agent",
        "Content-Type",
        "Content-Transfer-Encoding",
    ]


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "X-MAILER"])
def test_a_user_agent_of_the_caller_replaces_ours(name: str) -> None:
    message = parsed(headers=((name, "Shop/1"),))
    assert message[name] == "Shop/1"
    assert "Posthouse" not in message.as_string()
    assert parsed(user_agent=None)["User-Agent"] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "text/plain"),
        ({"text": None, "html": "<p>"}, "text/html"),
        ({"text": "", "html": "<p>"}, "text/html"),
        ({"html": "<p>"}, ("alternative", ["text/plain", "text/html"])),
        ({"alternatives": (Part("i.ics", "text/calendar", b""),)}, ("alternative", ["text/plain", "text/calendar"])),
        ({"inline": (PDF,)}, ("related", ["text/plain", "application/pdf"])),
        ({"attachments": (PDF,)}, ("mixed", ["text/plain", "application/pdf"])),
        (
            {"inline": (PDF,), "attachments": (PDF,)},
            ("mixed", [("related", ["text/plain", "application/pdf"]), "application/pdf"]),
        ),
        (
            {
                "html": "<p>",
                "alternatives": (Part("i.ics", "text/calendar", b""),),
                "inline": (PDF,),
                "attachments": (PDF, PDF),
            },
            (
                "mixed",
                [
                    ("related", [("alternative", ["text/plain", "text/html", "text/calendar"]), "application/pdf"]),
                    "application/pdf",
                    "application/pdf",
                ],
            ),
        ),
    ],
)
def test_the_tree_has_only_the_levels_it_needs(changes: dict[str, object], expected: object) -> None:
    assert tree(parsed(**changes)) == expected


def test_related_names_the_type_of_its_root() -> None:
    message = parsed(html="<p>", inline=(PDF,))
    assert message.get_param("type") == "multipart/alternative"


@pytest.mark.parametrize(
    ("text", "charset", "encoding"),
    [
        ("x" * 76, "us-ascii", "7bit"),
        ("x" * 77, "us-ascii", "quoted-printable"),
        ("hi ☺ and a good deal of plain text", "utf-8", "quoted-printable"),
        ("日本語のメール", "utf-8", "base64"),
        ("a\x1bb\x7f", "us-ascii", "7bit"),
    ],
)
def test_a_text_is_safe_on_seven_bits(text: str, charset: str, encoding: str) -> None:
    result = composed(text=text)
    message = email.message_from_bytes(result.message)
    assert (message.get_content_charset(), message["Content-Transfer-Encoding"]) == (charset, encoding)
    assert result.message.isascii()
    assert max(map(len, result.body.split(b"\r\n"))) <= 76
    assert message.get_payload(decode=True) == (text + "\r\n").encode()


@pytest.mark.parametrize("text", ["a\nb\n", "a\r\nb\r\n", "a\rb\r", "a\r\nb", "a\nb\r\n"])
@pytest.mark.parametrize("padding", ["", "ü" * 3 + "x" * 100, "日" * 50])
def test_every_line_end_becomes_crlf_once(text: str, padding: str) -> None:
    message = parsed(text=padding + text)
    assert message.get_payload(decode=True) == f"{padding}a\r\nb\r\n".encode()
    assert part(parsed(text=padding + text, html="<p>"), 0).get_payload(decode=True) == f"{padding}a\r\nb\r\n".encode()


def test_spaces_and_dots_at_awkward_places_survive_quoted_printable() -> None:
    text = "x" * 80 + "\r\n.\r\ntrailing \r\n\ttab\t\r\n=20\r\n" + "ü \r\n"
    result = composed(text=text)
    assert email.message_from_bytes(result.message).get_payload(decode=True) == text.encode()
    assert not [line for line in result.body.split(b"\r\n") if line.endswith((b" ", b"\t"))]


def test_files_are_base64_with_their_name_and_disposition() -> None:
    content = bytes(range(256)) * 3
    message = parsed(
        attachments=(Part("Übersicht 1.bin", None, content),), inline=(Part("logo.png", None, content, "<logo@d>"),)
    )
    attachment, logo = part(message, 1), part(message, 0, 1)
    assert (attachment.get_filename(), attachment.get_content_disposition()) == ("Übersicht 1.bin", "attachment")
    assert (logo.get_filename(), logo.get_content_disposition(), logo["Content-ID"]) == (
        "logo.png",
        "inline",
        "<logo@d>",
    )
    for file in (attachment, logo):
        assert file["Content-Transfer-Encoding"] == "base64"
        assert file.get_payload(decode=True) == content
    assert max(map(len, composed(attachments=(Part("x", None, content),)).body.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (Part("x.bin", 'text/csv; charset="utf-8"; header=present', b""), 'text/csv; charset="utf-8"; header=present'),
        (Part("A.PDF", None, b""), "application/pdf"),
        (
            Part("a.docx", None, b"PK\x03\x04"),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (Part("a.tar.gz", "", b""), "application/gzip"),
        (Part("scan", None, b"%PDF-1.4 ..."), "application/pdf"),
        (Part("", None, b"\x00\x01"), "application/octet-stream"),
        (Part("data:text/html,x", None, b"\x00"), "application/octet-stream"),
    ],
)
def test_the_type_of_a_file_is_given_or_told_by_its_name_or_first_octets(file: Part, expected: str) -> None:
    assert part(parsed(attachments=(file,)), 1)["Content-Type"] == expected


def test_an_attached_message_is_never_base64() -> None:
    plain = Part("a.eml", None, b"Subject: x\n\nhi\n")
    attached = part(parsed(attachments=(plain,)), 1)
    assert (attached.get_content_type(), attached["Content-Transfer-Encoding"]) == ("message/rfc822", "7bit")
    assert part(attached, 0)["Subject"] == "x"
    for content in ("Subject: ü\n\n".encode(), b"Subject: x\n\n" + b"x" * 999, b"Subject: x\n\n\0"):
        foreign = part(parsed(attachments=(Part("a.eml", "message/rfc822", content),)), 1)
        assert foreign.get_content_type() == "application/octet-stream"
        assert foreign.get_payload(decode=True) == content


def test_a_local_part_that_is_not_ascii_makes_an_internationalised_message() -> None:
    result = composed(to=(box("ü@ö.d"),), subject="Grüße", headers=(("X-Note", "süß"),))
    assert result.smtputf8
    for line in ("To: ü@ö.d", "Subject: Grüße", "X-Note: süß"):
        assert f"\r\n{line}\r\n".encode() in result.header
    assert result.body.isascii()


@pytest.mark.parametrize("field", ["sender", "cc", "reply_to"])
def test_any_address_in_the_header_counts_for_smtputf8(field: str) -> None:
    value = box("ü@d")
    assert composed(**{field: value if field == "sender" else (value,)}).smtputf8


def test_a_domain_that_is_not_ascii_does_not_need_smtputf8() -> None:
    result = composed(to=(box("x@ö.d"),))
    assert not result.smtputf8
    assert b"\r\nTo: x@xn--nda.d\r\n" in result.header


def test_custom_headers_are_encoded_where_they_are_not_ascii() -> None:
    assert b"\r\nX-Note: =?utf-8?q?s=C3=BC=C3=9F?= x\r\n" in composed(headers=(("X-Note", "süß x"),)).header


def test_a_header_of_the_caller_may_stand_in_for_a_field_the_draft_leaves_empty() -> None:
    message = parsed(headers=(("In-Reply-To", "<a@d>"), ("Reply-To", "r@d"), ("Sender", "s@d")))
    assert (message["In-Reply-To"], message["Reply-To"], message["Sender"]) == ("<a@d>", "r@d", "s@d")


def test_a_message_needs_text_or_html() -> None:
    with pytest.raises(ValidationFailed):
        composed(text="", html=None)
