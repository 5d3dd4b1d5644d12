import base64
import hashlib
import hmac
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SecretUnreadable, ValidationFailed
from shared.security.credentials import (
    ApiKey,
    VerifiedPasswords,
    hash_password,
    key_hash,
    key_matches,
    new_api_key,
    opaque_string,
    password_matches,
    scram_verifier,
    split_api_key,
)
from shared.security.keys import KeyRing

RING = KeyRing(["s" * 32])


def test_an_api_key_has_the_documented_form_and_comes_apart_again() -> None:
    key = new_api_key()
    assert re.fullmatch(r"ph_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", key.text)
    assert split_api_key(key.text) == key
    assert key.secret not in repr(key)


def test_the_text_of_a_sandbox_key_says_so() -> None:
    key = new_api_key(is_test=True)
    assert re.fullmatch(r"ph_test_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", key.text)
    assert split_api_key(key.text) == key
    assert split_api_key(key.text.replace("test_", "")) == ApiKey(key.key_id, key.secret)


def test_two_api_keys_share_nothing() -> None:
    first, second = new_api_key(), new_api_key()
    assert first.key_id != second.key_id
    assert first.secret != second.secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ph_",
        "ph_abc_def",
        "ph_test_" + "a" * 56,
        f" ph_{'a' * 12}_{'b' * 43}",
        f"ph_{'a' * 12}_{'b' * 43}\n",
        "\ud800",
    ],
)
def test_other_texts_are_no_api_keys(text: str) -> None:
    assert split_api_key(text) is None


def test_only_the_right_secret_matches() -> None:
    key = new_api_key()
    stored = key_hash(RING, key.secret)
    assert re.fullmatch(r"v1:[0-9a-f]{8}:[0-9a-f]{64}", stored)
    assert key_matches(RING, stored, key.secret)
    assert not key_matches(RING, stored, new_api_key().secret)
    assert not key_matches(RING, stored, "\ud800")


def test_a_stored_hash_is_useless_without_the_secret_key() -> None:
    key = new_api_key()
    stored = key_hash(RING, key.secret)
    assert hashlib.sha256(key.secret.encode()).hexdigest() not in stored
    assert key_matches(KeyRing(["n" * 32, "s" * 32]), stored, key.secret)
    with pytest.raises(SecretUnreadable):
        key_matches(KeyRing(["n" * 32]), stored, key.secret)


@pytest.mark.parametrize("stored", ["", "v1:x", "v2:a:b", "plain"])
def test_a_damaged_hash_is_an_error_and_not_a_wrong_key(stored: str) -> None:
    with pytest.raises(SecretUnreadable):
        key_matches(RING, stored, "x" * 43)


def test_a_password_is_hashed_with_argon2id_and_matches_itself_only() -> None:
    stored = hash_password("correct horse")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert password_matches(stored, "correct horse")
    assert not password_matches(stored, "correct horse ")
    assert hash_password("correct horse") != stored


def test_a_password_may_be_typed_in_any_unicode_form() -> None:
    # mox-behaviour, case 13
    stored = hash_password("u\u0308ber\u00a0stra\u00dfe")
    assert password_matches(stored, "\u00fcber stra\u00dfe")
    assert password_matches(stored, "u\u0308ber\u3000stra\u00dfe")


def test_no_login_is_a_wrong_password() -> None:
    assert not password_matches(None, "anything")


@pytest.mark.parametrize("password", ["", "a\x00b", "line\n", "x" * 1025, "\ud800", "\ue000"])
def test_what_no_password_may_be(password: str) -> None:
    with pytest.raises(ValidationFailed):
        hash_password(password)
    with pytest.raises(ValidationFailed):
        scram_verifier(password)
    assert not password_matches(hash_password("x"), password)


def test_a_damaged_password_hash_is_an_error_and_not_a_wrong_password() -> None:
    with pytest.raises(SecretUnreadable):
        password_matches("plain", "plain")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Co"]), min_size=1, max_size=50))
def test_preparing_twice_changes_nothing(password: str) -> None:
    once = opaque_string(password)
    assert opaque_string(once) == once


def test_scram_verifier_gives_the_server_signature_of_rfc_7677() -> None:
    # RFC 7677 3, the example session: user "user", password "pencil"
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = scram_verifier("pencil", random=lambda _: salt)
    head, keys = verifier.removeprefix("SCRAM-SHA-256$").split("$")
    assert head == "4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    stored_key, server_key = (base64.b64decode(part) for part in keys.split(":"))
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    auth_message = (
        f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}".encode()
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored_key, auth_message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
    assert (
        base64.b64encode(hmac.digest(server_key, auth_message, "sha256"))
        == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


def test_scram_prepares_as_rfc_4013_says() -> None:
    def same(first: str, second: str) -> bool:
        return scram_verifier(first, random=lambda n: b"s" * n) == scram_verifier(second, random=lambda n: b"s" * n)

    assert same("I\u00adX", "IX")  # RFC 4013 3, example 1
    assert same("\u00aa", "a")  # example 4
    assert same("\u2168", "IX")  # example 5
    assert not same("user", "USER")  # examples 2 and 3
    # What SASLprep refuses (unassigned in Unicode 3.2, or bidirectional) still has a verifier: that of the password itself.
    assert not same("\U0001f600", "\U0001f601")
    assert not same("\u06271", "\u0627")  # example 7


def test_a_verified_password_is_known_for_a_while() -> None:
    now = [100.0]
    verified = VerifiedPasswords(seconds=60, clock=lambda: now[0])
    assert not verified.knows("a@b", "hash", "password")
    verified.remember("a@b", "hash", "password")
    assert verified.knows("a@b", "hash", "password")
    now[0] += 59.9
    assert verified.knows("a@b", "hash", "password")
    now[0] += 0.2
    assert not verified.knows("a@b", "hash", "password")


def test_a_verified_password_is_known_for_nothing_else() -> None:
    verified = VerifiedPasswords()
    verified.remember("a@b", "hash", "password")
    assert not verified.knows("a@b", "hash", "passwords")
    assert not verified.knows("a@c", "hash", "password")
    assert not verified.knows("a@b", "new hash", "password")
    assert not verified.knows("a@bh", "ash", "password")


def test_verified_passwords_are_bounded_and_the_oldest_goes() -> None:
    verified = VerifiedPasswords(limit=3)
    for number in range(5):
        verified.remember(f"login{number}", "hash", os.urandom(4).hex() if number else "password")
    assert len(verified) == 3
    assert not verified.knows("login0", "hash", "password")
