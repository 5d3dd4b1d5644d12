"""A message that is handed in whole: what is checked, added, taken out, and what stays as it was."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AddressInvalid, BadInput, TooLarge, ValidationFailed
from shared.mail.raw import RawMessage, read_raw

DATE = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
HEADER = "From: Ada <ada@example.com>\r\nTo: grace@example.org\r\nMessage-ID: <1@example.com>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"


def read(text: str | bytes) -> RawMessage:
    octets = text if isinstance(text, bytes) else text.encode()
    return read_raw(octets, new_message_id=lambda: "<new@posthouse.test>", date=DATE)


def refused(text: str | bytes) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read(text)
    return caught.value


def test_a_good_message_stays_as_it_is_octet_for_octet() -> None:
    raw = (HEADER + "subject : =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\tan alle\r\nX-Any: a  b\r\n\r\n.\r\nHello \r\n").encode()
    message = read(raw)
    assert message.composed.message == raw
    assert (message.sender.name, message.sender.address.text) == ("Ada", "ada@example.com")
    assert message.subject == "Grüße\tan alle"
    assert message.message_id == "<1@example.com>"
    assert not message.composed.smtputf8
    assert [name for name, _ in message.fields] == ["From", "To", "Message-ID", "Date", "subject", "X-Any"]
    assert dict(message.fields)["X-Any"] == "a  b"


@pytest.mark.parametrize("fields", ["", "Message-ID:\r\nDate: \r\n", "message-id: \r\n \r\ndate:\r\n"])
def test_message_id_and_date_are_added_where_they_are_missing(fields: str) -> None:
    message = read(f"From: ada@example.com\r\n{fields}\r\nHello\r\n")
    assert message.message_id == "<new@posthouse.test>"
    assert message.composed.header == (
        b"Message-Id: <new@posthouse.test>\r\nDate: Fri, 20 Nov 2026 13:00:00 +0000\r\nFrom: ada@example.com\r\n"
    )


def test_what_is_not_for_recipients_is_taken_out_and_still_known() -> None:
    message = read(
        HEADER
        + "bcc: hidden@example.org,\r\n also.hidden@example.org\r\nReturn-Path: <x@example.com>\r\nResent-Bcc: y@example.com\r\n"
        + "X-Posthouse-Extra-Order: 47\r\n 11\r\nX-Mox-Extra-a: 1\r\nX-Mox-Extra-☺: ☹\r\n\r\nHello\r\n"
    )
    assert message.composed.header == HEADER.encode() + b"X-Mox-Extra-a: 1\r\n"
    assert [mailbox.address.local for mailbox in message.named()] == ["grace", "hidden", "also.hidden"]
    fields = dict(message.fields)
    assert fields["X-Posthouse-Extra-Order"] == "47 11"
    assert fields["X-Mox-Extra-☺"] == "☹"
    assert not message.composed.smtputf8


def test_named_are_those_of_to_cc_and_bcc_in_this_order() -> None:
    message = read(HEADER + "Bcc: d@example.org\r\nCc: c@example.org\r\nto: b@example.org\r\n\r\n")
    assert [mailbox.address.local for mailbox in message.named()] == ["grace", "b", "c", "d"]


def test_a_to_that_is_no_list_matters_only_to_who_asks_for_it() -> None:
    message = read("From: a@example.com\r\nTo: everybody\r\n\r\nHello\r\n")
    with pytest.raises(AddressInvalid) as caught:
        message.named()
    assert caught.value.field == "raw.to"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("To: a@example.com\r\n\r\n", "raw.from", "no From"),
        ("From: a@example.com\r\nfrom: b@example.com\r\n\r\n", "raw.from", "2 from"),
        ("From: a@example.com, b@example.com\r\n\r\n", "raw.from", "2 addresses"),
        ("From: \r\n\r\n", "raw.from", "0 addresses"),
        ("From: Ada\r\n\r\n", "raw.from", "no @"),
        (HEADER + "Subject: a\r\nSubject: b\r\n\r\n", "raw.subject", "2 subject"),
        (HEADER + "Content-Type: text/plain\r\ncontent-type: text/html\r\n\r\n", "raw.content-type", "2 content-type"),
        (HEADER, "raw", "no empty line"),
        (HEADER + "no field\r\n\r\n", "raw", "line 5"),
        (" folded: from nothing\r\n\r\n", "raw", "line 1"),
        ("", "raw.from", "no From"),
        (HEADER + "X: a\0b\r\n\r\n", "raw", "U+0000"),
        (HEADER + "X: " + "x" * 2_000 + "\r\n\r\n", "raw", "without a space"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(text: str, field: str, said: str) -> None:
    error = refused(text)
    assert error.field == field
    assert said in error.message


def test_a_header_that_is_not_utf8_is_refused() -> None:
    assert "Subject" in refused(HEADER.encode() + b"Subject: gr\xfc\xdfe\r\n\r\n").message


@pytest.mark.parametrize(
    "header", ["X-Long: " + "a " * 200_000, "X-A: b\r\n" * 2_000, "X-Long: a\r\n" + " b\r\n" * 90_000]
)
def test_a_header_has_a_limit(header: str) -> None:
    assert isinstance(refused(HEADER + header.removesuffix("\r\n") + "\r\n\r\nHello\r\n"), TooLarge)


@pytest.mark.parametrize("raw", [b"From: a@example.com\n\nHello\nthere\n", b"From: a@example.com\n\nHello\nthere"])
def test_line_feeds_become_crlf(raw: bytes) -> None:
    message = read(raw).composed.message
    assert message.endswith(b"From: a@example.com\r\n\r\nHello\r\nthere\r\n")


@pytest.mark.parametrize("body", ["a\nb\r\n", "a\rb\r\n", "a\r\r\n", "a\r\n.\n.\r\n", "a\r"])
def test_a_cr_or_lf_that_stands_alone_is_refused(body: str) -> None:
    assert "alone" in refused(HEADER + "\r\n" + body).message


def test_a_long_line_of_the_header_is_folded_at_a_space() -> None:
    message = read(HEADER + "X-Ids: " + "<0123456789@example.com> " * 100 + "\r\n\r\nHello\r\n")
    lines = message.composed.header.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert b"".join(lines).endswith(b"X-Ids: " + b"<0123456789@example.com> " * 100)


def test_a_long_list_of_addresses_is_folded_after_its_commas() -> None:
    message = read(f"From: a@example.com\r\nCc:{','.join(['b@example.com'] * 300)}\r\n\r\nHello\r\n")
    lines = message.composed.header.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    written = message.composed.header.replace(b"\r\n ", b"").decode()
    assert f"Cc:{','.join(['b@example.com'] * 300)}\r\n" in written
    assert len(message.named()) == 300


@pytest.mark.parametrize("field", ["Subject: Grüße", "To: jürgen@example.org", "X-Note: süß"])
def test_raw_utf8_in_the_header_makes_an_internationalised_message(field: str) -> None:
    message = read(f"From: ada@example.com\r\n{field}\r\n\r\nHello\r\n")
    assert message.composed.smtputf8
    assert f"{field}\r\n".encode() in message.composed.header


@given(st.binary(max_size=300) | st.text("From:aTo@. \r\n\tü;", max_size=200).map(str.encode))
def test_anything_is_either_a_message_or_refused(octets: bytes) -> None:
    try:
        message = read(octets)
    except BadInput:
        return
    raw = message.composed.message
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert b"\r\n\r\n" not in message.composed.header


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=200), st.integers(1, 40))
def test_a_header_line_of_any_text_survives(value: str, times: int) -> None:
    words = " ".join([value[:50]] * times)
    message = read(f"{HEADER}X-Text: {words}\r\n\r\nHello\r\n")
    assert dict(message.fields)["X-Text"] == words.strip()
    assert f"X-Text: {words}\r\n".encode() in message.composed.header.replace(b"\r\n ", b" ")


def test_a_validation_error_names_no_content() -> None:
    assert "secret" not in refused(HEADER + "X: secret\0\r\n\r\n").message
    assert isinstance(refused(HEADER + "X: secret\0\r\n\r\n"), ValidationFailed)
