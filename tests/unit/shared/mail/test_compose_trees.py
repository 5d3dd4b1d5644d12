"""parse(compose(x)) == x over generated trees: what the standard library's parser finds is what was put in, level by level."""

import email
from datetime import UTC, datetime
from email.message import Message
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from shared.mail.address import Address
from shared.mail.compose import Composed, Draft, Mailbox, Part, compose
from shared.mail.mime import Part as Read
from shared.mail.mime import read
from shared.mail.raw import read_raw

# Texts that look like structure: boundaries, dots, empty lines, encoded words, ends of messages.
awkward = st.sampled_from(
    [
        "--",
        f"--{0:060x}",
        f"--{1:060x}--",
        ".",
        "",
        " ",
        "\t",
        "From me",
        "=20",
        "=?utf-8?q?=41?=",
        "Subject: x",
        "\x0c",
    ]
)
lines_of_text = st.lists(
    awkward | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=90)
)
texts = lines_of_text.map("\n".join).filter(bool)
contents = st.binary(max_size=200) | texts.map(str.encode)
names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60).map(str.strip)
types = st.sampled_from(["text/csv; charset=utf-8", "image/png", "application/x-own", "text/calendar; method=REQUEST"])
content_ids = st.none() | st.text("abcdef.0123456789@", min_size=1, max_size=30)
files = st.lists(st.builds(Part, names, types, contents, content_ids), max_size=3).map(tuple)
BOX = Mailbox("", Address("ada", "example.com"))


def box_draft(
    text: str | None, html: str, alternatives: tuple[Part, ...], inline: tuple[Part, ...], attachments: tuple[Part, ...]
) -> Draft:
    return Draft(
        sender=BOX,
        to=(BOX,),
        cc=(),
        reply_to=(),
        subject="s",
        text=text,
        html=html,
        message_id="<1@example.com>",
        date=datetime(2026, 11, 20, tzinfo=UTC),
        alternatives=alternatives,
        inline=inline,
        attachments=attachments,
    )


drafts = st.builds(box_draft, texts | st.none(), texts, files, files, files)


def composed(draft: Draft) -> Composed:
    # Numbers from two up: no text above can hold them, as it cannot hold random ones.
    numbers = count(2)
    return compose(draft, boundaries=lambda: f"{next(numbers):060x}")


def crlf(text: str) -> bytes:
    return (text if text.endswith("\n") else text + "\n").replace("\n", "\r\n").encode()


def file_tree(part: Part, disposition: str) -> object:
    assert part.content_type is not None
    content_id = f"<{part.content_id}>" if part.content_id else None
    return part.content_type.partition(";")[0], disposition, part.filename, content_id, part.content


def wanted(draft: Draft) -> object:
    """The tree of mox-behaviour 1.8: only the levels that are needed."""
    alternatives: list[object] = [
        (kind, None, None, None, crlf(text))
        for kind, text in (("text/plain", draft.text), ("text/html", draft.html))
        if text
    ]
    alternatives += [file_tree(part, "inline") for part in draft.alternatives]
    root = alternatives[0] if len(alternatives) == 1 else ("multipart/alternative", alternatives)
    if draft.inline:
        root = ("multipart/related", [root, *(file_tree(part, "inline") for part in draft.inline)])
    if draft.attachments:
        root = ("multipart/mixed", [root, *(file_tree(part, "attachment") for part in draft.attachments)])
    return root


def found(message: Message) -> object:
    assert not message.defects
    if message.is_multipart():
        return message.get_content_type(), [found(part) for part in message.get_payload()]  # type: ignore[arg-type]  # of parts
    disposition = message.get_content_disposition()
    filename = None if disposition is None else message.get_filename() or ""
    return message.get_content_type(), disposition, filename, message["Content-ID"], message.get_payload(decode=True)


def found_by_ours(part: Read) -> object:
    if part.parts:
        return part.content_type, [found_by_ours(child) for child in part.parts]
    return part.content_type, part.payload


def without_fields(tree: object) -> object:
    assert isinstance(tree, tuple)
    return (tree[0], [without_fields(part) for part in tree[1]]) if len(tree) == 2 else (tree[0], tree[4])


@given(drafts)
def test_the_tree_that_is_read_is_the_tree_that_was_composed(draft: Draft) -> None:
    assert found(email.message_from_bytes(composed(draft).message)) == wanted(draft)


@given(drafts)
def test_our_own_reader_agrees(draft: Draft) -> None:
    assert found_by_ours(read(composed(draft).message)) == without_fields(wanted(draft))


@given(drafts)
def test_a_composed_message_handed_in_whole_stays_as_it_is(draft: Draft) -> None:
    raw = composed(draft).message
    assert read_raw(raw, new_message_id=lambda: "<2@example.com>", date=draft.date).composed.message == raw
