"""Messages with eight bits or long lines: every reader finds the same content, and no octet over 127 is left in a body."""

import binascii
import email
from email import policy
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ValidationFailed
from shared.mail.mime_write import has_line_over, quoted_printable
from shared.mail.seven_bit import is_seven_bit, seven_bit


def lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def leaves(raw: bytes) -> list[bytes]:
    return [
        part.get_payload(decode=True)  # type: ignore[misc]  # a leaf has bytes
        for part in email.message_from_bytes(raw, policy=policy.compat32).walk()
        if not part.is_multipart()
    ]


def types(message: Message) -> list[str]:
    return [part.get_content_type() for part in message.walk()]


SINGLE = "From: a@example.com\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
TREE = lines("""\
From: a@example.com
Content-Type: multipart/mixed; boundary=out
content-transfer-encoding: 8bit

Das ist MIME für Menschen.
--out
Content-Type: multipart/alternative; boundary=in
Content-Transfer-Encoding: 8bit

--in
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding:
 8bit

Grüße aus Göttingen, and a good deal of plain text
--in

nur ASCII
--in--
--out
Content-Type: message/rfc822

Subject: inside
Content-Type: text/html; charset=utf-8

日本語
--out
Content-Type: application/pdf
Content-Transfer-Encoding: binary

%PDF-1.7 ÿ
--out--
Ende für alle.
""")


def test_a_text_of_eight_bits_becomes_quoted_printable_or_base64() -> None:
    mostly_ascii = seven_bit(lines(SINGLE + "Grüße and a good deal of plain text\n"))
    assert b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe and" in mostly_ascii
    assert b"Content-Transfer-Encoding: base64\r\n\r\n" in seven_bit(lines(SINGLE + "日本語\n"))


def test_a_tree_is_converted_leaf_by_leaf() -> None:
    result = seven_bit(TREE)
    assert is_seven_bit(result)
    before, after = email.message_from_bytes(TREE), email.message_from_bytes(result)
    assert types(before) == types(after)
    assert not [part.defects for part in after.walk() if part.defects]
    assert leaves(result) == leaves(TREE)
    assert b"\r\n\r\nnur ASCII\r\n--in--\r\n" in result
    encodings = [part["Content-Transfer-Encoding"] for part in after.walk()]
    assert encodings == ["7bit", "7bit", "quoted-printable", None, "7bit", "base64", "base64"]


@pytest.mark.parametrize("line", ["x" * 999, "x " * 600])
def test_a_line_too_long_for_mail_is_encoded(line: str) -> None:
    raw = lines(f"From: a@example.com\n\n{line}\n")
    result = seven_bit(raw)
    assert is_seven_bit(result)
    assert leaves(result) == leaves(raw)


def test_a_line_of_998_octets_stays() -> None:
    raw = lines("From: a@example.com\n\n" + "x" * 998 + "\nshort\n" + "y" * 998 + "\n")
    assert seven_bit(raw) == raw


def test_a_nul_is_encoded() -> None:
    raw = lines("From: a@example.com\n\na\0b\n")
    assert leaves(seven_bit(raw)) == leaves(raw)
    assert is_seven_bit(seven_bit(raw))


@pytest.mark.parametrize("text", ["x" * 300_000, "=" * 200_000, "ü \n" * 60_000, "x" * 65_535 + "\n" + "y" * 70_000])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_large_text_is_written_in_pieces_that_fit_together(text: str, end: str) -> None:
    content = lines(text + end)
    result = quoted_printable(content)
    assert binascii.a2b_qp(result) == content
    assert result.count(b"\r\n") == result.count(b"\n") == result.count(b"\r")
    assert max(map(len, result.split(b"\r\n"))) <= 76


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=2_000))
def test_quoted_printable_reads_back(text: str) -> None:
    result = quoted_printable(lines(text))
    assert binascii.a2b_qp(result) == lines(text)
    assert result.isascii()
    assert max(map(len, result.split(b"\r\n"))) <= 76
    assert result.count(b"\r\n") == result.count(b"\n") == result.count(b"\r")


@pytest.mark.parametrize("before", [0, 1, 65_000, 65_535, 65_536, 65_537, 131_072])
@pytest.mark.parametrize(("length", "over"), [(998, False), (999, True)])
def test_a_long_line_is_found_wherever_it_stands(before: int, length: int, over: bool) -> None:
    start = b"a\n" * (before // 2) + b"\n" * (before % 2)
    for end in (b"", b"\n", b"\r\n", b"\r\nb\r\n"):
        assert has_line_over(start + b"x" * length + end, 998) is over


def test_a_part_without_a_header_gets_one() -> None:
    raw = lines("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nGrüße\n--b--\n")
    assert [part.strip() for part in leaves(seven_bit(raw))] == ["Grüße".encode()]


def test_what_was_encoded_badly_is_encoded_again() -> None:
    raw = lines("Content-Transfer-Encoding: base64\n\n" + "SGVsbG8=" * 1 + " " * 1_000 + "\n")
    assert leaves(seven_bit(raw)) == [b"Hello"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("Content-Type: multipart/mixed\n\nGrüße\n", "boundary"),
        (
            "Content-Type: multipart/signed; boundary=b\n\n--b\n\nGrüße\n--b\nContent-Type: application/pgp-signature\n\nx\n--b--\n",
            "signed",
        ),
        ("".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(60)) + "\nü\n", "too many"),
    ],
)
def test_what_cannot_be_encoded_is_refused(raw: str, said: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        seven_bit(lines(raw))
    assert said in caught.value.message
    assert caught.value.field == "raw"


leaf = st.builds(
    lambda kind, text: f"Content-Type: {kind}; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{text}",
    st.sampled_from(["text/plain", "text/html", "application/x-thing"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0-"), max_size=1_200),
)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(leaf)
    boundary = draw(st.text("abc", min_size=3, max_size=3)) + str(depth)
    parts = draw(st.lists(trees(depth - 1), min_size=1, max_size=3))
    inner = "".join(f"\n--{boundary}\n{part}" for part in parts)
    preamble = draw(st.sampled_from(["", "für alle"]))
    return f"Content-Type: multipart/mixed; boundary={boundary}\n\n{preamble}{inner}\n--{boundary}--\n"


@given(trees())
def test_every_reader_finds_the_same_content_in_a_converted_tree(tree: str) -> None:
    raw = lines("From: a@example.com\n" + tree + "\n")
    result = seven_bit(raw)
    assert is_seven_bit(result)
    assert types(email.message_from_bytes(result)) == types(email.message_from_bytes(raw))
    # Base64 of a text has its own last line end.
    assert [part.rstrip(b"\r\n") for part in leaves(result)] == [part.rstrip(b"\r\n") for part in leaves(raw)]
