"""What the header of a submitted message says to us (mox-behaviour 2.4 and 2.5)."""

import pytest

from api.metadata import canonical, extra, waives_tls
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
