from typing import Any

import pytest

from hooks.config import Settings
from shared.config import load
from shared.errors import ConfigurationError
from shared.security.outbound import DEFAULT_PORTS


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("POSTHOUSE_DATABASE_URL", "postgresql://nowhere/none")
    monkeypatch.setenv("POSTHOUSE_SECRET_KEY", "x" * 32)

    def put(**more: str) -> Settings:
        for name, value in more.items():
            monkeypatch.setenv(f"POSTHOUSE_{name}", value)
        return load(Settings)

    return put


def test_by_default_only_public_addresses_at_web_ports_are_called(environment: Any) -> None:
    policy = environment().outbound_policy
    assert (policy.allow_private, policy.allowed_networks, policy.allowed_ports) == (False, (), DEFAULT_PORTS)


def test_an_operator_opens_networks_and_ports_by_name(environment: Any) -> None:
    policy = environment(
        HOOKS_ALLOWED_NETWORKS="10.1.0.0/16, fd00::/8", HOOKS_ALLOWED_PORTS="443, 9000"
    ).outbound_policy
    assert policy.check_address("10.1.2.3") is None
    assert policy.check_address("fd00::1") is None
    assert policy.check_address("10.2.0.1") is not None
    assert policy.allowed_ports == {443, 9000}


def test_any_port(environment: Any) -> None:
    assert environment(HOOKS_ALLOWED_PORTS="any").outbound_policy.allowed_ports is None


def test_the_local_stack_may_call_itself_at_any_port(environment: Any) -> None:
    policy = environment(ENV="local", HOOKS_ALLOW_PRIVATE="true").outbound_policy
    assert policy.check_address("127.0.0.1") is None
    assert policy.allowed_ports is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HOOKS_ALLOW_PRIVATE", "true", "POSTHOUSE_HOOKS_ALLOWED_NETWORKS"),
        ("HOOKS_ALLOWED_NETWORKS", "10.1.0.0/99", "POSTHOUSE_HOOKS_ALLOWED_NETWORKS"),
        ("HOOKS_ALLOWED_PORTS", "https", "POSTHOUSE_HOOKS_ALLOWED_PORTS"),
        ("HOOKS_ALLOWED_PORTS", "0", "POSTHOUSE_HOOKS_ALLOWED_PORTS"),
        ("HOOKS_TIMEOUT_SECONDS", "61", "POSTHOUSE_HOOKS_TIMEOUT_SECONDS"),
        ("HOOKS_IN_FLIGHT", "0", "POSTHOUSE_HOOKS_IN_FLIGHT"),
    ],
)
def test_a_setting_that_cannot_be_is_named(environment: Any, name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        environment(**{name: value})
