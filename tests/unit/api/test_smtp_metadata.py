"""What the header of a submitted message says to us (mox-behaviour 2.4 and 2.5)."""

from datetime import UTC, datetime

import pytest

from api.metadata import HeaderOptions, canonical, extra, options, waives_tls
from shared.errors import ValidationFailed


def test_extra_as_mox_spells_the_keys() -> None:
    fields = [
        ("X-Mox-Extra-Test", "testvalue"),
        ("X-Mox-Extra-a", " 123 "),
        ("X-Mox-Extra-☺", "☹"),
        ("X-Mox-Extra-x-cANONICAL-z", "ok"),
        ("x-posthouse-extra-order", "4711"),
        ("X-Mox-Extra-", "no key"),
        ("X-Mox-Other", "no"),
        ("Subject", "X-Mox-Extra-Subject: no"),
    ]
    assert extra(fields) == {
        "Test": "testvalue",
        "A": "123",
        "☺": "☹",
        "X-Canonical-Z": "ok",
        "Order": "4711",
        "": "no key",
    }


@pytest.mark.parametrize(
    "names",
    [
        ("X-Mox-Extra-Test", "X-Mox-Extra-Test"),
        ("X-Mox-Extra-a", "X-Mox-Extra-A"),
        ("X-Mox-Extra-Order", "X-Posthouse-Extra-order"),
    ],
)
def test_a_key_is_given_once(names: tuple[str, str]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        extra([(name, "same") for name in names])
    assert refused.value.field == "extra"


def test_a_name_that_is_no_token_is_kept_as_it_is() -> None:
    assert canonical("x-mox-extra-☺") == "x-mox-extra-☺"
    assert extra([("x-mox-extra-☺", "no")]) == {}


@pytest.mark.parametrize(
    ("values", "waived"),
    [([], False), (["No"], True), ([" no "], True), (["No", "NO"], True), (["No", "bogus"], False), (["yes"], False)],
)
def test_tls_required(values: list[str], waived: object) -> None:
    assert waives_tls([("TLS-Required", value) for value in values]) is waived


def test_options_of_the_header() -> None:
    fields = [
        ("X-Posthouse-Tag", "a, b ,,a"),
        ("x-posthouse-tag", "=?utf-8?q?gr=C3=BCn=2C?= c"),
        ("X-Posthouse-Expires-At", " 2026-11-20t13:00:00+01:00 "),
        ("X-POSTHOUSE-SAVE-SENT", "YES"),
        ("X-Posthouse-Extra-Tag", "no"),
        ("X-Mox-Tag", "no"),
    ]
    assert options(fields) == HeaderOptions(
        ("a", "b", "grün", "c"), datetime(2026, 11, 20, 12, 0, tzinfo=UTC), save_sent=True
    )
    assert options([("X-Posthouse-Tag", " "), ("X-Posthouse-Save-Sent", "no")]) == HeaderOptions()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("X-Posthouse-Expires-At", ["2026-11-20T13:00:00"]),
        ("X-Posthouse-Expires-At", ["2026-02-30T13:00:00Z"]),
        ("X-Posthouse-Expires-At", [""]),
        ("X-Posthouse-Expires-At", ["2026-11-20T13:00:00Z", "2026-11-20T13:00:00Z"]),
        ("X-Posthouse-Save-Sent", ["true"]),
        ("X-Posthouse-Save-Sent", [""]),
        ("X-Posthouse-Save-Sent", ["yes", "no"]),
    ],
)
def test_options_that_are_none_name_their_field(name: str, values: list[str]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        options([(name, value) for value in values])
    assert refused.value.field == f"raw.{name.lower()}"
