"""Certificates for tests: one throw-away authority and the TLS contexts made of it."""

import ssl
from datetime import UTC, datetime
from functools import cache

import trustme


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_context(*names: str) -> ssl.SSLContext:
    """A server's context with a good certificate for the names (localhost and 127.0.0.1 where none is given)."""
    return _server(authority().issue_cert(*(names or ("localhost", "127.0.0.1"))))


@cache
def expired_context(*names: str) -> ssl.SSLContext:
    return _server(
        authority().issue_cert(*(names or ("localhost", "127.0.0.1")), not_after=datetime(2020, 1, 1, tzinfo=UTC))
    )


@cache
def self_signed_context(*names: str) -> ssl.SSLContext:
    """A certificate of an authority that nobody trusts."""
    return _server(trustme.CA().issue_cert(*(names or ("localhost", "127.0.0.1"))))


@cache
def trusting_context() -> ssl.SSLContext:
    """A client's context that trusts the authority and checks names."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def _server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
