"""SCRAM-SHA-256: the RFC's own exchange, and a client that was written from the RFC and knows nothing of the server."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SecretUnreadable
from shared.security.credentials import scram_verifier
from shared.security.scram import ScramFailed, ScramServer, Verifier, nobody, parse_verifier

# RFC 7677 section 3: user "user", password "pencil".
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

USER = "demo@posthouse.test"
STORED = scram_verifier("pencil")


class Client:
    """RFC 5802 section 3, step by step, for plain ASCII passwords."""

    def __init__(self, user: str, password: str, nonce: str) -> None:
        self.password, self.nonce = password, nonce
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"

    def first(self) -> bytes:
        return b"n,," + self.bare.encode()

    def final(self, server_first: bytes) -> bytes:
        nonce, salt, count = (part[2:] for part in server_first.decode().split(","))
        assert nonce.startswith(self.nonce)
        assert len(nonce) > len(self.nonce)
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(salt), int(count))
        client_key = hmac.new(salted, b"Client Key", "sha256").digest()
        without_proof = f"c=biws,r={nonce}"
        auth_message = f"{self.bare},{server_first.decode()},{without_proof}".encode()
        signature = hmac.new(hashlib.sha256(client_key).digest(), auth_message, "sha256").digest()
        proof = bytes(x ^ y for x, y in zip(client_key, signature, strict=True))
        server_key = hmac.new(salted, b"Server Key", "sha256").digest()
        self.expected = b"v=" + base64.b64encode(hmac.new(server_key, auth_message, "sha256").digest())
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def test_the_client_of_these_tests_says_what_the_rfc_says() -> None:
    client = Client("user", "pencil", "rOprNGfwEbeRWgbNEkqO")
    assert client.first() == RFC_CLIENT_FIRST
    assert client.final(RFC_SERVER_FIRST) == RFC_CLIENT_FINAL
    assert client.expected == RFC_SERVER_FINAL


def test_the_exchange_of_rfc_7677() -> None:
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", RFC_SALT, 4096)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    verifier = Verifier(4096, RFC_SALT, stored_key, hmac.digest(salted, b"Server Key", "sha256"))
    server = ScramServer()
    server.first(RFC_CLIENT_FIRST)
    # The RFC's server nonce is not base64 of anything, so it is put in place of ours.
    server._nonce = RFC_SERVER_FIRST[2:].partition(b",")[0].decode()
    assert server.challenge(verifier) == RFC_SERVER_FIRST
    assert server.final(RFC_CLIENT_FINAL) == RFC_SERVER_FINAL


@settings(max_examples=30, deadline=None)
@given(
    user=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=60),
    password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
    wrong=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
)
def test_only_the_right_password_passes(user: str, password: str, wrong: str) -> None:
    verifier = parse_verifier(scram_verifier(password))
    for tried in (password, wrong):
        client, server = Client(user, tried, "fyko+d2lbbFgONRv9qkxdawL"), ScramServer()
        assert server.first(client.first()) == user
        final = client.final(server.challenge(verifier))
        if tried == password:
            assert server.final(final) == client.expected
        else:
            with pytest.raises(ScramFailed, match="wrong"):
                server.final(final)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "GS2"),
        (b"n", "GS2"),
        (b"x,,n=user,r=abc", "GS2"),
        (b"p=tls-exporter,,n=user,r=abc", "channel binding"),
        (b"n,a=admin,n=user,r=abc", "another identity"),
        (b"n,,m=future,n=user,r=abc", "extension"),
        (b"n,,n=user", "malformed"),
        (b"n,,n=,r=abc", "user name"),
        (b"n,,n=a=b,r=abc", "user name"),
        (b"n,,r=abc,n=user", "user name"),
        (b"n,,n=user,r=", "nonce"),
        (b"n,,n=user,r=a b", "nonce"),
        (b"n,,n=\xff,r=abc", "UTF-8"),
        (b"n,,n=user,r=" + b"a" * 5000, "too long"),
    ],
)
def test_first_messages_that_are_refused(message: bytes, why: str) -> None:
    with pytest.raises(ScramFailed, match=why):
        ScramServer().first(message)


def test_one_may_act_for_oneself_and_write_extensions() -> None:
    assert ScramServer().first(b"y,a=user,n=user,r=abc,x=more") == "user"
    assert ScramServer().first(b"n,,n=a=2Cb=3Dc,r=abc") == "a,b=c"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda final: final.replace(b"c=biws", b"c=eSws"), "another exchange"),
        (lambda final: final.replace(b",r=", b",r=x"), "another exchange"),
        (lambda final: final.partition(b",p=")[0], "malformed"),
        (lambda final: final.partition(b",p=")[0] + b",p=%%%", "base64"),
        (lambda final: final.partition(b",p=")[0] + b",p=AAAA", "wrong"),
        (lambda final: b"r=" + final, "malformed|another"),
        (lambda _: b"", "malformed"),
    ],
)
def test_final_messages_that_are_refused(change: object, why: str) -> None:
    client, server = Client(USER, "pencil", "abc"), ScramServer()
    server.first(client.first())
    final = client.final(server.challenge(parse_verifier(STORED)))
    assert callable(change)
    with pytest.raises(ScramFailed, match=why):
        server.final(change(final))


def test_a_proof_is_good_once() -> None:
    client, server = Client(USER, "pencil", "abc"), ScramServer()
    server.first(client.first())
    final = client.final(server.challenge(parse_verifier(STORED)))
    server.final(final)
    with pytest.raises(ScramFailed):
        server.final(final)
    again = ScramServer()
    again.first(client.first())
    again.challenge(parse_verifier(STORED))
    with pytest.raises(ScramFailed, match="another exchange"):
        again.final(final)


def test_nobody_looks_like_somebody() -> None:
    first, second = nobody(b"k" * 32, USER), nobody(b"k" * 32, USER)
    assert first.salt == second.salt != nobody(b"k" * 32, "other@posthouse.test").salt
    assert (first.iterations, len(first.salt)) == (parse_verifier(STORED).iterations, len(parse_verifier(STORED).salt))
    assert first.stored_key != second.stored_key


@pytest.mark.parametrize(
    "stored", ["", "SCRAM-SHA-256$4096:AAAA$x:y", STORED + "x", STORED.replace("SHA-256", "SHA-1")]
)
def test_what_is_no_verifier_of_ours(stored: str) -> None:
    with pytest.raises(SecretUnreadable):
        parse_verifier(stored)


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_comes_is_refused_in_order(first: bytes, final: bytes) -> None:
    def exchange() -> None:
        server = ScramServer()
        server.first(first)
        server.challenge(parse_verifier(STORED))
        server.final(final)

    with pytest.raises(ScramFailed):
        exchange()
