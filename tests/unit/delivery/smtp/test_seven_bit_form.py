"""Converting content for a server without 8BITMIME: the standard library reads the same before and after."""

import email
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.smtp.facts import Mail, body_start, has_eight_bit_body
from delivery.smtp.fitting import in_seven_bits
from shared.errors import ValidationFailed

CHARSETS = st.sampled_from(["utf-8", "iso-8859-1", "koi8-r", "utf-16"])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=400)
TYPES = st.sampled_from(["text/plain", "text/html", "application/octet-stream", "image/png"])


@st.composite
def leaf(draw: st.DrawFn) -> bytes:
    charset = draw(CHARSETS)
    octets = draw(TEXT).encode(charset, "replace").replace(b"\r", b"").replace(b"--", b"-").replace(b"\n", b"\r\n")
    encoding = draw(st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n"]))
    return b"Content-Type: %s; charset=%s\r\n%s\r\n%s" % (draw(TYPES).encode(), charset.encode(), encoding, octets)


@st.composite
def tree(draw: st.DrawFn, depth: int = 2) -> bytes:
    if depth == 0 or draw(st.booleans()):
        return draw(leaf())
    boundary = b"b%d" % depth
    parts = draw(st.lists(tree(depth - 1), min_size=1, max_size=3))
    inner = b"".join(b"\r\n--%s\r\n%s" % (boundary, part) for part in parts)
    return b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n%s\r\n--%s--\r\n" % (boundary, inner, boundary)


def described(raw: bytes) -> list[tuple[str, object]]:
    def one(part: Message) -> tuple[str, object]:
        if part.is_multipart():
            return part.get_content_type(), part.get_boundary()
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        return part.get_content_type(), payload.rstrip(b"\r\n")  # base64 has a line end of its own

    return [one(part) for part in email.message_from_bytes(raw).walk()]


@given(tree())
def test_decoded_content_is_identical(message: bytes) -> None:
    raw = b"From: a@a.test\r\nMIME-Version: 1.0\r\n" + message
    mail = Mail.of("a@a.test", ["b@b.test"], raw)
    if not mail.body8bit:
        return
    converted = in_seven_bits(mail)
    assert converted.isascii()
    assert described(converted) == described(raw)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_eight_bits_of_the_header_are_not_meant(header: bytes, body: bytes) -> None:
    content = b"A: " + header.replace(b"\n", b"").replace(b"\r", b"") + b"\r\n\r\n" + body
    assert has_eight_bit_body(content) == (not body.isascii())
    assert content[body_start(content) :] == b"\r\n" + body


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", False), (b"\xff", False), (b"\r\n\xff", True), (b"A: \xff\r\n", False)]
)
def test_content_without_header_or_body(content: bytes, expected: bool) -> None:
    assert has_eight_bit_body(content) is expected


def test_a_signature_in_the_body_is_none() -> None:
    mail = Mail.of("", ["b@b.test"], "A: b\r\n\r\nDKIM-Signature: ü\r\n".encode())
    assert in_seven_bits(mail).isascii()
    with pytest.raises(ValidationFailed):
        in_seven_bits(Mail.of("", ["b@b.test"], "A: b\r\nARC-Message-Signature: x\r\n\r\nü\r\n".encode()))
