import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.mail.status import clean_text, parse_enhanced


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("5.1.1", "5.1.1"),
        ("5.1.1 User unknown", "5.1.1"),
        ("  4.2.2, full", "4.2.2"),
        ("5.7.708: blocked", "5.7.708"),
        ("#5.1.0 Address rejected", "5.1.0"),
        ("(#5.1.1)", "5.1.1"),
        ("[5.7.1] no", "5.7.1"),
        ("5.01.010 zeros", "5.1.10"),
        ("5.1.1.", "5.1.1"),
        ("2.0.0 ok", "2.0.0"),
        ("5.1.1.7 is an address", None),
        ("5.1.1234", None),
        ("3.1.1", None),
        ("15.1.1", None),
        ("5.1", None),
        ("User unknown 5.1.1", None),
        ("", None),
    ],
)
def test_an_enhanced_code_is_read_where_the_text_begins_with_one(text: str, code: str | None) -> None:
    assert parse_enhanced(text) == code


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("550 no such user", "550 no such user"),
        (b"550 no such user\r\n", "550 no such user"),
        ("a\0b", "ab"),
        (b"a\0b", "ab"),
        (b"caf\xe9 closed", "caf\ufffd closed"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("red \x1b[31m text", "red \ufffd[31m text"),
        ("c1 \x85 here", "c1 \ufffd here"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("a \u202e b", "a \ufffd b"),
        ("bare\rcr", "bare\ufffdcr"),
        ("boîte pleine 📪", "boîte pleine 📪"),
        ("", ""),
    ],
)
def test_text_from_the_network_is_cleaned(text: str | bytes, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_the_cut_is_in_octets_and_between_characters() -> None:
    assert clean_text("ü" * 10, limit=5) == "üü"
    assert clean_text("x" * 5000) == "x" * 4096


@settings(deadline=None)
@given(st.one_of(st.text(st.characters(codec=None)), st.binary()), st.integers(0, 64))
def test_whatever_comes_in_what_comes_out_can_be_stored(text: str | bytes, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned.encode()) <= limit
    assert "\0" not in cleaned
    assert all(c in "\n\t" or ord(c) >= 32 for c in cleaned)
    assert clean_text(cleaned, limit) == cleaned
