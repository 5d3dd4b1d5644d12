"""SASL mechanisms: the examples of the RFCs, and what a server that does not follow them gets."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.smtp.auth import CramMd5, ExchangeFailed, LoginMechanism, Plain, ScramSha256, choose, decoded
from delivery.smtp.facts import LONGEST_CREDENTIAL, Login
from shared.security.credentials import scram_verifier
from shared.security.scram import ScramServer, parse_verifier

# RFC 7677 section 3.
RFC_LOGIN = Login("user", "pencil")
RFC_NONCE = "rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
LETTERS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Co", "Cn"]), min_size=1, max_size=40)


def scram() -> ScramSha256:
    mechanism = ScramSha256(RFC_LOGIN, random=lambda count: b"\0" * count)
    # The RFC's nonce is not base64 of anything that comes in whole octets, so it is put in place of ours.
    mechanism._nonce = RFC_NONCE
    mechanism._bare = f"n=user,r={RFC_NONCE}"
    return mechanism


def test_the_exchange_of_rfc_7677() -> None:
    mechanism = scram()
    assert mechanism.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert mechanism.respond(RFC_SERVER_FIRST) == RFC_CLIENT_FINAL
    assert mechanism.respond(RFC_SERVER_FINAL) == b""
    mechanism.finish()


@pytest.mark.parametrize(
    "server_first",
    [
        b"",
        b"e=other-error",
        RFC_SERVER_FIRST.replace(b"rOpr", b"xOpr"),
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",  # it adds no nonce of its own
        RFC_SERVER_FIRST.replace(b"i=4096", b"i=4095"),
        RFC_SERVER_FIRST.replace(b"i=4096", b"i=9999999"),
        RFC_SERVER_FIRST.replace(b"i=4096", b"i=99999999999"),
        RFC_SERVER_FIRST.replace(b"s=W22", b"s=W2"),
        b"m=future," + RFC_SERVER_FIRST,
        b"\xff" + RFC_SERVER_FIRST,
    ],
)
def test_first_messages_of_a_server_that_are_refused(server_first: bytes) -> None:
    with pytest.raises(ExchangeFailed):
        scram().respond(server_first)


def test_success_without_the_servers_proof_is_none() -> None:
    mechanism = scram()
    with pytest.raises(ExchangeFailed, match="prove"):
        mechanism.finish()
    mechanism.respond(RFC_SERVER_FIRST)
    with pytest.raises(ExchangeFailed, match="prove"):
        mechanism.finish()
    with pytest.raises(ExchangeFailed, match="prove"):
        mechanism.respond(RFC_SERVER_FINAL.replace(b"v=6", b"v=7"))
    with pytest.raises(ExchangeFailed, match="prove"):
        mechanism.finish()


@settings(max_examples=30, deadline=None)
@given(user=LETTERS, password=LETTERS)
def test_scram_agrees_with_the_server_of_the_submission_door(user: str, password: str) -> None:
    mechanism, server = ScramSha256(Login(user, password)), ScramServer()
    first = mechanism.first()
    assert first is not None
    server.first(first)
    final = mechanism.respond(server.challenge(parse_verifier(scram_verifier(password))))
    assert mechanism.respond(server.final(final)) == b""
    mechanism.finish()


def test_the_exchange_of_rfc_2195() -> None:
    mechanism = CramMd5(Login("tim", "tanstaaftanstaaf"))
    assert mechanism.first() is None
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert mechanism.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    with pytest.raises(ExchangeFailed):
        mechanism.respond(challenge)


def test_plain_and_login() -> None:
    plain = Plain(Login("tim", "tanstaaftanstaaf"))
    assert base64.b64encode(plain.first() or b"") == b"AHRpbQB0YW5zdGFhZnRhbnN0YWFm"  # RFC 4616 4
    with pytest.raises(ExchangeFailed):
        plain.respond(b"")
    mechanism = LoginMechanism(Login("jörg", "pass wörd"))
    assert mechanism.first() is None
    assert [mechanism.respond(b"Username:"), mechanism.respond(b"")] == ["jörg".encode(), "pass wörd".encode()]
    with pytest.raises(ExchangeFailed):
        mechanism.respond(b"Password:")


@pytest.mark.parametrize(
    ("offered", "names"),
    [
        (("LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-256"), ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]),
        (("PLAIN", "LOGIN", "GSSAPI"), ["PLAIN", "LOGIN"]),
        (("XOAUTH2", "SCRAM-SHA-256-PLUS"), []),
        ((), []),
    ],
)
def test_the_strongest_comes_first(offered: tuple[str, ...], names: list[str]) -> None:
    assert [mechanism.name for mechanism in choose(RFC_LOGIN, offered)] == names


def test_a_login_may_narrow_the_choice() -> None:
    only = Login("user", "pencil", mechanisms=("PLAIN", "CRAM-MD5", "UNKNOWN"))
    chosen = choose(only, ("UNKNOWN", "CRAM-MD5", "SCRAM-SHA-256", "PLAIN"))
    assert [mechanism.name for mechanism in chosen] == ["PLAIN", "CRAM-MD5"]


@pytest.mark.parametrize(
    ("user", "password"),
    [("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\r\nb"), ("x", "\ud800"), ("x", "ü" * LONGEST_CREDENTIAL)],
)
def test_what_is_no_login(user: str, password: str) -> None:
    with pytest.raises(ValueError, match="of a login"):
        Login(user, password)


def test_a_password_is_not_shown() -> None:
    assert "pencil" not in repr(RFC_LOGIN)


@pytest.mark.parametrize("text", ["%%%", "AAA", "ü", "A=AA"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ExchangeFailed):
        decoded(text)
