"""Lists of addresses as people and programs write them, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AddressInvalid, ValidationFailed
from shared.mail.address import Address
from shared.mail.fields import unfold
from shared.mail.headers import Mailbox, address_list
from shared.mail.mailboxes import read_mailboxes


def found(value: str) -> list[tuple[str, str]]:
    return [(mailbox.name, mailbox.address.unicode_text) for mailbox in read_mailboxes(value, field="raw.to")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("a@example.com", [("", "a@example.com")]),
        ("a@example.com, b@example.com", [("", "a@example.com"), ("", "b@example.com")]),
        ("Ada <a@example.com>", [("Ada", "a@example.com")]),
        ("<a@example.com>", [("", "a@example.com")]),
        ('"Lovelace, Ada" <a@example.com>,b@example.com', [("Lovelace, Ada", "a@example.com"), ("", "b@example.com")]),
        (r'"A \"quoted\" name" <a@example.com>', [('A "quoted" name', "a@example.com")]),
        ("=?utf-8?q?J=C3=BCrgen?= M. <j@example.com>", [("Jürgen M.", "j@example.com")]),
        ("Jürgen <jürgen@exämple.com>", [("Jürgen", "jürgen@exämple.com")]),
        ('"a@b c"@example.com', [("", '"a@b c"@example.com')]),
        ('Ada <"a>b"@example.com>', [("Ada", '"a>b"@example.com')]),
        ("a@example.com (the (old) one), (x) b@example.com", [("", "a@example.com"), ("", "b@example.com")]),
        ("undisclosed-recipients:;", []),
        ("Team: a@example.com, B <b@example.com>;, c@example.com", [("", "a@example.com"), ("B", "b@example.com"), ("", "c@example.com")]),
        ("Ada <@relay.example,@other.example:a@example.com>", [("Ada", "a@example.com")]),
    ],
)  # fmt: skip
def test_a_list_is_read_as_rfc_5322_has_it(value: str, expected: list[tuple[str, str]]) -> None:
    assert found(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "a@example.com b@example.com",
        "Ada",
        "Ada <>",
        "Ada <a@example.com",
        "<a@example.com> <b@example.com>",
        "<a@example.com> b@example.com",
        '"a@example.com',
        "a@example.com; b@example.com",
        "Team: a@example.com: b@example.com;",
        ": a@example.com;",
        "a@[192.0.2.1]",
        "a>b@example.com",
        "a@example.com\r\nBcc: b@example.com",
    ],
)
def test_what_is_no_list_is_refused_with_the_field(value: str) -> None:
    with pytest.raises((AddressInvalid, ValidationFailed)) as caught:
        read_mailboxes(value, field="raw.to")
    assert caught.value.field == "raw.to"


@given(st.text(st.sampled_from('a@.,;:<>"\\() =?')) | st.text())
def test_anything_is_either_a_list_or_refused(value: str) -> None:
    try:
        mailboxes = read_mailboxes(value, field="raw.to")
    except (AddressInvalid, ValidationFailed):
        return
    assert all(mailbox.address.domain for mailbox in mailboxes)


@pytest.mark.parametrize("piece", ["<", '"', "@a ", "<@a, ", '<"a"', "(", "a:", "\\", '<"\\"'])
def test_the_time_grows_with_the_length_only(piece: str) -> None:
    # Would take hours if it grew with the square, or worse.
    with pytest.raises((AddressInvalid, ValidationFailed)):
        read_mailboxes(piece * 60_000, field="raw.to")


names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs", "Cn", "Co")), max_size=60)
addresses = st.builds(
    Address, st.text("abcXYZ01!#-_ü", min_size=1, max_size=15), st.sampled_from(["example.com", "xn--tda.d"])
)


@given(st.lists(st.builds(Mailbox, names, addresses), min_size=1, max_size=6), st.booleans())
def test_what_is_written_into_a_field_is_read_back(mailboxes: list[Mailbox], utf8: bool) -> None:
    line = address_list("To", mailboxes, utf8=utf8).decode()
    assert list(read_mailboxes(unfold(line.removeprefix("To:").removesuffix("\r\n")), field="to")) == mailboxes
