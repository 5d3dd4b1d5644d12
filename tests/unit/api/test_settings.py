import pytest

from api.config import Settings
from shared.config import load
from shared.errors import ConfigurationError, ValidationFailed

HOOK = "http://127.0.0.1:5001/"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTHOUSE_DATABASE_URL", "postgresql://localhost/x")
    monkeypatch.setenv("POSTHOUSE_SECRET_KEY", "s" * 32)


def test_names_are_what_the_local_stack_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "API_HOST": "127.0.0.1",
        "API_PORT": "0",
        "API_REUSE_PORT": "true",
        "RELAY": "127.0.0.1:2525",
        "TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1",
    }.items():
        monkeypatch.setenv(f"POSTHOUSE_{name}", value)
    settings = load(Settings)
    assert (settings.api_host, settings.api_port, settings.api_reuse_port) == ("127.0.0.1", 0, True)
    assert settings.relay == "127.0.0.1:2525"
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "192.0.2.1/32"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RELAY", "localhost"),
        ("RELAY", "localhost:0"),
        ("RELAY", "localhost:smtp"),
        ("RELAY", ":25"),
        ("RELAY", "::1:25"),
        ("API_PORT", "65536"),
        ("TRUSTED_PROXIES", "10.0.0.0/40"),
        ("HOOKS_ALLOWED_NETWORKS", "private"),
        ("HOOKS_ALLOWED_PORTS", "80,http"),
        ("MAX_MESSAGE_BYTES", "0"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"POSTHOUSE_{name}", value)
    with pytest.raises(ConfigurationError, match=f"POSTHOUSE_{name}"):
        load(Settings)


def test_private_webhook_targets_are_for_the_local_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationFailed):
        load(Settings).outbound_policy.check_url(HOOK)
    monkeypatch.setenv("POSTHOUSE_HOOKS_ALLOW_PRIVATE", "true")
    with pytest.raises(ConfigurationError, match="POSTHOUSE_HOOKS_ALLOWED_NETWORKS"):
        load(Settings)
    monkeypatch.setenv("POSTHOUSE_ENV", "local")
    load(Settings).outbound_policy.check_url(HOOK)


def test_an_operator_opens_networks_and_ports_for_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTHOUSE_HOOKS_ALLOWED_NETWORKS", "127.0.0.0/8")
    with pytest.raises(ValidationFailed):
        load(Settings).outbound_policy.check_url(HOOK)
    monkeypatch.setenv("POSTHOUSE_HOOKS_ALLOWED_PORTS", "443, 5001")
    load(Settings).outbound_policy.check_url(HOOK)
    monkeypatch.setenv("POSTHOUSE_HOOKS_ALLOWED_PORTS", "any")
    load(Settings).outbound_policy.check_url("http://127.0.0.1:1/")
