import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from shared.errors import ValidationFailed
from shared.security.webhook_signing import new_secret, parse_secret, sign

BODY = '{"type":"delivery.delivered","text":"grüße"}'.encode()


def headers(secrets: list[bytes], timestamp: int, body: bytes = BODY) -> dict[str, str]:
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, "evt_1", timestamp, body),
    }


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(min_value=0, max_value=4_000_000_000)
)
def test_signatures_equal_those_of_the_reference_library(text: str, timestamp: int) -> None:
    secret = new_secret()
    expected = Webhook(secret).sign("evt_1", datetime.fromtimestamp(timestamp, UTC), text)
    assert sign([parse_secret(secret)], "evt_1", timestamp, text.encode()) == expected


def test_the_reference_library_verifies_what_we_sign() -> None:
    secret = new_secret()
    now = int(datetime.now(UTC).timestamp())
    signed = headers([parse_secret(secret)], now)
    assert Webhook(secret).verify(BODY, signed) == {"type": "delivery.delivered", "text": "grüße"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, signed)


def test_while_a_secret_is_replaced_both_verify() -> None:
    old, new = new_secret(), new_secret()
    signed = headers([parse_secret(new), parse_secret(old)], int(datetime.now(UTC).timestamp()))
    assert Webhook(old).verify(BODY, signed) == Webhook(new).verify(BODY, signed)
    assert signed["webhook-signature"].count("v1,") == 2


def test_a_secret_is_256_bits_of_randomness() -> None:
    assert len(parse_secret(new_secret())) == 32
    assert new_secret() != new_secret()


def encoded(length: int) -> str:
    return "whsec_" + base64.b64encode(b"x" * length).decode()


def test_a_secret_that_was_brought_along_has_24_to_64_bytes() -> None:
    assert parse_secret(encoded(24)) == b"x" * 24
    assert parse_secret(encoded(64)) == b"x" * 64


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_%%%", encoded(23), encoded(65), encoded(32)[6:], encoded(32) + "\n", "whsec_\ud800"]
)
def test_other_texts_are_no_secrets(text: str) -> None:
    with pytest.raises(ValidationFailed) as error:
        parse_secret(text)
    assert error.value.field == "secret"


def test_an_id_that_would_make_the_signed_text_ambiguous_is_refused() -> None:
    with pytest.raises(ValueError, match="full stop"):
        sign([b"x" * 32], "evt.1", 1, b"")
