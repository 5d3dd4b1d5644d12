"""What the code says about itself, for the tests that hold the deployment files against it."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import api.config
import delivery.config
import dsn_ingest.config
import hooks.config
from delivery.smtp import Timeouts
from shared.config import ServiceSettings, load
from shared.errors import ConfigurationError
from shared.metrics import Metrics
from shared.web.health import Readiness, health_router

ROOT = Path(__file__).parents[3]
PREFIX = "POSTHOUSE_"
COMMAND = "cli"
MODULES = {"api": "api", "delivery": "delivery", "hooks": "hooks", "dsn-ingest": "dsn_ingest", COMMAND: "posthouse"}
SETTINGS: dict[str, type[ServiceSettings]] = {
    "api": api.config.Settings,
    "delivery": delivery.config.Settings,
    "hooks": hooks.config.Settings,
    "dsn-ingest": dsn_ingest.config.Settings,
    COMMAND: ServiceSettings,
}
SERVICES = tuple(name for name in SETTINGS if name != COMMAND)

# A remote may take this long to answer the end of the data; a call may last this long.
LONGEST_WORK = {
    "delivery": Timeouts().message,
    "hooks": hooks.config.Settings.model_fields["hooks_timeout_seconds"].default,
}


def variables(service: str) -> frozenset[str]:
    """Return the names of the environment that a service reads."""
    return frozenset(PREFIX + field.upper() for field in SETTINGS[service].model_fields)


def unknown(service: str, environment: Mapping[str, object]) -> list[str]:
    """Return the names given to a service that it does not read."""
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in variables(service))


def read(service: str, environment: Mapping[str, str]) -> ServiceSettings:
    """Return the settings that a service reads from this environment and nothing else.

    Raises:
        ConfigurationError: as the service would at its start.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return load(SETTINGS[service])


def refusal(service: str, environment: Mapping[str, str]) -> str | None:
    """Return why a service would not start in this environment, None where it would."""
    try:
        settings = read(service, environment)
    except ConfigurationError as error:
        return error.message
    return None if settings.hostname != "localhost" else "POSTHOUSE_HOSTNAME is missing"


@lru_cache
def health_paths() -> frozenset[str]:
    """Return the paths that every service answers on its health port."""
    routes = health_router("test", Readiness([]), Metrics("test")).routes
    return frozenset(route.path for route in routes if isinstance(route, APIRoute))


def runs(module: str) -> bool:
    """Say whether ``python -m module`` finds something."""
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False


@lru_cache
def is_command(name: str) -> bool:
    """Say whether ``posthouse name`` is a command."""
    done = subprocess.run(
        [sys.executable, "-m", "posthouse", name, "--help"], capture_output=True, check=False, timeout=60
    )
    return done.returncode == 0


def default_port(service: str, field: str) -> int:
    """Return the port that a service listens on where nothing says otherwise."""
    port = SETTINGS[service].model_fields[field].default
    assert isinstance(port, int)
    return port
