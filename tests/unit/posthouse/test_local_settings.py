"""The options of ``posthouse local``: defaults, variables, and a clear line for what cannot be."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posthouse.app import app
from posthouse.settings import LocalSettings, Plan, ignored_variables, plan
from shared.errors import ConfigurationError


def checked(**given: Any) -> Plan:
    return plan(LocalSettings(**given))


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = LocalSettings()
    assert (settings.bind, settings.http_port, settings.smtp_port) == ("127.0.0.1", 8080, 1025)
    assert (settings.submission_port, settings.submissions_port) == (1587, 1465)
    assert settings.data_dir == Path(".posthouse")
    result = checked()
    assert result.workers == {"api": 1, "delivery": 1, "hooks": 1, "dsn-ingest": 1}
    assert result.loopback
    assert result.relay is None
    assert result.data_dir.is_absolute()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"incoming_webhook": "http://127.0.0.1:9/"}, "--incoming-webhook"),
        ({"webhook_format": "mox"}, "--webhook-format mox"),
    ],
)
def test_what_is_not_there_yet_is_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked(**given)
    assert caught.value.message.startswith(words)
    assert "not part of this version" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"webhook_format": "xml"}, "'xml' is unknown"),
        ({"bind": "somewhere"}, "--bind 'somewhere' is no IP address"),
        ({"http_port": 2525, "smtp_port": 2525}, "--http-port and --smtp-port are both 2525"),
        ({"submissions_port": 1587}, "--submission-port and --submissions-port are both 1587"),
        ({"route": "mail.example"}, "not host:port"),
        ({"route": "::1:25"}, "not host:port"),
        ({"route": ":25"}, "not host:port"),
        ({"route": "a b:25"}, "not host:port"),
        ({"route": "mail.example:0"}, "'0' is no port"),
        ({"route": "mail.example:65536"}, "'65536' is no port"),
        ({"route": "mail.example:²"}, "is no port"),
        ({"outgoing_webhook": "ftp://127.0.0.1/"}, "--outgoing-webhook: "),
        ({"outgoing_webhook": "http://169.254.169.254/latest"}, "--outgoing-webhook: "),
        ({"bind": "0.0.0.0", "outgoing_webhook": "http://127.0.0.1:9/"}, "--outgoing-webhook: "),
        ({"webhook_authorization": "Bearer x"}, "needs --outgoing-webhook"),
        ({"database_url": "mysql://u:hunter2@h/d"}, "--database-url begins with postgresql://"),
        ({"nats_url": "http://h:4222"}, "--nats-url begins with nats://"),
        ({"workers": "api"}, "--workers 'api'"),
        ({"workers": "apx=2"}, "--workers 'apx=2'"),
        ({"workers": "api=2,api=3"}, "at most once"),
        ({"workers": "hooks=0"}, "1 to 16"),
        ({"workers": "hooks=17"}, "1 to 16"),
        ({"workers": "hooks=two"}, "1 to 16"),
    ],
)
def test_what_cannot_be_is_named_with_its_option(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked(**given)
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message
    assert "\n" not in caught.value.message


def test_workers_are_counted_per_service() -> None:
    assert checked(workers=" api=2, hooks = 4,").workers == {"api": 2, "delivery": 1, "hooks": 4, "dsn-ingest": 1}


def test_a_route_may_be_a_name_or_an_address() -> None:
    assert checked(route="mail.example:2525").relay == "mail.example:2525"
    assert checked(route="[::1]:25").relay == "[::1]:25"


@pytest.mark.parametrize(
    ("bind", "reachable", "loopback"),
    [
        ("localhost", "127.0.0.1", True),
        ("127.0.0.9", "127.0.0.9", True),
        ("[::1]", "::1", True),
        ("0.0.0.0", "127.0.0.1", False),
        ("::", "::1", False),
        ("192.0.2.7", "192.0.2.7", False),
    ],
)
def test_the_stack_knows_how_its_own_machine_reaches_it(bind: str, reachable: str, loopback: bool) -> None:
    result = checked(bind=bind)
    assert (result.reachable_host, result.loopback) == (reachable, loopback)


def test_other_variables_are_ignored_by_name() -> None:
    environment = {
        "POSTHOUSE_DATABASE_URL": "postgresql://production/",
        "POSTHOUSE_LOCAL_HTTP_PORT": "0",
        "POSTHOUSE_LOCAL_HTTPPORT": "0",
        "PATH": "/bin",
    }
    assert ignored_variables(environment) == ["POSTHOUSE_DATABASE_URL", "POSTHOUSE_LOCAL_HTTPPORT"]


def test_every_option_can_be_given_as_a_variable() -> None:
    refused = {"POSTHOUSE_LOCAL_SUBMISSION_PORT": "1465"}
    result = CliRunner().invoke(app, ["local"], env=refused)
    assert isinstance(result.exception, ConfigurationError)
    assert "--submission-port" in str(result.exception)


@pytest.mark.parametrize("arguments", [["--http-port", "65536"], ["--smtp-port", "x"], ["--unknown"], ["surplus"]])
def test_what_typer_refuses_ends_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["local", *arguments])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
