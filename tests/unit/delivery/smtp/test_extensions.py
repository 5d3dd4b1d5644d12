"""What a server offers."""

import pytest

from delivery.smtp.extensions import parse_extensions
from delivery.smtp.transaction import is_writable


def test_a_full_reply() -> None:
    found = parse_extensions(
        [
            "mx.test greets you",
            "PIPELINING",
            "size 1000",
            "8BITMIME",
            "SMTPUTF8 ignored",
            "EnhancedStatusCodes",
            "CHUNKING",
            "STARTTLS",
            "REQUIRETLS",
            "DSN",
            "AUTH PLAIN LOGIN",
            "LIMITS RCPTMAX=20 MAILMAX=5",
        ]
    )
    assert found.esmtp
    assert found.pipelining
    assert (found.size, found.size_offered) == (1000, True)
    assert found.eight_bit_mime
    assert found.smtputf8
    assert found.enhanced_status_codes
    assert found.chunking
    assert found.starttls
    assert found.requiretls
    assert found.dsn
    assert found.rcpt_max == 20
    assert found.auth == ("PLAIN", "LOGIN")


def test_the_greeting_line_offers_nothing() -> None:
    assert not parse_extensions(["PIPELINING"]).pipelining


@pytest.mark.parametrize(
    ("line", "size"),
    [("SIZE", None), ("SIZE 0", None), ("SIZE x", None), ("SIZE 10", 10), ("SIZE ²", None), ("SIZE -1", None)],
)
def test_sizes(line: str, size: int | None) -> None:
    found = parse_extensions(["mx", line])
    assert found.size == size
    assert found.size_offered


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [
        ("RCPTMAX=1", 1),
        ("RCPTMAX=0", None),
        ("RCPTMAX=1000000", None),
        ("RCPTMAX=x", None),
        ("RCPTMAX=1 RCPTMAX=2", None),
        ("RCPTMAX", None),
        ("", None),
        ("MAILMAX=3", None),
        ("rcptmax=7", 7),
        ("RCPTMAX=5 nonsense", None),
    ],
)
def test_limits(parameters: str, limit: int | None) -> None:
    assert parse_extensions(["mx", f"LIMITS {parameters}"]).rcpt_max == limit


@pytest.mark.parametrize("path", ["a@b.test", '"a b>"@b.test', "a@[192.0.2.1]", "Postmaster", "o'x+y=z@b.test"])
def test_addresses_that_can_be_written(path: str) -> None:
    assert is_writable(path, smtputf8=False)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "a@b.test>",
        "a@b.test\r\nDATA",
        "a b@c.test",
        "a@b.test> NOTIFY=NEVER",
        '"a"b"@c.test',
        "a@b@c.test",
        "ö@b.test",
    ],
)
def test_addresses_that_would_become_something_else(path: str) -> None:
    assert not is_writable(path, smtputf8=False)


def test_non_ascii_addresses_need_smtputf8() -> None:
    assert is_writable("jörg@bücher.test", smtputf8=True)
    assert not is_writable("\ud800@b.test", smtputf8=True)


def test_transactions_of_a_session() -> None:
    assert parse_extensions(["mx", "LIMITS MAILMAX=3 RCPTMAX=9"]).mail_max == 3
    assert parse_extensions(["mx", "LIMITS MAILMAX=0 RCPTMAX=9"]).mail_max is None
    assert parse_extensions(["mx", "LIMITS RCPTMAX=9"]).mail_max is None
