"""DATA decoding: what was sent comes out, in any chunking, and nothing but CRLF.CRLF ends a message."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.smtpd.data import DataDecoder, Flaw, has_bare_line_end

LINES = st.lists(
    st.binary(max_size=30).map(lambda line: line.replace(b"\r", b".").replace(b"\n", b"."))
    | st.sampled_from([b"", b".", b"..", b".x"])
)
OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"x", b"\r\n.", b"MAIL FROM:<a@b>"])).map(b"".join)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def decode(chunks: list[bytes], limit: int = 10**6) -> tuple[DataDecoder, bytes | None]:
    decoder = DataDecoder(limit)
    rest: bytes | None = None
    for number, chunk in enumerate(chunks):
        rest = decoder.feed(chunk)
        if rest is not None:
            return decoder, rest + b"".join(chunks[number + 1 :])
    return decoder, rest


def stuff(lines: list[bytes]) -> bytes:
    return b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)


@given(LINES, st.lists(st.integers(0, 10**6), max_size=10), st.binary(max_size=20))
def test_any_message_in_any_chunking_comes_out_as_it_was(lines: list[bytes], cuts: list[int], after: bytes) -> None:
    decoder, rest = decode(cut(stuff(lines) + b".\r\n" + after, cuts))
    assert rest == after
    assert decoder.flaw is None
    assert decoder.content() == b"".join(line + b"\r\n" for line in lines)
    assert decoder.size == len(decoder.content())


@given(OCTETS, st.lists(st.integers(0, 10**6), max_size=10))
def test_only_crlf_dot_crlf_ends_and_bare_line_ends_spoil(octets: bytes, cuts: list[int]) -> None:
    end = (b"\r\n" + octets).find(b"\r\n.\r\n")
    decoder, rest = decode(cut(octets, cuts))
    assert (rest is None) == (end < 0)
    message = octets if end < 0 else octets[:end]
    if end >= 0:
        assert rest == octets[end + 3 :]
        assert (decoder.flaw is Flaw.BARE_LINE_END) == has_bare_line_end(message)
    if decoder.flaw is None and end >= 0:
        assert not has_bare_line_end(decoder.content())


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r"])
def test_other_line_ends_never_end_a_message(end: bytes) -> None:
    decoder, rest = decode([b"one" + end + b"MAIL FROM:<evil@b.test>"])
    assert rest is None
    assert decoder.flaw is Flaw.BARE_LINE_END


@given(st.integers(1, 200), st.integers(0, 400), st.lists(st.integers(0, 1000), max_size=6))
def test_what_is_over_the_limit_is_counted_not_kept(limit: int, size: int, cuts: list[int]) -> None:
    decoder, rest = decode(cut(b"x" * size + b"\r\n.\r\n", cuts), limit)
    assert rest == b""
    assert (decoder.flaw is Flaw.TOO_BIG) == (size + 2 > limit)
    assert decoder.size == size + 2
    if decoder.flaw is not None:
        assert decoder.content() == b""


def test_a_dot_right_away_ends_an_empty_message() -> None:
    decoder, rest = decode([b".\r\nQUIT\r\n"])
    assert (decoder.content(), rest) == (b"", b"QUIT\r\n")
