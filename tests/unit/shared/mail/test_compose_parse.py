"""Whatever is composed, the standard library's parsers read back as it was put in."""

import email
import re
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mail.address import Address
from shared.mail.compose import Composed, Draft, Mailbox, Part, compose

line_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=120)
body_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=400).filter(bool)
atom = st.text("abcXYZ019!#-_", min_size=1, max_size=20)
addresses = st.builds(Address, atom, st.sampled_from(["example.com", "xn--tda.d", "localhost"]))
mailboxes = st.builds(Mailbox, line_text, addresses)
token = st.text("abcdefxyz.0123456789", min_size=1, max_size=60)
parts = st.builds(
    Part,
    line_text.map(str.strip),
    st.sampled_from([None, "text/csv; charset=utf-8", "image/png"]),
    st.binary(max_size=300),
    st.none() | token,
)
drafts = st.builds(
    Draft,
    sender=mailboxes,
    to=st.lists(mailboxes, max_size=4).map(tuple),
    cc=st.lists(mailboxes, max_size=2).map(tuple),
    reply_to=st.lists(mailboxes, max_size=2).map(tuple),
    subject=line_text,
    text=body_text | st.none(),
    html=body_text,
    message_id=token.map("<{}@posthouse.test>".format),
    date=st.datetimes(min_value=datetime(1900, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001 - a bound
    references=st.lists(token.map("<{}@d>".format), max_size=5).map(tuple),
    headers=st.lists(st.tuples(token.map(lambda text: "X-" + text.replace(".", "-")), line_text), max_size=4).map(
        tuple
    ),
    alternatives=st.lists(parts, max_size=1).map(tuple),
    inline=st.lists(parts, max_size=2).map(tuple),
    attachments=st.lists(parts, max_size=2).map(tuple),
)


def composed(draft: Draft) -> Composed:
    numbers = count()
    return compose(draft, boundaries=lambda: f"{next(numbers):060x}")


def unfolded(value: str) -> str:
    return re.sub(r"\r\n(?=[ \t])", "", value)


def text_of(value: str | None) -> str:
    return "" if value is None else str(make_header(decode_header(unfolded(value))))


def mailboxes_of(value: str | None) -> list[tuple[str, str]]:
    return [] if value is None else [(text_of(name), address) for name, address in getaddresses([unfolded(value)])]


def leaves(message: Message) -> list[Message]:
    return [part for part in message.walk() if not part.is_multipart()]


def crlf(text: str) -> bytes:
    return (text if text.endswith("\n") else text + "\n").replace("\n", "\r\n").encode()


@given(drafts)
def test_the_compat32_parser_reads_back_what_was_composed(draft: Draft) -> None:
    raw = composed(draft).message
    message = email.message_from_bytes(raw)
    assert not message.defects
    assert text_of(message["Subject"]) == draft.subject
    for name, boxes in (("From", (draft.sender,)), ("To", draft.to), ("Cc", draft.cc), ("Reply-To", draft.reply_to)):
        assert mailboxes_of(message[name]) == [(box.name, box.address.text) for box in boxes]
    assert message["Message-Id"] == draft.message_id
    assert (message["References"] or "").split() == list(draft.references)
    for (name, value), found in zip(
        draft.headers, [item for item in message.items() if item[0].startswith("X-")], strict=True
    ):
        assert found[0] == name
        if "=?" not in value:
            assert text_of(found[1]) == value.strip(" ")
    texts = [crlf(text) for text in (draft.text, draft.html) if text]
    files = [*draft.alternatives, *draft.inline, *draft.attachments]
    found_parts = leaves(message)
    assert [part.get_payload(decode=True) for part in found_parts] == texts + [part.content for part in files]
    found_files = found_parts[len(texts) :]
    assert [part.get_filename() or "" for part in found_files] == [part.filename for part in files]
    assert [part["Content-ID"] for part in found_files] == [
        f"<{part.content_id}>" if part.content_id else None for part in files
    ]


@given(drafts)
def test_every_message_is_ascii_with_crlf_and_lines_that_fit(draft: Draft) -> None:
    result = composed(draft)
    raw = result.message
    assert raw.isascii()
    assert b"\0" not in raw
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert result.header.endswith(b"\r\n")
    assert b"\r\n\r\n" not in result.header
    assert b"bcc" not in {line.partition(b":")[0].lower() for line in result.header.split(b"\r\n")}


plain_words = st.lists(st.sampled_from(["Grüße", "word", "日本語", "x" * 30, "€", "and"]), min_size=1, max_size=12).map(
    " ".join
)


# The parser of 3.11 keeps the space between two encoded words of a display name, against RFC 2047 section 6.2: names are short here.
@given(
    plain_words,
    plain_words.filter(lambda name: len(name.encode()) <= 21),
    plain_words,
    body_text,
    st.binary(max_size=200),
)
def test_the_modern_parser_reads_back_what_was_composed(
    subject: str, name: str, filename: str, text: str, content: bytes
) -> None:
    box = Mailbox(name, Address("bob", "example.com"))
    draft = Draft(
        box,
        (box, box),
        (),
        (),
        subject,
        text,
        None,
        "<1@d>",
        datetime(2026, 11, 20, tzinfo=UTC),
        attachments=(Part(filename, "image/png", content),),
    )
    # policy.SMTP is policy.default with CRLF line ends.
    message = email.message_from_bytes(composed(draft).message, policy=policy.default)
    assert message["Subject"] == subject
    assert [(found.display_name, found.addr_spec) for found in message["To"].addresses] == [
        (name, "bob@example.com")
    ] * 2
    attachment = next(message.iter_attachments())
    assert attachment.get_filename() == filename
    assert attachment.get_content() == content
    part = next(part for part in message.walk() if part.get_content_type() == "text/plain")
    assert part.get_payload(decode=True) == crlf(text)


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 114, 100_000])
def test_files_of_every_size_read_back(size: int) -> None:
    box = Mailbox("", Address("bob", "example.com"))
    content = bytes(octet % 251 for octet in range(size))
    draft = Draft(
        box,
        (box,),
        (),
        (),
        "s",
        "t",
        None,
        "<1@d>",
        datetime(2026, 11, 20, tzinfo=UTC),
        attachments=(Part("f", None, content),),
    )
    assert leaves(email.message_from_bytes(composed(draft).message))[1].get_payload(decode=True) == content
