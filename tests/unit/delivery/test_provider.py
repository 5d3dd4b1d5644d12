"""Who runs a mail host."""

import pytest

from delivery.provider import provider_of


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("gmail-smtp-in.l.google.com", "google.com"),
        ("example-com.mail.protection.outlook.com", "outlook.com"),
        ("mx.shop.co.uk", "shop.co.uk"),
        ("mx", "mx"),
        ("co.uk", "co.uk"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_registrable_domain_runs_a_host_and_else_the_host_itself(host: str, provider: str) -> None:
    assert provider_of(host) == provider
