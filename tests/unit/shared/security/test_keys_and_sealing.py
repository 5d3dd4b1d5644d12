import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigurationError, SecretUnreadable
from shared.security.keys import KeyRing, derive
from shared.security.sealing import seal, unseal

OLD, NEW = "o" * 32, "n" * 32


def test_keys_of_purposes_and_secrets_differ() -> None:
    keys = {derive("sealing", OLD), derive("sealing", NEW), derive("api-key-hash", OLD), derive("api-key-hash", NEW)}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}


def test_the_first_secret_writes_and_all_read() -> None:
    ring = KeyRing([NEW, OLD])
    assert ring.writing("x").key == derive("x", NEW)
    assert [key.key for key in ring.reading("x")] == [derive("x", NEW), derive("x", OLD)]
    assert ring.tagged("x", ring.tags[1]) == derive("x", OLD)


def test_derivation_is_a_promise_to_stored_data() -> None:
    # A change here makes every stored secret of every installation unreadable.
    assert derive("sealing", OLD).hex() == "8faa33df5def47e4d32479dcb4010d7d921b90ec8a791276ad8da0c7dbf238e6"
    assert KeyRing([OLD]).tags == ("8e5f7a48",)


def test_a_ring_needs_a_secret() -> None:
    with pytest.raises(ConfigurationError, match="POSTHOUSE_SECRET_KEY"):
        KeyRing([])


def test_a_ring_does_not_show_its_secrets() -> None:
    ring = KeyRing([OLD])
    assert OLD not in repr(ring)
    assert derive("x", OLD).hex() not in repr(ring.writing("x"))
    assert "key=" not in repr(ring.writing("x"))


def test_a_secret_twice_is_one_secret() -> None:
    assert KeyRing([OLD, OLD]).tags == KeyRing([OLD]).tags


@given(st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_what_was_sealed_opens_in_its_place(plaintext: bytes, context: str) -> None:
    ring = KeyRing([OLD])
    sealed = seal(ring, plaintext, context=context)
    assert unseal(ring, sealed, context=context) == plaintext
    with pytest.raises(SecretUnreadable):
        unseal(ring, sealed, context=context + "x")


def test_a_rotated_ring_opens_the_old_and_seals_with_the_new() -> None:
    before, during, after = KeyRing([OLD]), KeyRing([NEW, OLD]), KeyRing([NEW])
    sealed = seal(before, b"secret", context="c")
    assert unseal(during, sealed, context="c") == b"secret"
    assert unseal(after, seal(during, b"secret", context="c"), context="c") == b"secret"
    with pytest.raises(SecretUnreadable, match="POSTHOUSE_SECRET_KEY no longer holds"):
        unseal(after, sealed, context="c")


def test_two_seals_of_one_value_differ() -> None:
    ring = KeyRing([OLD])
    assert seal(ring, b"x", context="c") != seal(ring, b"x", context="c")


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_is_noticed(position: int, change: int) -> None:
    ring = KeyRing([OLD])
    sealed = bytearray(seal(ring, b"a secret", context="c").encode())
    position %= len(sealed)
    sealed[position] = (sealed[position] + change) % 128
    try:
        opened = unseal(ring, sealed.decode(), context="c")
    except SecretUnreadable:
        return
    assert opened == b"a secret"  # base64 may spell the same bytes twice


@pytest.mark.parametrize("sealed", ["", "v1", "v1:", "v2:aa:bb", "v1:tag:", "v1:tag:%%%", "\ud800", "v1:\ud800:x"])
def test_garbage_is_unreadable_and_nothing_else(sealed: str) -> None:
    with pytest.raises(SecretUnreadable):
        unseal(KeyRing([OLD]), sealed.replace("tag", KeyRing([OLD]).tags[0]), context="c")
