"""Tokens find their delivery under any live key, in any case, and nothing else does."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AddressInvalid, ConfigurationError, ValidationFailed
from shared.mail.address import parse
from shared.mail.from_id import FromIds, chosen_token, return_path, token_of

OLD, NEW, FOREIGN = (bytes([octet]) * 16 for octet in (1, 2, 3))


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_token_reads_back_in_any_case(delivery_id: int) -> None:
    from_ids = FromIds([NEW])
    token = from_ids.make(delivery_id)
    assert re.fullmatch(r"[a-z2-7]{26}", token)
    assert from_ids.read(token) == delivery_id
    assert from_ids.read(token.upper()) == delivery_id


def test_after_a_rotation_tokens_of_the_old_key_are_still_read() -> None:
    rotated = FromIds([NEW, OLD])
    assert rotated.read(FromIds([OLD]).make(7)) == 7
    assert rotated.make(7) == FromIds([NEW]).make(7)
    assert rotated.make(7) != FromIds([OLD]).make(7)


def test_keys_with_the_same_tag_are_all_tried() -> None:
    # Nine keys share four tags, so some pair collides whatever the tag function is.
    keys = [bytes([octet]) * 16 for octet in range(9)]
    everyone = FromIds(keys)
    assert [everyone.read(FromIds([key]).make(42)) for key in keys] == [42] * 9


@given(st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=26, max_size=26))
def test_made_up_tokens_are_not_read(token: str) -> None:
    assert FromIds([NEW, OLD]).read(token) is None


@pytest.mark.parametrize(
    "token", ["", "a", "a" * 25, "a" * 27, "1" * 26, "ı" * 26, "ſ" * 26, "a" * 25 + "\n", "é" * 26]
)
def test_what_is_no_token_is_not_read(token: str) -> None:
    assert FromIds([NEW]).read(token) is None


def test_each_changed_character_spoils_a_token() -> None:
    from_ids = FromIds([NEW, OLD])
    token = from_ids.make(123_456)
    for position, character in enumerate(token):
        for other in set("abcdefghijklmnopqrstuvwxyz234567") - {character}:
            assert from_ids.read(token[:position] + other + token[position + 1 :]) is None


def test_a_token_of_a_foreign_key_is_not_read() -> None:
    assert FromIds([NEW, OLD]).read(FromIds([FOREIGN]).make(1)) is None


@pytest.mark.parametrize("keys", [[], [b"short"], [NEW, b"x" * 32]])
def test_keys_must_be_aes_128_keys(keys: list[bytes]) -> None:
    with pytest.raises(ConfigurationError):
        FromIds(keys)


def test_the_return_path_keeps_the_base_of_the_sender() -> None:
    token = FromIds([NEW]).make(1)
    assert return_path(parse("MOX+foo@Ü.d"), token) == f"MOX+{token}@xn--tda.d"
    assert return_path(parse("mox-foo@d"), token, separator="-") == f"mox-{token}@d"
    assert return_path(parse('"a b"@d'), token) == f'"a b+{token}"@d'
    assert return_path(parse("mox@d"), token, bounce_domain="bounces.d") == f"b+{token}@bounces.d"


def test_a_return_path_too_long_for_smtp_needs_a_bounce_domain() -> None:
    token = FromIds([NEW]).make(1)
    longest = parse("a" * 37 + "@d")
    assert return_path(longest, token) == f"{longest.local}+{token}@d"
    too_long = parse("a" * 38 + "@d")
    with pytest.raises(ValidationFailed, match="bounce domain"):
        return_path(too_long, token)
    assert return_path(too_long, token, bounce_domain="bounces.d") == f"b+{token}@bounces.d"


def test_what_a_client_chose_is_the_text_after_the_first_separator() -> None:
    assert chosen_token("user+abc", "+") == "abc"
    assert chosen_token("user+abc+d.E", "+") == "abc+d.E"
    assert chosen_token("us-er+abc", "-") == "er+abc"
    assert chosen_token("user+", "+") == ""
    assert chosen_token("user", "+") is None


@pytest.mark.parametrize("token", ["a b", "ü", ".a", "a.", "a..b", 'a"b', "a\\b", "a,b"])
def test_a_chosen_token_that_needs_quotes_is_refused(token: str) -> None:
    with pytest.raises(ValidationFailed, match="from_id of your own"):
        chosen_token(f"user+{token}", "+")


LOCALS = st.text(min_size=1, max_size=37).map(
    lambda local: '"' + re.sub(r'(["\\\\])', r"\\\1", local) + '"@Example.com'
)
SEPARATORS = st.text("!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=8)


@given(
    LOCALS, SEPARATORS, st.integers(min_value=0, max_value=2**63 - 1), st.sampled_from([None, "bounces.example.com"])
)
def test_the_token_of_any_return_path_is_found(
    text: str, separator: str, delivery_id: int, bounce_domain: str | None
) -> None:
    from_ids = FromIds([NEW])
    try:
        sender = parse(text)
        path = return_path(sender, from_ids.make(delivery_id), separator=separator, bounce_domain=bounce_domain)
    except (AddressInvalid, ValidationFailed):
        return  # no address, or too long a one: refused with words of their own
    for came_back in (path, path.encode().lower().decode(), path.encode().upper().decode()):
        token = token_of(parse(came_back).local)
        assert token is not None
        assert from_ids.read(token) == delivery_id


def test_what_is_too_short_has_no_token() -> None:
    assert token_of("user+abc") is None
    assert token_of("a" * 26) is None
