import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from unit.deploy.facts import (
    COMMAND,
    LONGEST_WORK,
    MODULES,
    ROOT,
    SERVICES,
    health_paths,
    is_command,
    read,
    refusal,
    unknown,
)

Document = dict[str, Any]

COMPOSE = ROOT / "compose.yaml"
EXAMPLE = ROOT / "deploy" / "compose.env.example"
GIVEN = {
    "POSTGRES_PASSWORD": "0123456789abcdef",
    "POSTHOUSE_SECRET_KEY": "a-secret-of-the-tests-with-forty-characters",
    "POSTHOUSE_HOSTNAME": "mail.example.org",
}
ONE_SHOT = ("migrate", "bootstrap")
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")
_UNITS = {"s": 1, "m": 60, "h": 3600}


def document() -> Document:
    loaded: Document = yaml.safe_load(COMPOSE.read_text())
    return loaded


def filled_in(environment: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Return an environment as Compose hands it over: interpolated, names without a value only where they are set."""

    def value(match: re.Match[str]) -> str:
        name, operator, text = match.groups()
        return given.get(name) or (text if operator == ":-" else "")

    values = {
        name: given.get(name) if text is None else _VARIABLE.sub(value, str(text)) for name, text in environment.items()
    }
    return {name: text for name, text in values.items() if text is not None}


def seconds(duration: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smh])", duration))


def complaints(compose: Document) -> list[str]:
    """Return what is wrong with a compose file, in words."""
    schema = json.loads((ROOT / "tests" / "schemas" / "compose-spec.json").read_text())
    errors = jsonschema.Draft7Validator(schema).iter_errors(compose)
    found = [f"schema: {'/'.join(map(str, error.path))}: {error.message}" for error in errors]
    if found:
        return found
    services = compose["services"]
    for name in (*SERVICES, *ONE_SHOT):
        found += _of_ours(name, services[name]) if name in services else [f"{name} is missing"]
    for name in set(SERVICES) & set(services):
        found += _of_service(name, services[name])
    for name, service in services.items():
        found += _of_any(name, service, compose)
    text = json.dumps(compose)
    needed = {name for name, operator, _ in _VARIABLE.findall(text) if operator == ":?"}
    found += [
        f"{name} is needed and not in {EXAMPLE.name}" for name in needed if f"\n{name}=" not in EXAMPLE.read_text()
    ]
    found += [f"{name} is needed and has no message" for name, operator, _ in _VARIABLE.findall(text) if not operator]
    return found


def _of_ours(name: str, service: Document) -> list[str]:
    build, kind = service["build"], name if name in SERVICES else COMMAND
    environment = service["environment"]
    found = [f"{name} does not read {unread}" for unread in unknown(kind, environment)]
    if build["args"]["SERVICE"] != kind or kind not in MODULES:
        found.append(f"{name} is built as {build['args']['SERVICE']}")
    if not (ROOT / build["context"] / build["dockerfile"]).is_file():
        found.append(f"{name} is built by {build['dockerfile']}, which is not there")
    if not service.get("read_only") or service.get("cap_drop") != ["ALL"] or service.get("privileged"):
        found.append(f"{name} has more privileges than it needs")
    if name in ONE_SHOT:
        (command,) = service["command"]
        if not is_command(command):
            found.append(f"posthouse {command} is no command")
        if not service["restart"].startswith("on-failure"):
            found.append(f"{name} would be started again and again")
    elif "command" in service or "entrypoint" in service:
        found.append(f"{name} does not run what its image runs")
    return found


def _of_service(name: str, service: Document) -> list[str]:
    environment = filled_in(service["environment"], GIVEN)
    reason = refusal(name, environment)
    if reason is not None:
        return [f"{name} would not start: {reason}"]
    settings = read(name, environment)
    found = []
    probe = " ".join(service["healthcheck"]["test"])
    paths = set(re.findall(r"'(/\w+)'", probe))
    if not paths or not paths <= health_paths() or f", {settings.health_port}," not in probe:
        found.append(f"the health check of {name} asks for something that is not there")
    if seconds(service["healthcheck"]["start_period"]) <= settings.startup_wait_seconds:
        found.append(f"{name} is called unhealthy while it may still wait")
    if seconds(service["stop_grace_period"]) <= settings.grace_seconds:
        found.append(f"{name} is killed within its grace period")
    if settings.grace_seconds < LONGEST_WORK.get(name, 0):
        found.append(f"{name} leaves work in flight behind")
    listens = getattr(settings, f"{name.replace('-', '_')}_port", None)
    published = {int(port.rpartition(":")[2]) for port in service.get("ports", [])}
    if published != ({listens} if listens else set()):
        found.append(f"{name} listens on {listens}, published is {sorted(published)}")
    if listens is not None and listens < 1024:
        found.append(f"{name} may not listen on {listens}: it has no privileges")
    return found


def _of_any(name: str, service: Document, compose: Document) -> list[str]:
    services = compose["services"]
    found = [
        f"{name} is in the network {net}, which is not there"
        for net in service["networks"]
        if net not in compose["networks"]
    ]
    volumes = [volume for volume in service.get("volumes", []) if volume.split(":")[0] not in compose["volumes"]]
    found += [f"{name} has the volume {volume}, which is not there" for volume in volumes]
    for other, how in service.get("depends_on", {}).items():
        if other not in services:
            found.append(f"{name} waits for {other}, which is not there")
        elif how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
            found.append(f"{name} waits for the health of {other}, which has no check")
        elif (how["condition"] == "service_completed_successfully") != (other in ONE_SHOT):
            found.append(f"{name} waits for {other} in a way that never comes")
    url = filled_in(service.get("environment", {}), GIVEN).get("POSTHOUSE_DATABASE_URL")
    if url is not None:
        parts, postgres = urlsplit(url), filled_in(services["postgres"]["environment"], GIVEN)
        there = (parts.username, parts.password, parts.path.lstrip("/"), parts.hostname)
        if there != (*(postgres[f"POSTGRES_{key}"] for key in ("USER", "PASSWORD", "DB")), "postgres"):
            found.append(f"{name} is given another database than Postgres makes")
    return found


def test_compose_fits_the_code() -> None:
    assert complaints(document()) == []


def test_compose_stops_where_a_secret_is_missing_and_says_what_to_do() -> None:
    text = COMPOSE.read_text()
    for name in GIVEN:
        messages = {
            message for found, operator, message in _VARIABLE.findall(text) if found == name and operator == ":?"
        }
        assert len(messages) == 1, f"{name} is explained in one way everywhere"
        assert messages.pop().startswith("set it in .env to ")


def test_the_services_wait_for_the_schema() -> None:
    services = document()["services"]
    for name in SERVICES:
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_nothing_but_the_two_doors_is_published() -> None:
    services = document()["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api": ["127.0.0.1:8080:8080"],
        "dsn-ingest": ["25:2525"],
    }


def _set(path: str, value: object) -> Callable[[Document], None]:
    def change(compose: Document) -> None:
        *parents, last = path.split("/")
        place = compose["services"]
        for parent in parents:
            place = place[parent]
        place[last] = value

    return change


def _remove(path: str) -> Callable[[Document], None]:
    def change(compose: Document) -> None:
        *parents, last = path.split("/")
        place = compose["services"]
        for parent in parents:
            place = place[parent]
        del place[last]

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("api/port", 80), "schema: services/api"),
        (_set("api/deploy", {"replicas": "two and a half", "copies": 1}), "schema: services/api/deploy"),
        (_remove("hooks"), "hooks is missing"),
        (_set("hooks/environment/POSTHOUSE_HOOK_PORTS", "443"), "hooks does not read POSTHOUSE_HOOK_PORTS"),
        (_set("delivery/environment/POSTHOUSE_API_PORT", "8080"), "delivery does not read POSTHOUSE_API_PORT"),
        (_remove("api/environment/POSTHOUSE_SECRET_KEY"), "api would not start: POSTHOUSE_SECRET_KEY is missing"),
        (_remove("delivery/environment/POSTHOUSE_DATABASE_URL"), "delivery would not start: POSTHOUSE_DATABASE_URL"),
        (_remove("delivery/environment/POSTHOUSE_HOSTNAME"), "delivery would not start: POSTHOUSE_HOSTNAME"),
        (_set("api/environment/POSTHOUSE_LOG_LEVEL", "loud"), "api would not start: POSTHOUSE_LOG_LEVEL"),
        (_set("api/environment/POSTHOUSE_HEALTH_PORT", "9000"), "the health check of api"),
        (_set("hooks/healthcheck/test", ["CMD", "x", "'/healthz'", ", 8081,"]), "the health check of hooks"),
        (_set("hooks/healthcheck/start_period", "30s"), "hooks is called unhealthy"),
        (_set("delivery/stop_grace_period", "10m"), "delivery is killed"),
        (_set("delivery/environment/POSTHOUSE_GRACE_SECONDS", "30"), "delivery leaves work"),
        (_set("api/ports", ["8080:8081"]), "api listens on 8080"),
        (_remove("dsn-ingest/environment/POSTHOUSE_DSN_INGEST_PORT"), "dsn-ingest may not listen on 25"),
        (_set("api/build/args/SERVICE", "apis"), "api is built as apis"),
        (_set("api/build/dockerfile", "Dockerfile"), "api is built by Dockerfile"),
        (_set("api/command", ["python"]), "api does not run"),
        (_set("api/read_only", False), "api has more privileges"),
        (_set("hooks/cap_drop", []), "hooks has more privileges"),
        (_set("migrate/command", ["upgrade"]), "posthouse upgrade is no command"),
        (_set("bootstrap/restart", "always"), "bootstrap would be started"),
        (_set("api/networks", ["front"]), "the network front"),
        (_set("postgres/volumes", ["data:/var/lib/postgresql"]), "the volume data"),
        (_set("api/depends_on/migrate/condition", "service_healthy"), "which has no check"),
        (_set("api/depends_on/postgres/condition", "service_completed_successfully"), "never comes"),
        (_set("api/depends_on/redis", {"condition": "service_started"}), "redis, which is not there"),
        (_set("postgres/environment/POSTGRES_DB", "mail"), "another database"),
        (_set("api/environment/POSTHOUSE_RELAY", "${RELAY:?say which}"), "RELAY is needed and not in"),
        (_set("api/environment/POSTHOUSE_RELAY", "${RELAY}"), "RELAY is needed and has no message"),
    ],
)
def test_a_slip_in_compose_is_found(change: Callable[[Document], None], complaint: str) -> None:
    compose = json.loads(json.dumps(document()))  # what YAML anchors share, a change must not
    before = set(complaints(compose))
    change(compose)
    found = set(complaints(compose)) - before
    assert any(complaint in one for one in found), found
