"""BDAT (RFC 3030)."""

from typing import Any

Stand = Any


async def test_chunks_make_a_message(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT 7\r\none\r\n.\rBDAT 5\r\n\ntwo\rBDAT 1 last\r\n\n")
    assert await client.codes(3) == [250, 250, 250]
    assert stand.handler.envelopes[0].content == b"one\r\n.\r\ntwo\r\n"


async def test_an_empty_last_chunk_ends_a_message(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT 3\r\nabcBDAT 0 LAST\r\nNOOP\r\n")
    assert await client.codes(3) == [250, 250, 250]
    assert stand.handler.envelopes[0].content == b"abc"


async def test_octets_of_a_refused_chunk_are_never_commands(stand: Stand) -> None:
    client = await stand.client()
    assert (await client.say("EHLO c")).startswith(b"250")
    client.write(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert await client.codes(3) == [503, 503, 250]


async def test_data_and_recipients_cannot_follow_a_chunk(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT 1\r\nxDATA\r\nRCPT TO:<c@c.test>\r\nRSET\r\nBDAT 1 LAST\r\nx")
    assert await client.codes(5) == [250, 503, 503, 250, 503]
    assert stand.handler.envelopes == []


async def test_chunks_together_keep_to_the_limit(stand: Stand) -> None:
    await stand.start(max_size=10)
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT 6\r\n123456BDAT 6\r\n123456BDAT 1 LAST\r\nxRSET\r\nNOOP\r\n")
    assert await client.codes(5) == [250, 552, 503, 250, 250]
    assert stand.handler.envelopes == []


async def test_a_bare_line_end_in_chunks_is_refused(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT 4\r\na\r\n\rBDAT 2 LAST\r\nb\nNOOP\r\n")
    assert await client.codes(3) == [250, 500, 250]
    assert stand.handler.envelopes == []


async def test_a_chunk_without_a_size_ends_the_connection(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT x LAST\r\nMAIL FROM:<evil@a.test>\r\n")
    assert await client.rest() == b"501 5.5.4 Syntax: BDAT <size> [LAST]\r\n"


async def test_a_gigantic_chunk_is_not_waited_for(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    client.write(b"BDAT 9999999999999999999 LAST\r\n")
    assert (await client.rest()).startswith(b"552 5.3.4")
