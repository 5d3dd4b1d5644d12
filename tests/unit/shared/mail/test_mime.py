import email
from email.message import EmailMessage, Message
from email.policy import SMTP
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.mail.mime import Limits, Part, read

CORPUS = Path(__file__).parents[5] / "shared" / "bounce-corpus" / "messages"


def lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def shape(part: Part) -> list[object]:
    return [part.content_type, *(shape(child) for child in part.parts)]


REPORT = lines("""\
From: MAILER-DAEMON@mx.example
Subject: =?utf-8?q?Nicht_zustellbar=3A_Gr=C3=BC=C3=9Fe?=
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="=_x"
X-Folded: one
  two

preamble
--=_x
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=FC=DFe
--=_x
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

--=_x
Content-Type: message/rfc822

Subject: original
Content-Type: multipart/alternative; boundary=in

--in

one
--in
Content-Type: text/html
Content-Transfer-Encoding: base64

PGI+dHdvPC9iPg==
--in--
--=_x--
epilogue
""")


@pytest.mark.parametrize("raw", [REPORT, REPORT.replace(b"\r\n", b"\n")], ids=["CRLF", "LF"])
def test_a_report_is_read_as_its_tree(raw: bytes) -> None:
    message = read(raw)
    assert shape(message) == [
        "multipart/report",
        ["text/plain"],
        ["message/delivery-status"],
        ["message/rfc822", ["multipart/alternative", ["text/plain"], ["text/html"]]],
    ]
    assert message.params["report-type"] == "delivery-status"
    assert message.header("subject") == "Nicht zustellbar: Grüße"
    assert message.header("X-Folded") == "one  two"
    assert message.header("absent") == ""
    text, status, returned = message.parts
    assert text.text() == "Grüße"
    assert status.body.strip() == b"Reporting-MTA: dns; mx.example"
    assert returned.parts[0].header_block.startswith(b"Subject: original")
    assert returned.parts[0].header_block.endswith(
        b"boundary=in" + raw[-1:] if raw.count(b"\r") == 0 else b"boundary=in\r\n"
    )
    one, two = returned.parts[0].parts
    assert (one.body, two.payload) == (b"one", b"<b>two</b>")
    assert not message.truncated
    assert len(list(message.walk())) == 7


@pytest.mark.parametrize(
    ("raw", "content_type", "body"),
    [
        (b"", "text/plain", b""),
        (b"\r\n", "text/plain", b""),
        (b"no header at all", "text/plain", b"no header at all"),
        (b"Subject: only a header", "text/plain", b""),
        (b"From x@y Fri Nov 20\nSubject: mbox\n\nbody", "text/plain", b"body"),
        (b"Content-Type: nonsense\n\nbody", "text/plain", b"body"),
        (b"Content-Type: Text/HTML ; charset=x\n\nbody", "text/html", b"body"),
        (b"Content-Type: multipart/mixed\n\nno boundary", "multipart/mixed", b"no boundary"),
        (b"Content-Type: multipart/mixed; boundary=x\n\nnever seen", "multipart/mixed", b"never seen"),
        (b"Subject : old style\n\nbody", "text/plain", b"body"),
        (b"Subject: x\nthis line is none of a header\nbody", "text/plain", b"this line is none of a header\nbody"),
        (b"\x00\xff\xfe", "text/plain", b"\x00\xff\xfe"),
    ],
)
def test_what_is_hardly_mail_is_still_read(raw: bytes, content_type: str, body: bytes) -> None:
    message = read(raw)
    assert (message.content_type, message.body, message.parts) == (content_type, body, ())


def test_the_first_of_several_fields_counts_and_all_can_be_had() -> None:
    message = read(b"Received: one\nreceived: two\n\n")
    assert message.header("RECEIVED") == "one"
    assert message.headers("Received") == ("one", "two")


def test_parts_without_a_header_or_a_body_or_an_end() -> None:
    message = read(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n\n--b\nX: y\n--b  \t\n\ntail")
    assert [part.body for part in message.parts] == [b"", b"", b"", b"tail"]
    assert message.parts[2].header("X") == "y"


def test_the_outer_delimiter_ends_an_inner_multipart_that_has_no_end() -> None:
    message = read(
        b"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nx\n--o\n\ny\n--o--\n"
    )
    assert shape(message) == ["multipart/mixed", ["multipart/mixed", ["text/plain"]], ["text/plain"]]
    assert message.parts[0].parts[0].body == b"x"


def test_after_its_last_delimiter_a_multipart_has_no_more_parts() -> None:
    message = read(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n--b\n\ntwo\n--b--\n")
    assert [part.body for part in message.parts] == [b"one"]


def test_the_delimiters_of_a_multipart_end_with_it() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=i\n\n--i\n\nx\n"
    message = read(b"Content-Type: multipart/mixed; boundary=o\n\n--o\n" + inner + b"--o\n\ny\n--i\nz\n--o--\n")
    assert [part.body for part in message.parts[1:]] == [b"y\n--i\nz"]


def test_an_inner_multipart_may_not_steal_the_outer_boundary() -> None:
    message = read(
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n"
    )
    assert shape(message) == ["multipart/mixed", ["multipart/mixed"], ["text/plain"]]


def test_a_longer_boundary_is_not_taken_for_a_shorter_one() -> None:
    message = read(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--bb\n--b-\n-- \n--b--x\n--b--\n")
    assert message.parts[0].body == b"--bb\n--b-\n-- \n--b--x"


def test_the_parts_of_a_digest_are_messages() -> None:
    message = read(b"Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: in the digest\n\nx\n--b--\n")
    assert message.parts[0].content_type == "message/rfc822"
    assert message.parts[0].parts[0].header("Subject") == "in the digest"


def test_a_message_in_base64_stays_a_leaf_that_can_be_decoded() -> None:
    message = read(b"Content-Type: message/rfc822\nContent-Transfer-Encoding: BASE64\n\nU3ViamVjdDogaW4=")
    assert message.parts == ()
    assert read(message.payload).header("Subject") == "in"


def test_a_text_is_cut_at_its_limit() -> None:
    message = read(b"Content-Type: text/plain; charset=utf-8\n\n" + "ü".encode() * 100)
    assert message.text(limit=10) == "ü" * 10


def test_nesting_stops_at_the_limit_of_depth_and_says_so() -> None:
    raw = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(200)) + b"\nx"
    message = read(raw)
    depth, part = 1, message
    while part.parts:
        depth, part = depth + 1, part.parts[0]
    assert depth == 50
    assert message.truncated


def test_messages_in_messages_stop_at_the_limit_of_depth() -> None:
    message = read(b"Content-Type: message/rfc822\n\n" * 10_000)
    assert len(list(message.walk())) == 50
    assert message.truncated


def test_parts_stop_at_their_limit() -> None:
    message = read(
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 5000 + b"--b--\n", Limits(parts=10)
    )
    assert [part.body for part in message.parts] == [b"x"] * 9
    assert message.truncated


def test_fields_stop_at_their_limits() -> None:
    message = read(b"A: 1\n" * 20 + b"\nbody", Limits(fields=10))
    assert len(message.fields) == 10
    assert message.truncated
    assert message.body == b"body"
    message = read(b"A: " + b"x" * 100 + b"\n\nbody", Limits(field_octets=10))
    assert message.fields == (("A", b" " + b"x" * 9),)
    assert message.truncated
    many = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\nA: 1\nB: 2\n\nx\n" * 10
    message = read(many, Limits(all_fields=5))
    assert sum(len(part.fields) for part in message.walk()) == 5
    assert message.truncated


def test_dashed_lines_that_delimit_nothing_stop_at_their_limit() -> None:
    message = read(
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + b"--c\n" * 100 + b"--b\n\nlost\n",
        Limits(dashed_lines=50),
    )
    assert len(message.parts) == 1
    assert message.truncated


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 2_000_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + b"--c\n" * 2_000_000,
        b"X: y\n" + b" \n" * 4_000_000,
        b"X" * 20_000_000,
        b"X: " + b"y" * 20_000_000,
        b"a:\n" * 3_000_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n--b" + b" " * 20_000_000,
    ],
    ids=["parts", "dashes", "folds", "one line", "one field", "fields", "padding"],
)
def test_a_bomb_is_read_within_the_limits(raw: bytes) -> None:
    message = read(raw)
    message.header("X")
    assert len(list(message.walk())) <= 1000


PIECES = st.sampled_from(
    [
        *(
            b"\n",
            b"\r\n",
            b"--a\n",
            b"--a--\n",
            b"--b\r\n",
            b"--b--\r\n",
            b"--",
            b" folded\n",
            b"text\n",
            b"=FC=\n",
            b"\xff",
            b":",
        ),
        *(
            b"Content-Type: multipart/mixed; boundary=a\n",
            b"Content-Type: multipart/report; boundary=b\r\n",
            b"Content-Type: message/rfc822\n",
        ),
        *(
            b"Content-Transfer-Encoding: base64\n",
            b"Content-Transfer-Encoding: quoted-printable\n",
            b"Subject: x\n",
            b"Content-Type: text/plain; charset=utf-7\n",
        ),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(), st.lists(PIECES, max_size=60).map(b"".join)))
def test_nothing_raises_and_all_that_is_read_lies_in_the_message(raw: bytes) -> None:
    for part in read(raw).walk():
        assert part.body in raw
        assert part.header_block in raw
        part.text().encode()
        part.header("Subject").encode()
        start, body, end = part.span
        assert 0 <= start <= body <= end <= len(raw)
        for child in part.parts:
            assert body <= child.span[0]
            assert child.span[2] <= end


LEAVES = {"message/delivery-status", "message/feedback-report", "message/partial"}


def oracle(message: Message) -> list[object]:
    """The tree as the standard library reads it, what holds no whole message taken for the leaf that it is."""
    content_type = message.get_content_type().split()[0]  # a parameter without its semicolon stays in there
    if content_type in LEAVES or not isinstance(payload := message.get_payload(), list):
        return [content_type]
    return [content_type, *(oracle(child) for child in payload)]


CONTENTS = st.recursive(
    st.text(max_size=200).map(lambda text: ("text", text))
    | st.binary(max_size=200).map(lambda octets: ("bytes", octets)),
    lambda inner: st.tuples(st.sampled_from(["mixed", "related", "message"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


def build(content: tuple[str, object]) -> EmailMessage:
    kind, value = content
    message = EmailMessage(policy=SMTP)
    if kind == "text":
        message.set_content(value)
    elif kind == "bytes":
        message.set_content(value, maintype="application", subtype="octet-stream")
    elif kind == "message":
        message.set_content(build(value[0]))
    else:
        message["Content-Type"] = f"multipart/{kind}"
        for inner in value:
            message.attach(build(inner))
    return message


@settings(deadline=None)
@given(CONTENTS)
def test_well_formed_mail_is_read_as_the_standard_library_reads_it(content: tuple[str, object]) -> None:
    raw = build(content).as_bytes()
    expected, message = email.message_from_bytes(raw), read(raw)
    assert shape(message) == oracle(expected)
    for ours, theirs in zip(message.walk(), expected.walk(), strict=True):
        if not ours.parts:
            assert ours.payload.rstrip(b"\r\n") == (theirs.get_payload(decode=True) or b"").rstrip(b"\r\n")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the bounce corpus is not next to this tree")
def test_real_bounces_have_the_tree_that_the_standard_library_reads() -> None:
    different = {
        path.name
        for path in sorted(CORPUS.glob("*.eml"))
        if shape(read(path.read_bytes())) != oracle(email.message_from_bytes(path.read_bytes()))
    }
    assert different == set()
