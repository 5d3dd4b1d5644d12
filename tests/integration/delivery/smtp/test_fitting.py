"""A mail for a server that lacks what it was written for: converted, put off or refused, and never broken."""

import email
from email.message import Message
from typing import Any

import pytest

from delivery.smtp import Mail
from delivery.smtp.errors import SmtpEightBitError, SmtpSizeError, SmtpUnsendableError, SmtpUtf8Error
from fakes.smtp_server import Script

Stand = Any

HEADER = b"From: a@a.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
TEXT = "Grüße aus Göttingen, and a good deal of plain text besides.\r\n.\r\n\r\nEnde\r\n".encode()
EIGHT_BIT = HEADER + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + TEXT
SIGNED_PART = (
    HEADER
    + b'Content-Type: multipart/signed; boundary=b; protocol="application/pgp-signature"\r\n\r\n--b\r\n'
    + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + TEXT
    + b"--b\r\nContent-Type: application/pgp-signature\r\n\r\nsig\r\n--b--\r\n"
)
UTF8_HEADER = "From: a@a.test\r\nSubject: Grüße\r\n\r\nhi\r\n".encode()
UTF8_PART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + UTF8_HEADER + b"\r\n--b--\r\n"
DEEP = (
    b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (depth, depth) for depth in range(60))
    + UTF8_HEADER
)


def read(raw: bytes) -> Message:
    return email.message_from_bytes(raw)


async def test_eight_bits_where_they_are_taken(stand: Stand) -> None:
    session = await stand.session(Script(extensions=["8BITMIME"]))
    assert (await session.send(Mail.of("a@a.test", ["b@b.test"], EIGHT_BIT))).results[0].accepted
    assert stand.server.messages[0].content == EIGHT_BIT
    assert stand.server.messages[0].mail_params == ["BODY=8BITMIME"]


@pytest.mark.parametrize("extensions", [[], ["CHUNKING"], ["SIZE 100000"]])
async def test_a_server_without_8bitmime_gets_the_same_content_in_seven_bits(
    stand: Stand, extensions: list[str]
) -> None:
    session = await stand.session(Script(extensions=extensions))
    sent = await session.send(Mail.of("a@a.test", ["b@b.test", "c@b.test"], EIGHT_BIT))
    assert [result.accepted for result in sent.results] == [True, True]
    (message,) = stand.server.messages
    assert message.content.isascii()
    found = read(message.content)
    assert found["Content-Transfer-Encoding"] == "quoted-printable"
    assert found["Subject"] == "x"
    assert found.get_payload(decode=True) == TEXT == read(EIGHT_BIT).get_payload(decode=True)
    assert message.mail_params == ([f"SIZE={len(message.content)}"] if extensions == ["SIZE 100000"] else [])


async def test_large_content_is_converted_too(stand: Stand) -> None:
    session = await stand.session(Script(extensions=[]))
    large = EIGHT_BIT + TEXT * 5_000
    assert (await session.send(Mail.of("a@a.test", ["b@b.test"], large))).results[0].accepted
    assert read(stand.server.messages[0].content).get_payload(decode=True) == TEXT * 5_001


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"DKIM-Signature: v=1; d=a.test; b=x\r\n" + EIGHT_BIT, "DKIM"),
        (b"dkim-signature : v=1; d=a.test; b=x\r\n" + EIGHT_BIT, "DKIM"),
        (SIGNED_PART, "multipart/signed"),
        (HEADER + b"Content-Type: multipart/mixed\r\n\r\n" + TEXT, "boundary"),
        (
            b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + UTF8_HEADER + b"\r\n--b--\r\n",
            "header",
        ),
    ],
)
async def test_what_a_conversion_would_break_is_refused_for_good(stand: Stand, content: bytes, why: str) -> None:
    session = await stand.session(Script(extensions=[]))
    with pytest.raises(SmtpEightBitError, match=why) as refused:
        await session.send(Mail.of("a@a.test", ["b@b.test"], content))
    assert refused.value.permanent
    assert "8BITMIME" in str(refused.value)
    assert stand.server.sessions[0].commands == ["EHLO client.test"]
    assert session.usable


async def test_what_is_signed_and_seven_bit_goes_as_it_is(stand: Stand) -> None:
    session = await stand.session(Script(extensions=[]))
    content = b"DKIM-Signature: v=1; d=a.test; b=x\r\n" + HEADER + b"\r\nplain\r\n"
    assert (await session.send(Mail.of("a@a.test", ["b@b.test"], content))).results[0].accepted
    assert stand.server.messages[0].content == content


async def test_a_stream_cannot_be_converted(stand: Stand) -> None:
    async def stream() -> Any:
        yield EIGHT_BIT

    session = await stand.session(Script(extensions=[]))
    with pytest.raises(SmtpEightBitError, match="stream"):
        await session.send(Mail("a@a.test", ("b@b.test",), stream(), len(EIGHT_BIT), body8bit=True))


@pytest.mark.parametrize(("limit", "goes"), [(len(EIGHT_BIT), True), (len(EIGHT_BIT) - 1, False)])
async def test_the_size_is_checked_here(stand: Stand, limit: int, goes: bool) -> None:
    session = await stand.session(Script(extensions=[f"SIZE {limit}", "8BITMIME"]))
    mail = Mail.of("a@a.test", ["b@b.test"], EIGHT_BIT)
    if goes:
        assert (await session.send(mail)).results[0].accepted
        return
    with pytest.raises(SmtpSizeError, match=f"{len(EIGHT_BIT)} octets, the server accepts {limit}") as refused:
        await session.send(mail)
    assert refused.value.permanent
    assert len(stand.server.sessions[0].commands) == 1


async def test_the_size_is_checked_again_where_a_conversion_made_it_larger(stand: Stand) -> None:
    session = await stand.session(Script(extensions=[f"SIZE {len(EIGHT_BIT)}"]))
    with pytest.raises(SmtpSizeError):
        await session.send(Mail.of("a@a.test", ["b@b.test"], EIGHT_BIT))


@pytest.mark.parametrize(
    ("sender", "recipient", "content"),
    [
        ("jörg@a.test", "b@b.test", HEADER + b"\r\nhi\r\n"),
        ("a@a.test", "jörg@b.test", HEADER + b"\r\nhi\r\n"),
        ("a@a.test", "b@b.test", UTF8_HEADER),
        ("a@a.test", "b@b.test", UTF8_PART),
        ("a@a.test", "b@b.test", DEEP),  # nobody looked at all of it
    ],
)
async def test_what_needs_smtputf8_waits_for_it(stand: Stand, sender: str, recipient: str, content: bytes) -> None:
    session = await stand.session(Script(extensions=["8BITMIME"]))
    with pytest.raises(SmtpUtf8Error) as refused:
        await session.send(Mail.of(sender, [recipient], content, smtputf8=True))
    assert not refused.value.permanent
    assert session.usable


@pytest.mark.parametrize("content", [HEADER + b"\r\nhi\r\n", EIGHT_BIT])
@pytest.mark.parametrize("extensions", [[], ["8BITMIME"]])
async def test_what_turns_out_not_to_need_smtputf8_goes_without(
    stand: Stand, content: bytes, extensions: list[str]
) -> None:
    session = await stand.session(Script(extensions=extensions))
    sent = await session.send(Mail.of("a@a.test", ["b@b.test"], content, smtputf8=True))
    assert sent.results[0].accepted
    assert "SMTPUTF8" not in stand.server.messages[0].mail_params


def test_every_unsendable_error_says_whether_it_is_for_good() -> None:
    kinds = SmtpUnsendableError.__subclasses__()
    assert {kind.__name__: kind.permanent for kind in kinds} == {
        "SmtpSizeError": True,
        "SmtpUtf8Error": False,
        "SmtpEightBitError": True,
        "SmtpAddressError": True,
        "SmtpContentError": True,
    }
