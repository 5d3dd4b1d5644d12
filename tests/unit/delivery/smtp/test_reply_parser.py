"""Replies of servers: tolerant within bounds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.smtp.reply import MalformedReply, ReplyParser


def parse(data: bytes) -> list[tuple[int, str, str]]:
    parser = ReplyParser()
    parser.feed(data)
    facts = [reply.facts(enhanced=True) for reply in parser.replies]
    return [(fact.code, fact.enhanced, fact.text) for fact in facts]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"250 OK\r\n", (250, "", "OK")),
        (b"250\r\n", (250, "", "")),
        (b"250 OK\n", (250, "", "OK")),
        (b"550 5.1.1 No such user\r\n", (550, "5.1.1", "5.1.1 No such user")),
        (b"550-5.1.1 No\r\n550 5.1.1 user\r\n", (550, "5.1.1", "5.1.1 No\n5.1.1 user")),
        (b"550 4.1.1 class differs\r\n", (550, "", "4.1.1 class differs")),
        (b"550 gr\xfc\xdfe\0\r\n", (550, "", "gr\ufffd\ufffde")),
        (b"600 odd\r\n", (600, "", "odd")),
    ],
)
def test_replies(data: bytes, expected: tuple[int, str, str]) -> None:
    assert parse(data) == [expected]


def test_an_enhanced_code_counts_only_where_it_was_announced() -> None:
    parser = ReplyParser()
    parser.feed(b"550 5.1.1 No\r\n")
    assert parser.replies[0].facts(enhanced=False).enhanced == ""


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"2200\r\n",
        b"\r\n",
        b"25\r\n",
        b"150 no\r\n",
        b"250-a\r\n251 b\r\n",
        b"250" + b" x" * 3000 + b"\r\n",
        b"250-x\r\n" * 200,
        b"250-" + b"x" * 4_000 + b"\r\n250-" + (b"y" * 4_000 + b"\r\n250-") * 20,
        b"x" * 5000,
        b"250 x\r\n" * 10_000,
        "２５０ OK\r\n".encode(),
    ],
)
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(MalformedReply):
        ReplyParser().feed(data)


@given(
    st.lists(st.tuples(st.integers(200, 599), st.lists(st.text("abc .-", max_size=10), min_size=1, max_size=4))),
    st.lists(st.integers(0, 10**6)),
)
def test_any_chunking_gives_the_same_replies(replies: list[tuple[int, list[str]]], cuts: list[int]) -> None:
    data = b"".join(
        f"{code}{'-' if number < len(lines) - 1 else ' '}{line}\r\n".encode()
        for code, lines in replies
        for number, line in enumerate(lines)
    )
    parser = ReplyParser()
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        parser.feed(data[start:end])
    assert [(reply.code, reply.lines) for reply in parser.replies] == replies
    parser.replies.clear()
    assert parser.empty


@given(st.binary(max_size=300))
def test_no_octets_raise_anything_else(data: bytes) -> None:
    parser = ReplyParser()
    try:
        parser.feed(data)
    except MalformedReply:
        return
    for reply in parser.replies:
        assert "\0" not in reply.facts(enhanced=True).text


def test_many_short_replies_are_not_a_long_one() -> None:
    assert len(parse(b"250 some text\r\n" * 8_000)) == 8_000
