"""The options of ``posthouse local`` and ``posthouse migrate``, and what they come to.

``posthouse local`` reads ``POSTHOUSE_LOCAL_<NAME>`` and no other variable: a database that a shell happens to name must not
be taken for the sandbox.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from posthouse.options import option
from shared.errors import ConfigurationError, ValidationFailed
from shared.security.outbound import OutboundPolicy

PREFIX = "POSTHOUSE_LOCAL_"
SERVICES = ("api", "delivery", "hooks", "dsn-ingest")
PASSWORD = "posthouse-demo"  # noqa: S105 - public by design, and for loopback only
_MOST_WORKERS = 16

_LATER = {
    "incoming_webhook": "the webhook for inbound mail",
}


def _local(name: str, meaning: str, **more: object) -> object:
    return option(meaning, variable=PREFIX + name, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """What was given to ``posthouse local``, one field per option."""

    data_dir: Annotated[Path, _local("DATA_DIR", "All state; a second start continues with it.")] = Path(".posthouse")
    bind: Annotated[str, _local("BIND", "Address to listen on. Off loopback the password is generated.")] = "127.0.0.1"
    http_port: Annotated[int, _local("HTTP_PORT", "REST, /docs, /readyz; 0 takes a free one.", min=0, max=65535)] = 8080
    smtp_port: Annotated[
        int, _local("SMTP_PORT", "Inbound mail and reports; 0 takes a free one.", min=0, max=65535)
    ] = 1025
    submission_port: Annotated[
        int,
        _local("SUBMISSION_PORT", "Submission by SMTP with STARTTLS; 0 takes a free one.", min=0, max=65535),
    ] = 1587
    submissions_port: Annotated[
        int,
        _local("SUBMISSIONS_PORT", "Submission by SMTP over TLS; 0 takes a free one.", min=0, max=65535),
    ] = 1465
    outgoing_webhook: Annotated[
        str | None, _local("OUTGOING_WEBHOOK", "URL that hears what becomes of each delivery.", metavar="URL")
    ] = None
    incoming_webhook: Annotated[
        str | None, _local("INCOMING_WEBHOOK", "URL that gets inbound mail; not in this version.", metavar="URL")
    ] = None
    webhook_format: Annotated[str, _local("WEBHOOK_FORMAT", "posthouse; mox is not in this version.")] = "posthouse"
    webhook_authorization: Annotated[
        str | None, _local("WEBHOOK_AUTHORIZATION", "Value of the Authorization header of webhooks.", metavar="VALUE")
    ] = None
    route: Annotated[
        str | None,
        _local("ROUTE", "Deliver everything to this SMTP server instead of simulating.", metavar="HOST:PORT"),
    ] = None
    database_url: Annotated[
        str | None, _local("DATABASE_URL", "Use this Postgres instead of the embedded one.", metavar="URL")
    ] = None
    nats_url: Annotated[str | None, _local("NATS_URL", "Use this NATS instead of the embedded one.", metavar="URL")] = (
        None
    )
    workers: Annotated[
        str, _local("WORKERS", "Processes per service, e.g. api=2,hooks=4.", metavar="SERVICE=N,...")
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateSettings:
    """What was given to ``posthouse migrate``."""

    database_url: Annotated[
        str | None, option("The database.", variable="POSTHOUSE_DATABASE_URL", metavar="URL", show_default=False)
    ] = None
    wait: Annotated[float, option("Seconds to wait for Postgres.", min=0, max=3600)] = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Checked settings of a local stack."""

    settings: LocalSettings
    data_dir: Path
    """Absolute."""
    host: str
    """The address to listen on."""
    loopback: bool
    """Only programs on this machine can reach it."""
    relay: str | None
    """``host:port`` that everything is delivered to; None simulates."""
    workers: Mapping[str, int]
    """Processes of each service."""

    @property
    def reachable_host(self) -> str:
        """The address under which this machine reaches what listens on ``host``."""
        address = ipaddress.ip_address(self.host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
        return self.host


def plan(settings: LocalSettings) -> Plan:
    """Check the settings.

    Raises:
        ConfigurationError: names the option and what to do.
    """
    _refuse_later(settings)
    host = _host(settings.bind)
    loopback = ipaddress.ip_address(host).is_loopback
    _check_ports(settings)
    if settings.outgoing_webhook is not None:
        policy = OutboundPolicy(allow_private=loopback, allowed_ports=None)
        try:
            policy.check_url(settings.outgoing_webhook)
        except ValidationFailed as error:
            raise ConfigurationError(f"--outgoing-webhook: {error.message}") from None
    elif settings.webhook_authorization is not None:
        raise ConfigurationError("--webhook-authorization needs --outgoing-webhook")
    _check_url(settings.database_url, "--database-url", ("postgresql", "postgres"))
    _check_url(settings.nats_url, "--nats-url", ("nats", "tls"))
    return Plan(
        settings=settings,
        data_dir=settings.data_dir.expanduser().absolute(),
        host=host,
        loopback=loopback,
        relay=None if settings.route is None else _relay(settings.route),
        workers=_workers(settings.workers),
    )


def ignored_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names beginning with ``POSTHOUSE_`` that are set and not read, sorted."""
    known = {PREFIX + name.upper() for name in LocalSettings.__dataclass_fields__}
    return sorted(name for name in environment if name.startswith("POSTHOUSE_") and name not in known)


def _refuse_later(settings: LocalSettings) -> None:
    for field, what in _LATER.items():
        if getattr(settings, field) is not None:
            option_name = "--" + field.replace("_", "-")
            raise ConfigurationError(f"{option_name}: {what} is not part of this version of Posthouse; leave it out")
    if settings.webhook_format == "mox":
        raise ConfigurationError(
            "--webhook-format mox: mox's payloads are not part of this version of Posthouse; leave it out"
        )
    if settings.webhook_format != "posthouse":
        raise ConfigurationError(f"--webhook-format {settings.webhook_format!r} is unknown: give posthouse")


def _check_ports(settings: LocalSettings) -> None:
    taken: dict[int, str] = {}
    for option_name, port in ports(settings):
        if port and port in taken:
            raise ConfigurationError(f"{taken[port]} and {option_name} are both {port}: give them different ports")
        taken[port] = option_name


def ports(settings: LocalSettings) -> tuple[tuple[str, int], ...]:
    """Return every port that is listened on, with the option that sets it."""
    return (
        ("--http-port", settings.http_port),
        ("--smtp-port", settings.smtp_port),
        ("--submission-port", settings.submission_port),
        ("--submissions-port", settings.submissions_port),
    )


def _host(bind: str) -> str:
    if bind == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(bind.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ConfigurationError(
            f"--bind {bind!r} is no IP address: give one of this machine, 0.0.0.0 for all, or leave it out for 127.0.0.1"
        ) from None


def _relay(route: str) -> str:
    host, separator, port = route.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not host or (":" in host and not bracketed) or re.search(r"[\s/@]", host):
        raise ConfigurationError(f"--route {route!r} is not host:port; an IPv6 address stands in brackets")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise ConfigurationError(f"--route {route!r}: {port!r} is no port, a number from 1 to 65535")
    return route


def _check_url(url: str | None, name: str, schemes: tuple[str, ...]) -> None:
    if url is None:
        return
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise ConfigurationError(f"{name} is not a URL: {error}") from None
    if scheme not in schemes:
        raise ConfigurationError(f"{name} begins with {schemes[0]}://")  # never the URL itself: it may hold a password


def _workers(text: str) -> dict[str, int]:
    counts = dict.fromkeys(SERVICES, 1)
    given: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        service, separator, number = (piece.strip() for piece in part.partition("="))
        if not separator or service not in SERVICES or service in given:
            raise ConfigurationError(
                f"--workers {part!r}: give each of {', '.join(SERVICES)} at most once, as in api=2,hooks=4"
            )
        if not (number.isascii() and number.isdecimal() and len(number) <= 3 and 1 <= int(number) <= _MOST_WORKERS):
            raise ConfigurationError(f"--workers {part!r}: a service has 1 to {_MOST_WORKERS} processes")
        given.add(service)
        counts[service] = int(number)
    return counts
