"""No message within a message: only CRLF is a line end, whatever the peer meant."""

from typing import Any

import pytest

Stand = Any

EVIL = b"MAIL FROM:<evil@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nevil\r\n.\r\n"


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\n", b"\r"]
)
async def test_no_other_line_end_ends_a_message_or_is_accepted_inside_one(stand: Stand, end: bytes) -> None:
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"one" + end + EVIL)
    assert await client.rest() == b"500 5.5.2 Bare CR or LF received; lines end with CRLF (RFC 5321 2.3.8)\r\n"
    assert stand.handler.envelopes == []


@pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\nMAIL FROM:<evil@a.test>\r\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"\n"])
async def test_commands_with_bare_line_ends_end_the_connection(stand: Stand, line: bytes) -> None:
    client = await stand.client()
    client.write(line + EVIL)
    assert (await client.rest()).startswith(b"500 5.5.2 Bare CR or LF")
    assert stand.handler.envelopes == []


async def test_octet_by_octet_changes_nothing(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    for octet in b"..a\r\n.b\r\n\r\n..\r\n.\r\n":
        client.write(bytes([octet]))
        await client.writer.drain()
    assert await client.codes(1) == [250]
    assert stand.handler.envelopes[0].content == b".a\r\nb\r\n\r\n.\r\n"
