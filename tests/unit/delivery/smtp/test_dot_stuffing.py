"""Dot-stuffing: what we send is decoded to what it was, and a bare CR or LF is never sent."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.smtp.content import BareLineEndInContent, DotStuffer
from shared.smtpd.data import DataDecoder

CONTENT = st.lists(st.sampled_from([b"\r\n", b".", b"..", b"text", b"\xff", b""])).map(b"".join)


def stuff(chunks: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join([*(stuffer.feed(chunk) for chunk in chunks), stuffer.end()])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


@given(CONTENT, st.lists(st.integers(0, 10**6), max_size=10))
def test_the_server_gets_what_was_given(content: bytes, cuts: list[int]) -> None:
    wire = stuff(cut(content, cuts))
    assert wire == stuff([content])
    decoder = DataDecoder(10**6)
    assert decoder.feed(wire) == b""
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert decoder.content() == expected


@given(
    CONTENT,
    st.sampled_from([b"\r", b"\n", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\n\r"]),
    CONTENT,
    st.lists(st.integers(0, 10**6), max_size=6),
)
def test_a_bare_line_end_is_never_sent(before: bytes, bare: bytes, after: bytes, cuts: list[int]) -> None:
    content = before + b"x" + bare + b"x" + after
    with pytest.raises(BareLineEndInContent):
        stuff(cut(content, cuts))


@given(st.lists(st.binary(max_size=8)))
def test_nothing_but_the_end_looks_like_an_end(chunks: list[bytes]) -> None:
    try:
        wire = stuff(chunks)
    except BareLineEndInContent:
        return
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3


def test_a_missing_last_line_end_is_added() -> None:
    assert stuff([b"a"]) == b"a\r\n.\r\n"
    assert stuff([b""]) == b".\r\n"
    assert stuff([b".\r\n"]) == b"..\r\n.\r\n"
