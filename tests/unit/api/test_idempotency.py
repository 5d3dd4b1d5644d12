"""Idempotency keys as clients write them, and what makes two submissions the same."""

import hashlib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.caller import AccountCaller
from api.idempotency import LONGEST, check_key, digest, key_of, of_batch, read_key
from api.submission import File, Party, Submission
from shared.errors import ValidationFailed

NAME = "Idempotency-Key"
CALLER = AccountCaller(1, 2, "api_key", uses_from_ids=True, is_test=False)
OF_WHOM_AND_HOW = {"door", "caller", "idempotency_key", "as_said"}


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("order-4711", "order-4711"),
        (" order-4711\t", "order-4711"),
        ('"8e03978e-40d5"', "8e03978e-40d5"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('a"b"', 'a"b"'),
        ("!~", "!~"),
        ("k" * LONGEST, "k" * LONGEST),
        (f'"{"k" * LONGEST}"', "k" * LONGEST),
    ],
)
def test_a_key_is_read_bare_or_quoted(written: str, key: str) -> None:
    assert read_key([written], field=NAME) == key


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        '""',
        "a b",
        "a, b",
        "k" * (LONGEST + 1),
        "\u00fc",
        "a\x7f",
        '"a',
        '"a"b"',
        '"a";b=1',
        r'"a\b"',
        '"a b"',
        '"',
        "a\n",
    ],
)
def test_what_is_no_key_is_refused(written: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        read_key([written], field=NAME)
    assert refused.value.field == NAME


def test_none_is_none_and_two_are_too_many() -> None:
    assert read_key([], field=NAME) is None
    with pytest.raises(ValidationFailed, match="2 Idempotency-Key fields"):
        read_key(["a", "a"], field=NAME)


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=LONGEST), st.integers(0, 499)
)
def test_no_client_can_write_a_key_that_we_derive(key: str, place: int) -> None:
    assert check_key(key, field=NAME) == key
    plain = Submission("rest", CALLER, idempotency_key=key)
    sandbox = key_of(replace(plain, caller=replace(CALLER, is_test=True)))
    assert sandbox is not None
    for derived in (of_batch(key, place), sandbox.text):
        with pytest.raises(ValidationFailed):
            check_key(derived, field=NAME)
    assert sandbox.text != of_batch(key, place)


ADDRESSES = st.sampled_from(["ada@example.com", "grace@example.org", "a", "b", "ab", ""])
TEXTS = st.text(max_size=8)
PARTIES = st.builds(Party, TEXTS, ADDRESSES, st.sampled_from(["to[0].address", "cc[1].address"]))
LISTS = st.lists(PARTIES, max_size=3).map(tuple)
MOMENTS = st.datetimes(timezones=st.just(UTC))
FILES = st.builds(
    File,
    TEXTS,
    st.binary(max_size=8),
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.sampled_from(["attachment", "inline", "alternative"]),
    st.sampled_from(["", "attachments[0]"]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "sender": st.none() | PARTIES,
    "to": LISTS,
    "cc": LISTS,
    "bcc": LISTS,
    "reply_to": LISTS,
    "subject": TEXTS,
    "text": st.none() | TEXTS,
    "html": st.none() | TEXTS,
    "files": st.lists(FILES, max_size=3).map(tuple),
    "headers": st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
    "message_id": st.none() | TEXTS,
    "date": st.none() | MOMENTS,
    "references": st.lists(TEXTS, max_size=3).map(tuple),
    "user_agent": st.none() | TEXTS,
    "raw": st.none() | st.binary(max_size=8),
    "mail_from": st.none() | PARTIES,
    "send_at": st.none() | MOMENTS,
    "require_tls": st.none() | st.booleans(),
    "expires_at": st.none() | MOMENTS,
    "save_sent": st.booleans(),
    "extra": st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
    "tags": st.lists(TEXTS, max_size=3).map(tuple),
}
SUBMISSIONS = st.builds(Submission, st.just("rest"), st.just(CALLER), **VALUES)


def content(value: Any) -> Any:
    """Return a value without where in the input it stood."""
    if isinstance(value, Party | File):
        return replace(value, field="")
    if isinstance(value, tuple):
        return tuple(content(item) for item in value)
    return value


def same(one: Submission, other: Submission) -> bool:
    return all(content(getattr(one, name)) == content(getattr(other, name)) for name in VALUES)


def test_every_field_is_known_here() -> None:
    assert {one.name for one in fields(Submission)} == VALUES.keys() | OF_WHOM_AND_HOW


@pytest.mark.parametrize("name", VALUES)
@given(st.data())
def test_a_change_of_one_field_is_another_submission_and_no_change_is_none(name: str, data: st.DataObject) -> None:
    one = data.draw(SUBMISSIONS)
    other = replace(one, **{name: data.draw(VALUES[name])})
    assert (digest(one) == digest(other)) == same(one, other)


@given(SUBMISSIONS, SUBMISSIONS)
def test_the_digest_is_the_same_for_the_same_content_only(one: Submission, other: Submission) -> None:
    assert (digest(one) == digest(other)) == same(one, other)


def test_nothing_can_move_from_one_value_to_the_next() -> None:
    plain = Submission("rest", CALLER)
    apart = [
        replace(plain, tags=("ab", "c")),
        replace(plain, tags=("a", "bc")),
        replace(plain, tags=("abc",)),
        replace(plain, references=("abc",)),
        replace(plain, to=(Party("ab", "c", ""),)),
        replace(plain, to=(Party("a", "bc", ""),)),
        replace(plain, cc=(Party("a", "bc", ""),)),
        replace(plain, to=(Party("a", "bc", ""), Party("a", "bc", ""))),
        replace(plain, text="", html=None),
        replace(plain, text=None, html=""),
        replace(plain, raw=b"", text=None),
        replace(plain, extra={"a": "bc"}),
        replace(plain, extra={"ab": "c"}),
        replace(plain, headers=(("a", "bc"),)),
        replace(plain, headers=(("ab", "c"),)),
    ]
    assert len({digest(one) for one in apart}) == len(apart)


@given(SUBMISSIONS)
def test_who_and_where_and_the_order_of_metadata_do_not_matter(one: Submission) -> None:
    extra = dict(reversed((one.extra or {}).items())) if one.extra is not None else None
    other = replace(
        one,
        door="webapi",
        caller=AccountCaller(7, 2, "login", uses_from_ids=False, is_test=False, login="ada@example.com"),
        idempotency_key="k",
        extra=extra,
        to=tuple(replace(party, field="elsewhere") for party in one.to),
        files=tuple(replace(file, field="elsewhere") for file in one.files),
    )
    assert digest(other) == digest(one)


def test_what_was_said_counts_where_the_moment_was_taken_into_account() -> None:
    now = datetime(2026, 11, 20, 13, tzinfo=UTC)
    said = {"send_at": "HOLDFOR=60"}
    first = Submission("smtp", CALLER, raw=b"x", send_at=now + timedelta(seconds=60), as_said=said)
    again = replace(first, send_at=now + timedelta(seconds=75))
    assert digest(again) == digest(first)
    assert digest(replace(again, send_at=None)) == digest(first)
    assert digest(replace(again, as_said={"send_at": "HOLDFOR=61"})) != digest(first)
    assert digest(replace(first, as_said=None)) != digest(replace(again, as_said=None))


def test_the_digest_of_today_is_known_tomorrow() -> None:
    """Replicas of the next version must know this one's repeats: the value stands in the database for a day."""
    one = Submission(
        "rest",
        CALLER,
        sender=Party("Ada", "ada@example.com", "from.address"),
        to=(Party("", "grace@example.org", "to[0].address"),),
        subject="Gr\u00fc\u00dfe",
        text="Hello",
        files=(File("a.txt", b"a"),),
        date=datetime(2026, 11, 20, 13, tzinfo=UTC),
        extra={"order": "4711"},
    )
    parts = (
        b"o7:",
        b"s6:sendero2:s4:names3:Adas7:addresss15:ada@example.com",
        b"s2:tol1:o2:s4:names0:s7:addresss17:grace@example.org",
        b"s7:subjects7:Gr\xc3\xbc\xc3\x9fe",
        b"s4:texts5:Hello",
        b"s5:filesl1:o2:s8:filenames5:a.txts7:contentb1:a",
        b"s4:dated2026-11-20T13:00:00+00:00;",
        b"s5:extram1:s5:orders4:4711",
    )
    assert digest(one) == hashlib.sha256(b"".join(parts)).digest()
