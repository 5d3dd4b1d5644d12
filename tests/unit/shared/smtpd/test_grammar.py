"""Arguments of MAIL and RCPT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.smtpd.grammar import ArgumentRefused, PathArgument, parse_mail, parse_rcpt


@pytest.mark.parametrize(
    ("argument", "path", "parameters"),
    [
        ("FROM:<a@b.test>", "a@b.test", {}),
        ("FROM:<>", "", {}),
        ("FROM:<> SIZE=10", "", {"SIZE": "10"}),
        ("from:<a@b.test>  size=10   SMTPUTF8 ", "a@b.test", {"SIZE": "10", "SMTPUTF8": None}),
        ("FROM: <a@b.test>", "a@b.test", {}),
        ("FROM:<@relay.test,@other.test:a@b.test>", "a@b.test", {}),
        ('FROM:<"a b>c"@b.test> ENVID=QQ314159+3Dx', '"a b>c"@b.test', {"ENVID": "QQ314159+3Dx"}),
        ('FROM:<"a\\"b"@b.test>', '"a\\"b"@b.test', {}),
        ("FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]", {}),
        ("FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", {}),
        ("FROM:<a..b.@b.test>", "a..b.@b.test", {}),
        ("FROM:<jörg@bücher.test> SMTPUTF8", "jörg@bücher.test", {"SMTPUTF8": None}),
        ("FROM:<a@b_c.test>", "a@b_c.test", {}),
    ],
)
def test_mail_arguments(argument: str, path: str, parameters: dict[str, str | None]) -> None:
    assert parse_mail(argument) == PathArgument(path, parameters)


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        ("", 501, "5.5.4"),
        ("TO:<a@b.test>", 501, "5.5.4"),
        ("FROM:a@b.test", 501, "5.1.7"),
        ("FROM:<a>", 501, "5.1.7"),
        ("FROM:<a@>", 501, "5.1.7"),
        ("FROM:<@b.test>", 501, "5.1.7"),
        ("FROM:<a b@b.test>", 501, "5.1.7"),
        ("FROM:<a@b.test", 501, "5.1.7"),
        ("FROM:<a@b.test>SIZE=1", 501, "5.5.4"),
        ("FROM:<a@b.test> SIZE=", 501, "5.5.4"),
        ("FROM:<a@b.test> =1", 501, "5.5.4"),
        ("FROM:<a@b.test> SIZE=1 size=2", 501, "5.5.4"),
        ("FROM:<a@-b.test>", 501, "5.1.7"),
        ("FROM:<" + "a" * 65 + "@b.test>", 501, "5.1.7"),
        ("FROM:<a@" + "b" * 256 + ">", 501, "5.1.7"),
        ("FROM:<" + "ö" * 33 + "@b.test> SMTPUTF8", 501, "5.1.7"),
        ("FROM:<a\x01@b.test>", 501, "5.1.7"),
        ("FROM:<a@b.test> " + " ".join(f"P{number}" for number in range(31)), 501, "5.5.4"),
    ],
)
def test_bad_mail_arguments_get_their_code(argument: str, code: int, enhanced: str) -> None:
    with pytest.raises(ArgumentRefused) as refused:
        parse_mail(argument)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (code, enhanced)


def test_postmaster_needs_no_domain() -> None:
    assert parse_rcpt("TO:<PostMaster>").path == "PostMaster"


@pytest.mark.parametrize("argument", ["TO:<>", "TO:<a>", "TO:<a@b.test> X==", "FROM:<a@b.test>", "TO:a@b.test"])
def test_bad_recipients_are_refused(argument: str) -> None:
    with pytest.raises(ArgumentRefused):
        parse_rcpt(argument)


@given(st.text(max_size=200))
def test_no_argument_raises_anything_else(text: str) -> None:
    for parse in (parse_mail, parse_rcpt):
        for argument in (text, "FROM:<" + text, "TO:" + text):
            try:
                found = parse(argument)
            except ArgumentRefused as refused:
                assert refused.reply.code == 501  # noqa: PT017 - both ways are right, each with its condition
            else:
                assert not set(found.path) & set("\r\n\0")
