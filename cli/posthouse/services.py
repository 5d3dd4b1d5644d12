"""What each service of a local stack is told: its whole environment, nothing inherited from the shell's ``POSTHOUSE_...``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from posthouse.embedded.certificate import KeyPair
from posthouse.embedded.process import without_libpq
from posthouse.settings import Plan

GRACE_SECONDS = 5.0
HOSTNAME = "localhost"
MODULES = {"api": "api", "delivery": "delivery", "hooks": "hooks", "dsn-ingest": "dsn_ingest"}

_SMTP_SECONDS = 30.0
_HEALTH_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the services find running."""

    database_url: str
    nats_url: str
    secret_key: str


def joined(host: str, port: int) -> str:
    """Return ``host:port`` as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def common(plan: Plan, surroundings: Surroundings) -> dict[str, str]:
    """Return what every service gets."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    if plan.settings.database_url is None:
        inherited = without_libpq(inherited)
    return {
        **inherited,
        "POSTHOUSE_DATABASE_URL": surroundings.database_url,
        "POSTHOUSE_NATS_URL": surroundings.nats_url,
        "POSTHOUSE_ENV": "local",
        "POSTHOUSE_SECRET_KEY": surroundings.secret_key,
        "POSTHOUSE_HOSTNAME": HOSTNAME,
        "POSTHOUSE_GRACE_SECONDS": f"{GRACE_SECONDS:g}",
        "POSTHOUSE_HEALTH_HOST": _HEALTH_HOST,
        "POSTHOUSE_HEALTH_PORT": "0",
        # Said outright in both directions: without it "local" would open private networks to whoever reaches the stack.
        "POSTHOUSE_HOOKS_ALLOW_PRIVATE": "true" if plan.loopback else "false",
    }


def dsn_ingest(plan: Plan, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of dsn-ingest, which starts first: its port is the relay of the others."""
    return {
        **base,
        "POSTHOUSE_DSN_INGEST_HOST": plan.host,
        "POSTHOUSE_DSN_INGEST_PORT": str(plan.settings.smtp_port),
        "POSTHOUSE_DSN_INGEST_REUSE_PORT": _flag(plan.workers["dsn-ingest"] > 1),
    }


def api(plan: Plan, base: Mapping[str, str], relay: str, tls: KeyPair) -> dict[str, str]:
    """Return the environment of the api; ``tls`` is what submission shows its clients."""
    return {
        **base,
        "POSTHOUSE_API_HOST": plan.host,
        "POSTHOUSE_API_PORT": str(plan.settings.http_port),
        "POSTHOUSE_API_REUSE_PORT": _flag(plan.workers["api"] > 1),
        "POSTHOUSE_RELAY": relay,
        "POSTHOUSE_SUBMISSION_HOST": plan.host,
        "POSTHOUSE_SUBMISSION_PORT": str(plan.settings.submission_port),
        "POSTHOUSE_SUBMISSIONS_PORT": str(plan.settings.submissions_port),
        "POSTHOUSE_TLS_CERT_FILE": str(tls.certificate),
        "POSTHOUSE_TLS_KEY_FILE": str(tls.key),
    }


def delivery(base: Mapping[str, str], relay: str) -> dict[str, str]:
    """Return the environment of delivery."""
    return {
        **base,
        "POSTHOUSE_RELAY": relay,
        "POSTHOUSE_DELIVERY_TIMEOUT_SECONDS": f"{_SMTP_SECONDS:g}",
        "POSTHOUSE_DELIVERY_ALLOW_PRIVATE": "true",
    }


def hooks(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of hooks."""
    return dict(base)


def _flag(value: bool) -> str:  # noqa: FBT001 - the one thing it takes
    return "true" if value else "false"
