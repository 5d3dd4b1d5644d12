"""The grammar of mox-behaviour 1.6, the refusals of ours, and the two keys of the suppression list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AddressInvalid
from shared.mail.address import Address, canonical, mox_key, parse, parse_domain, suppression_key


@pytest.mark.parametrize(
    ("text", "local", "domain", "written"),
    [
        ("name@example.com", "name", "example.com", "name@example.com"),
        ("X@D.EXAMPLE", "X", "d.example", "X@d.example"),
        ("o'brien!#$%&*+-/=?^_`{|}~@d", "o'brien!#$%&*+-/=?^_`{|}~", "d", "o'brien!#$%&*+-/=?^_`{|}~@d"),
        ("me@localhost", "me", "localhost", "me@localhost"),
        ("a@r3---sn.example", "a", "r3---sn.example", "a@r3---sn.example"),
        ("a@1and1.example", "a", "1and1.example", "a@1and1.example"),
        ('"a b"@d', "a b", "d", '"a b"@d'),
        ('"plain"@d', "plain", "d", "plain@d"),
        (r'"a\"b\\c\d"@d', 'a"b\\cd', "d", r'"a\"b\\cd"@d'),
        ('"a@b"@d', "a@b", "d", '"a@b"@d'),
        ('""@d', "", "d", '""@d'),
        ("ü@d", "ü", "d", "ü@d"),
        ("u\u0308@d", "ü", "d", "ü@d"),
        ("x@ü.d", "x", "xn--tda.d", "x@xn--tda.d"),
        ("x@XN--TDA.d", "x", "xn--tda.d", "x@xn--tda.d"),
        ("x@Ü。D", "x", "xn--tda.d", "x@xn--tda.d"),
        ("x@☺.LocalHost", "x", "xn--74h.localhost", "x@xn--74h.localhost"),
        ("a" * 64 + "@" + "b" * 63 + ".d", "a" * 64, "b" * 63 + ".d", "a" * 64 + "@" + "b" * 63 + ".d"),
    ],
)
def test_an_address_is_read_and_written_in_its_normal_form(text: str, local: str, domain: str, written: str) -> None:
    address = parse(text)
    assert (address.local, address.domain, address.text) == (local, domain, written)
    assert parse(address.text) == address
    assert parse(address.unicode_text) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no @"),
        ("bad", "no @"),
        ("@d", "before the @ is missing"),
        ("x@", "domain after the @ is missing"),
        ('"a"@', "domain after the @ is missing"),
        ("<x@d>", "without < >"),
        (" x@d", "spaces"),
        ("x@d ", "spaces"),
        ("a..b@d", "two in a row"),
        (".a@d", "begins or ends with a dot"),
        ("a.@d", "begins or ends with a dot"),
        ("a b@d", "' '"),
        ("a(b)@d", "'('"),
        ('"a@d', "does not end"),
        ('"a"b@d', "does not end"),
        ("a@b@c", "more than one @"),
        ("x@d.", "ends with a dot"),
        ("x@a..d", "empty label"),
        ("x@.d", "empty label"),
        ("x@127.0.0.1", "IP addresses"),
        ("x@127.1", "IP addresses"),
        ("x@[1.2.3.4]", "address literals"),
        ("x@[IPv6:::1]", "address literals"),
        ("a@b_c.d", "letters, digits and hyphens"),
        ("x@-a.d", "letters, digits and hyphens"),
        ("x@a-.d", "letters, digits and hyphens"),
        ("x@a b.d", "letters, digits and hyphens"),
        ("x@ü_b.d", "no domain name may have"),
        ("x@xn--zz.d", "internationalised"),
        ("x@xn--abc-.d", "internationalised"),
        ("x@xn---tda.d", "internationalised"),
        ("x@אa.d", "internationalised"),
        ("x@-ü.d", "internationalised"),
        ("x@aü--b.d", "internationalised"),
        ("x@a\u200dü.d", "internationalised"),
        ("x@\u0301a.d", "internationalised"),
        ("x@" + "b" * 64 + ".d", "63"),
        ("x@" + "ü" * 60 + ".d", "63"),
        ("x@" + ".".join(["b" * 60] * 5), "253"),
        ("a" * 65 + "@d", "64"),
        ("ü" * 33 + "@d", "64"),
        ('"' + '"' * 2 + '"@d', "does not end"),
        ('"' + " " * 63 + '"@d', "64"),
        ("a" * 2_000_000 + "@d", "far longer"),
        ("x\0@d", "U+0000"),
        ("x@d\0", "U+0000"),
        ('"a\r\nRCPT TO:<b@c>"@d', "U+000D"),
        ("x@d\n", "U+000A"),
        ("\ud800@d", "U+D800"),
        ("x@\udfff.d", "U+DFFF"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(AddressInvalid) as caught:
        parse(text, field="to[3].address")
    assert says in caught.value.message
    assert caught.value.field == "to[3].address"


def test_a_domain_is_read_by_itself() -> None:
    assert parse_domain("Bücher.Example") == "xn--bcher-kva.example"
    with pytest.raises(AddressInvalid):
        parse_domain("")


def test_an_address_shows_its_domain_to_people_and_says_whether_it_needs_smtputf8() -> None:
    address = parse("x@xn--tda.d")
    assert (address.domain_unicode, address.unicode_text, address.is_ascii) == ("ü.d", "x@ü.d", True)
    assert not parse("ü@d").is_ascii


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Remote.Last-catchall@xn--74h.localhost", "remotelast@☺.localhost"),
        ("M.j.l2+catchall@Mox.example", "mjl2@mox.example"),
        ("remote.LAST+more@☺.LocalHost", "remotelast@☺.localhost"),
        ("s.2-foo+bar@localhost", "s2@localhost"),
        ("+x@d", '""@d'),
        ("-x@d", '""@d'),
        ("Straße@d", "straße@d"),
    ],
)
def test_the_mox_key_is_the_base_address_of_mox(text: str, key: str) -> None:
    assert mox_key(parse(text)) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Some.Body-x+Tag+more@Ü.Example", "some.body-x@xn--tda.example"),
        ("a@d", "a@d"),
        ("Ü+x@d", "ü@d"),
        ('"A b+c"@d', '"a b"@d'),
    ],
)
def test_the_suppression_key_keeps_dots_and_hyphens(text: str, key: str) -> None:
    assert suppression_key(parse(text)) == key


def test_the_canonical_address_is_cut_at_the_separator_that_stands_first() -> None:
    address = parse("Sales-eu+x@d")
    assert canonical(address, ["+", "-"]) == Address("Sales", "d")
    assert canonical(address, ["+"]) == Address("Sales-eu", "d")
    assert canonical(address, []) == address
    assert canonical(address, ["="]) == address


@given(st.text(max_size=80) | st.builds("{}@{}".format, st.text(max_size=20), st.text(max_size=20)))
def test_any_text_is_read_or_refused_and_what_is_read_reads_back_the_same(text: str) -> None:
    try:
        address = parse(text)
    except AddressInvalid:
        return
    assert parse(address.text) == address
    assert parse(address.unicode_text) == address
    assert address.domain.isascii()
    assert len(address.text.rpartition("@")[0].encode()) <= 64
    for key in (suppression_key(address), mox_key(address)):
        assert "\n" not in key


@given(st.text('abcXYZ0123.!+-_ "\\@(ü', max_size=20))
def test_any_local_part_survives_quoting(local: str) -> None:
    address = Address(local, "d")
    assert parse(address.text) == address
